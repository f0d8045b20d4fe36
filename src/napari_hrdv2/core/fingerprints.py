"""Fingerprints of images, by which they are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
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
    return _hash(array.dtype, array.shape, _blocks(array))


def sampled_fingerprint(image: Any) -> str:
    """Return the hash of an image's type and shape, and of 64 small parts of it.

    For an (H, W, ...) image that is cut rather than read: a small part of what
    `image_fingerprint` reads, and so another hash than that.
    """
    starts = (np.linspace(0, max(n - _PART, 0), _PARTS) for n in image.shape[:2])
    spans = (
        [slice(i, i + _PART) for i in each.astype(int).tolist()] for each in starts
    )
    parts = (np.asarray(image[window]) for window in product(*spans))
    return _hash(np.dtype(image.dtype), tuple(image.shape), parts)


def _hash(
    kind: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]
) -> str:
    kind = kind.newbyteorder("<")
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
