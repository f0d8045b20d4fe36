"""What guides the smoothing and the upsampling of an image: itself, in 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from napari_hrdv2.core.checks import LEVELS

SMOOTHING = 0.7  # standard deviation, in pixels
REACH = 2  # px around a pixel that it is smoothed with


def guide_from(image: Tensor) -> Tensor:
    """Return a (channels, H, W) image smoothed, stretched to its 1–99 %, in 8 bits."""
    smooth = smoothed_guide(image)
    levels = smooth.flatten()[:: guide_step(smooth.shape)]
    return stretched_guide(smooth, guide_ends(levels))


def smoothed_guide(image: Tensor) -> Tensor:
    """Return a (channels, H, W) image smoothed: each pixel with those around it."""
    offsets = torch.arange(-REACH, REACH + 1, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / SMOOTHING) ** 2)
    kernel = (kernel / kernel.sum()).outer(kernel / kernel.sum())
    padded = pad(image.float()[:, None], (REACH,) * 4, "replicate")
    return conv2d(padded, kernel[None, None])[:, 0]


def guide_step(shape: Sequence[int]) -> int:
    """Return of how many grey levels one is in the sample that tells the ends."""
    return max(1, math.prod(shape) // LEVELS)


def guide_ends(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 1 % and the 99 % of a sample of grey levels."""
    levels, last = levels.sort().values, len(levels) - 1
    return levels[int(0.01 * last)], levels[int(0.99 * last)]


def stretched_guide(smooth: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Return smoothed grey levels in 8 bits, the ends as 0 and 255."""
    low, high = ends
    stretched = (smooth - low) / (high - low).clamp(min=1e-9)
    return (255 * stretched.clamp(0, 1)).round().to(torch.uint8)
