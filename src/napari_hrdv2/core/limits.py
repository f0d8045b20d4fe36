"""What a file may ask of the machine, checked before anything is allocated."""

from __future__ import annotations

import json
import os
from typing import Any

MOST_EXPANSION = 1032
"""Bytes that one byte of a file can stand for, which is zlib's best."""

FREE_BYTES = 128 * 2**20
"""What any file may ask for, however small it is."""

JSON_BYTES = 64 * 2**20

MOST_CHUNKS = 100_000
"""Chunks of an array of Zarr."""

MOST_REGIONS = 20_000
"""Regions of an ImageJ file."""

MOST_DRAWN = 10**9
"""Pixels that all of them span, counted for each."""


def check_claim(
    nbytes: int, file_bytes: int, name: str | os.PathLike[str], *, is_read: bool = True
) -> None:
    """Raise ValueError where a file claims more than it can hold or memory is free.

    Parameters
    ----------
    nbytes : int
        The memory that its content would take.
    file_bytes : int
        The size of the file.
    name : str or path-like
        What the sentence calls it.
    is_read : bool
        Whether all of it is to be in memory at once.
    """
    if nbytes <= FREE_BYTES:
        return
    claim = f"{name} claims to hold {nbytes / 1e9:.1f} GB"
    if nbytes > MOST_EXPANSION * file_bytes:
        raise ValueError(
            f"{claim}, which is more than a file of its size can; it is damaged, or "
            "made to fill the memory"
        )
    if not is_read:
        return
    import psutil

    free = psutil.virtual_memory().available
    if nbytes > free:
        raise ValueError(
            f"{claim} and {free / 1e9:.1f} GB of memory are free; save a part of it "
            "or fewer pixels"
        )


def parse_json(text: str | bytes) -> Any:
    """Return what JSON holds; ValueError where it is none, too long or too deep.

    Half of a surrogate pair, which no text file could be written with, becomes "?".
    """
    if len(text) > JSON_BYTES:
        raise ValueError(f"its text has {len(text)} characters, which is too much")
    try:
        found = json.loads(text)
        halves = b"\\ud" if isinstance(text, bytes) else "\\ud"
        if halves in text.lower():  # type: ignore[operator]
            plain = json.dumps(found, ensure_ascii=False)
            found = json.loads(plain.encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("its entries are nested too deep") from None
    return found
