"""Projects and autosaves shown in the window: images, scribbles, choices."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_hrdv2.session.project.opening import OpenedProject, Stack, open_project
from napari_hrdv2.session.project.snapshot import replaced_names, take_over
from napari_hrdv2.widgets.viewer import layers, planes

if TYPE_CHECKING:
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.project.format import SavedImage
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.widgets.controller import Controller

Ask = Callable[[str], bool]


class ProjectLoader(QObject):
    """Reads projects in the worker thread and shows them.

    Parameters
    ----------
    controller : Controller
    ask : callable
        Called with a question before scribbles here are replaced; returns the answer.

    Attributes
    ----------
    missing : tuple of SavedImage
        Of the last project, those whose images were not found.
    changed : Signal
        Emitted when a project was opened.
    """

    changed = Signal()

    def __init__(self, controller: Controller, ask: Ask) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self._ask = ask
        self._path: Path | None = None
        self.missing: tuple[SavedImage, ...] = ()

    def open(self, path: str | os.PathLike[str]) -> None:
        """Open a project with its images, beside those that are open."""
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
        self._controller.link.flush()
        current, images = self._session.current, self._session.images.values()
        # Where an image is open twice, the work is for the one that is shown.
        shown_first = tuple(sorted(images, key=lambda one: one is not current))
        stacks, known = self._stacks(), self._controller.autosave.fingerprints

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

        self._controller.side.submit("project", run, hear)

    def _stacks(self) -> tuple[Stack, ...]:
        link = self._controller.link
        return tuple(
            Stack(
                link.layers.key_of(image).image,
                planes.sizes(image),
                partial(planes.pixels, image),
            )
            for image in link.layers.images()
            if planes.sizes(image) and not planes.unnamed(image)
        )

    def _on_opened(self, found: OpenedProject) -> None:
        if self._may_replace(found):
            self._controller.attempt(self._show, found)

    def _on_located(self, found: OpenedProject) -> None:
        """Take only what was missing; the user has gone on with the rest."""
        self._on_opened(found.only({saved.key for saved in self.missing}))

    def _on_restored(self, found: OpenedProject) -> None:
        if not self._open_keys(found):
            self._controller.report(ValueError("autosave: none of its images is open"))
        elif self._may_replace(found):
            self._controller.autosave.decline()  # later ones too: this was chosen
            self._controller.attempt(self._show, found)

    def _may_replace(self, found: OpenedProject) -> bool:
        """Ask if scribbles here would give way to other ones, or to none."""
        self._controller.link.flush()
        keys = self._open_keys(found)
        names = replaced_names(self._session, found.project, keys)
        then = found.project.saved_at.astimezone()
        return not names or self._ask(
            f"{', '.join(names)} has scribbles already. Replace them by those of "
            f"{then:%d %b %Y %H:%M}? Undo brings them back."
        )

    def _open_keys(self, found: OpenedProject) -> dict[PlaneKey, PlaneKey]:
        """Return the keys of images that did not go while the project was read."""
        link, keys = self._controller.link, found.keys
        return {
            one: key
            for one, key in keys.items()
            if link.layers.image_of(key) is not None
        }

    def _show(self, found: OpenedProject) -> None:
        controller, link = self._controller, self._controller.link
        keys = self._open_keys(found)
        gone = [
            saved.name
            for saved in found.project.images
            if saved.key in found.keys and saved.key not in keys
        ]
        keys |= self._add_images(found)
        notes = list(
            take_over(self._session, found.project, keys, write=link.write_scribbles)
        )
        chosen = keys.get(found.project.current)
        if chosen is not None:
            link.show_image(chosen)
            # Another image has levels of its own, but here they belong to the project.
            levels = found.project.options.value_range
            self._session.configure(value_range=levels)
        self.missing = found.missing
        if gone:
            notes.append(f"{', '.join(gone)} was closed meanwhile and left out.")
        notes += found.notes()
        controller.autosave.note_saved(set(keys.values()), found.project.saved_at)
        controller.train()
        count = f"{len(keys)} image{'s' * (len(keys) != 1)}"
        self._session.say(
            " ".join([f"{count} with scribbles and settings opened.", *notes])
        )
        self.changed.emit()

    def _add_images(self, found: OpenedProject) -> dict[PlaneKey, PlaneKey]:
        """Open images as layers, and return their keys by those in the project."""
        controller, keys = self._controller, {}
        for saved in found.project.images:
            if saved.key not in found.images:
                continue
            size, unit = saved.pixel_size or (None, "pixel")
            # A plane that is opened alone is not what its file is.
            path = "" if saved.plane else saved.source or ""
            layer = layers.add_image(
                controller.viewer,
                found.images[saved.key],
                path,
                name=saved.name,
                pixel_size=size,
                unit=unit,
            )
            keys[saved.key] = controller.link.layers.add_entry(layer)
        return keys
