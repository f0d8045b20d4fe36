"""Fingerprints of images, by which they are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_WHOLE_BYTES = 256 * 2**20  # larger images are known by some of their rows
_BLOCK_BYTES = 4 * 2**20


def image_fingerprint(image: ArrayLike) -> str:
    """Return the BLAKE2b hash of an image's type, shape and pixels, as 32 hex digits.

    Above 256 MiB only every second, third, … row counts, so that an image of any size
    is known in about half a second. An image in a file is read part by part.
    """
    array: Any = image if hasattr(image, "levels") else np.asarray(image)
    kind = array.dtype.newbyteorder("<")
    fingerprint = hashlib.blake2b(f"{kind.str} {array.shape}".encode(), digest_size=16)
    for block in _blocks(array):
        fingerprint.update(np.ascontiguousarray(block, kind).data.cast("B"))
    return fingerprint.hexdigest()


def _blocks(array: Any) -> Iterator[NDArray[Any]]:
    """Views that cover the array, or enough of it, so that copies stay small."""
    if array.size == 0:
        return
    if array.ndim == 0:
        yield array.reshape(1)
        return
    step = -(-array.nbytes // _WHOLE_BYTES)
    axis = int(np.argmax(array.shape)) if step > 1 else 0
    length = array.shape[axis]
    count = max(_BLOCK_BYTES // max(array.nbytes // length, 1), 1) * step
    for start in range(0, length, count):
        rows = slice(start, min(start + count, length), step)
        yield np.moveaxis(array[(slice(None),) * axis + (rows,)], axis, 0)
