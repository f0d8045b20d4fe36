"""What a classifier trains on: the labelled pixels of one or more images together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.classifier.thinning import thinned
from napari_hrdv2.core.errors import stop_fit_if

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.basis import Basis
    from napari_hrdv2.core.classifier.sample_cache import SampleCache


@dataclass(frozen=True)
class TrainingSamples:
    """Feature vectors with their classes, and how much each counts.

    Attributes
    ----------
    orders : tuple of (n,) int64 arrays
        Of each image, which pixels they are.
    rows : (N, C) float32 array
        The feature vectors, image after image.
    index : (N,) array of int
        The class of each, by its place in `classes`.
    weight : (N,) float32 array
    classes : (K,) int64 array
        The label ids, ascending.
    """

    orders: tuple[NDArray[np.int64], ...]
    rows: NDArray[np.float32]
    index: NDArray[np.intp]
    weight: NDArray[np.float32]
    classes: NDArray[np.int64]

    @classmethod
    def read(
        cls,
        caches: Sequence[SampleCache],
        labels: Sequence[NDArray[Any]],
        pixels: Sequence[NDArray[np.int64]],
        most_per_class: int | None,
        *,
        balanced: bool,
        should_stop: Callable[[], bool] | None = None,
    ) -> Self:
        """Read what trains of some images.

        Parameters
        ----------
        caches : sequence of SampleCache
        labels : sequence of (H, W) arrays of int
        pixels : sequence of (n,) int64 arrays
            Flat indices of all that are labelled.
        most_per_class : int or None
            As for `PixelClassifier`.
        balanced : bool
            Whether all classes weigh alike.
        should_stop : callable, optional
            Asked before each image is read.
        """
        orders, rows, ids, weights = [], [], [], []
        for cache, array, at in zip(caches, labels, pixels, strict=True):
            stop_fit_if(should_stop)
            chosen, counts = thinned(array, at, most_per_class)
            own, order = cache.rows(chosen)
            orders.append(order)
            rows.append(own)
            ids.append(array.ravel()[order].astype(np.int64))
            weights.append(counts[np.searchsorted(chosen, order)])
        classes, index = np.unique(np.concatenate(ids), return_inverse=True)
        weight = np.concatenate(weights)
        if balanced:
            totals = np.bincount(index, weight)
            weight *= (totals.sum() / (len(classes) * totals))[index]
        table = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return cls(tuple(orders), table, index, weight.astype(np.float32), classes)

    def design(self, caches: Sequence[SampleCache], basis: Basis) -> Tensor:
        """Return them in the coordinates of a basis, (k + 1, N); see `SampleCache`."""
        parts = [
            cache.design(order, basis)
            for cache, order in zip(caches, self.orders, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
