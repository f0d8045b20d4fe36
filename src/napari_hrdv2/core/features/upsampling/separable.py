"""Interpolation from a token grid to pixels, separable into its two axes.

A token with index i has its centre at pixel ``stride * i + (patch_size - 1) / 2``.
Interpolating at a pixel is a weighted sum of a few tokens ("taps") per axis, and so
is a whole row of pixels: a banded matrix. Shifting the image only moves the
positions at which the taps are taken. `SeparableUpsampler` upsamples, undoes the
shifts and averages over all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_hrdv2.core.features.tiles import (
    ROWS_PER_TILE,
    Needed,
    Tile,
    as_mask,
    column_runs,
    gathered,
    length_of,
    runs,
    touches,
    within,
)

if TYPE_CHECKING:
    from napari_hrdv2.core.features.transforms import TransformSet

KERNELS = ("nearest", "bilinear", "bicubic")
# A band's matrix has one entry for each pixel and token of it, most of which are 0. So
# fine grids take shorter bands.
COLUMNS_PER_BAND, COLUMN_TOKENS_PER_BAND = 256, 32
ROW_TOKENS_PER_BAND = 28
TOKENS_PER_STRIP = 128  # along the columns
STRIP_BYTES = 64_000_000  # memory that rows upsampled along one axis may take


@dataclass(frozen=True)
class Axis:
    """One axis of a token grid and of the image below it."""

    length: int  # pixels of the image, without padding
    tokens: int  # of the grid, which covers the padded image
    patch_size: int
    stride: int
    interpolation: str = "bilinear"  # one of KERNELS
    boundary: str = "periodic"  # or "reflect": what a shifted image shows at its border
    # Whether tokens are taken to tile the image evenly, as in HR-Dv2's published code.
    # With a stride below the patch size this is off by up to half their difference.
    tiled: bool = False

    @property
    def padded_length(self) -> int:
        """Pixels of the padded image that the tokens were computed on."""
        return self.patch_size + self.stride * (self.tokens - 1)

    @property
    def centres(self) -> Tensor:
        """Pixels at which the tokens have their centres."""
        return self.stride * torch.arange(self.tokens) + (self.patch_size - 1) / 2

    def taps(self, pixels: Tensor, shift: int = 0) -> tuple[Tensor, Tensor]:
        """Return the tokens that N pixels are interpolated from, and their weights.

        Pixels are those of the image before it was moved by `shift`; fractions lie
        between. Both tensors are (N, taps); weights are float32 and sum to 1.
        """
        moved, length = pixels + shift, self.padded_length
        is_periodic = self.boundary == "periodic"
        moved = moved.remainder(length) if is_periodic else moved.clamp(0, length - 1)
        if self.tiled:
            position = (moved.double() + 0.5) * self.tokens / length - 0.5
            if self.interpolation == "nearest":  # torch's nearest-exact goes up
                index = torch.floor(position + 0.5).long()[:, None]
                return index, torch.ones_like(index, dtype=torch.float32)
        else:
            position = (moved.double() - (self.patch_size - 1) / 2) / self.stride
        index, weight = _TAPS[self.interpolation](position, self.tokens - 1)
        return index.clamp(0, self.tokens - 1), weight.float()

    def matrix(self, pixels: Tensor, shift: int = 0) -> Tensor:
        """Return the dense (N, tokens) float32 matrix of the taps."""
        return _spread(*self.taps(pixels, shift), self.tokens)

    def band(self, pixels: Tensor, shift: int) -> tuple[Tensor, Tensor]:
        """Return the m tokens that N pixels need, and the (N, m) matrix over them."""
        index, weight = self.taps(pixels, shift)
        needed, position = torch.unique(index, return_inverse=True)
        return needed, _spread(position, weight, len(needed))

    def needed(self, pixels: slice, shift: int) -> Tensor:
        """Return which tokens a run of pixels is interpolated from, (tokens,) bool."""
        index, _ = self.taps(torch.arange(pixels.start, pixels.stop), shift)
        return as_mask(index, self.tokens)


def _spread(index: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return (N, taps) weights in the columns of a dense (N, count) matrix."""
    return weight.new_zeros(len(weight), count).scatter_add_(1, index, weight)


