"""Autosaves while the window is open, and what earlier ones have to offer."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_hrdv2.session.project.autosave import AutosaveEntry, AutosaveStore
from napari_hrdv2.session.project.autosaver import Autosaver
from napari_hrdv2.session.project.format import SUFFIX
from napari_hrdv2.session.project.opening import Look, LookRequest

if TYPE_CHECKING:
    from datetime import datetime

    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.controller import Controller

KEEP_TIME = 1000  # milliseconds from a change to the write: what a crash can cost


class Keeper(QObject):
    """Has the session kept as it changes, and looks for work on images that are opened.

    Parameters
    ----------
    controller : Controller
        Its preferences say whether and where anything is kept.

    Attributes
    ----------
    keeping : Keeping or None
        None if nothing is to be kept.
    offers : tuple of Offer
        Work on the current image, newest first; those that were declined are gone.
    changed : Signal
        Emitted when the offers are other ones.
    """

    changed = Signal()
    _failed = Signal(object)

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self.keeping: Autosaver | None = None
        self.autosaves: tuple[AutosaveEntry, ...] = ()
        self._declined: set[tuple[str, AutosaveEntry]] = set()  # with the picture
        self._saved_at: dict[str, datetime] = {}
        self._seen: weakref.ref[ImageEntry] | None = None
        self._told = ""
        if not controller.preferences.autosave:
            return
        self._soon = QSignalThrottler(parent=self)
        self._soon.setTimeout(KEEP_TIME)
        self.keeping = Autosaver(
            self._session,
            AutosaveStore(controller.preferences.autosave_folder or None),
            soon=self._soon.throttle,
            on_error=self._failed.emit,  # from another thread
        )
        self._soon.triggered.connect(self.keeping.keep)
        self._failed.connect(self._on_failed)
        self._session.images_changed.connect(self._on_images_changed)
        controller.closing.connect(self.close)

    def close(self) -> None:
        """Keep what there is now; it is written even if the program ends."""
        if self.keeping is not None:
            self._soon.cancel()
            self.keeping.close(timeout=0)

    def note_saved(self, keys: set[PlaneKey], saved_at: datetime) -> None:
        """Know that what pictures have came from a project: only newer work is news."""
        self._saved_at |= dict.fromkeys(keys, saved_at)
        self.look()

    def look(self) -> None:
        """Look for work on the current picture."""
        current = self._session.current
        self._seen = None if current is None else weakref.ref(current)
        self._show(())
        if self.keeping is None or current is None:
            return
        folder = self.keeping.autosave.folder
        if any(folder.glob(f"*{SUFFIX}")):
            own = frozenset(self.keeping.written)
            request = LookRequest(
                current.key, current.image, self.keeping.fingerprints, folder, own
            )
            self._controller.side.submit("autosaves", request, self._on_looked)

    def decline(self) -> None:
        """Show these offers no more on this picture, while this window is open."""
        current = self._session.current
        if current is not None:
            self._declined |= {(current.key, offer) for offer in self.autosaves}
        self._show(())

    def forget(self, offer: AutosaveEntry) -> None:
        """Remove an autosave for good."""
        if self.keeping is None:
            return
        if self._controller.attempt(self.keeping.autosave.discard, offer):
            self._show(tuple(one for one in self.autosaves if one != offer))

    def _show(self, autosaves: tuple[AutosaveEntry, ...]) -> None:
        if autosaves != self.autosaves:
            self.autosaves = autosaves
            self.changed.emit()

    def _on_images_changed(self) -> None:
        seen = None if self._seen is None else self._seen()
        if seen is not self._session.current:
            self.look()

    def _on_looked(self, look: Look) -> None:
        current = self._session.current
        if current is None or current.key != look.key:
            return
        since = self._saved_at.get(current.key)
        if current.class_ids and since is None:
            return  # work has begun already
        self._show(
            tuple(
                offer
                for offer in look.autosaves
                if (current.key, offer) not in self._declined
                and (since is None or offer.saved_at > since)
            )
        )

    def _on_failed(self, error: Exception) -> None:
        if str(error) != self._told:  # a full disk is full at each stroke
            self._told = str(error)
            self._controller.report(error)
