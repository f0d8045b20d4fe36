"""Files byte by byte, as other programs write them and Pillow and tifffile do not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
_FORMS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I"}


def write_tiff(
    path: Path,
    data: bytes | list[bytes],
    shape: tuple[int, int],
    *,
    bits: int = 8,
    samples: int = 1,
    photometric: int = 1,
    compression: int = 1,
    predictor: int = 1,
    tile: tuple[int, int] | None = None,
    rows: int = 0,
    more: dict[int, tuple[int, Any]] | None = None,
) -> None:
    """Write strips of `rows` rows, or tiles, in a little-endian TIFF of one page."""
    parts = [data] if isinstance(data, bytes) else data
    starts, at = [], 8
    for part in parts:
        starts.append(at)
        at += len(part)
    tags: dict[int, tuple[int, Any]] = {
        256: (LONG, [shape[1]]),
        257: (LONG, [shape[0]]),
        258: (SHORT, [bits] * samples),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        277: (SHORT, [samples]),
        284: (SHORT, [1]),
        317: (SHORT, [predictor]),
        **(more or {}),
    }
    if tile is None:
        tags[273], tags[279] = (LONG, starts), (LONG, [len(part) for part in parts])
        tags[278] = (LONG, [rows or shape[0]])
    else:
        tags[322], tags[323] = (LONG, [tile[1]]), (LONG, [tile[0]])
        tags[324], tags[325] = (LONG, starts), (LONG, [len(part) for part in parts])
    extra, entries = b"", b""
    after = at + 2 + 12 * len(tags) + 4
    for code, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"<{len(values)}{_FORMS[kind]}", *values)
        field = raw.ljust(4, b"\0")
        if len(raw) > 4:
            field = struct.pack("<I", after + len(extra))
            extra += raw + b"\0" * (len(raw) % 2)
        count = len(values) // 2 if kind == RATIONAL else len(values)
        entries += struct.pack("<HHI", code, kind, count) + field
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    head = b"II*\0" + struct.pack("<I", at)
    path.write_bytes(head + b"".join(parts) + ifd + extra)


def lzw(data: bytes) -> bytes:
    """Return valid LZW that never leaves codes of 9 bits."""
    codes: list[int] = []
    for start in range(0, len(data), 250):
        codes += [256, *data[start : start + 250]]
    return packed(np.array([[*codes, 257]]), 9)


def packed(values: NDArray[Any], bits: int) -> bytes:
    """Return rows of whole numbers of so many bits, each row in whole bytes."""
    digits = values[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(digits.reshape(len(values), -1), axis=1).tobytes()


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG."""
    length, checksum = len(content), zlib.crc32(name + content)
    return struct.pack(">I", length) + name + content + struct.pack(">I", checksum)


def write_png(path: Path, pixels: NDArray[Any], *, filtered: int = 0) -> None:
    """Write 8 or 16 bit and 1 to 4 bands, each row with filter 0 or 1 (differences)."""
    height, width, bands = pixels.shape
    size = pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    raw = rows.view(np.uint8).reshape(height, width, bands * size)
    if filtered:
        raw = np.diff(raw, axis=1, prepend=np.zeros_like(raw[:, :1]))
    raw = raw.reshape(height, -1)
    lines = b"".join(bytes([filtered]) + row.tobytes() for row in raw)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    header = struct.pack(">IIBBBBB", width, height, 8 * size, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(lines))
        + png_chunk(b"IEND", b"")
    )
