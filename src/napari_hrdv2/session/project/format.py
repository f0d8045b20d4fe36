"""Projects: everything a user made, in one file that opens elsewhere too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_hrdv2.core.atomic import atomic_path, remove_leftovers
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project import description as fmt
from napari_hrdv2.session.project.archive import open_archive, read_array, read_member
from napari_hrdv2.session.project.writing import write_archive

if TYPE_CHECKING:
    import zipfile

    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.session.classes import ClassInfo

SUFFIX = ".hrdv2"

_Part = TypeVar("_Part")


@dataclass(frozen=True, eq=False)
class SavedImage:
    """One picture of a project, and what was painted on it.

    Attributes
    ----------
    key : PlaneKey
        By which the project tells its pictures apart.
    name : str
        What the user calls it.
    source : str or None
        The file of the image, or its address on the web.
    plane : dict of str to int
        Which plane of a stack, for instance ``{"Z": 3}``; empty for a 2-D image.
    shape : tuple of two int
        (H, W) in pixels.
    image_fingerprint : str
        Of `session.digests.image_digest`: the image is known by it.
    pixel_size : tuple of float and str, or None
        Size and unit.
    scribbles : (H, W) array of int, or None
        Label ids, 0 where nothing is painted.
    exclusion : (H, W) array of bool, or None
        Where the picture is not to be looked at.
    trains : bool
        Whether its strokes train the classifier.
    image : array or None
        The pixels themselves, (H, W), (H, W, 3|4) or (C, H, W).
    partition : (H, W) array of int, or None
        Regions that a backbone with tokens of regions uses in place of its own.
    partition_name : str
        What the user calls them.
    """

    key: PlaneKey
    name: str
    source: str | None
    plane: dict[str, int]
    shape: tuple[int, int]
    image_fingerprint: str
    pixel_size: tuple[float, str] | None
    scribbles: NDArray[Any] | None
    exclusion: NDArray[np.bool_] | None
    trains: bool = True
    image: NDArray[Any] | None = None
    partition: NDArray[Any] | None = None
    partition_name: str = ""

    @property
    def strokes(self) -> int:
        """The number of labelled pixels."""
        return 0 if self.scribbles is None else int(np.count_nonzero(self.scribbles))


@dataclass(frozen=True, eq=False)
class Project:
    """Everything a user made.

    Attributes
    ----------
    pictures : tuple of SavedPicture
    classes : dict of int to ClassInfo
    options : FeatureOptions
        For the next features.
    classifier : PixelClassifier or None
        One that was not trained is not saved.
    refinement : dict
        Whatever the session knows of refinement, as plain JSON.
    current : PlaneKey or None
        Key of the picture that is worked on.
    problems : tuple of str
        What could not be read of a damaged file, one sentence each.
    """

    images: tuple[SavedImage, ...]
    classes: dict[int, ClassInfo]
    options: FeatureOptions
    classifier: PixelClassifier | None
    refinement: dict[str, object] = field(default_factory=dict)
    current: PlaneKey | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProjectSummary:
    """What a project holds, as told without reading any array.

    Attributes
    ----------
    saved_at : datetime
    strokes : dict of str to int
        Labelled pixels by digest of the image.
    classes, pictures : tuple of str
        Their names.
    has_more : bool
        Whether there is a classifier, an excluded region or given regions.
    """

    saved_at: datetime
    strokes: dict[str, int]
    classes: tuple[str, ...]
    images: tuple[str, ...]
    has_more: bool


def save_project(
    project: Project, path: str | os.PathLike[str], *, with_images: bool = True
) -> Path:
    """Write a project to one file and return its path.

    Parameters
    ----------
    project : Project
    path : path-like
        The suffix ``.hrdv2`` is added where it is not there.
    with_images : bool
        Whether to put in the pixels of the pictures that have them here, so that the
        project opens on a machine without the image files.

    Raises
    ------
    OSError
        If the file cannot be written; one that was there before is untouched.
    ValueError
        If something in the project does not fit; the message names it.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    remove_leftovers(path)
    with atomic_path(path) as temporary:
        write_archive(project, temporary, path.parent, with_images=with_images)
        # A disk that lies must not cost the project that was there.
        with open_archive(temporary) as archive:
            fmt.read_description(archive)
            broken = archive.testzip()
        if broken:
            raise OSError(f"{broken} does not read back as it was written")
    return path


