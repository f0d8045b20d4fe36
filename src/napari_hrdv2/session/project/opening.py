"""Opening projects and autosaves: reading them, and finding the images they are of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.files import image_files, read_image
from napari_hrdv2.session.images import ImageEntry
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.tasks import TaskContext

from .format import Fingerprints, Project, SavedImage, is_elsewhere
from .snapshot import open_images
from .store import load_project


@dataclass(frozen=True)
class Stack:
    """An open stack of which any plane may be one of a project."""

    image: str
    sizes: tuple[int, ...]  # how many planes there are along each axis
    plane: Callable[[tuple[int, ...]], Any]  # returns the `Plane` at an index

    def has(self, index: tuple[int, ...]) -> bool:
        """Whether there is such a plane."""
        return len(index) == len(self.sizes) and all(
            number < size for number, size in zip(index, self.sizes, strict=True)
        )


@dataclass(frozen=True, eq=False)
class OpenedProject:
    """A project, and where its images are."""

    project: Project
    keys: dict[PlaneKey, PlaneKey]  # of open image entries, by those in the project
    images: dict[PlaneKey, NDArray[Any]]  # pixels of others, by keys in the project
    missing: tuple[SavedImage, ...]  # nowhere
    altered: tuple[str, ...]  # names of images whose files hold other pixels now

    def only(self, wanted: Collection[PlaneKey]) -> OpenedProject:
        """Return the same with some of its image entries, of which none is current."""
        images = tuple(one for one in self.project.images if one.key in wanted)
        keys = {theirs: key for theirs, key in self.keys.items() if theirs in wanted}
        project = replace(self.project, images=images, current=None)
        return replace(self, project=project, keys=keys)

    def notes(self) -> list[str]:
        """Return what a user is to know of the images, one sentence each."""
        notes = []
        if self.missing:
            listed = ", ".join(saved.source or saved.name for saved in self.missing)
            what = "press Locate… to say in which folder to look"
            if any(saved.plane for saved in self.missing):
                what = "open the stack, then the project again"
            notes.append(f"Not found: {listed}; {what}.")
        if self.altered:
            notes.append(f"{', '.join(self.altered)} holds other pixels than then.")
        return notes


def open_project(
    path: str | os.PathLike[str],
    images: Sequence[ImageEntry],
    stacks: Sequence[Stack],
    fingerprints: Fingerprints,
    *,
    reads_images: bool = True,
    folder: Path | None = None,
    context: TaskContext | None = None,
) -> OpenedProject:
    """Read a project, then look for one of its images after the other.

    `images` and `stacks` are those that are open. Images that are not are read, if
    `reads_images`, from the project, their files or a `folder`.
    """
    context = context or TaskContext()
    context.progress("Reading the project", 0, 1)
    project = load_project(path)
    keys = open_images(images, project, fingerprints)
    read: dict[PlaneKey, NDArray[Any]] = {}
    missing: list[SavedImage] = []
    altered: list[str] = []
    for number, saved in enumerate(project.images):
        context.stop_if_cancelled()
        if saved.key in keys:
            continue
        key = _open_plane(saved, stacks, fingerprints)
        if key is not None:
            keys[saved.key] = key
        elif reads_images:
            context.progress(f"Reading {saved.name}", number, len(project.images))
            beside, channels = Path(path).absolute().parent, project.options.channels
            image, is_altered = _image(saved, folder, beside, channels)
            if image is None:
                missing.append(saved)
                continue
            read[saved.key] = image
            if is_altered:
                altered.append(saved.name)
    return OpenedProject(project, keys, read, tuple(missing), tuple(altered))


def _open_plane(
    saved: SavedImage, stacks: Sequence[Stack], fingerprints: Fingerprints
) -> PlaneKey | None:
    """Return the key of the plane in an open stack that an image entry is of."""
    index = saved.key.plane
    for stack in stacks if index else ():
        if stack.has(index):
            plane, key = stack.plane(index), PlaneKey(stack.image, index)
            if tuple(plane.shape[:2]) == saved.shape and (
                fingerprints.of(key, plane) == saved.image_fingerprint
            ):
                return key
    return None


def _image(
    saved: SavedImage, folder: Path | None, project_folder: Path, channels: str
) -> tuple[NDArray[Any] | None, bool]:
    """Return the pixels, and whether they are others than those of then.

    They come from the project, from its very file wherever that is, or else from a file
    with its path that fits the labels. In a folder, files of the same name come first.
    """
    if saved.image is not None or saved.plane:
        return saved.image, False
    files = []
    if saved.source is not None and not is_elsewhere(saved.source, project_folder):
        files = [Path(saved.source)]
    if folder is not None:
        name = re.split(r"[\\/]", saved.source or saved.name)[-1]
        files += sorted(image_files([folder]), key=lambda path: path.name != name)
    fitting = None
    for path in filter(os.path.exists, files):
        try:
            image = read_image(path, channels).data
        except (OSError, ValueError):
            continue  # one that cannot be read is not the one
        if image.shape[:2] != saved.shape:
            continue
        if image_fingerprint(image) == saved.image_fingerprint:
            return image, False
        if str(path) == saved.source:
            fitting = image
    return fitting, fitting is not None
