"""Projects read from files while the window goes on: which images are theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project.autosave import AutosaveEntry, AutosaveStore
from napari_hrdv2.session.project.format import load_project, project_summary
from napari_hrdv2.session.project.snapshot import Fingerprints, open_images

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.project.format import Project, SavedImage
    from napari_hrdv2.session.tasks.context import TaskContext


@dataclass(frozen=True)
class Stack:
    """An open stack of which any plane may be one of a project.

    Attributes
    ----------
    image : str
    sizes : tuple of int
        How many planes there are along each axis.
    plane : callable
        Returns the `Plane` at an index.
    """

    image: str
    sizes: tuple[int, ...]
    plane: Callable[[tuple[int, ...]], Any]

    def has(self, index: tuple[int, ...]) -> bool:
        """Whether there is such a plane."""
        return len(index) == len(self.sizes) and all(
            place < size for place, size in zip(index, self.sizes, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Reopened:
    """A project, and where its images are.

    Attributes
    ----------
    project : Project
    saved_at : datetime
    keys : dict of PlaneKey to PlaneKey
        Of pictures that are open, by their keys in the project.
    images : dict of PlaneKey to array
        Pixels of others, by their keys in the project.
    missing : tuple of SavedPicture
        Those that are nowhere.
    altered : tuple of str
        Names of images whose files hold other pixels now.
    """

    project: Project
    saved_at: datetime
    keys: dict[PlaneKey, PlaneKey]
    images: dict[PlaneKey, NDArray[Any]] = field(default_factory=dict)
    missing: tuple[SavedImage, ...] = ()
    altered: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ReopenRequest:
    """A project is to be read, and its images to be found.

    Attributes
    ----------
    path : pathlib.Path
    pictures : tuple of Picture
        Those that are open.
    stacks : tuple of Stack
    digests : Digests
    reads_images : bool
        Whether images that are not open are read from the project or their files.
    folder : pathlib.Path or None
        Where to look for image files that are not where they were.
    salvage : bool
        As of `load_project`.
    """

    path: Path
    images: tuple[ImageEntry, ...]
    stacks: tuple[Stack, ...]
    fingerprints: Fingerprints
    reads_images: bool = True
    folder: Path | None = None
    salvage: bool = False

    def answer(self, context: TaskContext) -> Reopened:
        """Read the project, then look for one image after the other."""
        context.progress("Reading the project", 0, 1)
        saved_at = project_summary(self.path).saved_at
        project = load_project(self.path, salvage=self.salvage)
        keys = open_images(self.images, project, self.fingerprints)
        images: dict[PlaneKey, NDArray[Any]] = {}
        missing: list[SavedImage] = []
        altered: list[str] = []
        for number, saved in enumerate(project.images):
            if context.should_stop():
                raise Cancelled
            if saved.key in keys:
                continue
            key = self._open_plane(saved)
            if key is not None:
                keys[saved.key] = key
            elif self.reads_images:
                context.progress(f"Reading {saved.name}", number, len(project.images))
                image, is_alike = self._image(saved)
                if image is None:
                    missing.append(saved)
                    continue
                images[saved.key] = image
                if not is_alike:
                    altered.append(saved.name)
        return Reopened(project, saved_at, keys, images, tuple(missing), tuple(altered))

    def _open_plane(self, saved: SavedImage) -> PlaneKey | None:
        index = saved.key.plane
        for stack in self.stacks if index else ():
            if stack.has(index):
                plane, key = stack.plane(index), PlaneKey(stack.image, index)
                if tuple(plane.shape[:2]) == saved.shape and (
                    self.fingerprints.of(key, plane) == saved.image_fingerprint
                ):
                    return key
        return None

    def _image(self, saved: SavedImage) -> tuple[NDArray[Any] | None, bool]:
        """Return the pixels, and whether they are those of then."""
        if saved.image is not None or saved.plane:
            return saved.image, True
        near = [] if saved.source is None else [saved.source]
        if self.folder is not None:
            near += [str(path) for path in _by_likeness(self.folder, saved)]
        return _most_alike(near, saved)


@dataclass(frozen=True)
class Look:
    """What was kept of a picture, newest first."""

    key: PlaneKey
    autosaves: tuple[AutosaveEntry, ...]


@dataclass(frozen=True, eq=False)
class LookRequest:
    """Autosaves of work on an image are to be looked for.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    image : array or Plane
    digests : Digests
    folder : pathlib.Path
    own : frozenset of pathlib.Path
        Those that are of no interest.
    """

    key: PlaneKey
    image: Any
    fingerprints: Fingerprints
    folder: Path
    own: frozenset[Path]

    def answer(self, context: TaskContext) -> Look:
        """Read what all autosaves say of themselves."""
        autosaves = AutosaveStore(self.folder).autosaves(
            self.fingerprints.of(self.key, self.image)
        )
        return Look(
            self.key, tuple(one for one in autosaves if one.path not in self.own)
        )


def _by_likeness(folder: Path, saved: SavedImage) -> list[Path]:
    """Return the image files in a folder, those with the name of then first."""
    from napari_hrdv2.files import image_files

    name = re.split(r"[\\/]", saved.source or saved.name)[-1]
    return sorted(image_files([folder]), key=lambda path: path.name != name)


def _most_alike(
    paths: Iterable[str], saved: SavedImage
) -> tuple[NDArray[Any] | None, bool]:
    """Return the pixels of the very image, else of its file if they fit the strokes."""
    from napari_hrdv2.files import read_image
    from napari_hrdv2.session.project.fingerprints import image_fingerprint

    fitting = None
    for path in paths:
        if not os.path.exists(path):
            continue
        try:
            image = read_image(path).data
        except (OSError, ValueError):
            continue  # one that cannot be read is not the one
        if image.shape[:2] != saved.shape:
            continue
        if image_fingerprint(image) == saved.image_fingerprint:
            return image, True
        if path == saved.source:
            fitting = image
    return fitting, False
