"""Where a scribble tells the most: uncertain regions, the most uncertain first.

A pixel on the border of two classes is always uncertain, and painting there teaches
little. So uncertainty is averaged over discs: a border crosses a disc in a thin line, a
region that the classifier does not know fills it. All of it happens on a grid of cells
a third of the disc's radius wide, which takes a megapixel to a few thousand cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.base import Features

    Grid = NDArray[np.float64]

RADII_PER_IMAGE = 30  # of the shorter side
CELLS_PER_RADIUS = 3
NEAR = 3  # radii from a scribble within which a region is worth less
LEAST_SCORE = 0.01  # of the highest uncertainty: below, there is nothing to be learnt
PIXELS_READ = 64  # of a region, for its reason


@dataclass(frozen=True)
class UncertainRegion:
    """A region where a scribble would help.

    Attributes
    ----------
    row, column : int
        Its middle.
    radius : int
        In pixels.
    score : float
        0..1: the mean uncertainty in it, less if scribbles are near.
    reason : str
        Why it is proposed, for people.
    """

    row: int
    column: int
    radius: int
    score: float
    reason: str


def uncertain_regions(
    uncertainty: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    exclusion: ArrayLike | None = None,
    count: int = 20,
    radius: int | None = None,
    explain: Callable[[int, int, int], str] | None = None,
) -> list[UncertainRegion]:
    """Return regions that are uncertain all over, the best to paint in first.

    Parameters
    ----------
    uncertainty : (H, W) array of uint8, or of float in 0..1
        From `uncertainty_of` or `uncertainty`.
    labels : (H, W) array of int or bool, optional
        The scribbles so far, 0 where there are none. Regions near them count for less,
        so that the next one is a new one.
    exclusion : (H, W) array of bool, optional
        Pixels that are of no interest: they count as certain.
    count : int
        The most regions to return.
    radius : int, optional
        Of a region in pixels; by default a thirtieth of the shorter side. Regions are
        two radii apart at least.
    explain : callable, optional
        Gives the reason from row, column and radius; see `explained_by`.

    Returns
    -------
    list of UncertainRegion
        The highest score first; empty if nothing is uncertain.

    Raises
    ------
    TypeError, ValueError
        If an array is no such image, or count or radius are below 1.

    Examples
    --------
    >>> values = np.zeros((90, 120), np.float32)
    >>> values[20:40, 70:90] = 0.8
    >>> [(one.row, one.column) for one in uncertain_regions(values, count=1)]
    [(29, 79)]
    """
    values = _checked_uncertainty(uncertainty)
    for name, number in (("count", count), ("radius", radius)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: {number} is too few; at least 1 is needed")
    if exclusion is not None:
        values = np.where(
            _checked_mask("exclusion", exclusion, values.shape), 0, values
        )
    if radius is None:
        radius = max(1, min(values.shape) // RADII_PER_IMAGE)
    cell = max(1, radius // CELLS_PER_RADIUS)
    full = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
    score = _disc_means(_cell_means(values, cell) / full, radius / cell)
    if labels is not None:
        painted = _checked_mask("labels", labels, values.shape)
        score = score * _novelty(_cell_means(painted, cell) > 0, radius / cell)
    regions = []
    for row, column, value in _peaks(score, 2 * radius / cell, count):
        y, x = (
            min(index * cell + cell // 2, length - 1)
            for index, length in zip((row, column), values.shape, strict=True)
        )
        reason = f"{value:.0%} uncertain" if explain is None else explain(y, x, radius)
        regions.append(UncertainRegion(y, x, radius, value, reason))
    return regions


def explained_by(
    classifier: PixelClassifier, features: Features
) -> Callable[[int, int, int], str]:
    """Return what tells why a classifier is uncertain about a region.

    Parameters
    ----------
    classifier : PixelClassifier
        Its `class_names` are used where there are any.
    features : Features

    Returns
    -------
    callable
        From row, column and radius to a sentence such as "Class 1 or Class 2: 0.52
        against 0.46". The probabilities are means over pixels of it.
    """
    classifier.check_can_read(features)
    names = [
        classifier.class_names.get(each, f"Class {each}")
        for each in classifier.classes.tolist()
    ]

    def explain(row: int, column: int, radius: int) -> str:
        pixels = _pixels_of(row, column, radius, features.shape[1:])
        logits = features.sample(*pixels) @ classifier.weight.T + classifier.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        mean = (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
        first, second = np.argsort(-mean, kind="stable")[:2]
        return (
            f"{names[first]} or {names[second]}: {mean[first]:.2f} against "
            f"{mean[second]:.2f}"
        )

    return explain


def _pixels_of(
    row: int, column: int, radius: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pixels spread evenly over the disc, inside the image."""
    side = np.linspace(-radius, radius, round(PIXELS_READ**0.5))
    down, right = (
        np.rint(offset).astype(np.intp) for offset in np.meshgrid(side, side)
    )
    inside = down**2 + right**2 <= radius**2
    rows, columns = row + down[inside], column + right[inside]
    within = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    if not within.any():
        return np.array([row]), np.array([column])
    return rows[within], columns[within]


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


def _checked_mask(name: str, mask: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(mask)
    if array.shape != shape:
        raise ValueError(
            f"{name}: shape {array.shape} does not fit an uncertainty of shape {shape}"
        )
    return np.asarray(array != 0)


def _cell_means(image: NDArray[Any], cell: int) -> Grid:
    """Return the means of square cells; those at the far borders may be smaller."""
    starts = [np.arange(0, length, cell) for length in image.shape]
    sizes = [
        np.diff(edges, append=length)
        for edges, length in zip(starts, image.shape, strict=True)
    ]
    rows = np.add.reduceat(image, starts[0], axis=0, dtype=np.float64)
    return np.add.reduceat(rows, starts[1], axis=1) / np.outer(*sizes)


def _disc_means(cells: Grid, radius: float) -> Grid:
    """Return means over discs; what lies outside the image counts as certain.

    A region at the border would be seen in half only, and so counts for less.
    """
    from scipy.ndimage import convolve

    reach = np.arange(-int(radius), int(radius) + 1)
    disc = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float64)
    return np.asarray(convolve(cells, disc / disc.sum(), mode="constant"), np.float64)


def _novelty(painted: NDArray[np.bool_], radius: float) -> Grid:
    """Return a factor that grows from 0 on a scribble to 1 some radii away."""
    from scipy.ndimage import distance_transform_edt

    if not painted.any():
        return np.ones(painted.shape)
    away = np.asarray(distance_transform_edt(~painted), np.float64)
    return np.minimum(1, away / (NEAR * radius))


def _peaks(score: Grid, apart: float, count: int) -> list[tuple[int, int, float]]:
    """Return the highest cells, each clearing its surroundings; first among equals."""
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
