"""Where an image is unlike anything that was painted, whatever the classifier says.

A linear classifier is sure far from everything that it was shown. How far a pixel is
from the painted ones, against how far these are from each other, says where.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from napari_hrdv2.core.classifier.clusters import PlainCoordinates
from napari_hrdv2.core.classifier.samples import (
    LabelledImage,
    cells_of,
    labelled_images,
    training_pixels,
)
from napari_hrdv2.core.features.tiles import LinearModel, checked_region, paste

from .label_issues import scribbles_of
from .uncertainty import as_bytes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from napari_hrdv2.core.classifier.clusters import Masks
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import Region

DIRECTIONS = 12  # of largest variance: the others are noise to a distance
POINTS = 64  # painted pixels of a class, from all of its scribbles
NEIGHBOURS = 5  # the distance is that to the fifth nearest of them
QUANTILE = 0.95  # of painted pixels, each without its scribble, are nearer
LIKE = 127  # in 255ths, the most that is still like what is painted
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Painted:
    """What was painted: some of its pixels as (N, k) `points`, and what is far of them.

    `model` is what takes feature vectors to points.
    """

    model: LinearModel
    points: Tensor
    threshold: float

    @classmethod
    def of(
        cls,
        features: Sequence[Features],
        labels: Sequence[ArrayLike],
        exclusion: Masks = None,
    ) -> Self:
        """Return it of some images; labels are 0 where nothing is painted.

        Notes
        -----
        Points are along the first principal directions of the images' background
        sample. The distance to the `NEIGHBOURS`-th nearest point [1]_ is far where it
        is more than for `QUANTILE` of the points themselves, each judged without the
        points of its own scribble. Of a class with one scribble, which no other stands
        for, places of 16 px are judged instead: less is then like what is painted.

        References
        ----------
        .. [1] S. Ramaswamy, R. Rastogi, K. Shim, "Efficient algorithms for mining
           outliers from large data sets", SIGMOD 2000.
        """
        images = labelled_images(list(features), labels, exclusion)
        space = PlainCoordinates.of(features, exclusion).coordinates
        count = min(DIRECTIONS, len(space.variances))
        model = space.model_of(torch.eye(count, len(space.variances) + 1))
        chosen = _some_painted(images)
        rows = [
            one.sample(*np.divmod(chosen[chosen[:, 0] == number, 1], one.shape[2]))
            for number, one in enumerate(features)
        ]
        points = torch.from_numpy(np.concatenate(rows)) @ model.weight.T + model.bias
        return cls(model, points, _threshold(points, chosen[:, 2:]))

    def unlikeness(
        self,
        features: Features,
        *,
        region: Region | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> NDArray[np.uint8]:
        """Return how unlike what was painted each pixel is, (H, W) uint8.

        For a distance d and the threshold t that is d / (d + t) in 255ths: more than
        `LIKE` is unlike. `region` and `should_stop` are as for
        `PixelClassifier.predict`.
        """
        area = checked_region(region, features.shape[1:])
        output = np.empty(area.shape, np.uint8)
        for tile, block in features.planes(self.model, area, should_stop):
            away = torch.stack(  # row by row, whose distances stay in the processor
                [_nth(torch.cdist(row.T, self.points)) for row in block.cpu()]
            )
            paste(output, tile, as_bytes(away / (away + self.threshold)), area)
        return output


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
    """Return what is far of points, each judged without those of its scribble."""
    away = torch.cdist(points, points)
    away[torch.from_numpy((owners[:, None] == owners).all(2))] = torch.inf
    found = _nth(away)
    found = found[torch.isfinite(found)]
    return max(float(found.quantile(QUANTILE)) if len(found) else 0.0, _LEAST)
