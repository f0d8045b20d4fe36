"""Fingerprints of images, by which they are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

_WHOLE_BYTES = 256 * 2**20  # larger images are known by some of their rows
_BLOCK_BYTES = 4 * 2**20
_PARTS, _PART = 8, 256  # along each axis, of an image that is not read; px of a side


def image_fingerprint(image: ArrayLike) -> str:
    """Return the BLAKE2b hash of an image's type, shape and pixels, as 32 hex digits.

    Above 256 MiB only every second, third, … row counts, so that an image of any size
    is known in about half a second. An image in a file is read part by part.
    """
    array: Any = image if hasattr(image, "levels") else np.asarray(image)
    kind = array.dtype.newbyteorder("<")
    return _hash(kind, array.shape, _blocks(array))


def sampled_fingerprint(image: Any) -> str:
    """Return the hash of an image's type and shape, and of 64 small parts of it.

    For an (H, W, ...) image that is cut rather than read: a small part of what
    `image_fingerprint` reads, and so another hash than that.
    """
    kind = np.dtype(image.dtype).newbyteorder("<")
    starts = [
        np.linspace(0, max(size - _PART, 0), _PARTS).astype(int)
        for size in image.shape[:2]
    ]
    parts = (
        np.asarray(image[y : y + _PART, x : x + _PART])
        for y in starts[0].tolist()
        for x in starts[1].tolist()
    )
    return _hash(kind, tuple(image.shape), parts)


def _hash(
    kind: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]
) -> str:
    fingerprint = hashlib.blake2b(f"{kind.str} {shape}".encode(), digest_size=16)
    for part in parts:
        fingerprint.update(np.ascontiguousarray(part, kind).data.cast("B"))
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
