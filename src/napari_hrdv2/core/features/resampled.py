"""Features of an image at the magnification that a classifier was trained at.

The image is resized before its features are made, and keeps its noise from pixel to
pixel, which features see and resizing would smooth away. A linear model of them is
brought back to the pixels of the image, as a weighted mean of the values around.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .base import Features
from .tiles import LinearModel, Stop, Tile, length_of, tiles_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


ALIKE, MOST = 1.05, 4.0  # ratios of pixel sizes: below not worth it, above hopeless
GRAIN_SIDE = 1024  # pixels
NORMAL_MEDIAN = 0.6745  # of the magnitude of what is normally distributed


def resampling_factors(ratio: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return by what an image is resized to have pixels like those of the training.

    `ratio` is how many times as high and as wide its pixels are. None where that is
    unknown, next to nothing, or too much for structures to be seen alike.

    >>> resampling_factors((2.0, 2.0)), resampling_factors((5.0, 5.0))
    ((2.0, 2.0), None)
    """
    if ratio is None:
        return None
    most = max(max(each, 1 / each) for each in ratio)
    return ratio if ALIKE < most <= MOST else None


def resized(image: NDArray[Any], factors: tuple[float, float]) -> NDArray[Any]:
    """Return an (H, W[, 3|4]) image with more or fewer rows and columns, of its type.

    Smoothed before it gets smaller, bilinear otherwise. What is then missing of its
    grain is added as noise, always the same.
    """
    from skimage.transform import resize

    shape = [round(n * by) for n, by in zip(image.shape[:2], factors, strict=True)]
    found = resize(
        image.astype(np.float32),
        (max(1, shape[0]), max(1, shape[1]), *image.shape[2:]),
        order=1,
        mode="reflect",
        anti_aliasing=min(factors) < 1,
    )
    lacking = grain_of(image) ** 2 - grain_of(found) ** 2
    if lacking > 0:
        noise = np.random.default_rng(0).standard_normal(found.shape[:2], np.float32)
        noise *= lacking**0.5 * np.nanstd(found)
        found += noise if found.ndim == 2 else noise[..., None]
    if image.dtype.kind in "ui":
        found = found.round().clip(0, np.iinfo(image.dtype).max)
    result: NDArray[Any] = found.astype(image.dtype)
    return result


def grain_of(image: Any) -> float:
    """Return the noise from pixel to pixel, in deviations of an image's grey levels.

    From the median of its Laplacian's magnitude, which edges hardly change; of the
    middle of a large image, and 0 of one without any values.

    >>> noise = np.random.default_rng(0).normal(size=(200, 200))
    >>> round(grain_of(noise), 1), grain_of(np.ones((9, 9)))
    (1.0, 0.0)
    """
    middle = tuple(
        slice(max(0, (n - GRAIN_SIDE) // 2), (n + GRAIN_SIDE) // 2)
        for n in image.shape[:2]
    )
    grey = np.asarray(image[middle]).astype(np.float32)
    if grey.ndim == 3:
        grey = grey[..., :3].mean(-1)
    if min(grey.shape) < 3 or not np.isfinite(grey).any():
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    bend = np.abs(4 * grey[1:-1, 1:-1] - around)
    bend, deviation = bend[np.isfinite(bend)], float(np.nanstd(grey))
    if not bend.size or not deviation:
        return 0.0
    return float(np.median(bend)) / (NORMAL_MEDIAN * 20**0.5 * deviation)


class ResampledFeatures(Features):
    """The features of a resized image at the (H, W) pixels that it had before.

    Each is a mean of features around it, weighted by a triangle that is two pixels wide
    in the coarser of the two grids.
    """

    def __init__(self, features: Features, shape: tuple[int, int]) -> None:
        self.features = features
        self.shape = (features.shape[0], *shape)
        self.part_options = features.part_options
        self.channel_weights = features.channel_weights

    def __repr__(self) -> str:
        return f"ResampledFeatures({self.features}, {self.shape[1:]})"

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the features take."""
        return self.features.nbytes

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        pixels = self._pixels(rows, cols)
        (down, heights), (across, widths) = (
            _taps(axis.numpy(), *lengths)
            for axis, lengths in zip(pixels, self._lengths, strict=True)
        )
        total = np.zeros((len(pixels[0]), self.shape[0]), np.float32)
        for row, height in zip(down.T, heights.T, strict=True):
            for column, width in zip(across.T, widths.T, strict=True):
                total += (height * width)[:, None] * self.features.sample(row, column)
        return total

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        for tile in tiles_of(self.shape[1:], area):
            ways, region = [], []
            for span, lengths in zip(tile, self._lengths, strict=True):
                index, weight = _taps(np.arange(span.start, span.stop), *lengths)
                first, last = int(index.min()), int(index.max()) + 1
                way = torch.zeros(length_of(span), last - first)
                columns = torch.from_numpy(index - first)
                ways.append(way.scatter_add_(1, columns, torch.from_numpy(weight)))
                region.append(slice(first, last))
            there = self.features.project(
                *model, region=(region[0], region[1]), should_stop=stop
            )
            values = torch.einsum(
                "rh,khw,cw->rkc", ways[0], torch.from_numpy(there), ways[1]
            )
            yield tile, values

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        there = self.features.materialize()
        for axis, lengths in enumerate(self._lengths, start=1):
            index, weight = _taps(np.arange(lengths[0]), *lengths)
            there = np.moveaxis(there, axis, -1)[..., index]  # (…, n, taps)
            there = np.moveaxis((there * weight).sum(-1), -1, axis)
        return there

    @property
    def _lengths(self) -> list[tuple[int, int]]:
        """Of both axes: pixels of the image, and of the resized one."""
        return list(zip(self.shape[1:], self.features.shape[1:], strict=True))


def _taps(
    positions: NDArray[Any], length: int, resized: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which pixels of a resized axis make up some of its former pixels.

    (N, taps) each: indices, and weights whose sum is 1.
    """
    ratio = resized / length
    centres = (positions + 0.5) * ratio - 0.5
    reach = max(ratio, 1.0)
    first = np.ceil(centres - reach).astype(np.int64)
    index = first[:, None] + np.arange(int(2 * reach) + 1)
    weight = np.clip(1 - np.abs(index - centres[:, None]) / reach, 0, None)
    weight /= weight.sum(1, keepdims=True)
    return index.clip(0, resized - 1), weight.astype(np.float32)
