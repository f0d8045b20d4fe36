"""Phase fractions, and how far a single image lets one know them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import write_csv
from napari_hrdv2.core.checks import checked_labels, checked_mask

CELLS = 512  # along each side: larger images are summed to cells first
CONFIDENCE = 0.95
METHOD = (
    "half width of the 95 % interval for the fraction in the material, from the {}; "
    "errors of the segmentation are not in it"
)
ONE_IMAGE = "two-point correlation of this image"
MANY_IMAGES = "scatter between {} images (Student's t), weighted by area"

FRACTION_HEADERS = (
    "image",
    "class",
    "name",
    "fraction",
    "error (half width, 95 %)",
    "area (px²)",
    "area of all classes (px²)",
    "how the error was made",
)


@dataclass(frozen=True)
class PhaseFraction:
    """The fraction of the area that one class takes, in 0..1.

    The error is the half width of the 95 % interval. It is None for a class that is
    nowhere or everywhere: that says nothing about how the class is scattered.
    """

    class_id: int
    fraction: float
    error: float | None
    pixels: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that the error bar spans, cut to 0..1."""
        if self.error is None:
            return None
        low, high = self.fraction - self.error, self.fraction + self.error
        return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Fractions:
    """The phase fractions of one image, or of some together, in the order asked for.

    `pixels` is the area that they are fractions of, `method` how the error was made.
    """

    phases: tuple[PhaseFraction, ...]
    pixels: int
    method: str
    images: int = 1

    @property
    def errors(self) -> dict[int, float | None]:
        """The error of each class."""
        return {phase.class_id: phase.error for phase in self.phases}


def phase_fractions_with_error(
    labels: NDArray[np.integer[Any]],
    classes: Sequence[int],
    *,
    exclusion: NDArray[np.bool_] | None = None,
) -> Fractions:
    """Return the fraction of each class with an error bar.

    Parameters
    ----------
    labels : (H, W) integer array
        Label ids; pixels of 0 are no part of the area.
    classes : sequence of int
        The ids to report; one that does not occur has the fraction 0.
    exclusion : (H, W) bool array, optional
        Pixels that are no part of the area either.

    Notes
    -----
    Neighbouring pixels are alike, so N pixels tell less than N independent ones. The
    variance of a fraction p of the area Ω is [1]_

        v = 1/N² Σ_h n(h) C(h)

    with the covariance C(h) of the class at two pixels that are h apart, and the
    number n(h) of such pairs in Ω. C is taken from the image up to the distance R where
    the radial mean of it first falls to 0. As deviations are from the image's own mean,
    the measured Ĉ is too low by about v itself, and

        v = S / (1 − W),   S = 1/N² Σ_{|h|<R} n(h) Ĉ(h),   W = 1/N² Σ_{|h|<R} n(h).

    The image tells as much as p (1 − p) / v independent draws [2]_. The error is the
    quantile of Student's t with one degree of freedom less, times √v.

    References
    ----------
    .. [1] T. Kanit et al., "Determination of the size of the representative volume
       element for random composites", Int. J. Solids and Structures 40, 2003, eq. 16.
    .. [2] A. Dahari et al., "Prediction of microstructural representativity from a
       single image", 2024: the same idea, calibrated on simulations.
    """
    labels = checked_labels(labels)
    mask = checked_mask(exclusion, labels.shape)
    counter = FractionCounter(labels.shape, classes)
    counter.add(labels if mask is None else np.where(mask, 0, labels))
    return counter.fractions()


