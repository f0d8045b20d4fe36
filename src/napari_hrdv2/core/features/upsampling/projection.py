"""Reading tokens: projecting all that a region needs, and gathering those of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from napari_hrdv2.core.features.tiles import length_of, runs, stop_if

# Tokens are converted to float32 in tiles that stay in the cache; smaller ones take as
# long to call for as to compute. What is asked for rounds alike whatever else is,
# because a tile is computed whole or not at all.
TILE_BYTES = 4_000_000
COLUMNS_PER_TILE = 640  # of the grid; wider grids are cut across too
TILE_BYTES_ON_DEVICE = 256_000_000

Needed = Sequence[tuple[Tensor, Tensor]]


def projected(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    needed: Needed | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Tensor:
    """Return ``tokens · weightᵀ + bias``.

    Parameters
    ----------
    tokens : (T, h, w, C) tensor
    weight, bias : (K, C) and (K,) float32 tensors
    needed : sequence of T pairs of (h,) and (w,) bool tensors, optional
        Rows and columns of the tokens that matter of each map; all by default.
    should_stop : callable, optional
        Asked before each tile.

    Returns
    -------
    (T, K, h, w) float32 tensor
        Without a meaning in tiles without a token that is needed, but finite.
    """
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
        stop_if(should_stop)
        tile, logits = tokens[number, rows], output[number, :, rows]
        if len(column_runs) == 1:
            torch.mm(weight, _in_float32(tile, space), out=logits.flatten(1))
            continue
        part = torch.mm(weight, _in_float32(tile[:, columns], space))
        logits[..., columns] = part.view(len(weight), -1, length_of(columns))
    output[:, :, _rows_between(needed)] += bias[:, None, None]
    return output


def _in_float32(tile: Tensor, space: Tensor) -> Tensor:
    """Return (rows, columns, C) tokens as (C, N), converted in a place that is warm."""
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


def _rows_between(needed: Needed | None) -> slice:
    """Return the rows from the first that is needed of any map to the last."""
    if needed is None:
        return slice(None)
    any_map = torch.stack([rows for rows, _ in needed]).any(0).nonzero()
    return (
        slice(int(any_map.min()), int(any_map.max()) + 1) if len(any_map) else slice(0)
    )


def _grid_of_tiles(tokens: Tensor) -> tuple[list[slice], list[slice]]:
    """Return how the rows and the columns of (T, h, w, C) tokens are cut up."""
    _, height, width, channels = tokens.shape
    on_cpu = tokens.device.type == "cpu"
    count = max(1, (TILE_BYTES if on_cpu else TILE_BYTES_ON_DEVICE) // (4 * channels))
    columns = -(-width // -(-width // min(width, count, COLUMNS_PER_TILE)))
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
