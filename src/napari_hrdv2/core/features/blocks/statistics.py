"""What is known of all of an image before any part is worked on, from one pass over it.

A block that took its own range of grey levels, or its own mean and deviation, would not
fit its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_hrdv2.core.checks import (
    LEVELS,
    NO_LEVEL,
    missing_pixels,
    prepare_image,
    prepared_part,
)
from napari_hrdv2.core.features.tiles import Tile, runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 1024  # px along a side that are read at once

Padding = tuple[int, int]
"""Rows and columns by which an image is mirrored to whole patches."""


class ImageLike(Protocol):
    """What can be read in parts: an array of numpy, zarr or dask, or a memmap."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3|4)."""

    @property
    def dtype(self) -> Any:
        """Of the grey levels."""

    def __getitem__(self, key: Any) -> Any:
        """Return a part."""


@dataclass(frozen=True)
class Statistics:
    """What every part of an image is prepared with.

    `levels` are the mean and the deviation of the prepared pixels, in 0..1, by how far
    the image is padded; `fill` is what stands where pixels are missing.
    """

    value_range: tuple[float, float]
    levels: dict[Padding, tuple[float, float]]
    fill: NDArray[Any] | None

    def prepared(self, image: ImageLike, part: Tile) -> NDArray[np.float32]:
        """Return a part as (C, h, w) in 0..1."""
        pixels = np.asarray(image[part.rows, part.columns])
        missing = missing_pixels(pixels)
        if missing is not None and self.fill is not None:
            pixels = pixels.copy()
            pixels[missing] = self.fill
        return prepared_part(pixels, self.value_range)


def read_statistics(
    image: ImageLike,
    value_range: tuple[float, float] | None,
    paddings: Iterable[Padding],
    *,
    warn: bool,
    tick: Callable[[int, int], None],
) -> Statistics:
    """Return the statistics of an image, which is read once, part by part.

    The range of grey levels, and what is wrong with an image, are as `prepare_image`
    has them. The median that missing pixels are filled with is that of at most about
    `LEVELS` pixels from all over. ``tick(done, total)`` is called for each part.
    """
    height, width = image.shape[:2]
    height, width = image.shape[:2]
    moments = {padding: _Moments() for padding in paddings}
    counts = {
        (down, across): (_counts(height, down), _counts(width, across))
        for down, across in moments
    }
    step = -(-height * width // LEVELS)
    levels: list[NDArray[Any]] = []
    extremes: list[NDArray[Any]] = []
    has_holes = False
    tiles = list(product(runs(0, height, TILE), runs(0, width, TILE)))
    for number, (rows, columns) in enumerate(tiles):
        tick(number, len(tiles))
        part = np.asarray(image[rows, columns])
        part = part[..., None] if part.ndim == 2 else part[..., :3]
        missing, known = missing_pixels(part), part.reshape(-1, part.shape[2])
        if missing is not None:
            has_holes, known = True, known[~missing.ravel()]
        levels.append(known[::step].copy())
        extremes += _extremes(known)
        for padding, (down, across) in counts.items():
            weight = np.outer(down[rows], across[columns])
            moments[padding].add_part(part, missing, weight, value_range)
    tick(len(tiles), len(tiles))
    if not extremes:
        raise ValueError(
            "image: every pixel is NaN or infinite; there is no grey level"
        )
    table = np.concatenate(levels)  # (n, C)
    sample = np.concatenate([np.stack(extremes), table])[None]
    plane = sample[..., 0] if sample.shape[2] == 1 else sample
    found = prepare_image(plane, value_range=value_range, warn=warn).value_range
    fill = np.median(table, axis=0) if has_holes else None
    given = {padding: each.levels(found, fill) for padding, each in moments.items()}
    return Statistics(found, given, fill)


@dataclass
class _Moments:
    """Mean and deviation of all grey levels, added up part by part."""

    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of the squares of deviations from the mean
    beyond: list[float] = field(default_factory=lambda: [0.0, 0.0])  # ∓ `NO_LEVEL`
    holes: float = 0.0

    def add_part(
        self,
        part: NDArray[Any],
        missing: NDArray[np.bool_] | None,
        weight: NDArray[np.float64],
        value_range: tuple[float, float] | None,
    ) -> None:
        """Add an (h, w, C) part, whose pixels count so often, (h, w)."""
        values = part.astype(np.float64)
        if value_range is not None:
            values = np.clip(values, *value_range)
        weights = np.broadcast_to(weight[..., None], values.shape)
        if part.dtype.kind == "f":
            holes = np.zeros(weight.shape, bool) if missing is None else missing
            self.holes += weight[holes].sum()
            is_level = ~holes[..., None] & (np.abs(values) < NO_LEVEL)
            for index, sign in enumerate((-1, 1)):
                none = ~holes[..., None] & (sign * values >= NO_LEVEL)
                self.beyond[index] += weights[none].sum()
            if not is_level.any():
                return
            values, weights = values[is_level], weights[is_level]
        total = float(weights.sum())
        mean = float((weights * values).sum() / total)
        self.add(total, mean, float((weights * (values - mean) ** 2).sum()))

    def add(self, weight: float, mean: float, squares: float = 0.0) -> None:
        """Add what is known of a part; Chan's update of mean and squares."""
        total, apart = self.weight + weight, mean - self.mean
        if total > 0:
            self.squares += squares + apart**2 * self.weight * weight / total
            self.mean += apart * weight / total
            self.weight = total

    def levels(
        self, value_range: tuple[float, float], fill: NDArray[Any] | None
    ) -> tuple[float, float]:
        """Return mean and deviation of what is prepared with that range, in 0..1."""
        for weight, level in zip(self.beyond, value_range, strict=True):
            self.add(weight, level)  # they are clipped
        if fill is not None:
            for level in np.clip(fill, *value_range):
                self.add(self.holes, float(level))
        low, high = value_range
        deviation = math.sqrt(self.squares / self.weight)
        return (self.mean - low) / (high - low), deviation / (high - low)


def _counts(length: int, padding: int) -> NDArray[np.float64]:
    """Return how often each pixel of an axis occurs once it is mirrored at its end."""
    index = np.pad(np.arange(length), (0, padding), mode="reflect")
    return np.bincount(index, minlength=length).astype(np.float64)


def _extremes(known: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the pixels of (n, C) with the least and the largest grey level."""
    if not known.size:
        return []
    found = [known.argmin(), known.argmax()]
    if known.dtype.kind == "f" and (beyond := np.abs(known) >= NO_LEVEL).any():
        for bound, of in ((np.inf, np.argmin), (-np.inf, np.argmax)):
            found.append(of(np.where(beyond, bound, known)))
    return [known[index // known.shape[1]] for index in found]