class FractionCounter:
    """Counts the pixels of each class, window by window, to the fractions of an image.

    In any order, and with the same result as `phase_fractions_with_error` of the whole.
    """

    def __init__(self, shape: tuple[int, ...], classes: Sequence[int]) -> None:
        ids = [int(one) for one in classes]
        if not ids or min(ids) < 1 or len(set(ids)) < len(ids):
            raise ValueError(
                f"classes: {ids} are not different label ids from 1, one or more"
            )
        self._shape, self._cell = shape, math.ceil(max(shape) / CELLS)
        cells = tuple(-(-length // self._cell) for length in shape)
        self._area = np.zeros(cells, np.int64)
        self._counts = {one: np.zeros(cells, np.int64) for one in ids}

    def add(self, labels: NDArray[Any], window: Any = (slice(None),) * 2) -> None:
        """Count the labels in a window, two slices; pixels of 0 are no area."""
        place, edges = [], []
        for part, length in zip(window, self._shape, strict=True):
            start, stop, _ = part.indices(length)
            cells = slice(start // self._cell, -(-stop // self._cell))
            place.append(cells)
            borders = np.arange(cells.start, cells.stop) * self._cell
            edges.append(np.maximum(borders - start, 0))
        at = tuple(place)

        def count(mask: NDArray[np.bool_]) -> Any:
            across = np.add.reduceat(mask, edges[1], axis=1, dtype=np.int64)
            return np.add.reduceat(across, edges[0], axis=0)

        self._area[at] += count(labels != 0)
        for one, counts in self._counts.items():
            counts[at] += count(labels == one)

    def fractions(self) -> Fractions:
        """Return the fractions of what was counted, with error bars."""
        total = int(self._area.sum())
        if not total:
            raise ValueError(
                "labels: no pixel is left to measure; all are 0 or excluded"
            )
        pairs, phases = _per_lag(self._area), []
        for one, counts in self._counts.items():
            count = int(counts.sum())
            fraction = count / total
            is_part = 0 < count < total
            error = _error(counts, fraction, self._area, pairs) if is_part else None
            phases.append(PhaseFraction(one, fraction, error, count))
        return Fractions(tuple(phases), total, METHOD.format(ONE_IMAGE))


def combined_fractions(
    images: Sequence[Fractions], *, areas: Sequence[float] | None = None
) -> Fractions:
    """Return the fractions of all images together, weighted by their area.

    From two images on the error bar is made from the scatter between them, as of a
    ratio estimate. Two images of one field that overlap are not two.

    Parameters
    ----------
    images : sequence of Fractions
        Of single images, all of the same classes in the same order.
    areas : sequence of float, optional
        Of each image, where their pixels differ in size; by default the number of its
        pixels.
    """
    if not images:
        raise ValueError("images: there are none; give the fractions of one or more")
    ids = [[phase.class_id for phase in image.phases] for image in images]
    if any(other != ids[0] for other in ids):
        raise ValueError(
            f"images: their classes differ, {ids[0]} and "
            f"{next(other for other in ids if other != ids[0])}; measure all for the "
            "same classes"
        )
    if len(images) == 1:
        return images[0]
    given = [image.pixels for image in images] if areas is None else areas
    weights = np.asarray(given, np.float64)
    if weights.shape != (len(images),) or not (weights > 0).all():
        raise ValueError(
            f"areas: {list(given)} are not the areas of {len(images)} images; one "
            "number above 0 for each is needed"
        )
    weights = weights / weights.sum()
    each = np.array([[phase.fraction for phase in image.phases] for image in images])
    means = weights @ each
    count = len(images)
    variance = count / (count - 1) * (weights**2 @ (each - means) ** 2)
    errors = student(count - 1) * np.sqrt(variance)
    pixels = np.sum([[phase.pixels for phase in one.phases] for one in images], axis=0)
    columns = ids[0], means.tolist(), errors.tolist(), pixels.tolist()
    phases = tuple(PhaseFraction(*one) for one in zip(*columns, strict=True))
    total = sum(image.pixels for image in images)
    method = METHOD.format(MANY_IMAGES.format(count))
    return Fractions(phases, total, method, count)


def write_fractions_csv(
    path: str | os.PathLike[str],
    images: Mapping[str, Fractions],
    *,
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write the phase fractions of images, a line for each class of each.

    Parameters
    ----------
    path : path-like
    images : mapping of str to Fractions
        By what to call the image; what `combined_fractions` gives may be among them.
    class_names : mapping of int to str, optional
        By label id.
    """
    names = class_names or {}
    rows = [
        (
            image,
            phase.class_id,
            names.get(phase.class_id, f"class {phase.class_id}"),
            phase.fraction,
            phase.error,
            phase.pixels,
            fractions.pixels,
            fractions.method,
        )
        for image, fractions in images.items()
        for phase in fractions.phases
    ]
    write_csv(path, FRACTION_HEADERS, rows)


def student(degrees: float) -> float:
    """Return the quantile of Student's t of a two-sided 95 % interval."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def _error(
    phase: NDArray[np.int64],
    fraction: float,
    area: NDArray[np.int64],
    pairs: NDArray[np.float64],
) -> float:
    """Return the half width of the interval for a fraction in 0..1."""
    total = float(area.sum())
    products = _per_lag(phase - fraction * area)
    end = np.flatnonzero(np.append(products, 0) <= 0)[0]
    spread = products[:end].sum() / total**2
    seen = min(pairs[:end].sum() / total**2, 0.5)
    even = fraction * (1 - fraction)
    variance = min(spread / (1 - seen), even)
    # Below 2 draws, t would be beyond all bounds.
    draws = max(even / variance, 2.0)
    return student(draws - 1) * math.sqrt(variance)


def _per_lag(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of x(i) x(i + h) over all lags h of each whole length from 0."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    shape = [next_fast_len(2 * length - 1, real=True) for length in values.shape]
    products = irfft2(np.abs(rfft2(values.astype(np.float64), shape)) ** 2, shape)
    # Of lags of more than half the image there are few pairs.
    farthest = max(1, min(values.shape) // 2)
    return np.asarray(np.bincount(_lags(products.shape), products.ravel())[:farthest])


@lru_cache(maxsize=1)  # asked for again for each class, and after every scribble
def _lags(shape: tuple[int, ...]) -> NDArray[np.intp]:
    rows, columns = (np.fft.fftfreq(n, 1 / n) for n in shape)
    return np.asarray(np.rint(np.hypot(rows[:, None], columns)).ravel(), np.intp)
