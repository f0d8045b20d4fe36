"""Upsampling from a token grid to pixels, one axis at a time.

A token with index i has its centre at pixel ``stride * i + (patch_size - 1) / 2``.
Interpolating at a pixel is a weighted sum of a few tokens ("taps") per axis, and so
is a whole row of pixels: a banded matrix. Shifting the image only moves the
positions at which the taps are taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

KERNELS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True)
class Axis:
    """One axis of a token grid and of the image below it.

    Attributes
    ----------
    length : int
        Pixels of the image, without padding.
    tokens : int
        Tokens of the grid, which covers the padded image.
    patch_size, stride : int
        Side of a patch and distance of neighbouring patches in pixels.
    interpolation : {"nearest", "bilinear", "bicubic"}
    boundary : {"periodic", "reflect"}
        What a shifted image shows at its border.
    tiled : bool
        Whether tokens are taken to tile the image evenly, as in HR-Dv2's published
        code. With a stride below the patch size this is off by up to half their
        difference.
    """

    length: int
    tokens: int
    patch_size: int
    stride: int
    interpolation: str = "bilinear"
    boundary: str = "periodic"
    tiled: bool = False

    @property
    def padded_length(self) -> int:
        """Pixels of the padded image that the tokens were computed on."""
        return self.patch_size + self.stride * (self.tokens - 1)

    def taps(self, pixels: Tensor, shift: int = 0) -> tuple[Tensor, Tensor]:
        """Return the tokens that each pixel is interpolated from, and their weights.

        Parameters
        ----------
        pixels : (N,) tensor
            Pixel indices of the image that was not shifted; fractions lie between.
        shift : int
            How far the image was moved before the tokens were computed.

        Returns
        -------
        index : (N, taps) int64 tensor
        weight : (N, taps) float32 tensor
            Sums to 1 over the taps.
        """
        moved = pixels + shift
        if self.boundary == "periodic":
            moved = moved.remainder(self.padded_length)
        else:
            moved = moved.clamp(0, self.padded_length - 1)
        if self.tiled:
            position = (moved.double() + 0.5) * self.tokens / self.padded_length - 0.5
            if self.interpolation == "nearest":  # torch's nearest-exact goes up
                index = torch.floor(position + 0.5).long()[:, None]
                return index, torch.ones_like(index, dtype=torch.float32)
        else:
            position = (moved.double() - (self.patch_size - 1) / 2) / self.stride
        index, weight = _TAPS[self.interpolation](position, self.tokens - 1)
        return index.clamp(0, self.tokens - 1), weight.float()

    def matrix(self, pixels: Tensor, shift: int = 0) -> Tensor:
        """Return the dense (N, tokens) float32 matrix of the taps."""
        index, weight = self.taps(pixels, shift)
        matrix = torch.zeros(len(pixels), self.tokens, device=pixels.device)
        return matrix.scatter_add_(1, index, weight)

    def band(self, pixels: Tensor, shift: int) -> tuple[Tensor, Tensor]:
        """Return the tokens that a run of pixels needs, and the matrix over them.

        Returns
        -------
        index : (m,) int64 tensor
        matrix : (N, m) float32 tensor
        """
        index, weight = self.taps(pixels, shift)
        needed, position = torch.unique(index, return_inverse=True)
        matrix = torch.zeros(len(pixels), len(needed), device=pixels.device)
        return needed, matrix.scatter_add_(1, position, weight)

    def needed(self, pixels: slice, shift: int) -> Tensor:
        """Return which tokens a run of pixels is interpolated from, (tokens,) bool."""
        index, _ = self.taps(torch.arange(pixels.start, pixels.stop), shift)
        mask = torch.zeros(self.tokens, dtype=torch.bool)
        mask[index.flatten()] = True
        return mask

    def unpadded(self) -> Axis:
        """Return the same axis without the cropping to the image."""
        return replace(self, length=self.padded_length)


def padded_length(length: int, patch_size: int, stride: int) -> int:
    """Return the smallest length >= `length` that whole patches cover."""
    steps = max(0, -(-(length - patch_size) // stride))
    return patch_size + steps * stride


def token_count(length: int, patch_size: int, stride: int) -> int:
    """Return how many tokens cover a length, which is padded to whole patches."""
    return 1 + (padded_length(length, patch_size, stride) - patch_size) // stride


def _nearest(position: Tensor, last: int) -> tuple[Tensor, Tensor]:
    # Half way between two tokens both count, or a flipped image would pick the other.
    index = torch.stack([torch.ceil(position - 0.5), torch.floor(position + 0.5)], 1)
    return index.long(), torch.full_like(index, 0.5)


def _bilinear(position: Tensor, last: int) -> tuple[Tensor, Tensor]:
    position = position.clamp(0, last)
    first = position.floor()
    fraction = position - first
    index = torch.stack([first, first + 1], 1).long()
    return index, torch.stack([1 - fraction, fraction], 1)


def _bicubic(position: Tensor, last: int) -> tuple[Tensor, Tensor]:
    # Keys' kernel with a = -0.75; indices beyond the border repeat the last token,
    # as in torch.nn.functional.interpolate.
    first = position.floor()
    offsets = torch.arange(-1, 3, device=position.device)
    distance = (position[:, None] - first[:, None] - offsets).abs()
    near = (1.25 * distance - 2.25) * distance**2 + 1
    far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
    return (first[:, None] + offsets).long(), torch.where(distance <= 1, near, far)


_TAPS = {"nearest": _nearest, "bilinear": _bilinear, "bicubic": _bicubic}
