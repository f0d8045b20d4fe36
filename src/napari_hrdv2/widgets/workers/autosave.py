"""Autosaves while the window is open, and earlier ones of the current image."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_hrdv2.session.project.format import SUFFIX, Fingerprints
from napari_hrdv2.session.project.snapshot import Autosaver
from napari_hrdv2.session.project.store import AutosaveEntry, AutosaveStore

if TYPE_CHECKING:
    from datetime import datetime

    from napari_hrdv2.session.images import ImageEntry
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.widgets.controller import Controller

SAVE_TIME = 1000  # milliseconds from a change to the write: what a crash can cost


class AutosaveWorker(QObject):
    """Saves the session as it changes, and looks for work on images that are opened.

    The preferences say whether and where autosaves go.
    """

    changed = Signal()
    _failed = Signal(object)

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self.saver: Autosaver | None = None  # where nothing is to be saved
        self.fingerprints = Fingerprints()
        self.found: tuple[AutosaveEntry, ...] = ()  # on the current image
        self._declined: set[tuple[PlaneKey, AutosaveEntry]] = set()
        self._saved_at: dict[PlaneKey, datetime] = {}
        self._seen: weakref.ref[ImageEntry] | None = None
        self._told = ""
        if not controller.preferences.autosave:
            return
        self._soon = QSignalThrottler(parent=self)
        self._soon.setTimeout(SAVE_TIME)
        store = AutosaveStore(
            controller.preferences.autosave_folder or None,
            fingerprints=self.fingerprints,
            on_error=self._failed.emit,  # from another thread
        )
        self.saver = Autosaver(self._session, store, soon=self._soon.throttle)
        self._soon.triggered.connect(self.saver.save)
        self._failed.connect(self._on_failed)
        self._session.images_changed.connect(self._on_images_changed)
        controller.closing.connect(self.close)

    def close(self) -> None:
        """Save what there is now; it is written even if the program ends."""
        if self.saver is not None:
            self._soon.cancel()
            self.saver.close(timeout=0)

    def note_saved(self, keys: set[PlaneKey], saved_at: datetime) -> None:
        """Know that images came from a project: only newer work is worth showing."""
        self._saved_at |= dict.fromkeys(keys, saved_at)
        self.look()

    def look(self) -> None:
        """Look for work on the current image."""
        current = self._session.current
        self._seen = None if current is None else weakref.ref(current)
        self._show(())
        if self.saver is None or current is None:
            return
        store, key, image = self.saver.store, current.key, current.image
        if any(store.folder.glob(f"*{SUFFIX}")):

            def find(context: TaskContext) -> list[AutosaveEntry]:
                return store.find_autosaves(store.fingerprints.of(key, image))

            hear = partial(self._on_found, key)
            self._controller.side.submit("autosaves", find, hear)

    def decline(self) -> None:
        """Show these no more on this image, while this window is open."""
        current = self._session.current
        if current is not None:
            self._declined |= {(current.key, entry) for entry in self.found}
        self._show(())

    def discard(self, entry: AutosaveEntry) -> None:
        """Remove an autosave for good."""
        if self.saver is None:
            return
        if self._controller.attempt(self.saver.store.discard, entry):
            self._show(tuple(one for one in self.found if one != entry))

    def _show(self, found: tuple[AutosaveEntry, ...]) -> None:
        if found != self.found:
            self.found = found
            self.changed.emit()

    def _on_images_changed(self) -> None:
        seen = None if self._seen is None else self._seen()
        if seen is not self._session.current:
            self.look()

    def _on_found(self, key: PlaneKey, found: list[AutosaveEntry]) -> None:
        current = self._session.current
        if self.saver is None or current is None or current.key != key:
            return
        since = self._saved_at.get(key)
        if current.class_ids and since is None:
            return  # work has begun already
        self._show(
            tuple(
                entry
                for entry in found
                if entry.path not in self.saver.store.own
                and (key, entry) not in self._declined
                and (since is None or entry.saved_at > since)
            )
        )

    def _on_failed(self, error: Exception) -> None:
        if str(error) != self._told:  # a full disk is full at each change
            self._told = str(error)
            self._controller.report(error)
