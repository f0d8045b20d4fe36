"""Clusters of features, found without labels, and names for them from a truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_hrdv2.core.features.sample_cache import finite_rows

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
    is largest, so that an image is divided without its feature map being made.
    """

    model: LinearModel

    def predict(self, features: Features) -> NDArray[Any]:
        """Return the cluster of every pixel, (H, W), 0 … count - 1."""
        return features.argmax(self.model.weight, self.model.bias)


def find_clusters(
    features: Features | Sequence[Features], count: int, *, seed: int = 0
) -> Clusters:
    """Return clusters of one or more images: k-means in the classifier's coordinates.

    Parameters
    ----------
    features : Features, or a sequence of them
        The images share the background sample, as in a fit.
    count : int
        How many; fewer where the images have fewer distinct pixels.
    seed : int
        Of the centres that k-means starts from; the same one gives the same clusters.
    """
    from sklearn.cluster import KMeans

    many = list(features) if isinstance(features, Sequence) else [features]
    share = pixels_per_image(len(many))
    table = np.concatenate([one.samples.background(share) for one in many])
    rows = torch.from_numpy(table[finite_rows(table)])
    coordinates = PCACoordinates.of(rows, many[0].channel_weights)
    # Fine distinctions count a little more than their variance, as in a plain fit.
    stretch = coordinates.variances.pow(-PLAIN_WHITENING / 2).numpy()
    points = coordinates(rows)[:-1].T.numpy() * stretch  # (M, k)
    count = min(count, len(np.unique(points, axis=0)))
    means = KMeans(count, n_init=RESTARTS, random_state=seed).fit(points)
    centres = means.cluster_centers_.astype(np.float64)
    offsets = -0.5 * (centres**2).sum(1, keepdims=True)
    solution = np.concatenate([centres * stretch, offsets], 1).astype(np.float32)
    return Clusters(coordinates.model_of(torch.from_numpy(solution)))


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