def padded_length(length: int, patch_size: int, stride: int) -> int:
    """Return the smallest length >= `length` that whole patches cover."""
    steps = max(0, -(-(length - patch_size) // stride))
    return patch_size + steps * stride


def token_count(length: int, patch_size: int, stride: int) -> int:
    """Return how many tokens cover a length, which is padded to whole patches."""
    return 1 + (padded_length(length, patch_size, stride) - patch_size) // stride


@dataclass(frozen=True)
class _Band:
    """Pixels start..stop as a matrix over a selection of sources."""

    pixels: slice
    index: Any  # m sources: a tensor, or a slice where they are neighbours
    matrix: Tensor  # (pixels, m) float32

    def of(self, index: Tensor) -> _Band:
        """Return it with other sources, as a slice if each follows the one before."""
        first, last = int(index[0]), int(index[-1])
        is_run = last - first == len(index) - 1 and bool((index.diff() == 1).all())
        return replace(self, index=slice(first, last + 1) if is_run else index)

    def sources(self, table: Tensor, axis: int) -> Tensor:
        """Return the sources of a table, which has them along an axis."""
        if isinstance(self.index, slice):
            return table[self.index] if axis == 0 else table[:, self.index]
        return table.index_select(axis, self.index)


@dataclass(frozen=True)
class _Strip:
    """Rows of tiles whose tokens are upsampled along the columns at once."""

    tiles: list[list[_Band]]  # indices are into `groups`, laid end to end
    groups: list[Tensor]  # token rows that are needed of each row shift


class SeparableUpsampler:
    """The linear map from token planes to pixel planes for a set of shifts.

    Each token map has a (row, column) shift and a weight. Interpolation is separable,
    and shifts that move the rows alike can be added after the columns are upsampled. So
    for each distinct row shift one banded matrix product goes along the columns and
    sums over all column shifts; a second one goes along the rows and sums over those.
    """

    def __init__(
        self, shifts: TransformSet, rows: Axis, columns: Axis, device: torch.device
    ) -> None:
        self.shifts = [copy.shift for copy in shifts.copies]
        self.weights = shifts.weights
        self.rows, self.columns, self.device = rows, columns, device
        self.row_shifts = sorted({row for row, _ in self.shifts})
        self.members = [
            [number for number, (row, _) in enumerate(self.shifts) if row == row_shift]
            for row_shift in self.row_shifts
        ]
        self._column_bands: dict[tuple[int, int], list[list[_Band]]] = {}
        self._strips: dict[tuple[int, int], _Strip] = {}

    def blocks(self, planes: Tensor, region: Tile) -> Iterator[tuple[Tile, Tensor]]:
        """Yield the upsampled average of (T, K, h, w) planes, by `tiles_of` a region.

        Each tile comes with its (rows, K, columns) float32 tensor.
        """
        count = planes.shape[1]
        for columns in column_runs(self.columns.length):
            for strip_rows in runs(0, self.rows.length, self._strip_length(count)):
                if not touches(Tile(strip_rows, columns), region):
                    continue
                strip = self._strip(strip_rows)
                wide = self._upsampled_columns(planes, strip, columns)  # (n, K·W)
                for bands in strip.tiles:
                    rows = slice(bands[0].pixels.start, bands[-1].pixels.stop)
                    tile = Tile(rows, columns)
                    if not touches(tile, region):
                        continue
                    block = wide.new_empty(tile.shape[0], wide.shape[1])
                    for band in bands:
                        part = block[within(band.pixels, rows)]
                        torch.mm(band.matrix, band.sources(wide, 0), out=part)
                    yield tile, block.view(len(block), count, -1)

    def needed(self, region: Tile) -> Needed:
        """Return which rows and columns of each token map a region takes from."""
        across = {right for _, right in self.shifts}
        rows = {by: self.rows.needed(region.rows, by) for by in self.row_shifts}
        columns = {by: self.columns.needed(region.columns, by) for by in across}
        return [(rows[down], columns[right]) for down, right in self.shifts]

    def sampled(self, tokens: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the upsampled tokens at N pixels, (N, C) float32."""
        return gathered(tokens, *self.taps(rows, columns))

    def taps(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens that N pixels are averages of, and their weights.

        Two (N, taps) tensors; indices are into the tokens of all shifts, flattened.
        """
        indices, weights = [], []
        height, width = self.rows.tokens, self.columns.tokens
        row_taps, column_taps = cache(self.rows.taps), cache(self.columns.taps)
        pairs = zip(self.shifts, self.weights, strict=True)
        for number, (shift, part) in enumerate(pairs):
            row, row_weight = row_taps(rows, shift[0])
            column, column_weight = column_taps(columns, shift[1])
            index = (number * height + row)[:, :, None] * width + column[:, None, :]
            weight = part * row_weight[:, :, None] * column_weight[:, None, :]
            indices.append(index.flatten(1))
            weights.append(weight.flatten(1))
        index, weight = torch.cat(indices, 1), torch.cat(weights, 1)
        return index.to(self.device), weight.to(self.device)

    def _strip_length(self, count: int) -> int:
        """Return the rows of a strip, whole tiles that do not take too much memory."""
        row_bytes = len(self.row_shifts) * count * min(self.columns.length, 1536) * 4
        rows = STRIP_BYTES // row_bytes * self.rows.stride
        rows = min(rows, TOKENS_PER_STRIP * self.rows.stride)
        return max(1, rows // ROWS_PER_TILE) * ROWS_PER_TILE

    def _strip(self, rows: slice) -> _Strip:
        key = rows.start, rows.stop
        if key not in self._strips:
            step = min(ROWS_PER_TILE, ROW_TOKENS_PER_BAND * self.rows.stride)
            weighted = [(shift, 1.0) for shift in self.row_shifts]
            tiles = [
                _joined_bands(self.rows, span, step, weighted, self.device)
                for span in runs(rows.start, rows.stop, ROWS_PER_TILE)
            ]
            bands = list(chain.from_iterable(tiles))
            indices = torch.cat([band.index for band in bands])
            needed, position = torch.unique(indices, return_inverse=True)
            group, rows_of = needed // self.rows.tokens, needed % self.rows.tokens
            found = iter(torch.split(position, [len(band.index) for band in bands]))
            self._strips[key] = _Strip(
                [[band.of(next(found)) for band in bands] for bands in tiles],
                [rows_of[group == number] for number in range(len(self.row_shifts))],
            )
        return self._strips[key]

    def _bands(self, columns: slice) -> list[list[_Band]]:
        """Return the bands of a column of tiles, for each distinct row shift."""
        key = columns.start, columns.stop
        if key not in self._column_bands:
            step = min(COLUMNS_PER_BAND, COLUMN_TOKENS_PER_BAND * self.columns.stride)
            of_groups = []
            for members in self.members:
                weighted = [(self.shifts[n][1], self.weights[n]) for n in members]
                axis, device = self.columns, self.device
                bands = _joined_bands(axis, columns, step, weighted, device)
                of_groups.append([band.of(band.index) for band in bands])
            # Whole or not at all: other threads may be reading these features too.
            self._column_bands[key] = of_groups
        return self._column_bands[key]

    def _upsampled_columns(
        self, planes: Tensor, strip: _Strip, columns: slice
    ) -> Tensor:
        """Return the token rows of a strip as (n, K·W), W being a tile's columns."""
        count, length = planes.shape[1], length_of(columns)
        needed = sum(len(rows) for rows in strip.groups)
        wide = torch.empty(needed * count, length, device=self.device)
        first = 0
        groups = zip(self.members, self._bands(columns), strip.groups, strict=True)
        for members, bands, rows in groups:
            maps = torch.tensor(members, device=self.device)[:, None]
            source = planes[maps, :, rows]  # (members, n, K, w)
            source = source.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
            mine = wide[first : first + len(source)]
            first += len(source)
            for band in bands:
                part = mine[:, within(band.pixels, columns)]
                torch.mm(band.sources(source, 1), band.matrix.T, out=part)
        return wide.view(needed, count * length)


def _joined_bands(
    axis: Axis,
    span: slice,
    step: int,
    shifts: Sequence[tuple[int, float]],
    device: torch.device,
) -> list[_Band]:
    """Return bands whose sources are those of several shifts, laid end to end."""
    bands = []
    for pixels in runs(span.start, span.stop, step):
        run = torch.arange(pixels.start, pixels.stop)
        found = [axis.band(run, shift) for shift, _ in shifts]
        index = torch.cat([i + n * axis.tokens for n, (i, _) in enumerate(found)])
        parts = zip(found, shifts, strict=True)
        matrix = torch.cat([weight * part for (_, part), (_, weight) in parts], 1)
        bands.append(_Band(pixels, index.to(device), matrix.to(device)))
    return bands


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
