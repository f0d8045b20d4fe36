"""FeatUp's four stages as a linear map of the tokens of one image.

The kernels of all stages are computed once for an image and kept in half precision.
The planes of a readout go through the stages as whole maps; single pixels are read
backwards: what they take from the stage before is found first, down to the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_hrdv2.core.backbones.vit.model import IMAGENET_DEVIATION, IMAGENET_MEAN
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.tiles import Needed, Tile, tiles_of

from .bilateral import grey_or_rgb_guide
from .featup import RADIUS, STAGES, WIDTH, Featup, installed_featup
from .separable import Axis
from .sharpening import FEATUP, Upsampling, parse_interpolation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FACTOR = 2**STAGES
_BAND = 8  # values of a coarse map that 7 neighbouring fine ones are interpolated from
# Per pixel of the finest stage: memory that is kept, and what comes on top meanwhile.
# The coarser stages add a third.
_KEPT_BYTES, _WORKING_BYTES = 2 * WIDTH**2 * 4 / 3, 1300


class JbuUpsampler:
    """FeatUp on one grid of tokens, at least 2 × 2, guided by an image.

    Parameters
    ----------
    weights : Featup
    guide : (1 or 3, H, W) float32 tensor
        The image, nominally in 0..1, on the device of the tokens.
    rows, columns : Axis

    Attributes
    ----------
    kernels : list of (49, 2h, 2w) … (49, 16h, 16w) float16 tensors
    """

    def __init__(
        self, weights: Featup, guide: Tensor, rows: Axis, columns: Axis
    ) -> None:
        self.rows, self.columns = rows, columns
        seen = _seen(guide, rows, columns)
        self.kernels = []
        for stage in range(1, STAGES + 1):
            size = rows.tokens << stage, columns.tokens << stage
            small = functional.adaptive_avg_pool2d(seen, size)
            self.kernels.append(weights.kernels(stage, small))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the kernels take."""
        return sum(k.numel() * k.element_size() for k in self.kernels)

    def needed(self, region: Tile) -> Needed:
        """Return which rows and columns of tokens are needed: all of them."""
        rows, columns = (
            torch.ones(axis.tokens, dtype=torch.bool)
            for axis in (self.rows, self.columns)
        )
        return [(rows, columns)]

    def blocks(self, planes: Tensor, region: Tile) -> Iterator[tuple[Tile, Tensor]]:
        """Yield the upsampled planes, as `SeparableUpsampler.blocks`.

        The bias of a readout comes afterwards: the weights of a pixel do not sum to 1.
        """
        maps = planes[0]
        for kernels in self.kernels:
            maps = _through_stage(maps, kernels)
        for tile in tiles_of((self.rows.length, self.columns.length), region):
            (top, down), (left, across) = (
                _pixel_taps(axis, torch.arange(span.start, span.stop).to(maps.device))
                for axis, span in zip((self.rows, self.columns), tile, strict=True)
            )
            tall = (maps[:, top] * down[..., None]).sum(2)  # (K, rows, 16 w)
            block = (tall[..., left] * across).sum(3)
            yield tile, block.movedim(0, 1)

    def sampled(self, tokens: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the upsampled tokens (1, h, w, C) at N pixels, (N, C) float32."""
        (top, down), (left, across) = (
            _pixel_taps(axis, pixels.to(tokens.device))
            for axis, pixels in ((self.rows, rows), (self.columns, columns))
        )
        weights = down[:, :, None] * across[:, None, :]
        return self._gathered(tokens[0], STAGES, top, left, weights)

    def _at(self, tokens: Tensor, stage: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the map after a stage at some of its pixels, (N, C)."""
        if stage == 0:
            return tokens[rows, columns].float()
        (top, above), (left, below) = (
            _stage_taps(axis.tokens << (stage - 1), pixels)
            for axis, pixels in ((self.rows, rows), (self.columns, columns))
        )
        own = self.kernels[stage - 1][:, rows, columns].float().T
        own = own.view(-1, WIDTH, WIDTH)
        weights = above.transpose(1, 2) @ own @ below  # (N, band, band)
        return self._gathered(tokens, stage - 1, top, left, weights)

    def _gathered(
        self,
        tokens: Tensor,
        stage: int,
        rows: Tensor,
        columns: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """Return sums over windows of the map after a stage, (N, C)."""
        width = self.columns.tokens << stage
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        found, index = torch.unique(index, return_inverse=True)
        values = self._at(tokens, stage, found // width, found % width)
        return functional.embedding_bag(
            index, values, per_sample_weights=weights.flatten(1), mode="sum"
        )


def _through_stage(maps: Tensor, kernels: Tensor) -> Tensor:
    """Return (K, h, w) maps after a stage, (K, 2h, 2w)."""
    _, height, width = kernels.shape
    fine = functional.interpolate(maps[None], (height, width), mode="bicubic")
    fine = functional.pad(fine, [RADIUS] * 4, "reflect")[0]
    total = maps.new_zeros(len(maps), height, width)
    for number, kernel in enumerate(kernels):
        down, right = divmod(number, WIDTH)
        near = fine[:, down : down + height, right : right + width]
        total.addcmul_(near, kernel.float())
    return total


def _stage_taps(coarse: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the 7 fine pixels about some pixels are interpolated from.

    (N, band) pixels of the coarse map, and their (N, 7, band) weights.
    """
    last = 2 * coarse - 1
    fine = pixels[:, None] + torch.arange(-RADIUS, RADIUS + 1, device=pixels.device)
    fine = last - (last - fine.abs()).abs()  # mirrored
    axis = Axis(2 * coarse, coarse, 2, 2, "bicubic", "reflect")
    index, weight = axis.taps(fine.flatten())
    index, weight = index.view(*fine.shape, -1), weight.view(*fine.shape, -1)
    band = min(_BAND, coarse)
    start = index.flatten(1).amin(1).clamp(max=coarse - band)
    spread = weight.new_zeros(*fine.shape, band)
    spread.scatter_add_(2, index - start[:, None, None], weight)
    return start[:, None] + torch.arange(band, device=pixels.device), spread


def _pixel_taps(axis: Axis, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of the finest pixels a pixel of the image lies between, (N, 2)."""
    margin = (axis.patch_size - axis.stride) / 2
    last = axis.tokens * FACTOR - 1
    position = (pixels.double() - margin + 0.5) * FACTOR / axis.stride - 0.5
    position = position.clamp(0, last)
    first = position.floor()
    fraction = (position - first).float()
    index = torch.stack([first, (first + 1).clamp(max=last)], 1).long()
    return index, torch.stack([1 - fraction, fraction], 1)


def _seen(guide: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the part of the padded image that the tokens tile, standardised."""
    pixels = guide.float().expand(3, -1, -1)
    down, right = (
        max(0, axis.padded_length - length)
        for axis, length in zip((rows, columns), guide.shape[1:], strict=True)
    )
    pixels = functional.pad(pixels[None], (0, right, 0, down), "reflect")[0]
    spans = []
    for axis in (rows, columns):
        margin = (axis.patch_size - axis.stride) // 2
        spans.append(slice(margin, margin + axis.tokens * axis.stride))
    mean, deviation = (
        pixels.new_tensor(values).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (pixels[:, spans[0], spans[1]] - mean) / deviation


def jbu_cost(pixels: int, stride: int) -> tuple[int, int]:
    """Return what an image of so many pixels takes, before it starts.

    Bytes that stay, and bytes on top while the kernels are computed.
    """
    finest = pixels * (FACTOR / stride) ** 2
    return round(_KEPT_BYTES * finest), round(_WORKING_BYTES * finest)


def jbu_upsampler(
    upsampling: Upsampling,
    guide: ArrayLike | Tensor | None,
    rows: Axis,
    columns: Axis,
    device: torch.device,
) -> JbuUpsampler:
    """Return the operator for an image, with the weights that are on this machine."""
    levels = grey_or_rgb_guide(guide, (rows.length, columns.length), "jbu")
    if min(rows.tokens, columns.tokens) < 2:
        raise ValueError(
            f"tokens: interpolation 'jbu' needs 2 × 2 of them and there are "
            f"{rows.tokens} × {columns.tokens}; use a larger image"
        )
    return JbuUpsampler(_wanted(upsampling), levels.to(device), rows, columns)


def _wanted(upsampling: Upsampling) -> Featup:
    """Return the weights of this machine, if they are those asked for."""
    featup = installed_featup()
    if upsampling.weights_hash not in ("", featup.hash):
        raise WeightsError(
            f"interpolation: the weights of 'jbu' on this machine are {featup.hash} "
            f"and {upsampling.weights_hash} are asked for; put that file in their place"
        )
    return featup


def with_fingerprint(interpolation: str) -> str:
    """Return "jbu" with the fingerprint of its weights; other methods as they are."""
    upsampling = parse_interpolation(interpolation)
    if upsampling.method != FEATUP:
        return interpolation
    return f"{FEATUP}@{_wanted(upsampling).hash}"
