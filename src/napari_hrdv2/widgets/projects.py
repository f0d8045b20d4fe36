"""Projects and autosaves in the window: saving, opening, bringing work back."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_hrdv2.session.project import snapshot
from napari_hrdv2.session.project.autosave import AutosaveEntry, AutosaveStore
from napari_hrdv2.session.project.format import SUFFIX, Fingerprints, SavedImage
from napari_hrdv2.session.project.opening import OpenedProject, Stack, open_project
from napari_hrdv2.session.project.store import save_project

from .viewer import layers, planes

if TYPE_CHECKING:
    from datetime import datetime

    from napari_hrdv2.session import ImageEntry, Session, TaskContext
    from napari_hrdv2.session.planes import PlaneKey

    from .jobs import Reporter, SideWork
    from .preferences import Preferences
    from .viewer.layer_sync import LayerSync

SAVE_TIME = 1000  # milliseconds from a change to the write: what a crash can cost


class AutosaveWorker(QObject):
    """Saves the session as it changes, and looks for work on images that are opened."""

    changed = Signal()
    _failed = Signal(object)

    def __init__(
        self,
        session: Session,
        side: SideWork,
        reporter: Reporter,
        preferences: Preferences,
    ) -> None:
        super().__init__()
        self._session, self._side, self._reporter = session, side, reporter
        self.saver: snapshot.Autosaver | None = None  # where nothing is to be saved
        self.fingerprints = Fingerprints()
        self.found: tuple[AutosaveEntry, ...] = ()  # on the current image
        self._declined: set[tuple[PlaneKey, AutosaveEntry]] = set()
        self._saved_at: dict[PlaneKey, datetime] = {}
        self._seen: weakref.ref[ImageEntry] | None = None
        self._told = ""
        if not preferences.autosave:
            return
        self._soon = QSignalThrottler(parent=self)
        self._soon.setTimeout(SAVE_TIME)
        store = AutosaveStore(
            preferences.autosave_folder or None,
            fingerprints=self.fingerprints,
            on_error=self._failed.emit,  # from another thread
        )
        self.saver = snapshot.Autosaver(self._session, store, soon=self._soon.throttle)
        self._soon.triggered.connect(self.saver.save)
        self._failed.connect(self._on_failed)
        self._session.images_changed.connect(self._on_images_changed)

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

            self._side.submit("autosaves", find, partial(self._on_found, key))

    def decline(self) -> None:
        """Show these no more on this image, while this window is open."""
        current = self._session.current
        if current is not None:
            self._declined |= {(current.key, entry) for entry in self.found}
        self._show(())

    def discard(self, entry: AutosaveEntry) -> None:
        """Remove an autosave for good."""
        saver, attempt = self.saver, self._reporter.attempt
        if saver is not None and attempt(saver.store.discard, entry):
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
        own = self.saver.store.own
        self._show(
            tuple(
                entry
                for entry in found
                if entry.path not in own
                and (key, entry) not in self._declined
                and (since is None or entry.saved_at > since)
            )
        )

    def _on_failed(self, error: Exception) -> None:
        if str(error) != self._told:  # a full disk is full at each change
            self._told = str(error)
            self._reporter.report(error)


class ProjectLoader(QObject):
    """Saves and opens projects in the worker thread, and shows what was read.

    Attributes
    ----------
    missing : tuple of SavedImage
        Of the last project, those whose images were not found.
    ask : callable
        Called with a question before scribbles here are replaced; returns the answer.
    """

    changed = Signal()

    def __init__(
        self,
        link: LayerSync,
        side: SideWork,
        reporter: Reporter,
        autosave: AutosaveWorker,
        train: Callable[[], object],
    ) -> None:
        super().__init__()
        self._link, self._session = link, link.session
        self._side, self._reporter = side, reporter
        self._autosave, self._train = autosave, train
        self._path: Path | None = None
        self.missing: tuple[SavedImage, ...] = ()
        self.ask: Callable[[str], bool] = lambda question: False

    def save(self, path: str | os.PathLike[str], *, with_images: bool) -> None:
        """Write everything into one file."""
        self._link.flush()
        if not self._session.images:
            error = ValueError("image: there is none to save yet; open an image first")
            self._reporter.report(error)
            return
        if self._autosave.saver is not None:
            self._autosave.saver.save()  # else older than the project, shown in vain
        known = self._autosave.fingerprints
        project = snapshot.project_of(self._session, fingerprints=known)

        def run(context: TaskContext) -> Path:
            context.progress("Saving the project", 0, 1)
            return save_project(
                project, path, with_images=with_images, fingerprints=known
            )

        self._side.submit("save project", run, self._on_saved)

    def open(self, path: str | os.PathLike[str]) -> None:
        """Open a project beside the images that are open."""
        self._path = Path(path)
        self._submit(self._path, self._on_opened)

    def locate(self, folder: str | os.PathLike[str]) -> None:
        """Look in a folder for the images that were not found."""
        if self._path is not None:
            self._submit(self._path, self._on_located, folder=Path(folder))

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Bring an autosave back onto the images that are open."""
        self._submit(Path(path), self._on_restored, reads_images=False)

    def _submit(
        self,
        path: Path,
        hear: Callable[[OpenedProject], None],
        *,
        folder: Path | None = None,
        reads_images: bool = True,
    ) -> None:
        self._link.flush()
        current, images = self._session.current, self._session.images.values()
        # Where an image is open twice, the work is for the one that is shown.
        shown_first = tuple(sorted(images, key=lambda one: one is not current))
        stacks, known = self._stacks(), self._autosave.fingerprints

        def run(context: TaskContext) -> OpenedProject:
            return open_project(
                path,
                shown_first,
                stacks,
                known,
                reads_images=reads_images,
                folder=folder,
                context=context,
            )

        self._side.submit("project", run, hear)

    def _stacks(self) -> tuple[Stack, ...]:
        index = self._link.layers
        return tuple(
            Stack(
                index.key_of(image).image,
                planes.sizes(image),
                partial(planes.pixels, image),
            )
            for image in index.images()
            if planes.sizes(image) and not planes.unnamed(image)
        )

    def _on_opened(self, found: OpenedProject) -> None:
        if self._may_replace(found):
            self._reporter.attempt(self._show, found)

    def _on_located(self, found: OpenedProject) -> None:
        """Take only what was missing; the user has gone on with the rest."""
        self._on_opened(found.only({saved.key for saved in self.missing}))

    def _on_restored(self, found: OpenedProject) -> None:
        if not self._open_keys(found):
            self._reporter.report(ValueError("autosave: none of its images is open"))
        elif self._may_replace(found):
            self._autosave.decline()  # later ones too: this was chosen
            self._reporter.attempt(self._show, found)

    def _may_replace(self, found: OpenedProject) -> bool:
        """Ask if scribbles here would give way to other ones, or to none."""
        self._link.flush()
        keys = self._open_keys(found)
        names = snapshot.replaced_names(self._session, found.project, keys)
        then = _saved_at(found).astimezone()
        return not names or self.ask(
            f"{', '.join(names)} has scribbles already. Replace them by those of "
            f"{then:%d %b %Y %H:%M}? Undo brings them back."
        )

    def _open_keys(self, found: OpenedProject) -> dict[PlaneKey, PlaneKey]:
        """Return the keys of images that did not go while the project was read."""
        image_of = self._link.layers.image_of
        pairs = found.keys.items()
        return {one: key for one, key in pairs if image_of(key) is not None}

    def _show(self, found: OpenedProject) -> None:
        link, keys = self._link, self._open_keys(found)
        closed = found.keys.keys() - keys
        gone = [saved.name for saved in found.project.images if saved.key in closed]
        keys |= self._add_images(found)
        project = found.project
        notes = list(
            snapshot.take_over(self._session, project, keys, write=link.write_scribbles)
        )
        if project.current in keys:
            link.show_image(keys[project.current])
            # Another image has levels of its own, but here they belong to the project.
            self._session.configure(value_range=project.options.value_range)
        self.missing = found.missing
        if gone:
            notes.append(f"{', '.join(gone)} was closed meanwhile and is not included.")
        notes += found.notes()
        self._autosave.note_saved(set(keys.values()), _saved_at(found))
        self._train()
        count = f"{len(keys)} image{'s' * (len(keys) != 1)}"
        opened = f"{count} with scribbles and settings opened."
        self._session.say(" ".join((opened, *notes)))
        self.changed.emit()

    def _add_images(self, found: OpenedProject) -> dict[PlaneKey, PlaneKey]:
        """Open images as layers, and return their keys by those in the project."""
        keys = {}
        for saved in found.project.images:
            if saved.key not in found.images:
                continue
            size, unit = saved.pixel_size or (None, "pixel")
            # A plane that is opened alone is not what its file is.
            path = "" if saved.plane else saved.source or ""
            layer = layers.add_image(
                self._link.viewer,
                found.images[saved.key],
                path,
                name=saved.name,
                pixel_size=size,
                unit=unit,
                channels=found.project.options.channels,
            )
            keys[saved.key] = self._link.layers.add_entry(layer)
        return keys

    def _on_saved(self, path: Path) -> None:
        self._session.say(f"Project saved to {path}.")


def _saved_at(found: OpenedProject) -> datetime:
    assert found.project.saved_at is not None  # it was read from a file
    return found.project.saved_at
