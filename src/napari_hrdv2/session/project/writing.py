"""The members of a project's file, what was painted before the images."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.session.project import description as fmt
from napari_hrdv2.session.project.archive import tiff_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.session.project.format import Project, SavedPicture


def write_archive(
    project: Project, path: Path, folder: Path, *, with_images: bool
) -> None:
    """Write a project to `path`; sources are told as seen from `folder`.

    What says what is in the file comes first and images come last: where a copy was
    cut short, what was painted is in the part that is there.
    """
    fmt.check_keys([picture.key for picture in project.pictures])
    for picture in project.pictures:
        _check_picture(picture)
    described = _described(project, folder, with_images=with_images)
    text = fmt.description_text(described)
    pairs = list(zip(described.pictures, project.pictures, strict=True))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        _room() as room,
    ):
        archive.writestr(fmt.DESCRIPTION, text, zipfile.ZIP_DEFLATED)
        if described.classifier and project.classifier:
            project.classifier.save(room / fmt.CLASSIFIER)
            archive.write(room / fmt.CLASSIFIER, described.classifier)
        for entry, picture in pairs:
            if entry.scribbles and picture.scribbles is not None:
                _write_labels(room / "labels.tif", picture, project)
                archive.write(room / "labels.tif", entry.scribbles.file)
            if entry.excluded and picture.excluded is not None:
                seen = np.where(picture.excluded, np.uint8(255), np.uint8(0))
                archive.writestr(entry.excluded.file, tiff_bytes(seen))
            if entry.partition and picture.partition is not None:
                archive.writestr(entry.partition.file, tiff_bytes(picture.partition))
        for entry, picture in pairs:
            if entry.image and picture.image is not None:
                archive.writestr(entry.image.file, tiff_bytes(picture.image))


@contextmanager
def _room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write_labels(path: Path, picture: SavedPicture, project: Project) -> None:
    from napari_hrdv2.files import write_labels

    size, unit = picture.pixel_size or (None, "pixel")
    assert picture.scribbles is not None
    write_labels(
        path,
        picture.scribbles,
        pixel_size=size,
        unit=unit,
        class_names={i: info.name for i, info in project.classes.items()},
        class_colors={i: info.color for i, info in project.classes.items()},
    )


def _described(project: Project, folder: Path, *, with_images: bool) -> fmt.Description:
    from napari_hrdv2 import __version__

    fitted = project.classifier is not None and project.classifier.is_fitted
    return fmt.Description(
        format=fmt.FORMAT,
        version=fmt.VERSION,
        saved_at=datetime.now(UTC).isoformat(),
        software=f"napari-hrdv2 {__version__}",
        pictures=tuple(
            _entry(number, picture, folder, with_image=with_images)
            for number, picture in enumerate(project.pictures, start=1)
        ),
        classes=project.classes,
        settings=project.settings,
        refinement=project.refinement,
        current=project.current,
        classifier=fmt.CLASSIFIER if fitted else None,
    )


def _entry(
    number: int, picture: SavedPicture, folder: Path, *, with_image: bool
) -> fmt.PictureEntry:
    height, width = (int(size) for size in picture.shape)
    return fmt.PictureEntry(
        key=picture.key,
        name=picture.name,
        shape=(height, width),
        image_digest=picture.image_digest,
        source=fmt.source_entry(picture.source, folder),
        plane={axis: int(index) for axis, index in picture.plane.items()},
        pixel_size=picture.pixel_size,
        trains=picture.trains,
        strokes=picture.strokes,
        scribbles=_array_entry("scribbles", number, picture.scribbles),
        excluded=_array_entry("excluded", number, picture.excluded),
        partition=_array_entry("partitions", number, picture.partition),
        partition_name=picture.partition_name,
        image=_array_entry("images", number, picture.image if with_image else None),
    )


def _array_entry(
    kind: str, number: int, array: NDArray[Any] | None
) -> fmt.ArrayEntry | None:
    if array is None:
        return None
    dtype = array.dtype.newbyteorder("=").name
    return fmt.ArrayEntry(f"{kind}/{number}.tif", dtype, tuple(array.shape))


def _check_picture(picture: SavedPicture) -> None:
    for name, kinds in (("scribbles", "bui"), ("excluded", "b"), ("partition", "bui")):
        array = getattr(picture, name)
        if array is None:
            continue
        if array.shape != tuple(picture.shape) or array.dtype.kind not in kinds:
            raise ValueError(
                f"{name}: {array.dtype} of shape {array.shape} does not fit picture "
                f"{picture.name!r} of shape {tuple(picture.shape)}"
            )
    if picture.image is not None and (
        picture.image.size == 0 or picture.image.dtype.kind not in "buif"
    ):
        raise ValueError(
            f"image: {picture.image.dtype} of shape {picture.image.shape} in picture "
            f"{picture.name!r} is no image"
        )
