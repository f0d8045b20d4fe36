"""Features of an image at the magnification that a classifier was trained at.

The image is resized before its features are made, and keeps its noise from pixel to
pixel, which features see and resizing would smooth away. A linear model of them is
brought back to the pixels of the image, as a weighted mean of the values around.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.checks import channels_first, filled, missing_pixels

from .base import Features
from .compute import compute_features
from .levels import mosaic, windows_of
from .tiles import LinearModel, Stop, Tile, chunks_of, length_of, tiles_of

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone


ALIKE, MOST = 1.05, 4.0  # ratios of pixel sizes: below not worth it, above hopeless
GRAIN_SIDE = 1024  # pixels
WINDOWS = 6  # along each side of an image, that its median is taken of
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
    if np.shape(ratio) != (2,) or not all(0 < each < math.inf for each in ratio):
        raise ValueError(f"pixel_ratio: {ratio!r} is not two numbers above 0")
    most = max(max(each, 1 / each) for each in ratio)
    return ratio if ALIKE < most <= MOST else None


def resized(
    image: ArrayLike, factors: tuple[float, float], *, channels: bool = False
) -> NDArray[Any]:
    """Return an (H, W[, 3|4]) image with more or fewer rows and columns, of its type.

    Without alpha; bool becomes float32 from 0 to 1. Smoothed before it gets smaller,
    bilinear otherwise. What is then missing of its grain is added as noise, always the
    same.
    """
    image = np.asarray(image)
    shape = resized_shape(image.shape, factors)
    return ResizedImage(image, shape, channels=channels)[:, :]


def resized_shape(
    shape: Sequence[int], factors: tuple[float, float] | None
) -> tuple[int, ...]:
    """Return the shape of an image that is resized; None: that it has."""
    sides = zip(shape[:2], factors or (1, 1), strict=True)
    return (*(max(1, round(n * by)) for n, by in sides), *shape[2:])


class ResizedImage:
    """What `resized` makes of an image that may stay in its file, window by window.

    Pixels without a value count as the median of windows from all over. `channels`
    have a grain each; colours have one, that of their mean, and no alpha.
    """

    def __init__(
        self, image: Any, shape: Sequence[int], *, channels: bool = False
    ) -> None:
        self._image, self._is_mask = image, image.dtype == bool
        self.dtype = np.dtype(np.float32 if self._is_mask else image.dtype)
        bands = (3,) if image.shape[2:] == (4,) and not channels else image.shape[2:]
        self.shape = (*shape[:2], *bands)
        self._scales = [a / b for a, b in zip(image.shape, shape[:2], strict=False)]
        chunks = zip(chunks_of(image), self._scales, strict=True)  # no more at once
        self.chunks = tuple(max(1, min(n, round(n / by))) for n, by in chunks)
        before = self._pixels(*middle_of(image.shape))
        both = before, self._resized(*middle_of(self.shape))
        planes = [np.moveaxis(x, 2, 0) if channels else x[None] for x in both]
        lacking = np.array(list(map(_lacking, *planes)), np.float32)
        sides = GRAIN_SIDE, GRAIN_SIDE, *[len(lacking)] * len(bands)
        white = np.random.default_rng(0).standard_normal(sides, np.float32)
        self._noise = lacking * white  # repeated all over

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        sides = zip(window, self.shape, strict=False)
        spans = [slice(*span.indices(length)[:2]) for span, length in sides]
        found = self._resized(*spans)
        found += self._noise[np.ix_(*(np.r_[span] % GRAIN_SIDE for span in spans))]
        if self.dtype.kind in "ui":
            limits = np.iinfo(self.dtype)  # floats do not hold all of them
            found = found.round().clip(limits.min, np.nextafter(limits.max + 1.0, 0))
        elif self._is_mask:
            found = found.clip(0, 1)
        return found.astype(self.dtype)

    def _resized(self, *spans: slice) -> NDArray[Any]:
        """Return a window before noise is added."""
        from scipy.ndimage import gaussian_filter1d

        read, ends, taps = [], [], []
        axes = zip(spans, self._scales, self._image.shape, strict=False)
        for span, scale, length in axes:
            sigma = max(0.0, (scale - 1) / 2)
            centres = (np.r_[span] + 0.5) * scale - 0.5
            reach = int(4 * sigma + 0.5)
            first = math.floor(centres[0]) - reach
            last = math.floor(centres[-1]) + reach + 2
            read.append(slice(max(first, 0), min(last, length)))
            ends.append((max(-first, 0), max(last - length, 0)))
            taps.append((centres - first, sigma))
        found = self._pixels(*read)
        found = np.pad(found, [*ends, *[(0, 0)] * (found.ndim - 2)], mode="reflect")
        for axis, (at, sigma) in enumerate(taps):
            smooth = gaussian_filter1d(found, sigma, axis) if sigma else found
            below = np.floor(at).astype(int)
            part = (at - below).astype(np.float32)
            part = part.reshape(-1, *[1] * (found.ndim - 1 - axis))
            found = np.take(smooth, below, axis) * (1 - part)
            found += np.take(smooth, below + 1, axis) * part
        return found

    def _pixels(self, *spans: slice) -> NDArray[Any]:
        """Return a window of the image in floats, with what stands where none are."""
        pixels = np.asarray(self._image[spans])
        is_wide = pixels.dtype.kind in "ui" and pixels.dtype.itemsize > 2
        found = pixels.astype(np.float64 if is_wide else np.float32)
        if (missing := missing_pixels(pixels)) is not None:
            found[missing] = self._fill
        return found if found.ndim == 2 else found[..., : self.shape[2]]

    @cached_property
    def _fill(self) -> NDArray[Any]:
        seen = mosaic(self._image, windows_of(self._image.shape, WINDOWS))
        return np.asarray(np.median(filled(seen), axis=(0, 1)))


def _lacking(before: NDArray[Any], seen: NDArray[Any]) -> float:
    """Return the deviation of noise that gives what is seen the grain of before."""
    grey = seen if seen.ndim == 2 else seen[..., :3].mean(-1)
    missing = max(grain_of(before) ** 2 - grain_of(grey) ** 2, 0) ** 0.5
    return float(missing * np.nanstd(grey))


def middle_of(shape: Sequence[int]) -> Tile:
    """Return the window that the grain of an image is looked at in."""
    side = GRAIN_SIDE
    return Tile(*(slice(max(0, (n - side) // 2), (n + side) // 2) for n in shape[:2]))


def grain_of(image: Any) -> float:
    """Return the noise from pixel to pixel, in deviations of an image's grey levels.

    From the median of its Laplacian's magnitude, which edges hardly change; of the
    middle of a large image, and 0 of one without any values.

    >>> noise = np.random.default_rng(0).normal(size=(200, 200))
    >>> round(grain_of(noise), 1), grain_of(np.ones((9, 9)))
    (1.0, 0.0)
    """
    grey = np.asarray(image[middle_of(image.shape)]).astype(np.float32)
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


def compute_resampled(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    pixel_ratio: tuple[float, float] | None = None,
    **options: Any,
) -> Features:
    """Return the features of an image, seen with the pixels of the training.

    `pixel_ratio` says how many times as high and wide as those its pixels are; see
    `resampling_factors`. `options` are those of `compute_features`; ValueError for a
    `partition` of an image that is resized.
    """
    if (factors := resampling_factors(pixel_ratio)) is None:
        return compute_features(image, backbone, **options)
    if options.get("partition") is not None:
        raise ValueError(
            "partition: regions are not resized with an image; leave out partition or "
            "pixel_ratio"
        )
    image, names = np.asarray(image), options.get("channels")
    if (axis := options.get("channel_axis")) is not None:
        image = np.moveaxis(channels_first(image, axis), 0, -1)
        options["channel_axis"] = -1
    by_channel = bool(names) or (axis is not None and image.shape[2] != 3)
    seen = resized(image, factors, channels=by_channel)
    found = compute_features(seen, backbone, **options)
    return ResampledFeatures(found, (image.shape[0], image.shape[1]))


class PartAxis(NamedTuple):
    """One axis of a part of an image: where it begins, and how long the whole is."""

    start: int
    length: int
    resized_start: int  # the same once the image was resized
    resized_length: int

    def taps(
        self, positions: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the resized pixels that make up N pixels, and weights of sum 1.

        Those of the part, (N, taps) each. The weights are a triangle that is two pixels
        wide in the coarser of the two grids.
        """
        ratio = self.resized_length / self.length
        centres = (positions + self.start + 0.5) * ratio - 0.5
        reach = max(ratio, 1.0)
        first = np.ceil(centres - reach).astype(np.int64)
        index = first[:, None] + np.arange(int(2 * reach) + 1)
        weight = np.clip(1 - np.abs(index - centres[:, None]) / reach, 0, None)
        weight /= weight.sum(1, keepdims=True)
        index = index.clip(0, self.resized_length - 1) - self.resized_start
        return index, weight.astype(np.float32)


