"""Where an image is unlike anything that was painted, whatever the classifier says.

A linear classifier is sure far from everything that it was shown. How far a pixel is
from the painted ones, against how far these are from each other, says where.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.classifier.clusters import Masks, PlainCoordinates
from napari_hrdv2.core.classifier.file import PaintedPoints
from napari_hrdv2.core.classifier.samples import (
    LabelledImage,
    cells_of,
    labelled_images,
    training_pixels,
)

from .label_issues import scribbles_of
from .uncertainty import bytes_of

if TYPE_CHECKING:
    from torch import Tensor

    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import Region

DIRECTIONS = 12  # of largest variance: the others are noise to a distance
POINTS = 64  # painted pixels of a class, from all of its scribbles
NEIGHBOURS = 5  # the distance is that to the fifth nearest of them
QUANTILE = 0.95  # of painted pixels, each without its scribble, are nearer
LIKE = 127  # in 255ths, the most that is still like what is painted
_LEAST = 1e-6


def unlikeness_of(
    features: Features,
    painted: Sequence[Features],
    labels: Sequence[ArrayLike],
    exclusion: Masks = None,
    *,
    region: Region | None = None,
    should_stop: Stop = None,
) -> NDArray[np.uint8]:
    """Return how unlike what was painted on some images each pixel is, (H, W) uint8.

    For a distance d and its threshold t that is d / (d + t) in 255ths: more than `LIKE`
    is unlike. Labels are 0 where nothing is painted; `region` and `should_stop` are as
    for `PixelClassifier.predict`.

    Notes
    -----
    The distance is that to the `NEIGHBOURS`-th nearest of some painted pixels [1]_,
    along the first principal directions of the images' background sample. For
    `QUANTILE` of these pixels it is less than the threshold, each measured by others of
    its class, without its own scribble, or its place of 16 px where there is only one.

    References
    ----------
    .. [1] S. Ramaswamy, R. Rastogi, K. Shim, "Efficient algorithms for mining outliers
       from large data sets", SIGMOD 2000.
    """
    points = painted_points(painted, labels, exclusion)
    return unlikeness_to(points, features, region=region, should_stop=should_stop)


def painted_points(
    painted: Sequence[Features], labels: Sequence[ArrayLike], exclusion: Masks = None
) -> PaintedPoints:
    """Return what `unlikeness_of` compares with; arguments as there."""
    images = labelled_images(list(painted), labels, exclusion)
    chosen = _some_painted(images)
    space = PlainCoordinates.of(painted, exclusion).coordinates
    variances = len(space.variances)
    model = space.model_of(torch.eye(min(DIRECTIONS, variances), variances + 1))
    rows = []
    for number, one in enumerate(images):
        known, order = one.features.samples.rows(training_pixels(one.labels))
        at = np.argsort(order)
        some = np.searchsorted(order, chosen[chosen[:, 0] == number, 1], sorter=at)
        rows.append(known[at[some]])
    points = torch.from_numpy(np.concatenate(rows)) @ model.weight.T + model.bias
    threshold = np.array([_threshold(points, chosen[:, 2:])], np.float32)
    weight, bias, near = (each.numpy() for each in (*model, points))
    return PaintedPoints(weight, bias, near, threshold)


def unlikeness_to(
    points: PaintedPoints,
    features: Features,
    *,
    region: Region | None = None,
    should_stop: Stop = None,
) -> NDArray[np.uint8]:
    """Return `unlikeness_of` what was painted on images that may be gone."""
    model = features.linear_model(points.directions, points.offsets)
    near, threshold = torch.from_numpy(points.points), float(points.threshold[0])

    def unlikeness(block: Tensor) -> Tensor:
        # Row by row, whose distances stay in the processor.
        away = torch.stack([_nth(torch.cdist(row.T, near)) for row in block.cpu()])
        return away / (away + threshold)

    return bytes_of(unlikeness, features, model, region, should_stop)


def _some_painted(images: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """Return image, pixel, class and scribble of some that train, image after image."""
    found: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    for number, one in enumerate(images):
        known = training_pixels(one.labels)
        for class_id, pixels in scribbles_of(one.labels):
            some, own = np.intersect1d(pixels, known), found[class_id]
            about = np.broadcast_arrays(number, some, class_id, len(own))
            own.append(np.stack(about, 1))  # (n, 4)
    if not found:
        raise ValueError("labels: no pixel is labelled; paint a scribble first")
    chosen = []
    for scribbles in found.values():
        table = np.concatenate(scribbles)
        if len(scribbles) == 1:
            table[:, 3], _ = cells_of(table[:, 1], images[table[0, 0]].labels.shape)
        step = np.linspace(0, len(table) - 1, min(POINTS, len(table)))
        chosen.append(table[step.astype(int)])
    every = np.concatenate(chosen)
    return every[np.argsort(every[:, 0], kind="stable")]


def _nth(away: Tensor) -> Tensor:
    """Return the `NEIGHBOURS`-th smallest of each row of (N, points) distances."""
    place = min(NEIGHBOURS, away.shape[1]) - 1
    # Several times faster than torch's kthvalue and topk.
    return torch.from_numpy(np.partition(away.numpy(), place, axis=1)[:, place])


def _threshold(points: Tensor, owners: NDArray[np.int64]) -> float:
    """Return what is far of points; `owners` are the class and scribble of each."""
    away = torch.cdist(points, points)
    is_class, is_scribble = np.moveaxis(owners[:, None] == owners, 2, 0)
    judged = away.masked_fill(torch.from_numpy(~is_class | is_scribble), torch.inf)
    found = _nth(judged)
    if torch.isinf(found).all():  # one place a class
        found = _nth(away)
    return max(float(found[torch.isfinite(found)].quantile(QUANTILE)), _LEAST)
