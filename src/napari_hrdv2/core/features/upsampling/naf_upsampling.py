"""Neighbourhood attention from pixels to tokens: NAF as a linear map of the tokens.

How much a pixel takes of each of the 9 × 9 tokens about it depends on the image alone.
So the weights are computed once for an image and kept, in half precision, and applied
to the K planes of a readout. Each of the four heads has weights of its own and a
quarter of the channels: a readout is projected head by head, to 4 K planes, and the
heads are added up after they are upsampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.tiles import Tile, tiles_of
from napari_hrdv2.core.features.upsampling.bilateral import grey_or_rgb_guide
from napari_hrdv2.core.features.upsampling.featup_upsampling import wanted_featup
from napari_hrdv2.core.features.upsampling.naf import Naf, installed_naf
from napari_hrdv2.core.features.upsampling.sharpening import (
    FEATUP,
    LEARNED,
    Upsampling,
    parse_interpolation,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_hrdv2.core.features.upsampling.axis import Axis
    from napari_hrdv2.core.features.upsampling.naf import NafNetwork

REACH = 4  # tokens to each side that a pixel takes from
# Per pixel of the image: memory that is kept, and what comes on top meanwhile.
KEPT_BYTES, WORKING_BYTES = 4 * 81 * 2, 1700


@dataclass(frozen=True)
class _Cells:
    """One axis, cut into stretches of one stride, each about the centre of a token.

    The tokens tile the image where patches do not overlap. Where they do, the pixels
    before the first stretch and behind the last belong to stretches of no token, which
    share those of the border.

    Attributes
    ----------
    size : int
        Pixels of a stretch: the stride.
    start : int
        First pixel of the first stretch, 0 or below.
    token : (stretches,) int64 tensor
        The token that a stretch belongs to.
    window : (stretches, reach) int64 tensor
        The tokens that its pixels take from, moved inside at the border.
    """

    size: int
    start: int
    token: Tensor
    window: Tensor

    @classmethod
    def of(cls, axis: Axis, device: torch.device) -> _Cells:
        """Return the stretches that cover an axis."""
        size, margin = axis.stride, (axis.patch_size - axis.stride) // 2
        before = -(-margin // size)
        start = margin - before * size
        length = max(axis.length, axis.padded_length)
        count = -(-(length - start) // size)
        token = (torch.arange(count, device=device) - before).clamp(0, axis.tokens - 1)
        reach = min(2 * REACH + 1, axis.tokens)
        first = (token - REACH).clamp(0, axis.tokens - reach)
        return cls(size, start, token, first[:, None] + torch.arange(reach).to(device))

    @property
    def count(self) -> int:
        """How many stretches there are."""
        return len(self.token)

    def covering(self, span: slice) -> slice:
        """Return the stretches that cover some pixels."""
        first = (span.start - self.start) // self.size
        return slice(first, -(-(span.stop - self.start) // self.size))

    def place(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stretch of each pixel, and where in it the pixel is."""
        moved = pixels - self.start
        return moved // self.size, moved % self.size


