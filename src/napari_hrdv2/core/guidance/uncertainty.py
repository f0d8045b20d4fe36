"""How sure a classifier is of every pixel, and where a scribble tells the most.

A pixel on the border of two classes is always uncertain, and painting there teaches
little. So uncertainty is averaged over discs: a border crosses a disc in a thin line, a
region that the classifier does not know fills it. All of it happens on a grid of cells
a third of the disc's radius wide, which takes a megapixel to a few thousand cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from heapq import merge
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.checks import check_whole, checked_mask
from napari_hrdv2.core.features.tiles import LinearModel, Region, checked_region, paste

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features

Grid = NDArray[np.float64]

RADII_PER_IMAGE = 30  # of the shorter side
CELLS_PER_RADIUS = 3
NEAR = 3  # radii from a scribble within which a region is worth less
LEAST_SCORE = 0.01  # of the highest uncertainty: below, there is nothing to be learnt
PIXELS_READ = 64  # of a region, for its reason


def uncertainty_of(
    classifier: PixelClassifier,
    features: Features,
    *,
    region: Region | None = None,
    should_stop: Stop = None,
) -> NDArray[np.uint8]:
    """Return how undecided a classifier is between two classes at every pixel.

    That is 1 minus the difference of the two highest probabilities, (H, W) uint8 in
    255ths, rounded; they are never held at once for the whole image. `region` and
    `should_stop` are as for `PixelClassifier.predict`.
    """

    def uncertainty(logits: Tensor) -> Tensor:
        best = torch.zeros_like(logits[:, 0])  # the first class, against itself
        second = torch.full_like(best, -torch.inf)
        for plane in logits.unbind(1):
            torch.maximum(second, torch.minimum(best, plane), out=second)
            torch.maximum(best, plane, out=best)
        total = (-best).exp_()
        for plane in logits.unbind(1):
            total += plane.sub_(best).exp_()
        certainty = second.sub_(best).exp_().neg_().add_(1).div_(total)
        return certainty.neg_().add_(1)

    model = _against(classifier, features, 0)
    return bytes_of(uncertainty, features, model, region, should_stop)


def probability_of(
    classifier: PixelClassifier,
    features: Features,
    class_id: int,
    *,
    region: Region | None = None,
    should_stop: Stop = None,
) -> NDArray[np.uint8]:
    """Return how probable one class is at every pixel, (H, W) uint8 in 255ths, rounded.

    `region` and `should_stop` are as for `PixelClassifier.predict`.
    """
    known = classifier.classes.tolist()
    if known and class_id not in known:
        raise ValueError(
            f"class_id: {class_id} is none of the classifier's classes "
            f"{', '.join(map(str, known))}"
        )

    def probability(logits: Tensor) -> Tensor:
        total = torch.ones_like(logits[:, 0])
        for plane in logits.unbind(1):
            total += plane.exp_()
        return total.reciprocal_()

    model = _against(classifier, features, known.index(class_id) if known else 0)
    return bytes_of(probability, features, model, region, should_stop)


def _against(classifier: PixelClassifier, features: Features, one: int) -> LinearModel:
    """Return the other classes' logits minus those of one."""
    classifier.check_can_read(features)
    return features.linear_model(classifier.weight, classifier.bias).against(one)


def bytes_of(
    values_of: Callable[[Tensor], Tensor],
    features: Features,
    model: LinearModel,
    region: Region | None,
    should_stop: Stop,
) -> NDArray[np.uint8]:
    """Return `values_of` a model's (rows, K, columns) blocks as (H, W) uint8.

    The values are numbers from 0 to 1, and come in 255ths, rounded.
    """
    area = checked_region(region, features.shape[1:])
    output = np.empty(area.shape, np.uint8)
    for tile, block in features.planes(model, area, should_stop):
        values = values_of(block)
        if not torch.isfinite(values.sum()):
            raise ValueError(
                "features: some are NaN or infinite; the backbone's weights may be "
                "damaged"
            )
        rounded = values.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
        paste(output, tile, rounded.cpu().numpy(), area)
    return output


@dataclass(frozen=True)
class UncertainRegion:
    """A disc where a scribble would help, and why, for people.

    The score, 0..1, is the mean uncertainty in it, less if scribbles are near.
    """

    row: int
    column: int
    radius: int
    score: float
    reason: str


