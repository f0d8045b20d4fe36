"""The classical multi-scale filter bank as a backbone: features without weights.

A linear classifier reads these channels, so the nonlinearity it lacks is made here:
magnitudes and eigenvalues, soft histograms of grey levels, and each grey level's rank
between the darkest and the brightest around it. Most channels are bounded or
square roots of energies, because rare huge values mislead a linear classifier.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product, starmap
from typing import NamedTuple

import torch
from torch import Tensor

from napari_hrdv2.core.backbones import base
from napari_hrdv2.core.checks import check_grey_or_rgb

from . import kernels as kernels

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
_WINDOWS = (2, 4, 8, 16, 32)
_CONTRAST_SCALES = (16.0, 64.0)
_LEVELS = 9
_FLOOR = 4 / 255  # contrast below a few grey levels of 8 bits is noise
STEPS = 96
TILE = 1024  # px along a side that are worked on at once: planes of more are slow
SMALL = 128  # px: images up to so many are never cut in parts
ALIGNMENT = 8  # of parts of an image: the coarsest of the reduced grids
REACH = kernels.reach_of(_CONTRAST_SCALES[-1])
_AROUND_FINEST = 2 * _WINDOWS[-1]  # what is read of the finest Gaussian: an opening
_ROUNDING = 1e-5  # of an eigenvalue, against the larger one
_LUMINANCE = (0.299, 0.587, 0.114)


@torch.no_grad()
def filter_planes(
    images: Tensor,
    dtype: torch.dtype = torch.float16,
    *,
    patch_size: int = 1,
    stride: int = 1,
    tick: base.Tick | None = None,
    inside: base.Inside | None = None,
) -> Tensor:
    """Return the filter channels of images in 0..1, means over patches, (B, N, h, w).

    Sums are always made in float32. `tick` is called ``STEPS`` times. Of the (h, w)
    grid only the rows and columns `inside` are returned, if any are given.
    """
    batch, image_channels, *shape = images.shape
    check_grey_or_rgb("the filter bank", image_channels)
    names = filter_names(image_channels)
    grid = [1 + (length - patch_size) // stride for length in shape]
    rows, columns = inside or [slice(0, length) for length in grid]
    size = rows.stop - rows.start, columns.stop - columns.start
    planes = torch.empty((batch, len(names), *size), dtype=dtype, device=images.device)
    tiles = list(product(_cut(rows, stride), _cut(columns, stride)))
    step = base.evenly(tick, len(names) * len(tiles), STEPS)
    aligned = inside is not None or max(shape) > SMALL
    for tile in tiles:
        ends = ((s.start * stride, (s.stop - 1) * stride + patch_size) for s in tile)
        down, across = starmap(slice, ends)
        seen = _View(images, down, across, aligned).around(REACH)
        seen = seen._replace(planes=seen.planes.float())
        starts = zip(tile, (rows.start, columns.start), strict=True)
        target = base.cut(planes, (slice(s.start - n, s.stop - n) for s, n in starts))
        for index, (_, plane) in enumerate(_channels(seen)):
            target[:, index] = kernels.patch_means(plane, patch_size, stride)[:, 0]
            step()
    return planes


def _cut(span: slice, stride: int) -> list[slice]:
    """Return a stretch of a grid in parts of about `TILE` pixels, as even as can be."""
    length = span.stop - span.start
    size = -(-length // max(1, round(length * stride / TILE)))
    starts = range(span.start, span.stop, size)
    return [slice(start, min(start + size, span.stop)) for start in starts]


@cache
def filter_names(image_channels: int) -> tuple[str, ...]:
    """Return the names of the filter channels for grey (1) or RGB (3) images."""
    pixel = _View(torch.zeros(1, image_channels, 1, 1), slice(0, 1), slice(0, 1))
    return tuple(name for name, _ in _channels(pixel))


class FilterBank(base.GridBackbone):
    """The filter bank as a backbone: one token per pixel, nothing to load."""

    name = "filters"
    patch_size = 1
    equivariant = True
    default_transforms = "identity"
    activations = 0  # it works on planes of the image
    context_cell = 16
    reach, alignment = REACH, ALIGNMENT
    weights_hash = ""
    steps = STEPS

    def __init__(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float16
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.channels = self.channels_for(1)

    def channels_for(self, image_channels: int) -> int:
        """Return the number of filter channels for grey (1) or RGB (3) images."""
        check_grey_or_rgb("the filter bank", image_channels)
        return len(filter_names(image_channels))

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device

    def tokens(
        self,
        images: Tensor,
        *,
        stride: int,
        tick: base.Tick | None = None,
        inside: base.Inside | None = None,
    ) -> Tensor:
        """Return the filter channels of images; see `GridBackbone`."""
        planes = filter_planes(
            images, self.dtype, stride=stride, tick=tick, inside=inside
        )
        return planes.permute(0, 2, 3, 1)  # a view: each channel is contiguous


def load_filters(spec: base.BackboneSpec, options: base.LoadOptions) -> FilterBank:
    """Return the filter bank; it has no weights."""
    if options.weights not in (None, "random"):
        raise ValueError(
            f"weights: {spec.name} has none; {os.fspath(options.weights or '')!r} was "
            "given"
        )
    half = options.precision == "auto"
    return FilterBank(options.device, torch.float16 if half else options.dtype)


FILTERS = base.BackboneSpec.of(
    FilterBank,
    loader=load_filters,
    channels=82,
    rgb_channels=97,
    description="classical filters",
    licence="BSD-3-Clause",
    bundled=True,
)


# --- The channels ---------------------------------------------------------------------
class _View(NamedTuple):
    """Planes, and the part of them that is wanted: the rest is there to be seen."""

    planes: Tensor  # (B, C, H, W)
    rows: slice
    columns: slice
    aligned: bool = True  # see `kernels.gaussian`

    def around(self, margin: int) -> _View:
        """Return what is wanted with so many pixels around it, as far as there are."""
        seen, kept = [], []
        for span, length in zip(self[1:3], self.planes.shape[-2:], strict=True):
            start = max(span.start - margin, 0) // ALIGNMENT * ALIGNMENT
            stop = -(-(span.stop + margin) // ALIGNMENT) * ALIGNMENT
            seen.append(slice(start, min(stop, length)))
            kept.append(slice(span.start - start, span.stop - start))
        return _View(base.cut(self.planes, seen), kept[0], kept[1], self.aligned)

    def of(self, planes: Tensor) -> Tensor:
        """Return the wanted part of other planes of this size."""
        return planes[..., self.rows, self.columns]

    def gaussian(self, sigma: float, margin: int = 0) -> _View:
        """Return it smoothed, right up to a margin around what is wanted."""
        seen = self.around(margin + kernels.reach_of(sigma))
        return seen._replace(planes=seen.smoothed(seen.planes, sigma))

    def smoothed(self, planes: Tensor, sigma: float) -> Tensor:
        """Return other planes of this size smoothed."""
        return kernels.gaussian(planes, sigma, aligned=self.aligned)

    @property
    def wanted(self) -> Tensor:
        """The part that is wanted."""
        return self.of(self.planes)


def _channels(images: _View) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, plane (B, 1, h, w)) for every channel, one at a time."""
    if images.planes.shape[1] == 1:
        yield from _grey_channels(images)
        return
    weights = images.planes.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    grey = (images.planes * weights).sum(1, keepdim=True)
    yield from _grey_channels(images._replace(planes=grey))
    for index, color in enumerate(("red", "green", "blue")):
        plane = images._replace(planes=images.planes[:, index : index + 1])
        yield color, plane.wanted
        for sigma in SCALES[:-1]:
            yield f"{color} gaussian {sigma:g}", plane.gaussian(sigma).wanted


