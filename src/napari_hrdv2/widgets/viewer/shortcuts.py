"""Keys on the layer that is painted on, and what napari says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from napari.settings import get_settings
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari.layers import Labels

    from .layer_sync import LayerSync

_HINT, _BETWEEN = re.compile("use <(.+?)> for (.*)"), ", "  # of napari's status bar


class Shortcut(NamedTuple):
    """A key and what it does; unless it `replaces`, it yields to another use."""

    key: str
    does: str
    do: Callable[[], object]
    replaces: bool = False


class Shortcuts(QObject):
    """Binds keys to the layer that is painted on; `active` are those that are bound.

    napari asks the selected layer first, and its own keys before those of its class.
    """

    changed = Signal()

    def __init__(self, sync: LayerSync, shortcuts: Sequence[Shortcut]) -> None:
        super().__init__(sync)
        self._sync = sync
        self.shortcuts = self._own = shortcuts
        self._lent: Sequence[Shortcut] = ()
        self.active: frozenset[str] = frozenset()
        self.is_on = True
        self._layer: Labels | None = None
        self._help = ""  # as napari has it
        self._letters = _letters()
        sync.images_changed.connect(self.renew)
        sync.closing.connect(self._release)
        self.renew()

    def set_on(self, on: bool) -> None:
        """Bind the keys, or leave all of them to napari."""
        if on != self.is_on:
            self.is_on = on
            self._release()
            self.renew()

    def lend(self, shortcuts: Sequence[Shortcut]) -> None:
        """Bind these first for a while, whether `is_on` or not; none: only its own."""
        if shortcuts != self._lent:
            self._release()
            self._lent = shortcuts
            self.renew()

    def renew(self) -> None:
        """Bind the keys to the layer that is painted on now."""
        taken_over = {one.key for one in self._lent}
        rest = [one for one in self._own if one.key not in taken_over]
        self.shortcuts = [*self._lent, *rest] if self.is_on else self._lent or self._own
        layer = self._sync.scribbles if self.is_on or self._lent else None
        if layer == self._layer:
            return
        self._release()
        self._layer = layer
        if layer is not None:
            taken = _keys_of(layer) | _keys_of(self._sync.viewer)
            for shortcut in self.shortcuts:
                key = coerce_keybinding(shortcut.key)
                if key not in layer.keymap and (shortcut.replaces or key not in taken):
                    layer.bind_key(shortcut.key, _press(shortcut))
                    self.active |= {shortcut.key}
            self._help = layer.help
            layer.events.help.connect(self._correct_help)
            self._correct_help()
        self.changed.emit()

    def _correct_help(self, event: object = None) -> None:
        """Let napari's hint name the keys that its tools still have."""
        layer = self._layer
        if layer is None:
            return
        hints = []
        for hint in layer.help.split(_BETWEEN):
            known = _HINT.fullmatch(hint)
            if known is None or known[1] not in self.active:
                hints.append(hint)
            elif self._letters.get(known[1], known[1]) not in self.active:
                hints.append(f"use <{self._letters[known[1]]}> for {known[2]}")
        if hints != layer.help.split(_BETWEEN):
            self._help = layer.help
            self._say(layer, _BETWEEN.join(hints))

    def _say(self, layer: Labels, text: str) -> None:
        layer.help = text
        if self._sync.viewer.layers.selection.active == layer:
            self._sync.viewer.help = text

    def _release(self) -> None:
        layer, self._layer = self._layer, None
        if layer is not None:
            layer.events.help.disconnect(self._correct_help)
            self._say(layer, self._help)
            for key in self.active:
                layer.bind_key(key, None)
        self.active = frozenset()


def _keys_of(provider: Any) -> set[Any]:
    """Return the keys that napari and its user have bound for a layer or a viewer."""
    kinds = provider.__class__.__mro__  # not type(): plugins see them through proxies
    keymaps = [getattr(kind, "class_keymap", {}) for kind in kinds]
    return set().union(provider.keymap, *keymaps)


def _press(shortcut: Shortcut) -> Callable[[object], None]:
    """Return what napari calls: a true function, as it asks for its name."""

    def press(layer: object) -> None:
        # Nothing is returned: napari would call that when the key is let go.
        shortcut.do()

    press.__doc__ = shortcut.does
    return press


def _letters() -> dict[str, str]:
    """Return the second keys of napari's tools for labels, by the first ones."""
    every = get_settings().shortcuts.shortcuts.items()
    pairs = [keys[:2] for name, keys in every if "_labels_" in name and len(keys) > 1]
    return {str(first): str(second) for first, second in pairs}
