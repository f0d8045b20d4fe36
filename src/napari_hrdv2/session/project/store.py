"""Projects on the disk: whole ZIP files, with arrays as TIFF."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path, remove_leftovers
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.limits import MOST_EXPANSION, check_claim, parse_json
from napari_hrdv2.files import write_image, write_labels
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.planes import PlaneKey

from .format import (
    SUFFIX,
    ArrayRecord,
    Fingerprints,
    ImageRecord,
    Project,
    ProjectRecord,
    SavedImage,
    SourceRecord,
    UnreadableError,
)

_RECORD = "project.json"
_CLASSIFIER = "classifier.safetensors"
_JSON_BYTES = 64 * 2**20
_PLAIN = (  # fields that a `SavedImage` and an `ImageRecord` share
    *("name", "shape", "image_fingerprint", "pixel_size"),
    *("plane", "trains", "partition_name"),
)
_KINDS = {"scribbles": "bui", "exclusion": "b", "partition": "bui", "image": "buif"}


def save_project(
    project: Project,
    path: str | os.PathLike[str],
    *,
    with_images: bool = True,
    fingerprints: Fingerprints | None = None,
) -> Path:
    """Write a project to one file, whole or not at all, and return its path.

    The suffix ``.hrdv2`` is added where it is not there. With its images a project
    opens on a machine that does not have their files.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    whole = project.completed(fingerprints or Fingerprints(), with_images=with_images)
    remove_leftovers(path)
    with atomic_path(path) as temporary:
        write_archive(whole, temporary, path.parent)
        # A disk that lies must not cost the project that was there.
        with _open(temporary) as archive:
            _read_record(archive)
            broken = archive.testzip()
        if broken:
            raise OSError(f"{broken} does not read back as it was written")
    return path


def load_project(path: str | os.PathLike[str]) -> Project:
    """Return the project in a file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no project, of a newer format, or damaged: the message names the part.
    """
    folder = Path(path).absolute().parent
    with _open(path) as archive:
        record = _read_record(archive)
        _check_arrays(archive, record)
        images = tuple(_read_image(archive, one, folder) for one in record.images)
        name, current = record.classifier, PlaneKey.parse(record.current or "")
        classifier = None if name is None else _read_classifier(archive, name)
    return Project(
        images=images,
        classes={key: ClassInfo(**dict(one)) for key, one in record.classes.items()},
        options=record.options,
        classifier=classifier,
        refinement=record.refinement,
        current=current if current in [one.key for one in images] else None,
        saved_at=record.saved_at,
    )


def project_summary(path: str | os.PathLike[str]) -> ProjectRecord:
    """Return what a project says of itself; no array is read."""
    with _open(path) as archive:
        return _read_record(archive)


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a project for reading; errors say in one sentence what is wrong with it."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"project: there is no file {path}") from error
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"project: {path} cannot be read: {reason}") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        raise ValueError(
            f"project: {path} is not a project of napari-hrdv2, or it was cut short"
        ) from error
    with archive:
        try:
            yield archive
        except UnreadableError as error:
            raise ValueError(f"project: {path} {error}") from None
        except ValueError as error:
            raise ValueError(f"project: {path} is damaged: {error}") from error


def _read_record(archive: zipfile.ZipFile) -> ProjectRecord:
    """Return what an archive says of itself."""
    if _RECORD not in archive.namelist():
        return ProjectRecord.parse({})
    if archive.getinfo(_RECORD).file_size > _JSON_BYTES:
        raise ValueError(f"{_RECORD} is too large")
    try:
        found = parse_json(_read_member(archive, _RECORD))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{_RECORD} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{_RECORD} is not an object")
    return ProjectRecord.parse(found)


def _check_arrays(archive: zipfile.ZipFile, record: ProjectRecord) -> None:
    """Raise ValueError where arrays share a member, or claim too much together."""
    every = [
        found
        for one in record.images
        for found in (getattr(one, name) for name in _KINDS)
        if found is not None
    ]
    files = Counter(found.file for found in every)
    for name, count in files.items():
        if count > 1:
            raise ValueError(f"{name} is used {count} times")
    # Labels may be packed into numbers an eighth as wide as they are read. One array
    # that its member cannot hold is refused by its name when it is read.
    sizes = {one.filename: 8 * one.file_size for one in archive.infolist()}
    nbytes = sum(
        min(
            math.prod(found.shape) * found.itemsize,
            MOST_EXPANSION * sizes.get(found.file, 0),
        )
        for found in every
    )
    check_claim(nbytes, 8 * os.path.getsize(str(archive.filename)), "it")


def _read_image(
    archive: zipfile.ZipFile, record: ImageRecord, folder: Path
) -> SavedImage:
    """Return an image entry with its arrays; ValueError if one of them is damaged."""
    arrays: dict[str, Any] = {}
    for name in _KINDS:
        found = getattr(record, name)
        if found and name != "image" and found.shape != record.shape:
            raise ValueError(f"{found.file} has not the shape of {record.name!r}")
        arrays[name] = _read_array(archive, found) if found else None
    return SavedImage(
        key=PlaneKey.parse(record.key),
        source=record.source.found_from(folder) if record.source else None,
        **{name: getattr(record, name) for name in _PLAIN},
        **arrays,
    )


