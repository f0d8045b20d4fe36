"""What SPiT sees of each pixel: for the tokens, and for deciding which regions merge.

Numbers must not depend on the count of threads, because the partition hangs on their
last digits. Sums, products and roots are rounded alike everywhere; other functions are
computed in blocks that torch does not share out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Mean and shape of the contrast curve of red, green and blue.
_CONTRAST = ((0.485, 0.539), (0.456, 0.507), (0.406, 0.404))
_GRADIENT_CONTRAST = 27.8
_COLOUR_CONTRAST = 10.0
_SCHARR = ((-3.0, -10.0, -3.0), (0.0, 0.0, 0.0), (3.0, 10.0, 3.0))
_LARGEST_DERIVATIVE = 13 / 16  # of the Scharr kernel on 0..1, along one axis
_SATURATION = 2.718
_LUMINANCE = (0.299, 0.587, 0.114)
_DIFFUSION_STEPS, _DIFFUSION_KAPPA, _DIFFUSION_RATE = 4, 0.1, 0.5
# Torch shares out tensors of 32768 elements and more among threads, and computes the
# ends of each share with other code than its middle.
_BLOCK = 16384


def pixel_features(image: Tensor) -> Tensor:
    """Return colour, position and gradient of every pixel of an RGB image in 0..1.

    The (7, H, W) planes are red, green and blue after a contrast curve, in -1..1; row
    and column, where the longer side reaches from -1 to 1; derivatives along rows and
    along columns.

    Notes
    -----
    The reference computes the gradient of a single image after it changed the image's
    contrast in place, and of the images of a batch before; it was trained on batches,
    so before it is here.
    """
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(
            f"image: the shape is {tuple(image.shape)}; it must be (3, H, W)"
        )
    _, height, width = image.shape
    colours = [
        2 * _kumaraswamy(plane.clamp(0, 1), *curve) - 1
        for plane, curve in zip(image, _CONTRAST, strict=True)
    ]
    step = 2 / max(height, width)
    rows, columns = (
        torch.arange(length, device=image.device, dtype=image.dtype) * step - 1
        for length in (height, width)
    )
    position = torch.meshgrid(rows, columns, indexing="ij")
    grey = (image[0] + image[1] + image[2]) / 3
    derivatives = [_asinh_contrast(d, _GRADIENT_CONTRAST) for d in _scharr(grey)]
    return torch.stack([*colours, *position, *derivatives])


def vertex_features(features: Tensor) -> Tensor:
    """Return what the similarity of neighbouring regions is measured on, (4, H, W).

    Of `pixel_features` luminance and two differences of colour, saturated and smoothed
    within edges [1]_, and the magnitude of the gradient, all in -1..1.

    References
    ----------
    .. [1] P. Perona and J. Malik, "Scale-space and edge detection using anisotropic
       diffusion", IEEE TPAMI 12 (1990), 629-639.
    """
    red, green, blue = (features[:3] + 1) / 2
    grey = _fused(green, _LUMINANCE[1], red * _LUMINANCE[0]) + blue * _LUMINANCE[2]
    red, green, blue = (
        _fused(plane - grey, _single(_SATURATION) - 1, plane).clamp(0, 1)
        for plane in (red, green, blue)
    )
    luminance = _LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue
    differences = (blue - luminance) * 0.564 + 0.5, (red - luminance) * 0.713 + 0.5
    planes = torch.stack([luminance, *differences])
    colours = _diffused(_asinh_contrast(2 * planes - 1, _COLOUR_CONTRAST)).clamp(-1, 1)
    down, right = features[5:]
    largest = math.sqrt(2) * math.asinh(_GRADIENT_CONTRAST * _LARGEST_DERIVATIVE)
    largest /= math.asinh(_GRADIENT_CONTRAST)
    magnitude = (down * down + right * right).sqrt() / largest
    return torch.cat([colours, (2 * magnitude - 1)[None]])


def _kumaraswamy(x: Tensor, mean: float, a: float) -> Tensor:
    """Return the distribution function of Kumaraswamy with that median."""
    b = -math.log(2) / math.log(1 - mean**a)
    return _in_blocks(lambda x: 1 - (1 - x**a) ** b, x)


def _asinh_contrast(x: Tensor, strength: float) -> Tensor:
    return _in_blocks(torch.asinh, x * strength) / math.asinh(strength)


def _fused(x: Tensor, factor: float, added: Tensor) -> Tensor:
    """Return x * factor + added, rounded once, as the reference's processors do."""
    # A difference in the last digit can move the borders of the regions.
    return (x.double() * _single(factor) + added).to(x.dtype)


def _single(number: float) -> float:
    """Return a number as float32 holds it."""
    return torch.tensor(number, dtype=torch.float32).item()


def _scharr(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of an (H, W) plane down and to the right."""
    height, width = plane.shape
    padded = F.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    kernel = torch.tensor(_SCHARR)
    sums = []
    for weights in (kernel, kernel.T):
        total = torch.zeros_like(plane)
        for row, column in weights.nonzero().tolist():
            window = padded[row : row + height, column : column + width]
            total = _fused(window, weights[row, column].item(), total)
        sums.append(total / 16)
    return sums[0], sums[1]


def _diffused(planes: Tensor) -> Tensor:
    """Return (C, H, W) planes after a few steps of Perona and Malik's diffusion."""
    for _ in range(_DIFFUSION_STEPS):
        planes = planes + _DIFFUSION_RATE * (_inflow(planes, 1) + _inflow(planes, 2))
    return planes


def _inflow(planes: Tensor, axis: int) -> Tensor:
    """Return what each pixel gains along an axis; nothing crosses the border."""
    difference = planes.diff(dim=axis)
    scaled = difference / _DIFFUSION_KAPPA
    flow = _in_blocks(torch.exp, -(scaled * scaled)) * difference
    gain = torch.zeros_like(planes)
    count = planes.shape[axis] - 1
    gain.narrow(axis, 0, count).add_(flow)
    gain.narrow(axis, 1, count).sub_(flow)
    return gain


def _in_blocks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of single elements so that threads do not change a digit."""
    if x.device.type != "cpu" or not x.numel():
        return function(x)
    parts = [function(part) for part in torch.split(x.flatten(), _BLOCK)]
    return torch.cat(parts).view(x.shape)
