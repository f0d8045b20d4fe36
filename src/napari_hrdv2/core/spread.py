"""Upsampling, un-shifting and averaging over all shifts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .interpolation import Axis


COLUMNS_PER_BLOCK = 256
STRIP_BYTES = 64_000_000  # memory that rows upsampled along one axis may take


@dataclass(frozen=True)
class _Band:
    """Pixels start..stop as a matrix over a selection of sources."""

    pixels: slice
    index: Tensor  # (m,) int64
    matrix: Tensor  # (pixels, m) float32


class Spread:
    """The linear map from token planes to pixel planes for a set of shifts.

    Interpolation is separable, and shifts that move the rows alike can be added after
    the columns are upsampled. So for each distinct row shift one banded matrix product
    goes along the columns and sums over all column shifts; a second one goes along the
    rows and sums over the row shifts.

    Parameters
    ----------
    shifts : sequence of (int, int)
        Row and column shift of each token map.
    weights : sequence of float
        Weight of each token map.
    rows, columns : Axis
    device : torch.device
    """

    def __init__(
        self,
        shifts: Sequence[tuple[int, int]],
        weights: Sequence[float],
        rows: Axis,
        columns: Axis,
        device: torch.device,
    ) -> None:
        self.shifts, self.weights = shifts, weights
        self.rows, self.columns, self.device = rows, columns, device
        self.row_shifts = sorted({row for row, _ in shifts})
        self.members = [
            [number for number, (row, _) in enumerate(shifts) if row == row_shift]
            for row_shift in self.row_shifts
        ]
        self.column_bands = [
            [
                _joined_band(
                    columns,
                    pixels,
                    [(shifts[number][1], weights[number]) for number in members],
                    device,
                )
                for pixels in _runs(0, columns.length, COLUMNS_PER_BLOCK)
            ]
            for members in self.members
        ]
        self._row_bands: dict[tuple[int, int], _Band] = {}

    def blocks(
        self, planes: Tensor, rows_per_block: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the upsampled average in blocks of rows.

        Parameters
        ----------
        planes : (T, K, h, w) float32 tensor
        rows_per_block : int

        Yields
        ------
        slice
            Rows of the image.
        (rows, K, W) float32 tensor
        """
        count = planes.shape[1]
        row_bytes = len(self.row_shifts) * count * self.columns.length * 4
        strip_tokens = max(8, STRIP_BYTES // row_bytes)
        strip_rows = strip_tokens * self.rows.stride
        strip_rows = max(rows_per_block, strip_rows - strip_rows % rows_per_block)
        for strip in _runs(0, self.rows.length, strip_rows):
            bands = [
                self._row_band(pixels)
                for pixels in _runs(strip.start, strip.stop, rows_per_block)
            ]
            needed = torch.unique(torch.cat([band.index for band in bands]))
            position = torch.zeros(
                len(self.row_shifts) * self.rows.tokens,
                dtype=torch.int64,
                device=self.device,
            )
            position[needed] = torch.arange(len(needed), device=self.device)
            wide = self._upsampled_columns(planes, needed).flatten(1)  # (n, K·W)
            for band in bands:
                block = band.matrix @ wide.index_select(0, position[band.index])
                yield band.pixels, block.reshape(len(block), count, -1)

    def taps(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens that pixels are averages of, and their weights.

        Parameters
        ----------
        rows, columns : (N,) int64 tensors

        Returns
        -------
        index : (N, taps) int64 tensor
            Into the tokens of all shifts, flattened.
        weight : (N, taps) float32 tensor
        """
        indices, weights = [], []
        height, width = self.rows.tokens, self.columns.tokens
        row_taps, column_taps = cache(self.rows.taps), cache(self.columns.taps)
        pairs = zip(self.shifts, self.weights, strict=True)
        for number, (shift, share) in enumerate(pairs):
            row, row_weight = row_taps(rows, shift[0])
            column, column_weight = column_taps(columns, shift[1])
            index = (number * height + row)[:, :, None] * width + column[:, None, :]
            weight = share * row_weight[:, :, None] * column_weight[:, None, :]
            indices.append(index.flatten(1))
            weights.append(weight.flatten(1))
        index, weight = torch.cat(indices, 1), torch.cat(weights, 1)
        return index.to(self.device), weight.to(self.device)

    def _upsampled_columns(self, planes: Tensor, needed: Tensor) -> Tensor:
        """Return the (row shift, token row) pairs in `needed` as (n, K, W)."""
        count, length = planes.shape[1], self.columns.length
        wide = torch.empty(len(needed) * count, length, device=self.device)
        group, token_row = needed // self.rows.tokens, needed % self.rows.tokens
        for number, (members, bands) in enumerate(
            zip(self.members, self.column_bands, strict=True)
        ):
            mine = (group == number).nonzero()[:, 0]
            first, last = int(mine[0]), int(mine[-1]) + 1  # `needed` is sorted
            rows = token_row[first:last]
            # (members, K, n, w) -> (n, K, members, w) -> (n·K, members·w)
            source = planes[members][:, :, rows].permute(2, 1, 0, 3).flatten(2)
            source = source.flatten(0, 1)
            mine_wide = wide[first * count : last * count]
            for band in bands:
                torch.mm(
                    source.index_select(1, band.index),
                    band.matrix.T,
                    out=mine_wide[:, band.pixels],
                )
        return wide.reshape(len(needed), count, length)

    def _row_band(self, pixels: slice) -> _Band:
        key = (pixels.start, pixels.stop)
        if key not in self._row_bands:
            weighted = [(shift, 1.0) for shift in self.row_shifts]
            self._row_bands[key] = _joined_band(
                self.rows, pixels, weighted, self.device
            )
        return self._row_bands[key]


def _joined_band(
    axis: Axis,
    pixels: slice,
    shifts: Sequence[tuple[int, float]],
    device: torch.device,
) -> _Band:
    """One matrix over the tokens of several shifts, laid end to end."""
    run = torch.arange(pixels.start, pixels.stop)
    indices, matrices = [], []
    for number, (shift, weight) in enumerate(shifts):
        index, matrix = axis.band(run, shift)
        indices.append(index + number * axis.tokens)
        matrices.append(weight * matrix)
    return _Band(
        pixels, torch.cat(indices).to(device), torch.cat(matrices, 1).to(device)
    )


def _runs(start: int, stop: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]