def load_project(path: str | os.PathLike[str], *, salvage: bool = False) -> Project:
    """Return the project in a file.

    Parameters
    ----------
    path : path-like
    salvage : bool
        Whether to leave out what is damaged and list it in `Project.problems`, where
        it would be an error otherwise.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no project, of a newer format, or damaged: the message names the part.
    """
    folder = Path(path).absolute().parent
    problems: list[str] = []

    def part(read: Callable[[], _Part]) -> _Part | None:
        try:
            return read()
        except ValueError as error:
            if not salvage:
                raise
            problems.append(str(error))
            return None

    with _opened(path) as archive:
        said = fmt.read_description(archive)
        images = tuple(_picture(archive, e, folder, part) for e in said.pictures)
        classifier = part(lambda: _classifier(archive, said.classifier))
    keys = [entry.key for entry in images]
    current = PlaneKey.parse(said.current or "")
    return Project(
        images=images,
        classes=said.classes,
        options=said.options,
        classifier=classifier,
        refinement=said.refinement,
        current=current if current in keys else None,
        problems=tuple(problems),
    )


def project_summary(path: str | os.PathLike[str]) -> ProjectSummary:
    """Return what a project holds; errors as `load_project`."""
    with _opened(path) as archive:
        said = fmt.read_description(archive)
        saved_at = datetime.fromisoformat(said.saved_at)
    strokes: dict[str, int] = {}
    for entry in said.pictures:
        former = strokes.get(entry.image_digest, 0)
        strokes[entry.image_digest] = former + entry.strokes
    return ProjectSummary(
        saved_at=saved_at if saved_at.tzinfo else saved_at.replace(tzinfo=UTC),
        strokes=strokes,
        classes=tuple(info.name for info in said.classes.values()),
        images=tuple(entry.name for entry in said.pictures),
        has_more=said.classifier is not None
        or any(entry.excluded or entry.partition for entry in said.pictures),
    )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """An archive; what is wrong in it is told as one sentence that names the file."""
    with open_archive(path) as archive:
        try:
            yield archive
        except fmt.UnreadableError as error:
            raise ValueError(f"project: {path} {error}") from None
        except ValueError as error:
            raise ValueError(f"project: {path} is damaged: {error}") from error


def _picture(
    archive: zipfile.ZipFile,
    entry: fmt.PictureEntry,
    folder: Path,
    part: Callable[[Callable[[], Any]], Any],
) -> SavedImage:
    def array(found: fmt.ArrayEntry | None) -> Any:
        if found is None:
            return None
        if found.shape != entry.shape and found is not entry.image:
            raise ValueError(f"{found.file} has not the shape of {entry.name!r}")
        return read_array(archive, found.file, found.shape, found.dtype)

    return SavedImage(
        key=PlaneKey.parse(entry.key),
        name=entry.name,
        source=fmt.found_source(entry.source, folder),
        plane=entry.plane or {},
        shape=entry.shape,
        image_fingerprint=entry.image_digest,
        pixel_size=entry.pixel_size,
        scribbles=part(lambda: array(entry.scribbles)),
        exclusion=part(lambda: array(entry.excluded)),
        trains=entry.trains,
        image=part(lambda: array(entry.image)),
        partition=part(lambda: array(entry.partition)),
        partition_name=entry.partition_name,
    )


def _classifier(archive: zipfile.ZipFile, name: str | None) -> PixelClassifier | None:
    if name is None:
        return None
    content = read_member(archive, name)
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / fmt.CLASSIFIER
        path.write_bytes(content)
        try:
            return PixelClassifier.load(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error
