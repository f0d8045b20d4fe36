"""TIFF samples that tifffile leaves to the package imagecodecs, by libtiff in Pillow.

Pillow keeps 8 bits of a colour and knows few sorts of samples, so it is only asked for
bytes where that is possible: compressed strips are given to it as strips of 8-bit grey
levels. Bits are unpacked and differences summed here.
"""

from __future__ import annotations

import importlib.util
import io
import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reading import NotReadError

_PLAIN = (1, 8, 32773, 32946, 34925)  # compressions that tifffile decodes itself
_OF_BYTES = (*_PLAIN, 5, 50000)  # and with LZW and ZSTD, those of any bytes
_OF_IMAGES = (2, 3, 4, 6, 7, 50001)  # CCITT, JPEG and WebP
_WHOLE = (8, 16, 32, 64)
_GROUP_BYTES = 8 * 2**20
_DEPTH = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}  # others: 8
_PHOTOMETRIC = {"CMYK": "SEPARATED", "YCbCr": "YCBCR", "LAB": "CIELAB", "P": "PALETTE"}


def needs_help(page: Any) -> bool:
    """Whether tifffile alone cannot decode a page."""
    if importlib.util.find_spec("imagecodecs") is not None:
        return False
    bits = page.bitspersample
    return (
        int(page.compression) not in _PLAIN
        or int(page.predictor) not in (1, 2)
        or bits not in (1, *_WHOLE)
    )


def decoded(path: Path, page: Any) -> tuple[NDArray[Any], str, bool]:
    """Return (H, W) or (H, W, S) samples, their photometric, whether they are turned.

    Raises
    ------
    NotReadError
        Where only imagecodecs could do it, or bits would be lost.
    """
    compression, bits = int(page.compression), page.bitspersample
    is_known = isinstance(bits, int) and int(page.predictor) in (1, 2, 3)
    kind = "u" if page.dtype is None else page.dtype.kind
    if compression in _OF_BYTES and is_known and (bits in _WHOLE or kind in "bu"):
        return _from_bytes(path, page), page.photometric.name, False
    if compression in _OF_IMAGES:
        return _from_pillow(path, page)
    raise _unknown(path, page)


def _unknown(path: Path, page: Any) -> NotReadError:
    how = getattr(page.compression, "name", str(page.compression))
    how = "not compressed" if how == "NONE" else f"compressed as {how}"
    return NotReadError(
        f"{path} holds samples of {page.bitspersample} bit, {how}, which needs the "
        "package imagecodecs; install it (pip install imagecodecs), or save the image "
        "as TIFF of 8 or 16 bit without compression"
    )


def _from_pillow(path: Path, page: Any) -> tuple[NDArray[Any], str, bool]:
    """What libtiff makes of a page, which Pillow also turns."""
    from PIL import Image

    with Image.open(path) as entry:
        if not isinstance(page.index, int):
            raise _unknown(path, page)
        entry.seek(page.index)
        entry.load()
        mode, data = entry.mode, np.asarray(entry)
    bits = page.bitspersample
    if not isinstance(bits, int) or bits > _DEPTH.get(mode, 8):
        raise _unknown(path, page)
    grey = "RGB" if data.ndim == 3 else "MINISBLACK"  # MINISWHITE is turned by Pillow
    return data, _PHOTOMETRIC.get(mode, grey), True


