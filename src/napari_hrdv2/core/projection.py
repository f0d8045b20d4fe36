"""Reading tokens: projecting all that a region needs, and gathering those of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from .pixel_tiles import runs, stop_if

# Tokens are converted to float32 in tiles that stay in a core's cache. What is asked
# for rounds alike whatever else is, because a tile is computed whole or not at all.
TILE_BYTES = 2_000_000
COLUMNS_PER_TILE = 256
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
        0 in tiles without a token that is needed.
    """
    maps, height, width, channels = tokens.shape
    on_cpu = tokens.device.type == "cpu"
    count = (TILE_BYTES if on_cpu else TILE_BYTES_ON_DEVICE) // (4 * channels)
    parts = -(-width // (COLUMNS_PER_TILE if on_cpu else max(1, count)))
    column_runs = runs(0, width, -(-width // parts))
    row_runs = runs(0, height, max(1, count // (-(-width // parts))))
    output = torch.zeros(maps, len(weight), height, width, device=tokens.device)
    space = torch.empty(0, device=tokens.device)
    for number, (rows, columns) in product(range(maps), product(row_runs, column_runs)):
        if needed is not None and not (
            needed[number][0][rows].any() and needed[number][1][columns].any()
        ):
            continue
        stop_if(should_stop)
        tile = tokens[number, rows, columns]
        if tile.dtype != torch.float32:
            if space.numel() < tile.numel():
                space = torch.empty(tile.numel(), device=tokens.device)
            tile = space[: tile.numel()].view(tile.shape).copy_(tile)
        logits = torch.addmm(bias[:, None], weight, tile.reshape(-1, channels).T)
        output[number, :, rows, columns] = logits.view(-1, *tile.shape[:2])
    return output


def gathered(tokens: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return weighted sums of token rows, (N, taps) twice -> (N, C) float32."""
    table = tokens.reshape(-1, tokens.shape[-1])
    if table.dtype != torch.float32 or not table.is_contiguous():
        # Neighbouring pixels share tokens: convert each needed row once.
        needed = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        needed[index.flatten()] = True
        position = needed.cumsum(0) - 1
        table, index = table[needed].float(), position[index]
    return torch.nn.functional.embedding_bag(
        index, table, per_sample_weights=weight, mode="sum"
    )
