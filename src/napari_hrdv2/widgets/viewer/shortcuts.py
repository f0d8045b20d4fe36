"""Keys that work while the scribble layer is selected, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari.layers import Labels

    from .layer_sync import LayerSync


@dataclass(frozen=True)
class Shortcut:
    """A key, what it does in words, and what to call.

    Unless it replaces a key of napari's own, it is left alone where napari, or its
    user, has another use for it.
    """

    key: str
    does: str
    do: Callable[[], object]
    replaces: bool = False


class Shortcuts(QObject):
    """Binds keys to the layer that is painted on, as an object: no other has them.

    napari asks the selected layer before anything else, and the keys of one layer
    before those of all Labels layers.

    Attributes
    ----------
    active : frozenset of str
        The keys that are bound.
    """

    changed = Signal()

    def __init__(self, sync: LayerSync, shortcuts: Sequence[Shortcut]) -> None:
        super().__init__(sync)
        self._sync = sync
        self.shortcuts = tuple(shortcuts)
        self.active: frozenset[str] = frozenset()
        self.is_on = True
        self._layer: Labels | None = None
        sync.images_changed.connect(self.renew)
        sync.closing.connect(self._release)
        self.renew()

    def set_on(self, on: bool) -> None:
        """Bind the keys, or leave all of them to napari."""
        if on != self.is_on:
            self.is_on = on
            self._release()
            self.renew()

    def renew(self) -> None:
        """Bind the keys to the layer that is painted on now."""
        layer = self._sync.scribbles if self.is_on else None
        if layer == self._layer:
            return
        self._release()
        self._layer = layer
        if layer is not None:
            taken = _keys_of(layer) | _keys_of(self._sync.viewer)
            self.active = frozenset(
                shortcut.key
                for shortcut in self.shortcuts
                if _bind(layer, shortcut, taken)
            )
        self.changed.emit()

    def _release(self) -> None:
        layer, self._layer = self._layer, None
        if layer is not None:
            for key in self.active:
                layer.bind_key(key, None)
        self.active = frozenset()


def _keys_of(provider: Any) -> set[Any]:
    """Return the keys that napari and its user have bound for a layer or a viewer."""
    kinds = provider.__class__.__mro__  # not type(): plugins see them through proxies
    keymaps = [getattr(kind, "class_keymap", {}) for kind in kinds]
    return set().union(provider.keymap, *keymaps)


def _bind(layer: Labels, shortcut: Shortcut, taken: set[Any]) -> bool:
    """Bind a key unless something else has it; return whether it is bound."""
    key = coerce_keybinding(shortcut.key)
    if key in layer.keymap or (key in taken and not shortcut.replaces):
        return False
    layer.bind_key(shortcut.key, _press(shortcut))
    return True


def _press(shortcut: Shortcut) -> Callable[[object], None]:
    """Return what napari calls: a true function, as it asks for its name."""

    def press(layer: object) -> None:
        # Nothing is returned: napari would call that when the key is let go.
        shortcut.do()

    press.__doc__ = shortcut.does
    return press
