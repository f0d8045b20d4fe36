"""The fixed tiles in which pixels and tokens are worked on.

How a matrix product rounds depends on its shape. So a region is not computed on its
own: it takes the tiles that it touches, each of which is the same whatever else is
computed. That is why a region equals the same part of the whole, bit for bit. So it is
with the pixels of an image, and with the tokens that are projected for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.errors import Stop as Stop
from napari_hrdv2.core.errors import stop_if

if TYPE_CHECKING:
    import numpy as np

Region = tuple[slice, slice]
ROWS_PER_TILE = 112  # so that a tile stays in the cache
COLUMNS_PER_TILE = 1024
# Tokens are converted to float32 in tiles that stay in the cache, but are not tiny.
TOKEN_TILE_BYTES, TOKEN_TILE_BYTES_ON_DEVICE = 4_000_000, 256_000_000
TOKEN_COLUMNS_PER_TILE = 640  # wider grids are cut across too

Needed = Sequence[tuple[Tensor, Tensor]]
"""Of each token map, which of its rows and columns are needed: bool tensors."""


class Tile(NamedTuple):
    """A rectangle of pixels; both slices have a start and a stop."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return length_of(self.rows), length_of(self.columns)


class LinearModel(NamedTuple):
    """K linear functions of C channels, ``weight @ features + bias``."""

    weight: Tensor  # (K, C) float32
    bias: Tensor  # (K,) float32

    def against(self, chosen: int) -> LinearModel:
        """Return all others minus the chosen one, which becomes 0."""
        others = [index for index in range(len(self.bias)) if index != chosen]
        weight = self.weight[others] - self.weight[chosen]
        return LinearModel(weight, self.bias[others] - self.bias[chosen])

    def probabilities(self, features: Tensor) -> Tensor:
        """Return the probability of each class, (N, K), of (N, C) features."""
        return (features @ self.weight.T + self.bias).softmax(1)

    def numpy(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weight, (K, C), and bias, (K,), as arrays."""
        return self.weight.numpy(), self.bias.numpy()

    def to(self, device: torch.device) -> LinearModel:
        """Return it on a device."""
        return LinearModel(self.weight.to(device), self.bias.to(device))


def checked_region(region: Region | None, shape: tuple[int, int]) -> Tile:
    """Return the pixels that ``array[region]`` would be of an (H, W) array."""
    if region is None:
        return Tile(slice(0, shape[0]), slice(0, shape[1]))
    kinds = [*map(type, region)] if isinstance(region, tuple) else []
    if kinds != [slice, slice]:
        raise TypeError(
            f"region: {region!r} is not (rows, columns) in slices; "
            "(slice(0, 100), slice(0, 200)) is what is needed"
        )
    spans = []
    for part, length in zip(region, shape, strict=True):
        start, stop, step = part.indices(length)
        if step != 1:
            raise ValueError(f"region: {part} has a step; only neighbouring pixels go")
        spans.append(slice(start, max(start, stop)))
    return Tile(*spans)


def tiles_of(shape: tuple[int, int], region: Tile) -> Iterator[Tile]:
    """Yield the tiles that a region touches, one column of tiles after the other."""
    for columns in column_runs(shape[1]):
        for rows in runs(0, shape[0], ROWS_PER_TILE):
            tile = Tile(rows, columns)
            if touches(tile, region):
                yield tile


def column_runs(width: int) -> list[slice]:
    """Return how the columns of an image are divided; a narrow rest joins the last."""
    count = max(1, round(width / COLUMNS_PER_TILE))
    starts = [number * COLUMNS_PER_TILE for number in range(count)]
    return list(map(slice, starts, [*starts[1:], width]))


def runs(start: int, stop: int, step: int) -> list[slice]:
    """Return stretches of one length, but for the last."""
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]


def chunks_of(image: Any) -> tuple[int, int]:
    """Return rows and columns of the largest chunk of an image; 1 where it has none."""
    chunks = getattr(image, "chunks", None) or (1, 1)
    tall, wide = (max(c) if isinstance(c, tuple) else int(c) for c in chunks[:2])
    return tall, wide


def touches(tile: Tile, region: Tile) -> bool:
    """Return whether two rectangles have a pixel in common."""
    pairs = zip(tile, region, strict=True)
    return all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in pairs)


def shared(one: Tile, other: Tile) -> Tile:
    """Return the pixels of two rectangles that touch."""
    assert touches(one, other)
    pairs = zip(one, other, strict=True)
    return Tile(*(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs))


def moved(tile: Tile, by: Tile, sign: int) -> Tile:
    """Return a rectangle moved by (-1: back by) where another one begins."""
    steps = [(span, sign * other.start) for span, other in zip(tile, by, strict=True)]
    return Tile(*(slice(span.start + n, span.stop + n) for span, n in steps))


def within(part: slice, whole: slice) -> slice:
    """Return a stretch as counted from the start of another."""
    return slice(part.start - whole.start, part.stop - whole.start)


def as_mask(index: ArrayLike | Tensor, length: int) -> Tensor:
    """Return which of 0 … length - 1 are among some numbers, (length,) bool."""
    mask = torch.zeros(length, dtype=torch.bool)
    mask[torch.as_tensor(index).flatten().long().cpu()] = True
    return mask


def length_of(span: slice) -> int:
    """Return how many pixels a stretch has."""
    return int(span.stop - span.start)


def paste(output: Any, tile: Tile, block: Any, region: Tile) -> None:
    """Write the part of a tile that lies in a region into the region's array."""
    part = shared(tile, region)
    output[..., *map(within, part, region)] = block[..., *map(within, part, tile)]


def projected(
    tokens: Tensor, model: LinearModel, needed: Needed | None, stop: Stop
) -> Tensor:
    """Return the model at (T, h, w, C) tokens, (T, K, h, w) float32.

    Without a meaning in tiles that no token of `needed` lies in, but finite.
    """
    weight = model.weight
    maps, height, width, channels = tokens.shape
    row_runs, column_runs = _grid_of_tiles(tokens)
    output = torch.zeros(maps, len(weight), height, width, device=tokens.device)
    most = length_of(row_runs[0]) * length_of(column_runs[0])
    space = torch.empty(most, channels, device=tokens.device)
    for number, rows, columns in product(range(maps), row_runs, column_runs):
        if needed is not None and not (
            needed[number][0][rows].any() and needed[number][1][columns].any()
        ):
            continue
        stop_if(stop, "the prediction")
        tile, logits = tokens[number, rows], output[number, :, rows]
        if len(column_runs) == 1:
            torch.mm(weight, _in_float32(tile, space), out=logits.flatten(1))
            continue
        part = torch.mm(weight, _in_float32(tile[:, columns], space))
        logits[..., columns] = part.view(len(weight), -1, length_of(columns))
    output += model.bias[:, None, None]
    return output


def _in_float32(tile: Tensor, space: Tensor) -> Tensor:
    """Return (rows, columns, C) tokens as (C, N) float32, in `space` if converted."""
    rows, columns, channels = tile.shape
    if tile.stride(2) != 1:  # plane by plane, as filters leave them
        planes = tile.movedim(2, 0)  # (C, rows, columns)
        table = space.flatten()[: tile.numel()].view(planes.shape)
        return table.copy_(planes).flatten(1)
    table = space[: rows * columns]
    if tile.dtype != torch.float32:
        table.view(tile.shape).copy_(tile)
        return table.T
    return tile.reshape(-1, channels).T


def _grid_of_tiles(tokens: Tensor) -> tuple[list[slice], list[slice]]:
    """Return how the rows and the columns of (T, h, w, C) tokens are cut up."""
    _, height, width, channels = tokens.shape
    on_cpu = tokens.device.type == "cpu"
    most = TOKEN_TILE_BYTES if on_cpu else TOKEN_TILE_BYTES_ON_DEVICE
    count = max(1, most // (4 * channels))
    columns = -(-width // -(-width // min(width, count, TOKEN_COLUMNS_PER_TILE)))
    return runs(0, height, max(1, count // columns)), runs(0, width, columns)


def gathered(tokens: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return weighted sums of token rows, (N, taps) twice -> (N, C) float32."""
    table = tokens.reshape(-1, tokens.shape[-1])
    if table.dtype != torch.float32 or not table.is_contiguous():
        # Neighbouring pixels share tokens: convert each needed row once.
        if index.numel() < len(table) // 8:
            rows, index = torch.unique(index, return_inverse=True)
        else:  # sorting many takes longer than marking them
            rows = torch.zeros(len(table), dtype=torch.bool, device=table.device)
            rows[index.flatten()] = True
            index = (rows.cumsum(0) - 1)[index]
        table = table[rows].float()
    return torch.nn.functional.embedding_bag(
        index, table, per_sample_weights=weight, mode="sum"
    )