def _grey_channels(image: _View) -> Iterator[tuple[str, Tensor]]:
    yield "intensity", image.wanted
    margins = {sigma: kernels.reach_of(sigma) + 2 for sigma in SCALES}
    margins[1.0] = _AROUND_FINEST
    smooth = {sigma: image.gaussian(sigma, margins[sigma]) for sigma in SCALES}
    for sigma in SCALES:
        yield f"gaussian {sigma:g}", smooth[sigma].wanted
    for fine, coarse in pairwise(SCALES):
        difference = smooth[fine].wanted - smooth[coarse].wanted
        yield f"difference {fine:g} {coarse:g}", difference
    for sigma in SCALES:
        yield from _derivatives(smooth[sigma], sigma)
        yield f"skewness {sigma:g}", _skewness(image, smooth[sigma], sigma)
    for sigma in _CONTRAST_SCALES:
        yield from _contrasts(image, {fine: smooth[fine] for fine in (1.0, 4.0)}, sigma)
    for radius in _WINDOWS:
        yield from _morphology(smooth[1.0], radius)
    near = smooth[1.0].around(kernels.reach_of(8.0))
    for index in range(_LEVELS):
        level = index / (_LEVELS - 1)
        member = torch.exp(-0.5 * ((near.planes - level) * (_LEVELS - 1)).square())
        yield f"level {level:g}", near.of(member)
        yield f"level {level:g} gaussian 8", near.of(kernels.gaussian(member, 8.0))


