"""The ZIP file of a project: members in memory, and arrays as TIFF."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_JSON_BYTES = 64 * 2**20
_BEST_RATIO = 1032  # of zlib: bytes that one byte of a file can stand for
_KINDS = "buif"


def open_archive(path: str | os.PathLike[str]) -> zipfile.ZipFile:
    """Open a ZIP file for reading, or say in one sentence why it is none."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"project: there is no file {path}") from error
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"project: {path} cannot be read: {reason}") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(
            f"project: {path} is not a project of napari-hrdv2, or it was cut short"
        ) from error


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member whole; never anything on the disk.

    Raises
    ------
    ValueError
        If it is not there, is damaged, or stands for more than it can.
    """
    try:
        found = archive.getinfo(name)
        if found.file_size > _BEST_RATIO * found.compress_size + 2**10:
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
        raise ValueError(f"{name} is damaged: {error}") from error


def read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """Return the object in a JSON member; ValueError if there is none."""
    if name in archive.namelist() and archive.getinfo(name).file_size > _JSON_BYTES:
        raise ValueError(f"{name} is too large")
    try:
        value = json.loads(read_member(archive, name))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def tiff_bytes(array: NDArray[Any]) -> bytes:
    """Return an image as the bytes of a TIFF file that other programs show."""
    import tifffile

    colors = array.ndim == 3 and array.shape[-1] in (3, 4)
    plain = array.view(np.uint8) if array.dtype.kind == "b" else array
    content = io.BytesIO()
    tifffile.imwrite(
        content,
        np.ascontiguousarray(plain),
        photometric="rgb" if colors else "minisblack",
        extrasamples=("unassalpha",) if colors and array.shape[-1] == 4 else None,
        compression="zlib",
        compressionargs={"level": 1},  # micrographs are noise: 6 gains little
        maxworkers=1,  # works in a thread that outlives the main one
        metadata=None,
        software="napari-hrdv2",
    )
    return content.getvalue()


def read_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: str
) -> NDArray[Any]:
    """Return the array of a TIFF member, which must be of this shape.

    Parameters
    ----------
    archive : zipfile.ZipFile
    name : str
        Of the member.
    shape, dtype : tuple of int, str
        Of the array that was written.

    Raises
    ------
    ValueError
        If the member is damaged, or not such an array.
    """
    import tifffile

    kind = _dtype(name, dtype)
    content = read_member(archive, name)
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tif:
            size = sum(math.prod(page.shape) for page in tif.pages)
            nbytes = sum(int(page.nbytes) for page in tif.pages)
            if size != math.prod(shape) or nbytes > _BEST_RATIO * len(content):
                raise ValueError(f"{size} values do not fit the shape {list(shape)}")
            data = tif.asarray(key=slice(None), maxworkers=1)
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{name} is damaged: {reason}") from error
    return np.asarray(data, kind).reshape(shape)


def _dtype(name: str, text: str) -> np.dtype[Any]:
    try:
        kind = np.dtype(text)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in _KINDS:
        raise ValueError(f"{name} should hold {text!r}, which is no kind of number")
    return kind