class ResampledFeatures(Features):
    """The features of a resized image at the (H, W) pixels that it had before.

    Each is a mean of features around it. They may be of a part, of which `axes` tell.
    """

    def __init__(
        self,
        features: Features,
        shape: tuple[int, int],
        axes: Sequence[PartAxis] | None = None,
    ) -> None:
        sides = zip(shape, features.shape[1:], strict=True)
        self._axes = axes or [PartAxis(0, n, 0, there) for n, there in sides]
        self.features = features
        self.shape = (features.shape[0], *shape)
        self.part_options = features.part_options
        self.channel_weights = features.channel_weights

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the features take."""
        return self.features.nbytes

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        pixels = [axis.numpy() for axis in self._pixels(rows, cols)]
        (down, heights), (across, widths) = map(PartAxis.taps, self._axes, pixels)
        total = np.zeros((len(pixels[0]), self.shape[0]), np.float32)
        for row, height in zip(down.T, heights.T, strict=True):
            for column, width in zip(across.T, widths.T, strict=True):
                total += (height * width)[:, None] * self.features.sample(row, column)
        return total

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        for tile in tiles_of(self.shape[1:], area):
            ways, spans = [], []
            for axis, span in zip(self._axes, tile, strict=True):
                index, weight = axis.taps(np.r_[span])
                first, last = int(index.min()), int(index.max()) + 1
                way = torch.zeros(length_of(span), last - first)
                columns = torch.from_numpy(index - first)
                ways.append(way.scatter_add_(1, columns, torch.from_numpy(weight)))
                spans.append(slice(first, last))
            found = self.features.project(*model, region=Tile(*spans), should_stop=stop)
            there = torch.from_numpy(found)
            yield tile, torch.einsum("rh,khw,cw->rkc", ways[0], there, ways[1])

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        there = self.features.materialize()
        for number, axis in enumerate(self._axes, start=1):
            index, weight = axis.taps(np.arange(self.shape[number]))
            there = np.moveaxis(there, number, -1)[..., index]  # (…, n, taps)
            there = np.moveaxis((there * weight).sum(-1), -1, number)
        return there