def _read_classifier(archive: zipfile.ZipFile, name: str) -> PixelClassifier:
    """Return the classifier in a member; ValueError if it is damaged."""
    content = _read_member(archive, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _CLASSIFIER
        path.write_bytes(content)
        try:
            return PixelClassifier.load(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error


def write_archive(project: Project, path: Path, folder: Path) -> None:
    """Write a project to `path`; sources are told as seen from `folder`.

    The record comes first and images come last: where a copy was cut short, what was
    painted is in the part that is there.
    """
    record = _record_of(project, folder)
    text = record.to_json()
    pairs = list(zip(record.images, project.images, strict=True))
    names = {i: info.name for i, info in project.classes.items()}
    colors = {i: info.color for i, info in project.classes.items()}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        tempfile.TemporaryDirectory() as room,
    ):
        archive.writestr(_RECORD, text, zipfile.ZIP_DEFLATED)
        if record.classifier and project.classifier:
            project.classifier.save(Path(room, _CLASSIFIER))
            archive.write(Path(room, _CLASSIFIER), record.classifier)
        for one, saved in pairs:
            if one.scribbles and saved.scribbles is not None:
                file = Path(room, "labels.tif")
                size, unit = saved.pixel_size or (None, "pixel")
                write_labels(
                    file,
                    saved.scribbles,
                    pixel_size=size,
                    unit=unit,
                    class_names=names,
                    class_colors=colors,
                )
                archive.write(file, one.scribbles.file)
            if one.exclusion and saved.exclusion is not None:
                white = np.where(saved.exclusion, np.uint8(255), np.uint8(0))
                _write_array(archive, one.exclusion, white)
            if one.partition and saved.partition is not None:
                _write_array(archive, one.partition, saved.partition)
        for one, saved in pairs:
            if one.image and saved.image is not None:
                _write_array(archive, one.image, saved.image)


def _record_of(project: Project, folder: Path) -> ProjectRecord:
    from napari_hrdv2 import __version__

    is_fitted = project.classifier is not None and project.classifier.is_fitted
    images = [
        {
            "key": str(saved.key),
            "source": SourceRecord.of(saved.source, folder),
            "labelled_pixels": saved.labelled_pixels,
            **{name: getattr(saved, name) for name in _PLAIN},
            **{name: _array_record(saved, name, number) for name in _KINDS},
        }
        for number, saved in enumerate(project.images, start=1)
    ]
    return ProjectRecord.checked(
        {
            "saved_at": datetime.now(UTC),
            "software": f"napari-hrdv2 {__version__}",
            "images": images,
            "classes": {key: vars(info) for key, info in project.classes.items()},
            "options": project.options,
            "refinement": project.refinement,
            "current": str(project.current) if project.current else None,
            "classifier": _CLASSIFIER if is_fitted else None,
        }
    )


def _array_record(saved: SavedImage, name: str, number: int) -> ArrayRecord | None:
    """Return the member of an array, None without one; check that it can be saved."""
    array = getattr(saved, name)
    if array is None:
        return None
    fits = array.size > 0 if name == "image" else array.shape == tuple(saved.shape)
    if not fits or array.dtype.kind not in _KINDS[name]:
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape} does not fit image "
            f"{saved.name!r} of shape {tuple(saved.shape)}"
        )
    return ArrayRecord(
        file=f"{name}/{number}.tif",
        dtype=array.dtype.newbyteorder("=").name,
        shape=array.shape,
    )


def _write_array(
    archive: zipfile.ZipFile, record: ArrayRecord, array: NDArray[Any]
) -> None:
    content = io.BytesIO()
    write_image(content, array)
    archive.writestr(record.file, content.getvalue())


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member, unpacked in memory; ValueError if it is missing or damaged."""
    try:
        found = archive.getinfo(name)
        if found.file_size > MOST_EXPANSION * found.compress_size + 2**10:
            raise ValueError(f"{name} claims to hold {found.file_size} bytes")
        return archive.read(found)
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,  # encrypted
        NotImplementedError,  # packed in another way
    ) as error:
        raise ValueError(f"{name} is damaged: {str(error)[:200]}") from error


def _read_array(archive: zipfile.ZipFile, record: ArrayRecord) -> NDArray[Any]:
    """Return the array of a TIFF member; ValueError if it is not as recorded."""
    import tifffile

    try:
        kind = np.dtype(record.dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in _KINDS["image"]:
        raise ValueError(
            f"{record.file} should hold {record.dtype!r}, which is no kind of number"
        )
    content = _read_member(archive, record.file)
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tif:
            size = sum(math.prod(page.shape) for page in tif.pages)
            nbytes = sum(int(page.nbytes) for page in tif.pages)
            most = MOST_EXPANSION * len(content)
            if size != math.prod(record.shape) or nbytes > most:
                raise ValueError(f"{size} values do not fit the shape {record.shape}")
            data = tif.asarray(key=slice(None), maxworkers=1)
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{record.file} is damaged: {reason}") from error
    return np.asarray(data, kind).reshape(record.shape)
