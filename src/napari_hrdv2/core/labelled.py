"""Labels and the features below them: checks, and reading each pixel once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .feature_map import Features

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class SampleCache:
    """Feature vectors of the pixels of one image that were labelled so far.

    A stroke adds a few pixels to thousands that are known; only those are read.

    Parameters
    ----------
    features : Features
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self._pixels = np.empty(0, np.int64)  # flat indices, in the order of the rows
        self._rows = np.empty((0, features.shape[0]), np.float32)  # with room to grow

    def rows(
        self, pixels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the feature vectors of some pixels, in an order of its own.

        Parameters
        ----------
        pixels : (N,) array of int
            Flat indices into (H, W), without repetition.

        Returns
        -------
        rows : (N, C) float32 array
        order : (N,) int64 array
            The same pixels in the order of the rows.
        """
        missing = np.setdiff1d(pixels, self._pixels, assume_unique=True)
        if missing.size:
            self._append(missing)
        if len(pixels) == len(self._pixels):
            return self._rows[: len(pixels)], self._pixels
        known = np.isin(self._pixels, pixels, assume_unique=True)
        return self._rows[: len(known)][known], self._pixels[known]

    def _append(self, pixels: NDArray[np.int64]) -> None:
        count = len(self._pixels)
        sampled = self.features.sample(*np.divmod(pixels, self.features.shape[2]))
        check_finite(sampled)
        if count + len(sampled) > len(self._rows):
            room = np.empty((2 * (count + len(sampled)), sampled.shape[1]), np.float32)
            room[:count] = self._rows[:count]
            self._rows = room
        self._rows[count : count + len(sampled)] = sampled
        self._pixels = np.concatenate([self._pixels, pixels])


def matched(
    features: Features | Sequence[Features],
    labels: ArrayLike | Sequence[ArrayLike],
    samples: SampleCache | Sequence[SampleCache] | None,
) -> tuple[list[Features], list[Any], list[SampleCache]]:
    """Return features, labels and caches as lists of one length."""
    one = isinstance(features, Features)
    many = [features] if isinstance(features, Features) else list(features or ())
    for entry in many:
        if not isinstance(entry, Features):
            raise TypeError(
                f"features: {type(entry).__name__} are no features; give what "
                "compute_features returns, or a list of that"
            )
    arrays: list[Any] = [labels] if one else list(cast("Any", labels))
    if samples is None:
        caches = [SampleCache(entry) for entry in many]
    else:
        caches = [samples] if isinstance(samples, SampleCache) else list(samples)
    if not len(many) == len(arrays) == len(caches) > 0:
        raise ValueError(
            f"labels: {len(arrays)} label images for {len(many)} features; one for "
            "each is needed"
        )
    if any(c.features is not f for c, f in zip(caches, many, strict=True)):
        raise ValueError("samples: a cache belongs to other features than those given")
    return many, arrays, caches


def labelled_pixels(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the flat indices of the pixels that are not 0, ascending."""
    # Ten times faster on booleans than on integers.
    return np.flatnonzero(labels != 0)


def check_labels(labels: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return labels as an array after checking type, shape and sign."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"labels: dtype {array.dtype} does not hold label ids; integers are "
            "needed, 0 where a pixel is not labelled"
        )
    if array.shape != tuple(shape):
        raise ValueError(
            f"labels: shape {array.shape} does not fit an image of shape {tuple(shape)}"
        )
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"labels: {array.max()} is too large for a label id")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(
            f"labels: {array.min()} is not a label id; use 0 for pixels that are not "
            "labelled and positive numbers for classes"
        )
    return array


def check_classes(classes: NDArray[Any]) -> None:
    """Raise ValueError unless there are two classes or more."""
    if len(classes) == 0:
        raise ValueError(
            "labels: no pixel is labelled; paint a stroke in each of two classes"
        )
    if len(classes) == 1:
        raise ValueError(
            f"labels: only class {classes[0]} is labelled; paint a second class too"
        )


def check_finite(table: NDArray[np.float32]) -> None:
    """Raise ValueError if a feature vector is not all numbers."""
    bad = len(table) - int(np.isfinite(table.sum(axis=1)).sum())
    if bad:
        raise ValueError(
            f"features: {bad} of {len(table)} labelled pixels have NaN or infinite "
            "features; the backbone's weights may be damaged"
        )


def digest(labels: Iterable[NDArray[Any]], pixels: Iterable[NDArray[Any]]) -> str:
    """Digest of label images that does not depend on their integer type."""
    total = hashlib.sha256()
    for array, at in zip(labels, pixels, strict=True):
        total.update(repr(array.shape).encode())
        total.update(at.astype("<i8").tobytes())
        total.update(array.ravel()[at].astype("<i8").tobytes())
    return total.hexdigest()