def uncertain_regions(
    uncertainty: ArrayLike,
    *,
    scribbles: ArrayLike | None = None,
    exclusion: ArrayLike | None = None,
    count: int = 20,
    radius: int | None = None,
    explain: Callable[[int, int, int], str] | None = None,
) -> list[UncertainRegion]:
    """Return regions that are uncertain all over, the best to paint in first.

    Parameters
    ----------
    uncertainty : (H, W) array of uint8, or of float in 0..1
        As from `uncertainty_of`.
    scribbles : (H, W) array of int or bool, optional
        0 where nothing is painted. Regions near scribbles count for less, so that the
        next one is a new one.
    exclusion : (H, W) array of bool, optional
        Pixels that are of no interest: they count as certain.
    count : int
        The most regions to return.
    radius : int, optional
        Of a region in pixels; by default a thirtieth of the shorter side. Regions are
        two radii apart at least.
    explain : callable, optional
        Gives the reason from row, column and radius; see `explained_by`.

    Examples
    --------
    >>> values = np.zeros((90, 120), np.float32)
    >>> values[20:40, 70:90] = 0.8
    >>> [(one.row, one.column) for one in uncertain_regions(values, count=1)]
    [(29, 79)]
    """
    from scipy.ndimage import distance_transform_edt

    values = _checked_uncertainty(uncertainty)
    if radius is None:
        radius = max(1, min(values.shape) // RADII_PER_IMAGE)
    for name, number in (("count", count), ("radius", radius)):
        check_whole(name, number)
    if (excluded := checked_mask(exclusion, values.shape)) is not None:
        values = np.where(excluded, 0, values)
    cell = max(1, radius // CELLS_PER_RADIUS)
    full = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
    score = _disc_means(_cell_means(values, cell) / full, radius / cell)
    painted = checked_mask(scribbles, values.shape, "scribbles")
    if painted is not None:  # a factor grows from 0 on a scribble to 1 some radii away
        away = distance_transform_edt(_cell_means(painted, cell) == 0)
        score = score * np.minimum(1, away / (NEAR * radius / cell))
    regions = []
    for row, column, value in _peaks(score, 2 * radius / cell, count):
        y = min(row * cell + cell // 2, values.shape[0] - 1)
        x = min(column * cell + cell // 2, values.shape[1] - 1)
        reason = f"{value:.0%} uncertain" if explain is None else explain(y, x, radius)
        regions.append(UncertainRegion(y, x, radius, value, reason))
    return regions


def regions_within(
    windows: Iterable[Region | None],
    classifier: PixelClassifier,
    features: Features,
    *,
    scribbles: NDArray[Any] | None = None,
    exclusion: NDArray[np.bool_] | None = None,
    count: int = 20,
    should_stop: Stop = None,
) -> list[UncertainRegion]:
    """Return the best regions of some windows of an image, explained.

    Each window is looked at alone, None is all; the rest is as for `uncertain_regions`.
    """
    found: list[list[UncertainRegion]] = []
    for window in windows:
        area = checked_region(window, features.shape[1:])
        top, left = area.rows.start, area.columns.start
        regions = uncertain_regions(
            uncertainty_of(classifier, features, region=area, should_stop=should_stop),
            scribbles=None if scribbles is None else scribbles[area],
            exclusion=None if exclusion is None else exclusion[area],
            count=count,
            explain=explained_by(classifier, features, region=area),
        )
        found.append(
            [replace(r, row=r.row + top, column=r.column + left) for r in regions]
        )
    return list(merge(*found, key=lambda one: -one.score))[:count]


def explained_by(
    classifier: PixelClassifier, features: Features, *, region: Region | None = None
) -> Callable[[int, int, int], str]:
    """Return what tells why a classifier is uncertain about a part of a region.

    It gives, from row, column and radius, a sentence such as "Class 1 or Class 2: 0.52
    against 0.46"; the probabilities are means over pixels of the part.
    """
    from scipy.special import softmax
    from skimage.draw import disk

    classifier.check_can_read(features)
    area = checked_region(region, features.shape[1:])
    names = [
        classifier.class_names.get(each, f"Class {each}")
        for each in classifier.classes.tolist()
    ]

    def explain(row: int, column: int, radius: int) -> str:
        pixels = disk((row, column), radius + 0.5, shape=area.shape)
        step = -(-len(pixels[0]) // PIXELS_READ)
        places = (p[::step] + side.start for p, side in zip(pixels, area, strict=True))
        rows = features.sample(*places)
        logits = rows @ classifier.weight.T + classifier.bias
        mean = softmax(logits, axis=1).mean(axis=0)
        first, second = np.argsort(-mean, kind="stable")[:2]
        odds = f"{mean[first]:.2f} against {mean[second]:.2f}"
        return f"{names[first]} or {names[second]}: {odds}"

    return explain


def _checked_uncertainty(uncertainty: ArrayLike) -> NDArray[Any]:
    values = np.asarray(uncertainty)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"uncertainty: shape {values.shape} is not (height, width)")
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        raise TypeError(
            f"uncertainty: dtype {values.dtype} is not understood; uint8, or float "
            "from 0 to 1, is needed"
        )
    if np.isnan(values).any():
        raise ValueError(
            "uncertainty: some pixels are NaN; numbers are needed everywhere, and "
            "exclusion= for pixels that are of no interest"
        )
    return values


def _cell_means(image: NDArray[Any], cell: int) -> Grid:
    """Return the means of square cells; those at the far borders may be smaller."""
    sums, sizes = image, []
    for axis, length in enumerate(image.shape):
        starts = np.arange(0, length, cell)
        sums = np.add.reduceat(sums, starts, axis, np.float64)
        sizes.append(np.diff(starts, append=length))
    return sums / np.outer(*sizes)


def _disc_means(cells: Grid, radius: float) -> Grid:
    """Return means over discs; outside the image, of which less is seen, is certain."""
    from scipy.ndimage import convolve

    reach = np.arange(-int(radius), int(radius) + 1)
    disc = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float64)
    return np.asarray(convolve(cells, disc / disc.sum(), mode="constant"), np.float64)


def _peaks(score: Grid, apart: float, count: int) -> list[tuple[int, int, float]]:
    """Return the highest cells, with none near a higher one; first among equals."""
    # Among equals the middle of a region, which is nearer to more of it.
    left = score + 1e-3 * _disc_means(score, apart)
    rows, columns = (np.arange(length) for length in score.shape)
    peaks: list[tuple[int, int, float]] = []
    while len(peaks) < count:
        row, column = map(int, np.unravel_index(left.argmax(), left.shape))
        if left[row, column] < 0 or score[row, column] < LEAST_SCORE:
            break
        peaks.append((row, column, float(score[row, column])))
        near = (rows[:, None] - row) ** 2 + (columns - column) ** 2 < apart**2
        left[near] = -1
    return peaks
