"""Places to name before anything is painted: those whose names tell the most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import check_whole, checked_mask, one_each
from napari_hrdv2.core.classifier.background import pixels_per_image
from napari_hrdv2.core.classifier.clusters import PlainCoordinates
from napari_hrdv2.core.errors import Stop, stop_if
from napari_hrdv2.core.features.sample_cache import finite_rows

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import LinearModel

RADIUS = 4  # px, of what is painted at a place
APART = 12  # px, between places
# The noise of a name, against the mean square of the coordinates, and the fraction of
# the variance within the disc that adds to it.
NOISE, UNEVEN = 0.02, 0.1
RARE = 0.5  # of an even share of the background sample; less is rare
SAME = 1e-9  # squared distance, of places that do not differ
AT_ONCE = 500  # discs that are read at once


@dataclass(frozen=True, eq=False)
class Place:
    """A small disc, for a person to name.

    Attributes
    ----------
    image, row, column : int
        Which of the images, counted from 0, and the pixel in the middle.
    share : float
        Fraction of the background sample that is more like it than like other places.
    is_rare : bool
        Whether that is less than half of an even share.
    pixels : (N,) int64 array
        Flat indices of the pixels that are what it is: those of the disc that are more
        like it than like other places, ascending.
    """

    image: int
    row: int
    column: int
    share: float
    is_rare: bool
    pixels: NDArray[np.int64]


def propose_places(
    features: Features | Sequence[Features],
    count: int = 16,
    *,
    exclusion: Sequence[ArrayLike | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Stop = None,
) -> list[Place]:
    """Return places whose names tell the most, those that tell more first.

    Parameters
    ----------
    features : Features, or a sequence of them
        Of one image or of several, which share the places.
    count : int
        How many; fewer where the images have no more that differ. Of more places, the
        first ones are the same.
    exclusion : sequence of (H, W) arrays of bool or None, optional
        For each image the pixels without a place. Those without a number have none
        anyway.
    progress : callable, optional
        Called with how much is done, and how much there is.
    should_stop : callable, optional
        Asked between images; `Cancelled` is raised when it says so.

    Notes
    -----
    This is sequential transductive experimental design [1]_. The candidates are the
    background sample, each the mean of a disc in the classifier's coordinates. In a
    Bayesian linear model with the classifier's prior, a name lowers the variance of
    what is predicted elsewhere, whatever it is. The next place is the candidate that
    lowers its sum over all candidates the most: one that many are like, or one that no
    place so far is like. An uneven disc counts as a noisy one.

    References
    ----------
    .. [1] K. Yu, J. Bi, V. Tresp, "Active learning via transductive experimental
       design", ICML 2006.
    """
    check_whole("count", count)
    many = list(features) if isinstance(features, Sequence) else [features]
    given = one_each("exclusion", exclusion, len(many))
    masks = [
        checked_mask(mask, one.shape[1:]) for mask, one in zip(given, many, strict=True)
    ]
    space = PlainCoordinates.of(many, masks)
    parts = []
    for number, (one, mask) in enumerate(zip(many, masks, strict=True)):
        pixels = one.background_pixels(pixels_per_image(len(many)))
        for some in one.apart(pixels, AT_ONCE):
            stop_if(should_stop, "the search for places")
            rows, columns = np.divmod(some, one.shape[2])
            points, has_place = _discs(one, mask, space, rows, columns)
            spots = np.stack([np.full(len(some), number), rows, columns], 1)
            found = spots, points[:, 0], points.mean(1), points.var(1).sum(1)
            parts.append([each[has_place] for each in found])
        if progress is not None:
            progress(number + 1, len(many))
    spots, own, means, spread = (np.concatenate(x) for x in zip(*parts, strict=True))
    chosen = _most_telling(means, spread, spots, count)
    centres = own[chosen]
    halves = -0.5 * (centres**2).sum(1)
    nearest = (own @ centres.T + halves).argmax(1)
    shares = np.bincount(nearest, minlength=len(chosen)) / len(own)
    model = space.model_of(centres, halves)
    return [
        Place(
            image,
            row,
            column,
            share,
            share < RARE / len(chosen),
            _like(many[image], masks[image], model, row, column),
        )
        for (image, row, column), share in zip(
            spots[chosen].tolist(), shares.tolist(), strict=True
        )
    ]


def _discs(
    features: Features,
    mask: NDArray[np.bool_] | None,
    space: PlainCoordinates,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (N, pixels, k) coordinates of discs, and which of them may be a place.

    The middle comes first; it stands for what can be no place, or is no image.
    """
    reach = range(-RADIUS, RADIUS + 1, 2)  # every second pixel is enough
    disc = [(y, x) for y in reach for x in reach if y * y + x * x <= RADIUS**2]
    down, across = np.array(sorted(disc, key=lambda at: at != (0, 0))).T
    near = features.at_hand(int(rows[0]), int(columns[0]))
    at = (
        np.clip(rows[:, None] + down, near.rows.start, near.rows.stop - 1),
        np.clip(columns[:, None] + across, near.columns.start, near.columns.stop - 1),
    )
    table = features.sample(at[0].ravel(), at[1].ravel())
    known = finite_rows(table).reshape(at[0].shape)
    points = space(table).reshape(*at[0].shape, -1).astype(np.float64)
    if mask is not None:
        known &= ~mask[at]
    return np.where(known[:, :, None], points, points[:, :1]), known[:, 0]


def _most_telling(
    means: NDArray[np.float64],
    spread: NDArray[np.float64],
    spots: NDArray[np.int64],
    count: int,
) -> list[int]:
    """Return which candidates lower the variance of all the most, one by one."""
    scale = (means**2).sum(1).mean() or 1
    points, noise = means / scale**0.5, NOISE + UNEVEN * spread / scale
    total = points.T @ points
    covariance = np.eye(points.shape[1])
    is_free = np.ones(len(points), bool)
    chosen: list[int] = []
    while len(chosen) < count and is_free.any():
        shared = points @ covariance
        variance = (shared * points).sum(1) + noise
        gain = ((shared @ total) * shared).sum(1) / variance
        best = int(np.where(is_free, gain, -1).argmax())
        chosen.append(best)
        covariance -= np.outer(shared[best], shared[best]) / variance[best]
        away = ((spots[:, 1:] - spots[best, 1:]) ** 2).sum(1)
        is_free &= (away >= APART**2) | (spots[:, 0] != spots[best, 0])
        is_free &= ((points - points[best]) ** 2).sum(1) > SAME
    return chosen


def _like(
    features: Features,
    mask: NDArray[np.bool_] | None,
    model: LinearModel,
    row: int,
    column: int,
) -> NDArray[np.int64]:
    """Return the pixels of a disc where the same of some functions is the largest."""
    near, width = features.at_hand(row, column), features.shape[2]
    rows, columns = (
        np.arange(max(at - RADIUS, side.start), min(at + RADIUS + 1, side.stop))
        for at, side in zip((row, column), near, strict=True)
    )
    region = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    labels = features.argmax(*model, region=region)
    same = labels == labels[row - rows[0], column - columns[0]]
    same &= (rows[:, None] - row) ** 2 + (columns - column) ** 2 <= RADIUS**2
    if mask is not None:
        same &= ~mask[region]
    return np.asarray((rows[:, None] * width + columns)[same], np.int64)