class NafUpsampler:
    """NAF on one grid of tokens, guided by an image.

    Parameters
    ----------
    network : NafNetwork
    guide : (1 or 3, H, W) float32 tensor
        The image, nominally in 0..1, on the device of the tokens.
    rows, columns : Axis

    Attributes
    ----------
    weights : (stretches of rows, of columns, heads, size², window) float16 tensor
        Of the tokens in the window of each stretch, the largest of each pixel 1.
    """

    def __init__(
        self, network: NafNetwork, guide: Tensor, rows: Axis, columns: Axis
    ) -> None:
        self.rows, self.columns = rows, columns
        self.heads = network.config.heads
        device = guide.device
        self.down, self.across = _Cells.of(rows, device), _Cells.of(columns, device)
        self.weights = self._attention(
            network.to(device)(_padded(guide, rows, columns))
        )

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the weights take."""
        return self.weights.numel() * self.weights.element_size()

    def by_head(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return a readout (K, C), (K,) as one of each head, (heads · K, C).

        Channels are dealt out to the heads in equal runs, the last head takes the rest.
        """
        K, C = weight.shape
        share = -(-C // self.heads)
        owner = torch.arange(C, device=weight.device) // share
        mine = owner == torch.arange(self.heads, device=weight.device)[:, None, None]
        spread = (weight * mine).view(self.heads * K, C)
        return spread, (bias / self.heads).repeat(self.heads)

    def blocks(self, planes: Tensor, region: Tile) -> Iterator[tuple[Tile, Tensor]]:
        """Yield the upsampled planes, in the tiles that a region touches.

        Parameters
        ----------
        planes : (1, heads · K, h, w) float32 tensor
            A readout by head.
        region : Tile

        Yields
        ------
        Tile
        (rows, K, columns) float32 tensor
        """
        values = planes[0].view(self.heads, -1, *planes.shape[2:])  # (heads, K, h, w)
        for tile in tiles_of((self.rows.length, self.columns.length), region):
            down, across = (
                cells.covering(span)
                for cells, span in zip((self.down, self.across), tile, strict=True)
            )
            bands = [
                self._band(values, row, across) for row in range(down.start, down.stop)
            ]
            top = self.down.start + down.start * self.down.size
            left = self.across.start + across.start * self.across.size
            block = torch.cat(
                bands
            )[  # (rows, K, columns) of whole stretches
                tile.rows.start - top : tile.rows.stop - top,
                :,
                tile.columns.start - left : tile.columns.stop - left,
            ]
            yield tile, block

    def _band(self, values: Tensor, row: int, across: slice) -> Tensor:
        """Return the pixels of a row of stretches, (size, K, columns)."""
        weights = self.weights[row, across].float()  # (n, heads, size², window)
        near = _windows(values, self.down.window[row], self.across.window[across])
        total = (weights / weights.sum(-1, keepdim=True)) @ near  # (n, heads, size², K)
        pixels = total.sum(1)  # of the heads
        count, size = len(weights), (self.down.size, self.across.size)
        square = pixels.view(count, *size, -1)  # (n, rows, columns, K)
        return square.permute(1, 3, 0, 2).reshape(size[0], -1, count * size[1])

    def needed(self, region: Tile) -> list[tuple[Tensor, Tensor]]:
        """Return which rows and columns of tokens the pixels of a region take from."""
        masks = []
        for axis, cells, span in zip(
            (self.rows, self.columns), (self.down, self.across), region, strict=True
        ):
            mask = torch.zeros(axis.tokens, dtype=torch.bool)
            if span.stop > span.start:
                mask[cells.window[cells.covering(span)].cpu()] = True
            masks.append(mask)
        return [(masks[0], masks[1])]

    def sampled(self, tokens: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the upsampled tokens (1, h, w, C) at N pixels, (N, C) float32."""
        device = tokens.device
        row, row_inside = self.down.place(rows.to(device))
        column, column_inside = self.across.place(columns.to(device))
        inside = row_inside * self.across.size + column_inside
        weight = self.weights[row, column, :, inside].float()  # (N, heads, window)
        weight = weight / weight.sum(-1, keepdim=True)
        width = self.columns.tokens
        index = self.down.window[row][:, :, None] * width
        index = (index + self.across.window[column][:, None, :]).flatten(1)
        table = tokens[0].flatten(0, 1)
        share = -(-table.shape[1] // self.heads)
        parts = torch.split(table, share, dim=1)
        found = [
            torch.einsum("nt,ntc->nc", weight[:, head], part[index].float())
            for head, part in enumerate(parts)
        ]
        return torch.cat(found, dim=1)

    def _attention(self, features: Tensor) -> Tensor:
        """Return how much every pixel takes of each token in its window."""
        heads, channels = self.heads, features.shape[2]
        keys = self._keys(features).view(
            -1, self.columns.tokens, heads, channels // heads
        )
        keys = keys.permute(2, 3, 0, 1)  # (heads, dim, h, w)
        square = self.down.size * self.across.size
        window = self.down.window.shape[1] * self.across.window.shape[1]
        weights = torch.empty(
            self.down.count,
            self.across.count,
            heads,
            square,
            window,
            dtype=torch.float16,
            device=features.device,
        )
        scale = (channels // heads) ** -0.5
        for row, window_rows in enumerate(self.down.window):
            queries = self._queries(features, row)  # (n, heads, size², dim)
            near = _windows(keys, window_rows, self.across.window)
            scores = scale * queries @ near.transpose(2, 3)
            weights[row] = (scores - scores.amax(-1, keepdim=True)).exp_()
        return weights

    def _queries(self, features: Tensor, row: int) -> Tensor:
        """Return the pixels of a row of stretches, (n, heads, size², dim)."""
        height, width, channels = features.shape
        rows, columns = (
            (cells.start + torch.arange(first, last)).clamp(0, length - 1)
            for cells, length, first, last in (
                (self.down, height, row * self.down.size, (row + 1) * self.down.size),
                (self.across, width, 0, self.across.count * self.across.size),
            )
        )
        band = features[rows.to(features.device)][:, columns.to(features.device)]
        band = band.view(self.down.size, self.across.count, self.across.size, channels)
        pixels = band.movedim(1, 0).flatten(1, 2).float()  # (n, size², channels)
        return pixels.view(*pixels.shape[:2], self.heads, -1).transpose(1, 2)

    def _keys(self, features: Tensor) -> Tensor:
        """Return the mean of the pixels about the centre of each token, (h, w, C)."""
        spans = []
        for axis in (self.rows, self.columns):
            margin = (axis.patch_size - axis.stride) // 2
            spans.append(slice(margin, margin + axis.tokens * axis.stride))
        inner = features[spans[0], spans[1]]
        height, width, channels = inner.shape
        cells = inner.view(
            height // self.rows.stride,
            self.rows.stride,
            width // self.columns.stride,
            self.columns.stride,
            channels,
        )
        means = [row.float().mean((0, 2)) for row in cells]  # one row at a time
        return torch.stack(means)


def _windows(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return what the windows of a row of stretches show of maps.

    Parameters
    ----------
    maps : (heads, K, h, w) tensor
    rows : (reach,) int64 tensor
    columns : (n, reach) int64 tensor

    Returns
    -------
    (n, heads, window, K) tensor
    """
    near = maps[:, :, rows][..., columns]  # (heads, K, reach, n, reach)
    return near.permute(3, 0, 2, 4, 1).flatten(2, 3)


def _padded(guide: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the guide with what was mirrored at its border for whole patches."""
    extra = [
        max(0, axis.padded_length - length)
        for axis, length in zip((rows, columns), guide.shape[1:], strict=True)
    ]
    padding = (0, extra[1], 0, extra[0])
    return torch.nn.functional.pad(guide.float()[None], padding, "reflect")[0]


def with_fingerprint(interpolation: str) -> str:
    """Return "naf" and "jbu" with the fingerprint of their weights; others as they are.

    Raises
    ------
    WeightsError
        If the weights are not on this machine, or others than those asked for.
    """
    upsampling = parse_interpolation(interpolation)
    if upsampling.method == FEATUP:
        return f"{FEATUP}@{wanted_featup(upsampling).hash}"
    if upsampling.method != LEARNED:
        return interpolation
    return f"{LEARNED}@{_wanted(upsampling).hash}"


def naf_upsampler(
    upsampling: Upsampling,
    guide: ArrayLike | Tensor | None,
    rows: Axis,
    columns: Axis,
    device: torch.device,
) -> NafUpsampler:
    """Return the operator for an image, with the weights that are on this machine."""
    levels = grey_or_rgb_guide(guide, (rows.length, columns.length), "naf")
    network = _wanted(upsampling).network
    return NafUpsampler(network, levels.to(device), rows, columns)


def _wanted(upsampling: Upsampling) -> Naf:
    naf = installed_naf()
    if upsampling.weights_hash not in ("", naf.hash):
        raise WeightsError(
            f"interpolation: the weights of 'naf' on this machine are {naf.hash} and "
            f"{upsampling.weights_hash} are asked for; put that file in their place"
        )
    return naf
