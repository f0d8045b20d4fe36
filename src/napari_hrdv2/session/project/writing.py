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

    from napari_hrdv2.session.project.format import Project, SavedImage


def write_archive(
    project: Project, path: Path, folder: Path, *, with_images: bool
) -> None:
    """Write a project to `path`; sources are told as seen from `folder`.

    What says what is in the file comes first and images come last: where a copy was
    cut short, what was painted is in the part that is there.
    """
    fmt.check_keys([str(entry.key) for entry in project.images])
    for entry in project.images:
        _check_picture(entry)
    described = _described(project, folder, with_images=with_images)
    text = fmt.description_text(described)
    pairs = list(zip(described.pictures, project.images, strict=True))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        _room() as room,
    ):
        archive.writestr(fmt.DESCRIPTION, text, zipfile.ZIP_DEFLATED)
        if described.classifier and project.classifier:
            project.classifier.save(room / fmt.CLASSIFIER)
            archive.write(room / fmt.CLASSIFIER, described.classifier)
        for member, entry in pairs:
            if member.scribbles and entry.scribbles is not None:
                _write_labels(room / "labels.tif", entry, project)
                archive.write(room / "labels.tif", member.scribbles.file)
            if member.excluded and entry.exclusion is not None:
                seen = np.where(entry.exclusion, np.uint8(255), np.uint8(0))
                archive.writestr(member.excluded.file, tiff_bytes(seen))
            if member.partition and entry.partition is not None:
                archive.writestr(member.partition.file, tiff_bytes(entry.partition))
        for member, entry in pairs:
            if member.image and entry.image is not None:
                archive.writestr(member.image.file, tiff_bytes(entry.image))


@contextmanager
def _room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write_labels(path: Path, entry: SavedImage, project: Project) -> None:
    from napari_hrdv2.files import write_labels

    size, unit = entry.pixel_size or (None, "pixel")
    assert entry.scribbles is not None
    write_labels(
        path,
        entry.scribbles,
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
            _entry(number, entry, folder, with_image=with_images)
            for number, entry in enumerate(project.images, start=1)
        ),
        classes=project.classes,
        options=project.options,
        refinement=project.refinement,
        current=None if project.current is None else str(project.current),
        classifier=fmt.CLASSIFIER if fitted else None,
    )


def _entry(
    number: int, entry: SavedImage, folder: Path, *, with_image: bool
) -> fmt.PictureEntry:
    height, width = (int(size) for size in entry.shape)
    return fmt.PictureEntry(
        key=str(entry.key),
        name=entry.name,
        shape=(height, width),
        image_digest=entry.image_fingerprint,
        source=fmt.source_entry(entry.source, folder),
        plane={axis: int(index) for axis, index in entry.plane.items()},
        pixel_size=entry.pixel_size,
        trains=entry.trains,
        strokes=entry.strokes,
        scribbles=_array_entry("scribbles", number, entry.scribbles),
        excluded=_array_entry("excluded", number, entry.exclusion),
        partition=_array_entry("partitions", number, entry.partition),
        partition_name=entry.partition_name,
        image=_array_entry("images", number, entry.image if with_image else None),
    )


def _array_entry(
    kind: str, number: int, array: NDArray[Any] | None
) -> fmt.ArrayEntry | None:
    if array is None:
        return None
    dtype = array.dtype.newbyteorder("=").name
    return fmt.ArrayEntry(f"{kind}/{number}.tif", dtype, tuple(array.shape))


def _check_picture(entry: SavedImage) -> None:
    for name, kinds in (("scribbles", "bui"), ("exclusion", "b"), ("partition", "bui")):
        array = getattr(entry, name)
        if array is None:
            continue
        if array.shape != tuple(entry.shape) or array.dtype.kind not in kinds:
            raise ValueError(
                f"{name}: {array.dtype} of shape {array.shape} does not fit picture "
                f"{entry.name!r} of shape {tuple(entry.shape)}"
            )
    if entry.image is not None and (
        entry.image.size == 0 or entry.image.dtype.kind not in "buif"
    ):
        raise ValueError(
            f"image: {entry.image.dtype} of shape {entry.image.shape} in picture "
            f"{entry.name!r} is no image"
        )
