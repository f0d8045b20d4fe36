"""PNG, JPEG and BMP by Pillow: all bits of a sample, checksums, orientation."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import check_claim

from .colors import ORIENTATION, grey_if_grey, turned
from .reading import NotReadError, damaged

_BLOCK = 2**20
# Of which Pillow keeps the upper half of 16 bits alone, and their bands.
_DEEP = {"LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}
_TO_RGB = ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "La", "RGBa")


def read_raster(
    path: Path, kind: str, *, indices: bool = False
) -> tuple[NDArray[Any], int]:
    """Return (H, W) or (H, W, 2|3|4) samples, turned, and the orientation they had.

    Two bands are grey with alpha. Palettes are resolved to RGB(A), or with `indices`
    left as they are.
    """
    if kind == "PNG":
        check_chunks(path)
    with _opened(path) as entry:
        bands = _DEEP.get(_raw_mode(entry))
        entry.load()
        orientation = entry.getexif().get(ORIENTATION, 1)
        if bands is None:
            data = _samples(entry, indices)
        else:
            import imagecodecs

            data = imagecodecs.png_decode(path.read_bytes())[..., :bands]
    orientation = orientation if orientation in range(2, 9) else 1
    return turned(data, orientation), orientation


def check_chunks(path: Path) -> None:
    """Raise ValueError where a PNG is not as it was written; Pillow does not look."""
    with open(path, "rb") as file:
        file.seek(8)
        name = b""
        while name != b"IEND":
            head = file.read(8)
            if len(head) < 8:
                raise damaged(path, EOFError("its end is missing"))
            length, name = struct.unpack(">I4s", head)
            checksum = zlib.crc32(name)
            while length and (block := file.read(min(length, _BLOCK))):
                checksum = zlib.crc32(block, checksum)
                length -= len(block)
            if length or file.read(4) != checksum.to_bytes(4, "big"):
                word = name.decode("ascii", "replace")
                raise damaged(path, ValueError(f"the checksum of {word} is wrong"))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open one image by Pillow; what is wrong is told in one sentence."""
    from PIL import Image

    try:
        with Image.open(path) as entry:
            if getattr(entry, "n_frames", 1) > 1:
                raise NotReadError(
                    f"{path} holds {entry.n_frames} images; save the one to "
                    "segment in a file of its own"
                )
            nbytes = 4 * entry.width * entry.height  # Pillow's own
            check_claim(nbytes, path.stat().st_size, path)
            yield entry
    except Image.DecompressionBombError as error:
        raise NotReadError(
            f"{path} holds too many pixels for its format; save it as TIFF"
        ) from error
    except (NotReadError, MemoryError, ImportError):
        raise
    except Exception as error:  # damaged files raise anything
        if str(error).startswith(str(path)):
            raise
        raise damaged(path, error) from error


def _raw_mode(entry: Any) -> str:
    """How samples lie in the file, in Pillow's words."""
    if not entry.tile or entry.tile[0][0] != "zip":
        return ""
    mode = entry.tile[0][3]
    return str(mode if isinstance(mode, str) else mode[0])


def _samples(entry: Any, indices: bool) -> NDArray[Any]:
    """Return a loaded image as samples in grey, RGB or RGBA."""
    if entry.mode in ("P", "PA") and not indices:
        entry = entry.convert("RGBA" if "transparency" in entry.info else "RGB")
        return grey_if_grey(np.asarray(entry))
    if entry.mode in _TO_RGB:
        entry = entry.convert("RGB")
    data = np.asarray(entry)
    if entry.mode == "I" and data.min() >= 0 and data.max() <= np.iinfo("u2").max:
        data = data.astype(np.uint16)  # how older Pillows give 16-bit PNG files
    return data
