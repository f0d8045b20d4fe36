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
from itertools import pairwise

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.base import (
    BackboneSpec,
    GridBackbone,
    LoadOptions,
    Tick,
    evenly,
)
from napari_hrdv2.core.checks import check_grey_or_rgb

from . import kernels as kernels

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
_WINDOWS = (2, 4, 8, 16, 32)
_CONTRAST_SCALES = (16.0, 64.0)
_LEVELS = 9
_FLOOR = 4 / 255  # contrast below a few grey levels of 8 bits is noise
STEPS = 96
_ROUNDING = 1e-5  # of an eigenvalue, against the larger one
_LUMINANCE = (0.299, 0.587, 0.114)


@torch.no_grad()
def filter_planes(
    images: Tensor,
    dtype: torch.dtype = torch.float16,
    *,
    patch_size: int = 1,
    stride: int = 1,
    tick: Tick | None = None,
) -> Tensor:
    """Return the filter channels of images in 0..1, means over patches, (B, N, h, w).

    Sums are always made in float32. `tick` is called ``STEPS`` times.
    """
    batch, image_channels, height, width = images.shape
    check_grey_or_rgb("the filter bank", image_channels)
    total = len(filter_names(image_channels))
    grid = [1 + (length - patch_size) // stride for length in (height, width)]
    planes = torch.empty((batch, total, *grid), dtype=dtype, device=images.device)
    step = evenly(tick, total, STEPS)
    for index, (_, plane) in enumerate(_channels(images.float())):
        planes[:, index] = kernels.patch_means(plane, patch_size, stride)[:, 0]
        step()
    return planes


@cache
def filter_names(image_channels: int) -> tuple[str, ...]:
    """Return the names of the filter channels for grey (1) or RGB (3) images."""
    pixel = torch.zeros(1, image_channels, 1, 1)
    return tuple(name for name, _ in _channels(pixel))


class FilterBank(GridBackbone):
    """The filter bank as a backbone: one token per pixel, nothing to load."""

    name = "filters"
    patch_size = 1
    equivariant = True
    default_transforms = "identity"
    activations = 0  # it works on planes of the image
    context_cell = 16
    weights_hash = ""
    steps = STEPS

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float16,
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
        self, images: Tensor, *, stride: int, tick: Tick | None = None
    ) -> Tensor:
        """Return the filter channels of images; see `GridBackbone`."""
        planes = filter_planes(images, self.dtype, stride=stride, tick=tick)
        return planes.permute(0, 2, 3, 1)  # a view: each channel is contiguous


def load_filters(spec: BackboneSpec, options: LoadOptions) -> FilterBank:
    """Return the filter bank; it has no weights."""
    if options.weights not in (None, "random"):
        raise ValueError(
            f"weights: {spec.name} has none; {os.fspath(options.weights or '')!r} was "
            "given"
        )
    half = options.precision == "auto"
    return FilterBank(options.device, torch.float16 if half else options.dtype)


FILTERS = BackboneSpec.of(
    FilterBank,
    loader=load_filters,
    channels=82,
    rgb_channels=97,
    description="classical filters",
    licence="BSD-3-Clause",
    bundled=True,
)


# --- The channels ---------------------------------------------------------------------
def _channels(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, plane (B, 1, H, W)) for every channel, one at a time."""
    if images.shape[1] == 1:
        yield from _grey_channels(images)
        return
    weights = images.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    yield from _grey_channels((images * weights).sum(1, keepdim=True))
    for index, color in enumerate(("red", "green", "blue")):
        plane = images[:, index : index + 1]
        yield color, plane
        for sigma in SCALES[:-1]:
            yield f"{color} gaussian {sigma:g}", kernels.gaussian(plane, sigma)


def _grey_channels(image: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "intensity", image
    smooth = {sigma: kernels.gaussian(image, sigma) for sigma in SCALES}
    for sigma in SCALES:
        yield f"gaussian {sigma:g}", smooth[sigma]
    for fine, coarse in pairwise(SCALES):
        yield f"difference {fine:g} {coarse:g}", smooth[fine] - smooth[coarse]
    for sigma in SCALES:
        yield from _derivatives(smooth[sigma], sigma)
        yield f"skewness {sigma:g}", _skewness(image - smooth[sigma], sigma)
    for sigma in _CONTRAST_SCALES:
        yield from _contrasts(image, {fine: smooth[fine] for fine in (1.0, 4.0)}, sigma)
    for radius in _WINDOWS:
        yield from _morphology(smooth[1.0], radius)
    for index in range(_LEVELS):
        level = index / (_LEVELS - 1)
        member = torch.exp(-0.5 * ((smooth[1.0] - level) * (_LEVELS - 1)).square())
        yield f"level {level:g}", member
        yield f"level {level:g} gaussian 8", kernels.gaussian(member, 8.0)


def _derivatives(smooth: Tensor, sigma: float) -> Iterator[tuple[str, Tensor]]:
    """Yield what the first and second derivatives at one scale say, unoriented."""
    rows, columns = kernels.gradient(smooth)
    yield f"gradient {sigma:g}", sigma * torch.hypot(rows, columns)
    large, small = kernels.eigenvalues(*kernels.hessian(smooth))
    yield f"hessian large {sigma:g}", sigma**2 * large
    yield f"hessian small {sigma:g}", sigma**2 * small
    energies = (rows * rows, rows * columns, columns * columns)
    large, small = kernels.eigenvalues(
        *(kernels.gaussian(energy, sigma) for energy in energies)
    )
    yield f"structure large {sigma:g}", sigma * large.clamp_min(0).sqrt()
    # Where there is one direction only, what is left of the smaller one is rounding;
    # standardised, it would weigh as much as any other channel.
    small = (small - _ROUNDING * large).clamp_min(0)
    yield f"structure small {sigma:g}", sigma * small.sqrt()


def _contrasts(
    image: Tensor, centres: dict[float, Tensor], sigma: float
) -> Iterator[tuple[str, Tensor]]:
    """Yield grey levels against the local mean and deviation."""
    mean = kernels.gaussian(image, sigma)
    variance = kernels.gaussian(image.square(), sigma) - mean.square()
    spread = variance.clamp_min(0).sqrt() + _FLOOR / 2
    for centre, smooth in centres.items():
        name = f"contrast {centre:g} {sigma:g}"
        yield name, torch.tanh((smooth - mean) / spread)


def _skewness(deviation: Tensor, sigma: float) -> Tensor:
    """Return the cube root of the mean cube of deviations from the local mean."""
    moment = kernels.gaussian(deviation.pow(3), sigma)
    return moment.sign() * moment.abs().pow(1 / 3)


def _morphology(smooth: Tensor, radius: int) -> Iterator[tuple[str, Tensor]]:
    """Yield top-hats and the rank of each grey level within those around it.

    Opening and closing remove what is brighter or darker than its surroundings and
    narrower than the window, whatever its shape and however sharp its edge.
    """
    high = kernels.window_maximum(smooth, radius)
    low = kernels.window_minimum(smooth, radius)
    yield f"rank {radius}", (smooth - low) / (high - low + _FLOOR)
    opened = kernels.window_maximum(low, radius)
    closed = kernels.window_minimum(high, radius)
    yield f"white top-hat {radius}", (smooth - opened).clamp_min(0).sqrt()
    yield f"black top-hat {radius}", (closed - smooth).clamp_min(0).sqrt()
    toggle = (2 * smooth - opened - closed) / (closed - opened + _FLOOR)
    yield f"toggle {radius}", toggle
