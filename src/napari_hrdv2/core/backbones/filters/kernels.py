"""Small image operators on stacks of planes, the parts of the filter bank.

Every operator takes planes of shape (..., H, W), works along the last two axes and
sees beyond the border the image mirrored about its edge (``d c b a | a b c d``), so
that any size from one pixel up is allowed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

_FULL_SIGMA = 8.0  # wider Gaussians work on a reduced grid
_TRUNCATE = 4.0  # a Gaussian is cut off at this many sigmas, as in scipy


def mirror(planes: Tensor, radius: int, axis: int) -> Tensor:
    """Return the planes with ``radius`` mirrored samples added at both ends."""
    size = planes.shape[axis]
    if radius <= size:  # the common case, five times faster than by index
        before = planes.narrow(axis, 0, radius).flip(axis)
        after = planes.narrow(axis, size - radius, radius).flip(axis)
        return torch.cat((before, planes, after), dim=axis)
    index = torch.arange(-radius, size + radius, device=planes.device)
    index = index.remainder(2 * size)  # the mirrored image repeats after 2 sizes
    return planes.index_select(axis, torch.minimum(index, 2 * size - 1 - index))


def correlate(planes: Tensor, taps: list[float], axis: int) -> Tensor:
    """Return the planes correlated with an odd number of ``taps`` along an axis.

    Adding shifted views beats ``conv2d`` six times on a CPU: one plane has too few
    channels for it.
    """
    size = planes.shape[axis]
    padded = mirror(planes, len(taps) // 2, axis)
    total = padded.narrow(axis, 0, size) * taps[0]
    for offset, tap in enumerate(taps[1:], start=1):
        if tap:
            total.add_(padded.narrow(axis, offset, size), alpha=tap)
    return total


def patch_means(planes: Tensor, patch_size: int, stride: int) -> Tensor:
    """Return the means of planes over square patches.

    Adding views is several times as fast as ``avg_pool2d`` for a plane.
    """
    if patch_size == 1:
        return planes[..., ::stride, ::stride]
    for axis in (-2, -1):
        first, *others = planes.unfold(axis, patch_size, stride).unbind(-1)
        planes = first + others[0]
        for other in others[1:]:
            planes += other
    return planes / patch_size**2


def gaussian(
    planes: Tensor, sigma: float | tuple[float, float], *, aligned: bool = False
) -> Tensor:
    """Return the planes smoothed by a Gaussian of ``sigma`` pixels, or (rows, columns).

    Beyond 8 pixels the smoothing happens on a reduced grid: on white noise in 0..1
    the result is then off by less than 5e-4, on images of a few pixels by 2e-3. With
    `aligned` every grid has exactly half the pixels of the one before, so that part of
    an image has the grids of the whole; else odd sides have them evenly stretched, and
    a mirrored image has the mirrored result.
    """
    sigma_rows, sigma_columns = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    height, width = planes.shape[-2:]
    if min(sigma_rows, sigma_columns) <= _FULL_SIGMA or min(height, width) < 2:
        smooth = correlate(planes, gaussian_taps(sigma_columns), -1)
        return correlate(smooth, gaussian_taps(sigma_rows), -2)
    # A slight Gaussian keeps the reduced grid free of aliases; it and the mean of
    # two pixels (variance 1/4) are part of the smoothing asked for.
    taps = gaussian_taps(1.0)
    slight = correlate(correlate(planes, taps, -1), taps, -2)
    rest = reach_of(max(sigma_rows, sigma_columns)) | 1  # odd as well
    for axis, length in ((-2, height), (-1, width)):
        if aligned and length % 2:
            slight = mirror(slight, rest, axis).narrow(axis, rest, length + rest)
    shape = slight.shape[-2:]
    size = math.ceil(shape[0] / 2), math.ceil(shape[1] / 2)
    reduced = functional.interpolate(slight, size=size, mode="bilinear")
    rows = math.sqrt(sigma_rows**2 - 1.25) * size[0] / shape[0]
    columns = math.sqrt(sigma_columns**2 - 1.25) * size[1] / shape[1]
    smooth = gaussian(reduced, (rows, columns), aligned=aligned)
    large = functional.interpolate(smooth, size=shape, mode="bicubic")
    return large[..., :height, :width]


def reach_of(sigma: float) -> int:
    """Return how many pixels away `gaussian` still looks, to rounding."""
    tail = 0.5 if sigma > _FULL_SIGMA else 0  # of the reduced grids
    return math.ceil((_TRUNCATE + tail) * sigma)


def gaussian_taps(sigma: float) -> list[float]:
    """Return the weights of a Gaussian at whole distances, which sum to 1."""
    radius = int(_TRUNCATE * sigma + 0.5)
    taps = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-radius, radius + 1)]
    total = sum(taps)
    return [tap / total for tap in taps]


def gradient(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives (along rows, along columns) by central differences."""
    taps = [-0.5, 0.0, 0.5]
    return correlate(planes, taps, -2), correlate(planes, taps, -1)


def hessian(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the second derivatives (row-row, row-column, column-column)."""
    rows, _ = gradient(planes)
    second = [1.0, -2.0, 1.0]
    mixed = correlate(rows, [-0.5, 0.0, 0.5], -1)
    return correlate(planes, second, -2), mixed, correlate(planes, second, -1)


def eigenvalues(a: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the larger and the smaller eigenvalue of [[a, b], [b, d]] per pixel."""
    middle = (a + d) * 0.5
    radius = torch.hypot((a - d) * 0.5, b)
    return middle + radius, middle - radius


def window_maximum(planes: Tensor, radius: int) -> Tensor:
    """Return the maximum over the square of 2·radius + 1 pixels about each pixel."""
    for axis in (-2, -1):
        planes = mirror(planes, radius, axis)
        # Doubling: the maximum over n samples gives the one over up to 2n samples.
        width = 1
        while width < 2 * radius + 1:
            step = min(width, 2 * radius + 1 - width)
            count = planes.shape[axis] - step
            planes = torch.maximum(
                planes.narrow(axis, 0, count), planes.narrow(axis, step, count)
            )
            width += step
    return planes


def window_minimum(planes: Tensor, radius: int) -> Tensor:
    """Return the minimum over the square of 2·radius + 1 pixels about each pixel."""
    return window_maximum(planes.neg(), radius).neg_()