def _derivatives(smooth: _View, sigma: float) -> Iterator[tuple[str, Tensor]]:
    """Yield what the first and second derivatives at one scale say, unoriented."""
    seen = smooth.around(kernels.reach_of(sigma) + 1)
    rows, columns = kernels.gradient(seen.planes)
    yield f"gradient {sigma:g}", sigma * torch.hypot(seen.of(rows), seen.of(columns))
    near = smooth.around(2)
    second = (near.of(planes) for planes in kernels.hessian(near.planes))
    large, small = kernels.eigenvalues(*second)
    yield f"hessian large {sigma:g}", sigma**2 * large
    yield f"hessian small {sigma:g}", sigma**2 * small
    energies = (rows * rows, rows * columns, columns * columns)
    smoothed = (seen.of(seen.smoothed(energy, sigma)) for energy in energies)
    large, small = kernels.eigenvalues(*smoothed)
    yield f"structure large {sigma:g}", sigma * large.clamp_min(0).sqrt()
    # Where there is one direction only, what is left of the smaller one is rounding;
    # standardised, it would weigh as much as any other channel.
    small = (small - _ROUNDING * large).clamp_min(0)
    yield f"structure small {sigma:g}", sigma * small.sqrt()


def _contrasts(
    image: _View, centres: dict[float, _View], sigma: float
) -> Iterator[tuple[str, Tensor]]:
    """Yield grey levels against the local mean and deviation."""
    mean = image.gaussian(sigma).wanted
    squares = image._replace(planes=image.planes.square())
    variance = squares.gaussian(sigma).wanted - mean.square()
    spread = variance.clamp_min(0).sqrt() + _FLOOR / 2
    for centre, smooth in centres.items():
        name = f"contrast {centre:g} {sigma:g}"
        yield name, torch.tanh((smooth.wanted - mean) / spread)


def _skewness(image: _View, smooth: _View, sigma: float) -> Tensor:
    """Return the cube root of the mean cube of deviations from the local mean."""
    margin = kernels.reach_of(sigma)
    seen = image.around(margin)
    deviation = seen.planes - smooth.around(margin).planes
    moment = seen.of(seen.smoothed(deviation.pow(3), sigma))
    return moment.sign() * moment.abs().pow(1 / 3)


def _morphology(smooth: _View, radius: int) -> Iterator[tuple[str, Tensor]]:
    """Yield top-hats and the rank of each grey level within those around it."""
    # Opening and closing remove what is brighter or darker than its surroundings and
    # narrower than the window, whatever its shape and however sharp its edge.
    seen, level = smooth.around(2 * radius), smooth.wanted
    high = kernels.window_maximum(seen.planes, radius)
    low = kernels.window_minimum(seen.planes, radius)
    rank = (level - seen.of(low)) / (seen.of(high) - seen.of(low) + _FLOOR)
    yield f"rank {radius}", rank
    opened = seen.of(kernels.window_maximum(low, radius))
    closed = seen.of(kernels.window_minimum(high, radius))
    yield f"white top-hat {radius}", (level - opened).clamp_min(0).sqrt()
    yield f"black top-hat {radius}", (closed - level).clamp_min(0).sqrt()
    yield f"toggle {radius}", (2 * level - opened - closed) / (closed - opened + _FLOOR)
