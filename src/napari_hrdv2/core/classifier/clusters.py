"""Clusters of features, found without labels, and names for them from a truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_hrdv2.core.features.sample_cache import background_pixels, finite_rows

from .background import PLAIN_WHITENING, PCACoordinates, pixels_per_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import LinearModel

RESTARTS = 5


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of k-means, as the linear model whose largest value is the nearest.

    Of a point x and the centres c, ``|x - c|²`` is smallest where ``c · x - |c|² / 2``
    is largest, so that an image is divided without its feature map being made. The
    (count, k) `centres` are in the classifier's coordinates; `shares` are those of the
    background sample.
    """

    model: LinearModel
    centres: NDArray[np.float64]
    shares: NDArray[np.float64]

    def nearest(self, rows: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the cluster of each of (N, C) feature vectors."""
        table = torch.from_numpy(rows) @ self.model.weight.T + self.model.bias
        return np.asarray(table.argmax(1), np.intp)

    def predict(self, features: Features) -> NDArray[Any]:
        """Return the cluster of every pixel, (H, W), 0 … count - 1."""
        return features.argmax(self.model.weight, self.model.bias)


def find_clusters(
    features: Features | Sequence[Features],
    count: int,
    *,
    exclusion: Sequence[NDArray[np.bool_] | None] | None = None,
    seed: int = 0,
) -> Clusters:
    """Return clusters of one or more images: k-means in the classifier's coordinates.

    Parameters
    ----------
    features : Features, or a sequence of them
        The images share the background sample, as in a fit.
    count : int
        How many; fewer where the images have fewer distinct pixels.
    exclusion : sequence of (H, W) arrays of bool or None, optional
        For each image the pixels that are of no interest.
    seed : int
        Of the centres that k-means starts from; the same one gives the same clusters.
    """
    from sklearn.cluster import KMeans

    many = list(features) if isinstance(features, Sequence) else [features]
    share = pixels_per_image(len(many))
    parts = []
    for one, mask in zip(many, exclusion or [None] * len(many), strict=True):
        part = one.samples.background(share)
        keep = finite_rows(part)
        if mask is not None:
            keep &= ~mask.ravel()[background_pixels(mask.shape, share)]
        parts.append(part[keep])
    rows = torch.from_numpy(np.concatenate(parts))
    if not len(rows):
        raise ValueError(
            "features: none of the background sample is a number outside of the "
            "exclusion mask; exclude less"
        )
    coordinates = PCACoordinates.of(rows, many[0].channel_weights)
    # Fine distinctions count a little more than their variance, as in a plain fit.
    stretch = coordinates.variances.pow(-PLAIN_WHITENING / 2).numpy()
    points = coordinates(rows)[:-1].T.numpy() * stretch  # (M, k)
    count = min(count, len(np.unique(points, axis=0)))
    means = KMeans(count, n_init=RESTARTS, random_state=seed).fit(points)
    centres = means.cluster_centers_.astype(np.float64)
    offsets = -0.5 * (centres**2).sum(1, keepdims=True)
    solution = np.concatenate([centres * stretch, offsets], 1).astype(np.float32)
    shares = np.bincount(means.labels_, minlength=count) / len(points)
    return Clusters(coordinates.model_of(torch.from_numpy(solution)), centres, shares)


def majority_names(confusion: NDArray[Any]) -> NDArray[np.intp]:
    """Return for each cluster the class that most of its pixels have.

    `confusion` is (clusters, classes), in pixels. The greedy matching that many
    clusters to few classes is scored with.
    """
    names: NDArray[np.intp] = confusion.argmax(1)
    return names


def hungarian_names(confusion: NDArray[Any]) -> NDArray[np.intp]:
    """Return the one class of each cluster for which the IoUs have the largest sum.

    Clusters beyond the number of classes have none, -1. `confusion` is
    (clusters, classes), in pixels.

    >>> hungarian_names(np.array([[9, 5], [8, 0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    total = confusion.sum(1, keepdims=True) + confusion.sum(0) - confusion
    rows, columns = linear_sum_assignment(-confusion / np.maximum(total, 1))
    names = np.full(len(confusion), -1)
    names[rows] = columns
    return names
