"""Joint bilateral upsampling: pixels take from tokens about them that look alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import avg_pool2d, embedding_bag

from napari_hrdv2.core.features.tiles import Needed, Tile, as_mask, gathered, tiles_of

if TYPE_CHECKING:
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
        device = guide.device
        self.guide = torch.from_numpy(padded).to(device)
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
            for weight, near in self._neighbours(tile, wide, count):
                norm += weight
                for plane, value in zip(total, near, strict=True):
                    plane.addcmul_(weight, value)
            yield tile, (total / norm).movedim(0, 1)

    def needed(self, region: Tile) -> Needed:
        """Return which rows and columns of tokens the pixels of a region take from."""
        axes = (self.rows, self.near_row), (self.columns, self.near_column)
        masks = []
        for (axis, near), span in zip(axes, region, strict=True):
            reached = near[span, None].cpu() + torch.tensor(_OFFSETS)
            masks.append(as_mask(reached.clamp(0, axis.tokens - 1), axis.tokens))
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
        index, first, weight = self._mixing
        table = tokens.flatten(0, 2)
        means = embedding_bag(
            index, table, first, mode="sum", per_sample_weights=weight
        )
        return means.view_as(tokens)

    @cached_property
    def _mixing(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each patch mean the tokens, where they begin in the list, the weights."""
        from scipy.sparse import csr_array, kron, vstack

        size, count = self.columns.patch_size, self.columns.tokens
        width = self.columns.padded_length
        seen = self.columns.stride * np.arange(count)[:, None] + np.arange(size)
        share, starts = np.full(seen.size, 1 / size**2), size * np.arange(count + 1)
        across = csr_array((share, seen.ravel(), starts), (count, width))
        mean = kron(np.ones((1, size)), across, "csr").astype(np.float32)
        strips = []  # of each row of patches, (w, h · w)
        for top in range(0, self.rows.stride * self.rows.tokens, self.rows.stride):
            pixels = torch.cartesian_prod(torch.arange(size) + top, torch.arange(width))
            index, weight = (each.cpu() for each in self.taps(*pixels.T))
            starts = index.shape[1] * np.arange(len(index) + 1)
            taps = weight.flatten().numpy(), index.flatten().numpy(), starts
            strips.append(
                mean @ csr_array(taps, (len(index), self.rows.tokens * count))
            )
        mixing = vstack(strips, "csr")
        parts = mixing.indices, mixing.indptr[:-1], mixing.data
        index, first, weight = (
            torch.from_numpy(x).to(self.guide.device) for x in parts
        )
        return index.long(), first.long(), weight

    def _wide(self, planes: Tensor, columns: slice) -> list[Tensor]:
        """Return planes (K, h, w) as pixels of each column offset see them."""
        last, near = self.columns.tokens - 1, self.near_column[columns]
        return [planes[:, :, (near + n).clamp(0, last)] for n in _OFFSETS]

    def _neighbours(
        self, tile: Tile, wide: list[Tensor], count: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield weight (rows, columns) and values (count, …) of each token."""
        grey = self.guide[:, tile.rows, tile.columns].float()
        for down, row_term in zip(_OFFSETS, self.row_terms, strict=True):
            near = (self.near_row[tile.rows] + down).clamp(0, self.rows.tokens - 1)
            for planes, column_term in zip(wide, self.column_terms, strict=True):
                values = planes[:, near]  # (count + channels, rows, columns)
                space = row_term[tile.rows, None] + column_term[tile.columns]
                weight = _weight(grey, values[count:], space)
                yield weight, values[:count]

    def _cell_means(self) -> Tensor:
        """Return the mean grey level about each token centre, (channels, h, w)."""
        margin = (self.rows.patch_size - self.rows.stride) // 2
        grey = self.guide[:, margin:, margin:].float()
        size = self.rows.patch_size - 2 * margin  # the stride, or one pixel more
        means = avg_pool2d(grey, size, self.rows.stride)
        return means[:, : self.rows.tokens, : self.columns.tokens]


_OFFSETS = tuple(range(-REACH, REACH + 1))


def _weight(grey: Tensor, cell: Tensor, space: Tensor) -> Tensor:
    """Return the weights for grey levels (channels, …) of pixels and their cells."""
    difference = (grey - cell).square_()
    exponent = difference[0] if len(difference) == 1 else difference.sum(0)
    exponent.mul_(-0.5 / (255 * RANGE) ** 2).clamp_(min=LOWEST)
    return exponent.add_(space).exp_()


def _cells(axis: Axis, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pixel's nearest token and (offsets, length) exponents of weights."""
    pixels = torch.arange(length, device=device)
    position = (pixels - (axis.patch_size - 1) / 2) / axis.stride
    position = position.clamp(0, axis.tokens - 1)  # beyond the last centre, as at it
    near = (position + 0.5).floor().long().clamp(max=axis.tokens - 1)
    cell = near + torch.tensor(_OFFSETS, device=device)[:, None]
    exponent = -0.5 * ((position - cell) / SPACE) ** 2
    outside = (cell < 0) | (cell >= axis.tokens)  # there is no such token
    return near, exponent.masked_fill(outside, -torch.inf)
