"""Clusters, colours and coordinates of features, found without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from napari_hrdv2.core.checks import check_whole, checked_mask, one_each
from napari_hrdv2.core.features.tiles import LinearModel, checked_region, paste

from .background import PLAIN_WHITENING, PCACoordinates, read_background

if TYPE_CHECKING:
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features

Masks = Sequence[NDArray[np.bool_] | None] | None

RESTARTS = 5
SEEN = (2, 98)  # percentiles of a component that become 0 and 255
LEAST_SPAN = 1e-4  # deviations of a channel: what varies less is rounding


@dataclass(frozen=True, eq=False)
class PlainCoordinates:
    """The classifier's coordinates of images on which nothing is painted.

    `rows` is their background sample, (M, C); the images share its pixels, as in a fit.
    """

    coordinates: PCACoordinates
    rows: NDArray[np.float32]

    @classmethod
    def of(
        cls, features: Features | Sequence[Features], exclusion: Masks = None
    ) -> Self:
        """Return those of one or more images, outside of the exclusion mask of each."""
        many = list(features) if isinstance(features, Sequence) else [features]
        masks = one_each("exclusion", exclusion, len(many))
        if len(channels := {one.shape[0] for one in many}) != 1:
            raise ValueError(
                f"features: of {sorted(channels)} channels; images that are looked at "
                "together must be of one kind, all grey or all in colour"
            )
        parts = []
        for one, given in zip(many, masks, strict=True):
            mask = checked_mask(given, one.shape[1:])
            parts.append(read_background(one, mask, images=len(many))[1])
        rows = np.concatenate(parts)
        if not len(rows):
            raise ValueError(
                "features: all pixels are excluded or NaN; exclude less of the image"
            )
        weights = many[0].channel_weights
        return cls(PCACoordinates.of(torch.from_numpy(rows), weights), rows)

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the coordinates of (N, C) feature vectors, (N, k)."""
        inner = self.coordinates(torch.from_numpy(rows))[:-1].T.numpy()
        return np.asarray(inner * self._stretch)

    def model_of(
        self, directions: NDArray[Any], offsets: NDArray[Any] | float = 0
    ) -> LinearModel:
        """Return what ``directions @ point + offsets`` is for features as they are."""
        column = np.broadcast_to(np.asarray(offsets), len(directions))[:, None]
        solution = np.concatenate([directions * self._stretch, column], 1)
        return self.coordinates.model_of(torch.from_numpy(solution.astype(np.float32)))

    @property
    def _stretch(self) -> NDArray[np.float32]:
        """Fine distinctions count a little more than their variance, as in a fit."""
        return self.coordinates.variances.pow(-PLAIN_WHITENING / 2).numpy()


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

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.model.bias)

    def nearest(self, rows: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the cluster of each of (N, C) feature vectors."""
        table = torch.from_numpy(rows) @ self.model.weight.T + self.model.bias
        return np.asarray(table.argmax(1), np.intp)

    def predict(
        self, features: Features, *, first: int = 0, should_stop: Stop = None
    ) -> NDArray[Any]:
        """Return the cluster of every pixel, (H, W), numbered from the first on."""
        ids = range(first, first + self.count)
        return features.argmax(*self.model, [*ids], should_stop=should_stop)


def find_clusters(
    features: Features | Sequence[Features],
    count: int,
    *,
    seed: int = 0,
    exclusion: Masks = None,
) -> Clusters:
    """Return clusters of one or more images: k-means in the classifier's coordinates.

    Parameters
    ----------
    features : Features, or a sequence of them
        The images share the background sample, as in a fit, and the clusters: an id
        means the same in all.
    count : int
        How many; fewer where the images have fewer distinct pixels.
    seed : int
        Of the centres that k-means starts from; the same one gives the same clusters.
    exclusion : sequence of (H, W) array of bool or None, optional
        For each image where nothing of interest is.
    """
    from sklearn.cluster import KMeans

    check_whole("count", count)
    space = PlainCoordinates.of(features, exclusion)
    points = space(space.rows)  # (M, k)
    count = min(count, len(np.unique(points, axis=0)))
    means = KMeans(count, n_init=RESTARTS, random_state=seed).fit(points)
    centres = means.cluster_centers_.astype(np.float64)
    shares = np.bincount(means.labels_, minlength=count) / len(points)
    model = space.model_of(centres, -0.5 * (centres**2).sum(1))
    return Clusters(model, centres, shares)


@dataclass(frozen=True, eq=False)
class PrincipalColors:
    """The first principal components as red, green and blue, linear in the features."""

    model: LinearModel  # from 0 to 1 within the percentiles `SEEN`

    def paint(
        self, features: Features, *, should_stop: Stop = None
    ) -> NDArray[np.uint8]:
        """Return an image in these colours, (H, W, 3); black where it is NaN."""
        area = checked_region(None, features.shape[1:])
        output = np.empty((3, *area.shape), np.uint8)
        for tile, block in features.planes(self.model, area, should_stop):
            levels = (255 * block + 0.5).nan_to_num(0).clamp(0, 255).to(torch.uint8)
            paste(output, tile, levels.movedim(1, 0).cpu().numpy(), area)
        return np.ascontiguousarray(np.moveaxis(output, 0, -1))


def principal_colors(
    features: Features | Sequence[Features], *, exclusion: Masks = None
) -> PrincipalColors:
    """Return colours in which alike pixels of one or more images are alike.

    Axes and scaling are joint: a colour means the same in all of them. A component that
    does not vary is half of its colour everywhere. Arguments as for `find_clusters`.
    """
    space = PlainCoordinates.of(features, exclusion)
    directions = space.coordinates.directions.numpy()
    strongest = abs(directions).argmax(0)
    signs = np.sign(directions[strongest, range(len(strongest))])  # else by chance
    low, high = np.percentile((space(space.rows) * signs)[:, :3], SEEN, axis=0)
    weight, offsets = np.zeros((3, len(signs))), np.full(3, 0.5)
    for axis in np.flatnonzero(high - low > LEAST_SPAN):
        weight[axis, axis] = signs[axis] / (high[axis] - low[axis])
        offsets[axis] = -low[axis] / (high[axis] - low[axis])
    return PrincipalColors(space.model_of(weight, offsets))


def deepest_discs(
    labels: NDArray[Any], *, count: int = 8, radius: int = 4
) -> NDArray[Any]:
    """Return scribbles for (H, W) labels: discs deep within each label but 0.

    The first of them is where a label is deepest, the others are far from each other
    where it is at least half as deep, or two radii.

    >>> deepest_discs(np.ones((3, 5), np.uint8) * 7, count=1, radius=1).max(0).tolist()
    [7, 7, 0, 0, 0]
    """
    from scipy.ndimage import distance_transform_edt

    rows, columns = (np.arange(length) for length in labels.shape)
    drawn = np.zeros_like(labels)
    for label in np.unique(labels[labels != 0]):
        inside = labels == label
        whole = np.full(labels.shape, radius + 1.0)
        depth = whole if inside.all() else distance_transform_edt(inside)
        is_deep = depth >= min(2 * radius, depth.max() / 2)
        away = depth.copy()
        for number in range(count):
            row, column = np.unravel_index(away.argmax(), away.shape)
            if away[row, column] <= 0:
                break
            distance = np.hypot(rows[:, None] - row, columns - column)
            drawn[distance < min(radius + 0.5, depth[row, column])] = label
            away = np.minimum(away, distance) if number else distance * is_deep
    return drawn


def majority_names(confusion: NDArray[Any]) -> NDArray[np.intp]:
    """Return the class that most pixels of each cluster have, (clusters, classes)."""
    return np.asarray(confusion.argmax(1))


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
