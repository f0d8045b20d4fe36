"""Labels and the features below them: checks, and reading what trains, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from napari_hrdv2.core.classifier.survey import background_pixels, finite_rows
from napari_hrdv2.core.errors import stop_fit_if
from napari_hrdv2.core.features.base import Features

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from napari_hrdv2.core.classifier.basis import Basis


SURVEY_BLOCK = 50  # pixels that are read at once

SPARE_ROWS = 10_000  # kept for an undo, beside twice what is asked for


class SampleCache:
    """Feature vectors of the pixels of one image that were labelled so far.

    A stroke adds a few pixels to thousands that are known; only those are read. Rows
    that are no longer asked for are let go when they are more than those that are.
    Threads may share it: a fit that was given up can still run when the next begins.

    Parameters
    ----------
    features : Features
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self._lock = Lock()
        self._survey = np.empty((0, features.shape[0]), np.float32)
        self._pixels = np.empty(0, np.int64)  # flat indices, in the order of the rows
        self._rows = np.empty((0, features.shape[0]), np.float32)  # with room to grow
        self._basis: Basis | None = None
        self._design = torch.empty(0, 0)  # of the first rows, in this basis

    @property
    def nbytes(self) -> int:
        """Bytes of memory that all it keeps takes, with the room to grow."""
        return self._rows.nbytes + self._survey.nbytes + self._design.nbytes

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
            To be read only: it may be a part of the cache. No later call changes it.
        order : (N,) int64 array
            The same pixels in the order of the rows; to be read only, too.
        """
        with self._lock:
            missing = np.setdiff1d(pixels, self._pixels, assume_unique=True)
            if missing.size:
                self._append(missing)
            if len(pixels) == len(self._pixels):
                return self._rows[: len(pixels)], self._pixels
            known = np.isin(self._pixels, pixels, assume_unique=True)
            rows, order = self._rows[: len(known)][known], self._pixels[known]
            if len(known) > 2 * len(pixels) + SPARE_ROWS:
                self._rows, self._pixels = rows, order
                self._basis = None
            return rows, order

    def design(self, order: NDArray[np.int64], basis: Basis) -> Tensor:
        """Return labelled pixels in coordinates; each is brought into them once.

        Parameters
        ----------
        order : (N,) int64 array
            As `rows` gave it.
        basis : Basis

        Returns
        -------
        (k + 1, N) float32 tensor
            See `Basis.design`. To be read only.
        """
        with self._lock:
            if self._basis is not basis:
                self._basis, self._design = basis, torch.empty(basis.size + 1, 0)
            if (known := self._design.shape[1]) < len(self._pixels):
                new = torch.from_numpy(self._rows[known : len(self._pixels)])
                self._design = torch.cat([self._design, basis.design(new)], 1)
            if np.array_equal(order, self._pixels):
                return self._design
            wanted = np.flatnonzero(np.isin(self._pixels, order, assume_unique=True))
            if np.array_equal(order, self._pixels[wanted]):
                # Ten times faster than by a mask.
                return self._design.index_select(1, torch.from_numpy(wanted))
        # Another thread has let some of them go since.
        rows = self.features.sample(*np.divmod(order, self.features.shape[2]))
        return basis.design(torch.from_numpy(rows))

    def background(
        self, count: int, should_stop: Callable[[], bool] | None = None
    ) -> NDArray[np.float32]:
        """Return the feature vectors of the first pixels of `background_pixels`.

        Parameters
        ----------
        count : int
        should_stop : callable, optional
            Asked between blocks of pixels.

        Returns
        -------
        (M, C) float32 array
            `count` of them, or all of a small image. They are read once, and are no
            numbers where features are none.

        Raises
        ------
        Cancelled
            If `should_stop` said so; what was read by then is kept.
        """
        with self._lock:
            pixels = background_pixels(self.features.shape[1:], count)
            while (known := len(self._survey)) < len(pixels):
                stop_fit_if(should_stop)
                # All over the image, at once they would need most of its tokens.
                block = pixels[known : known + SURVEY_BLOCK]
                rows = self.features.sample(*np.divmod(block, self.features.shape[2]))
                self._survey = np.concatenate([self._survey, rows])
            return self._survey if known == count else self._survey[:count]

    def _append(self, pixels: NDArray[np.int64]) -> None:
        """Read pixels; rows that were handed out stay where they are, unchanged."""
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
    bad = len(table) - int(finite_rows(table).sum())
    if bad:
        raise ValueError(
            f"features: {bad} of {len(table)} labelled pixels have NaN or infinite "
            "features; the backbone's weights may be damaged"
        )


def fingerprint(labels: Iterable[NDArray[Any]], pixels: Iterable[NDArray[Any]]) -> str:
    """Digest of label images that does not depend on their integer type."""
    total = hashlib.sha256()
    for array, at in zip(labels, pixels, strict=True):
        total.update(repr(array.shape).encode())
        total.update(at.astype("<i8").tobytes())
        total.update(array.ravel()[at].astype("<i8").tobytes())
    return total.hexdigest()