def _from_bytes(path: Path, page: Any) -> NDArray[Any]:
    planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    bands = page.samplesperpixel // planes
    height, width = page.imagelength, page.imagewidth
    if page.is_tiled:
        wide, tall = page.tilewidth, page.tilelength
    else:
        wide, tall = width, min(page.rowsperstrip, height)
    across, down = -(-width // wide), -(-height // tall)
    row_bytes = -(-wide * bands * page.bitspersample // 8)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    count = across * down  # of the segments of a plane
    if len(segments) < count * planes or 0 in (row_bytes, tall):
        raise EOFError("strips are missing")
    data = np.empty((planes, height, width, bands), page.dtype)
    last = tall if page.is_tiled else height - tall * (down - 1)
    together = max(_GROUP_BYTES // (row_bytes * tall), 1)
    for plane, start in product(range(planes), range(0, count, together)):
        numbers = range(start, min(start + together, count))
        rows = tall * (len(numbers) - 1) + (last if numbers[-1] == count - 1 else tall)
        mine = [segments[plane * count + number] for number in numbers]
        raw = _rows(page, mine, rows, tall, row_bytes)
        values = _values(page, raw, wide, bands)
        for position, number in enumerate(numbers):
            row, column = divmod(number, across)
            place = data[plane, row * tall :, column * wide :][:tall, :wide]
            part = values[position * tall :][: len(place), : place.shape[1]]
            place[...] = part
    if planes > 1:
        return np.moveaxis(data[..., 0], 0, -1)
    return data[0, ..., 0] if bands == 1 else data[0]


def _rows(
    page: Any, segments: list[tuple[int, int]], rows: int, tall: int, row_bytes: int
) -> NDArray[np.uint8]:
    """Return (rows, row_bytes) of strips or tiles, one below the other."""
    from PIL import Image

    parts = []
    for offset, count in segments:
        page.parent.filehandle.seek(offset)
        parts.append(page.parent.filehandle.read(count))
        if len(parts[-1]) < count or not count:
            raise EOFError("a strip is missing")
    if int(page.compression) == 1 and int(page.fillorder) == 1:
        full = b"".join(part[: tall * row_bytes] for part in parts)
        if len(full) < rows * row_bytes:
            raise EOFError("a strip is too short")
        raw = np.frombuffer(full, np.uint8, rows * row_bytes)
        return raw.reshape(rows, row_bytes)
    content = _grey_tiff(page, parts, rows, tall, row_bytes)
    with Image.open(io.BytesIO(content)) as entry:
        return np.asarray(entry).reshape(rows, row_bytes)


def _grey_tiff(
    page: Any, parts: list[bytes], rows: int, tall: int, row_bytes: int
) -> bytes:
    """Return a TIFF of one band of bytes in these strips."""
    count = len(parts)
    starts, position = [], 8
    for part in parts:
        starts.append(position)
        position += len(part)
    arrays = struct.pack(f"<{2 * count}I", *starts, *map(len, parts))
    first, second = position, position + 4 * count
    tags = [
        (256, row_bytes),
        (257, rows),
        (258, 8),
        (259, int(page.compression)),
        (262, 1),
        (266, int(page.fillorder)),
        (273, first if count > 1 else starts[0]),
        (277, 1),
        (278, tall),
        (279, second if count > 1 else len(parts[0])),
    ]
    ifd = struct.pack("<H", len(tags))
    for code, value in tags:
        many = count if code in (273, 279) else 1
        ifd += struct.pack("<HHII", code, 4, many, value)
    head = b"II*\0" + struct.pack("<I", position + len(arrays))
    return b"".join([head, *parts, arrays, ifd, bytes(4)])


def _values(page: Any, raw: NDArray[np.uint8], wide: int, bands: int) -> NDArray[Any]:
    """Return (rows, wide, bands) samples of rows of bytes."""
    bits, order, kind = page.bitspersample, page.parent.byteorder, page.dtype.kind
    rows = len(raw)
    if bits not in _WHOLE:
        digits = np.unpackbits(raw, axis=1)[:, : wide * bands * bits]
        digits = digits.reshape(rows, wide, bands, bits)
        powers = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint32)
        values = (digits @ powers).astype(page.dtype)
        if int(page.predictor) == 2:
            values = np.cumsum(values, 1, dtype=np.uint32) & ((1 << bits) - 1)
        return np.asarray(values).astype(page.dtype)
    size = bits // 8
    if int(page.predictor) == 3:
        raw = np.cumsum(raw.reshape(rows, -1, bands), axis=1, dtype=np.uint8)
        # All first bytes of the numbers of a row, then all second, …
        raw = raw.reshape(rows, size, -1).swapaxes(1, 2)
        order, kind = ">", "f"
    values = np.ascontiguousarray(raw).reshape(rows, -1)
    if int(page.predictor) == 2:
        whole = values.view(f"{order}u{size}").reshape(rows, wide, bands)
        whole = np.cumsum(whole, axis=1, dtype=f"=u{size}")
        return whole.view(f"={kind}{size}")
    return values.view(f"{order}{kind}{size}").reshape(rows, wide, bands)


def keeps_colors(page: Any) -> bool:
    """Whether samples stay in their colour space when they are decoded."""
    return int(page.compression) in _OF_BYTES
