"""PNG, JPEG and BMP by Pillow, and samples as grey levels or RGB, the right way up."""

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

from .reading import NotReadError, damaged, told

ORIENTATION = 0x0112  # the tag of EXIF and TIFF
TURNS = {
    1: "",
    2: "mirrored left to right",
    3: "turned by 180°",
    4: "mirrored top to bottom",
    5: "mirrored along its diagonal",
    6: "turned by 90° to the right",
    7: "mirrored along its other diagonal",
    8: "turned by 90° to the left",
}
"""What the orientations of EXIF and TIFF ask for."""

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

    with told(path):
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


def turned(data: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (H, W, ...) samples as they are to be seen.

    Examples
    --------
    >>> turned(np.array([[1, 2, 3]]), 3).tolist()
    [[3, 2, 1]]
    >>> turned(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation >= 5:
        data = data.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else None)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else None)
    return np.ascontiguousarray(data[rows, columns])


def grey_if_grey(colors: NDArray[Any]) -> NDArray[Any]:
    """One plane where red, green and blue are the same in every pixel."""
    red = colors[..., :1]
    return colors[..., 0] if (colors[..., 1:3] == red).all() else colors


def rgb_of_cmyk(samples: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, 3) of (H, W, 4) amounts of ink, as Pillow does for JPEG."""
    full = np.iinfo(samples.dtype).max
    light: NDArray[Any] = samples.astype(np.float64 if full > 2**16 else np.float32)
    np.subtract(full, light, out=light)
    colors: NDArray[Any] = np.rint(light[..., :3] * light[..., 3:] / full)
    return colors.astype(samples.dtype)


def rgb_of(samples: NDArray[np.uint8], mode: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) of 8-bit samples of one of Pillow's modes, YCbCr or LAB."""
    from PIL import Image

    height, width = samples.shape[:2]
    raw = np.ascontiguousarray(samples[..., :3]).tobytes()
    entry = Image.frombytes(mode, (width, height), raw, "raw", mode)
    return np.asarray(entry.convert("RGB"))
