"""Fingerprints of images, by which they are known again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_WHOLE_BYTES = 256 * 2**20  # larger images are known by some of their rows
_BLOCK_BYTES = 4 * 2**20


def image_fingerprint(image: ArrayLike) -> str:
    """Return the BLAKE2b hash of an image's type, shape and pixels, as 32 hex digits.

    Above 256 MiB only every second, third, … row counts, so that an image of any size
    is known in about half a second.
    """
    array = np.asarray(image)
    kind = array.dtype.newbyteorder("<")
    fingerprint = hashlib.blake2b(f"{kind.str} {array.shape}".encode(), digest_size=16)
    for block in _blocks(array):
        fingerprint.update(np.ascontiguousarray(block, kind).data.cast("B"))
    return fingerprint.hexdigest()


def _blocks(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Views that cover the array, or enough of it, so that copies stay small."""
    if array.size == 0:
        return []
    if array.ndim == 0:
        return [array.reshape(1)]
    step = -(-array.nbytes // _WHOLE_BYTES)
    axis = int(np.argmax(array.shape)) if step > 1 else 0
    rows = np.moveaxis(array, axis, 0)[::step]
    count = max(_BLOCK_BYTES // max(rows[0].nbytes, 1), 1)
    return [rows[start : start + count] for start in range(0, len(rows), count)]
