"""What is known of all of an image before any part is worked on, from one pass over it.

A block that took its own range of grey levels, or its own mean and deviation, would not
fit its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, starmap
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import (
    LEVELS,
    NO_LEVEL,
    missing_pixels,
    prepare_image,
    prepared_part,
)
from napari_hrdv2.core.features.tiles import Tile, chunks_of, moved, runs

TILE = 1024  # px along a side that are counted at once

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
            pixels = pixels[..., :3].copy() if pixels.ndim == 3 else pixels.copy()
            pixels[missing] = self.fill
        return prepared_part(pixels, self.value_range)


class Band:
    """One channel of an image, which is read by parts."""

    def __init__(self, image: ImageLike, index: int) -> None:
        self._image, self._index = image, index
        self.shape, self.dtype = image.shape[:2], image.dtype
        self.chunks = getattr(image, "chunks", None)

    def __getitem__(self, window: Any) -> Any:
        return np.asarray(self._image[window])[..., self._index]


def bands_in(image: ImageLike, names: Sequence[str]) -> list[ImageLike]:
    """Return the channels of an image by their names; for none, itself."""
    return [Band(image, index) for index in range(len(names))] or [image]


class Prepared:
    """An image as every part of it is prepared, read by parts."""

    def __init__(self, image: ImageLike, known: Statistics) -> None:
        self.shape, self._image, self._known = image.shape[:2], image, known

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.float32]:
        planes = self._known.prepared(self._image, Tile(*window))
        return planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)


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
    moments = {padding: _Moments((height, width), padding) for padding in paddings}
    step = -(-height * width // LEVELS)
    sample: list[NDArray[Any]] = []  # (n, C) pixels from all over
    extremes: list[Any] = []
    has_holes = False
    for tile, part, missing in _tiles(image, tick):
        known = part.reshape(-1, part.shape[2])
        if missing is not None:
            has_holes, known = True, known[~missing.ravel()]
        sample.append(known[::step].copy())
        extremes += _extremes(known)
        for each in moments.values():
            each.add(part, missing, tile, value_range)
    if not extremes:
        raise ValueError(
            "image: every pixel is NaN or infinite; there is no grey level"
        )
    table = np.concatenate(sample)  # (n, C)
    ends = np.repeat(np.array(extremes, table.dtype)[:, None], table.shape[1], 1)
    pixels = np.concatenate([ends, table])[None]
    plane = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    found = prepare_image(plane, value_range=value_range, warn=warn).value_range
    fill = np.median(table, axis=0) if has_holes else None
    levels = {padding: each.levels(found, fill) for padding, each in moments.items()}
    return Statistics(found, levels, fill)


def _tiles(
    image: ImageLike, tick: Callable[[int, int], None]
) -> Iterator[tuple[Tile, NDArray[Any], NDArray[np.bool_] | None]]:
    """Yield tiles, their (h, w, C) pixels without alpha, and where any are missing."""
    # Chunks of a file are read whole, so that none is read twice.
    height, width = image.shape[:2]
    tall, wide = chunks_of(image)
    columns = min(-(-TILE // wide) * wide, width)
    rows = max(TILE**2 // columns // tall, 1) * tall
    parts = list(product(runs(0, height, rows), runs(0, width, columns)))
    for number, (down, across) in enumerate(parts):
        tick(number, len(parts))
        read = np.asarray(image[down, across])
        whole = Tile(down, across)
        spans = (runs(0, length, TILE) for length in whole.shape)
        for tile in starmap(Tile, product(*spans)):
            part = read[tile]
            pixels = part[..., None] if part.ndim == 2 else part[..., :3]
            yield moved(tile, whole, 1), pixels, missing_pixels(part)
    tick(len(parts), len(parts))


def _extremes(known: NDArray[Any]) -> list[Any]:
    """Return the extremes of (n, C) numbers, and of those that are levels, if any."""
    kinds = [known]
    if known.dtype.kind == "f":
        is_level = np.abs(known) < np.float64(NO_LEVEL)  # float16 does not hold it
        kinds += [] if is_level.all() else [known[is_level]]
    return [value for each in kinds if each.size for value in (each.min(), each.max())]


class _Moments:
    """Mean and deviation of the grey levels of a padded image, added up by tiles."""

    def __init__(self, shape: tuple[int, int], padding: Padding) -> None:
        # How often each row and column occurs once the image is mirrored at its ends.
        sides = zip(map(np.arange, shape), padding, strict=True)
        mirrored = (np.pad(each, (0, by), mode="reflect") for each, by in sides)
        self._down, self._across = map(np.bincount, mirrored)
        self._known: list[tuple[float, float, float]] = []  # weight, mean, variance
        self._others = np.zeros(3)  # weights of the lowest, the highest, the missing

    def add(
        self,
        part: NDArray[Any],
        missing: NDArray[np.bool_] | None,
        tile: Tile,
        value_range: tuple[float, float] | None,
    ) -> None:
        """Add an (h, w, C) tile, clipped to the range if that is given."""
        values = part.astype(np.float64)
        if value_range is not None:
            np.clip(values, *value_range, out=values)
        weights = np.outer(self._down[tile.rows], self._across[tile.columns])
        weights = np.broadcast_to(weights[..., None], values.shape)
        if part.dtype.kind == "f":
            hole = np.zeros((*part.shape[:2], 1), bool)
            if missing is not None:
                hole[..., 0] = missing
            low, high = values <= -NO_LEVEL, values >= NO_LEVEL
            for index, where in enumerate((low & ~hole, high & ~hole)):
                self._others[index] += weights[where].sum()
            self._others[2] += weights[..., :1][hole].sum()
            is_level = ~(low | high | hole)
            if not is_level.any():
                return
            if not is_level.all():
                values, weights = values[is_level], weights[is_level]
        self._known.append(_mean_and_variance(weights, values))

    def levels(
        self, value_range: tuple[float, float], fill: NDArray[Any] | None
    ) -> tuple[float, float]:
        """Return mean and deviation of what is prepared with that range, in 0..1."""
        low, high = value_range
        added = list(zip(self._others, value_range, strict=False))  # they are clipped
        if fill is not None:
            added += [(self._others[2], level) for level in np.clip(fill, low, high)]
        groups = self._known + [(weight, level, 0.0) for weight, level in added]
        weight, mean, variance = np.array(groups).T
        _, middle, between = _mean_and_variance(weight, mean)
        deviation = np.sqrt(between + np.average(variance, weights=weight))
        return (middle - low) / (high - low), float(deviation) / (high - low)


def _mean_and_variance(
    weights: NDArray[Any], values: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return the sum of weights, and the weighted mean and variance of values."""
    total = weights.sum()
    mean = (weights * values).sum() / total
    variance = (weights * (values - mean) ** 2).sum() / total
    return float(total), float(mean), float(variance)
