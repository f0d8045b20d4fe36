"""Joint bilateral upsampling: pixels take from tokens about them that look alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.features.tiles import Needed, Tile, gathered, tiles_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .separable import Axis

REACH = 1  # cells to each side that a pixel takes from; 2 are no better
SPACE = 0.6  # standard deviation of the distance, in cells
RANGE = 0.08  # standard deviation of the grey levels, of which the guide has 0..1
# Grey levels that differ by more count as equally different, so that pixels like none
# of the cells are interpolated by distance.
LOWEST = -20.0  # exponent


def checked_guide(
    guide: ArrayLike | Tensor | None, shape: tuple[int, ...], method: str
) -> Tensor:
    """Return the guide as (channels, H, W), or say what is wrong with it."""
    if guide is None:
        raise ValueError(
            f"guide: interpolation {method!r} is guided by the image; give guide=image"
        )
    if not isinstance(guide, Tensor):
        guide = torch.from_numpy(np.array(guide, np.float32))
    levels = guide[None] if guide.ndim == 2 else guide
    if levels.ndim != 3 or levels.shape[1:] != shape:
        raise ValueError(
            f"guide: shape {tuple(levels.shape)} does not fit an image of shape "
            f"{tuple(shape)}; (H, W) or (channels, H, W) is needed"
        )
    return levels


class Bilateral:
    """Joint bilateral upsampling of one grid of tokens, guided by an image.

    A pixel p is a weighted mean of the 3 × 3 tokens about it. The weight of the token
    in cell j, whose centre is c_j and whose mean grey level is g_j, is

        exp(−|p − c_j|² / 2 (0.6 s)² − |g(p) − g_j|² / 2 (0.08)²)

    with the distance s of the cells and grey levels g in 0..1 [1]_. `guide` is the
    (channels, H, W) uint8 tensor from `guide_from`.

    References
    ----------
    .. [1] J. Kopf et al., "Joint bilateral upsampling", ACM Transactions on Graphics
       26 (3), 2007.
    """

    def __init__(self, guide: Tensor, rows: Axis, columns: Axis) -> None:
        self.rows, self.columns = rows, columns
        # The axes may end a little before the image, or go beyond it by the padding.
        height, width = (max(x.length, x.padded_length) for x in (rows, columns))
        extra = (0, height - guide.shape[1]), (0, width - guide.shape[2])
        padded = np.pad(guide.cpu().numpy(), ((0, 0), *extra), mode="reflect")
        self.guide = torch.from_numpy(padded).to(guide.device)
        device = guide.device
        self.near_row, self.row_terms = _cells(rows, height, device)
        self.near_column, self.column_terms = _cells(columns, width, device)
        self.cells = self._cell_means()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the guide takes."""
        return self.guide.numel()

    def blocks(self, planes: Tensor, region: Tile) -> Iterator[tuple[Tile, Tensor]]:
        """Yield the upsampled planes, as `SeparableUpsampler.blocks`."""
        count, values = planes.shape[1], torch.cat([planes[0], self.cells])
        columns, wide = slice(0, 0), list[Tensor]()
        for tile in tiles_of((self.rows.length, self.columns.length), region):
            if tile.columns != columns:
                columns, wide = tile.columns, self._wide(values, tile.columns)
            total = planes.new_zeros(count, *tile.shape)
            norm = planes.new_zeros(*tile.shape)
            for _, _, weight, near in self._neighbours(tile, wide, count):
                norm += weight
                for plane, value in zip(total, near, strict=True):
                    plane.addcmul_(weight, value)
            yield tile, (total / norm).movedim(0, 1)

    def needed(self, region: Tile) -> Needed:
        """Return which rows and columns of tokens the pixels of a region take from."""
        axes = (self.rows, self.near_row), (self.columns, self.near_column)
        masks = []
        for (axis, near), span in zip(axes, region, strict=True):
            mask = torch.zeros(axis.tokens, dtype=torch.bool)
            reached = near[span].cpu()[:, None] + torch.tensor(_OFFSETS)
            mask[reached.clamp(0, axis.tokens - 1)] = True
            masks.append(mask)
        return [(masks[0], masks[1])]

    def sampled(self, tokens: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the upsampled tokens at N pixels, (N, C) float32."""
        return gathered(tokens, *self.taps(rows, columns))

    def taps(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens of each pixel and their weights, (N, 9) each."""
        device = self.guide.device
        rows, columns = rows.to(device), columns.to(device)
        grey = self.guide[:, rows, columns].float()  # (channels, N)
        indices, weights = [], []
        for down, row_term in zip(_OFFSETS, self.row_terms, strict=True):
            row = (self.near_row[rows] + down).clamp(0, self.rows.tokens - 1)
            for right, column_term in zip(_OFFSETS, self.column_terms, strict=True):
                column = self.near_column[columns] + right
                column = column.clamp(0, self.columns.tokens - 1)
                space = row_term[rows] + column_term[columns]
                weights.append(_weight(grey, self.cells[:, row, column], space))
                indices.append(row * self.columns.tokens + column)
        weight = torch.stack(weights, 1)
        return torch.stack(indices, 1), weight / weight.sum(1, keepdim=True)

    def patch_means(self, tokens: Tensor) -> Tensor:
        """Return the mean of each patch of the upsampled tokens, (1, h, w, c) both."""
        output = torch.zeros_like(tokens)
        _, height, width, _ = tokens.shape
        for (down, right), share in self._shares.items():
            to_rows, from_rows = _overlap(height, down)
            to_columns, from_columns = _overlap(width, right)
            output[0, to_rows, to_columns].addcmul_(
                share[to_rows, to_columns, None], tokens[0, from_rows, from_columns]
            )
        return output

    @cached_property
    def _shares(self) -> dict[tuple[int, int], Tensor]:
        """What each patch mean takes from the token at an offset, (h, w) each.

        The pixels of a patch are nearest to one token or, where patches overlap, to
        some. So the mean of a patch is a sum over rectangles of pixels that share
        their 9 tokens, and that is read off the integral image of each weight.
        """
        height, width = self.guide.shape[1:]
        everything = Tile(slice(0, height), slice(0, width))
        wide = self._wide(self.cells, everything.columns)
        device = self.guide.device
        norm = torch.zeros(height, width, device=device)
        for _, _, weight, _ in self._neighbours(everything, wide, 0):
            norm += weight
        row_parts = _rectangles(self.rows, self.near_row)
        column_parts = _rectangles(self.columns, self.near_column)
        area = self.rows.patch_size * self.columns.patch_size
        shares: dict[tuple[int, int], Tensor] = {}
        for down, right, weight, _ in self._neighbours(everything, wide, 0):
            table = _integral(weight / norm)  # (H + 1, W + 1)
            for row_tile, (top, bottom) in row_parts.items():
                band = table[bottom] - table[top]  # (h, W + 1)
                for column_tile, (left, end) in column_parts.items():
                    share = ((band[:, end] - band[:, left]) / area).float().to(device)
                    key = (row_tile + down, column_tile + right)
                    shares[key] = shares.get(key, 0) + share
        return shares

    def _wide(self, planes: Tensor, columns: slice) -> list[Tensor]:
        """Return planes (K, h, w) as pixels of each column offset see them."""
        last, near = self.columns.tokens - 1, self.near_column[columns]
        return [planes[:, :, (near + n).clamp(0, last)] for n in _OFFSETS]

    def _neighbours(
        self, tile: Tile, wide: list[Tensor], count: int
    ) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """Yield offset, weight (rows, columns) and values (count, …) of each token."""
        grey = self.guide[:, tile.rows, tile.columns].float()
        for down, row_term in zip(_OFFSETS, self.row_terms, strict=True):
            near = (self.near_row[tile.rows] + down).clamp(0, self.rows.tokens - 1)
            for number, right in enumerate(_OFFSETS):
                values = wide[number][:, near]  # (count + channels, rows, columns)
                column_term = self.column_terms[number][tile.columns]
                space = row_term[tile.rows, None] + column_term
                weight = _weight(grey, values[count:], space)
                yield down, right, weight, values[:count]

    def _cell_means(self) -> Tensor:
        """Return the mean grey level about each token centre, (channels, h, w)."""
        table = _integral(self.guide)
        (top, bottom), (left, end) = map(_about_centres, (self.rows, self.columns))
        band = table[:, bottom] - table[:, top]
        area = (bottom - top)[:, None] * (end - left)
        means = (band[:, :, end] - band[:, :, left]) / area
        return means.float().to(self.guide.device)


_OFFSETS = tuple(range(-REACH, REACH + 1))


def _weight(grey: Tensor, cell: Tensor, space: Tensor) -> Tensor:
    """Return the weights for grey levels (channels, …) of pixels and their cells."""
    difference = (grey - cell).square_()
    exponent = difference[0] if len(difference) == 1 else difference.sum(0)
    exponent.mul_(-0.5 / (255 * RANGE) ** 2).clamp_(min=LOWEST)
    return exponent.add_(space).exp_()


def _cells(axis: Axis, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the nearest token of each pixel, and the exponent of each offset's weight.

    Shapes are (length,) and (offsets, length); -inf stands for no such token.
    """
    pixels = torch.arange(length, device=device)
    position = (pixels - (axis.patch_size - 1) / 2) / axis.stride
    position = position.clamp(0, axis.tokens - 1)  # beyond the last centre, as at it
    near = (position + 0.5).floor().long().clamp(max=axis.tokens - 1)
    cell = near + torch.tensor(_OFFSETS, device=device)[:, None]
    exponent = -0.5 * ((position - cell) / SPACE) ** 2
    outside = (cell < 0) | (cell >= axis.tokens)
    return near, exponent.masked_fill(outside, -torch.inf)


def _integral(planes: Tensor) -> Tensor:
    """Return sums over all pixels above and to the left, (…, H + 1, W + 1).

    On the CPU, because not every device has double precision.
    """
    table = torch.nn.functional.pad(planes.cpu().double(), (1, 0, 1, 0))
    return table.cumsum(-2).cumsum(-1)


def _about_centres(axis: Axis) -> tuple[Tensor, Tensor]:
    """Return first and past-the-last pixel of a stride about each token centre."""
    margin = (axis.patch_size - axis.stride) // 2
    first = axis.stride * torch.arange(axis.tokens) + margin
    return first, first + axis.patch_size - 2 * margin


def _rectangles(axis: Axis, near: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Return, for each offset of tokens, which pixels of a patch are nearest to it.

    First and past-the-last pixel, (h,) each, equal where there is none.
    """
    tokens, near = torch.arange(axis.tokens), near.cpu()
    edges = torch.searchsorted(near, torch.arange(axis.tokens + 1))
    first = axis.stride * tokens
    last = first + axis.patch_size
    reach = int((near[first] - tokens).abs().max())
    reach = max(reach, int((near[last - 1] - tokens).abs().max()))
    parts = {}
    for offset in range(-reach, reach + 1):
        tile = tokens + offset
        inside = (tile >= 0) & (tile < axis.tokens)
        tile = tile.clamp(0, axis.tokens - 1)
        start = torch.maximum(edges[tile], first)
        stop = torch.minimum(edges[tile + 1], last)
        stop = torch.where(inside, torch.maximum(start, stop), start)
        parts[offset] = start, stop
    return parts


def _overlap(length: int, offset: int) -> tuple[slice, slice]:
    """Return the slices of two rows of tokens that lie over each other."""
    return (
        slice(max(0, -offset), max(0, min(length, length - offset))),
        slice(max(0, offset), max(0, min(length, length + offset))),
    )
