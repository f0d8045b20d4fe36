"""Which regions the class token was made from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.spit.encoder import SpitEncoder
    from napari_hrdv2.core.backbones.vit.model import Block

_KEPT = 0.1  # of what a token was before a block
_ROWS = 512  # of the attention matrix that exist at a time


@torch.no_grad()
def attention_flow(encoder: SpitEncoder, tokens: Tensor) -> Tensor:
    """Return how much of the class token flowed in from each token.

    Parameters
    ----------
    encoder : SpitEncoder
    tokens : (n, token_dim) tensor
        From `region_tokens`.

    Returns
    -------
    (n,) float32 tensor
        The largest of the heads, on a logarithmic scale, from 0 to 1.

    Notes
    -----
    The row of the class token in the product over all blocks of .9 A + .1 I, where A is
    the attention matrix of one head [1]_. Going from the last block to the first, only
    that row is ever needed.

    References
    ----------
    .. [1] M. Aasan et al., "A Spitting Image: Modular Superpixel Tokenization in Vision
       Transformers", ECCV Workshops 2024, arXiv:2408.07680.
    """
    x = encoder.start(tokens)
    queries_and_keys = []
    for block in encoder.blocks:
        queries_and_keys.append(_query_and_key(cast("Block", block), x))
        x = block(x)
    heads, count = encoder.config.heads, x.shape[1]
    flow = torch.zeros(heads, 1, count, device=x.device)
    flow[..., 0] = 1
    for query, key in reversed(queries_and_keys):
        flow = (1 - _KEPT) * _through(flow, query, key) + _KEPT * flow
    strongest = flow[:, 0, 1:].amax(0).clamp_min(torch.finfo(flow.dtype).tiny).log()
    low, high = strongest.min(), strongest.max()
    return (strongest - low) / (high - low).clamp_min(1e-6)


def _query_and_key(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (heads, n + 1, dim) queries, scaled, and keys."""
    seen, heads = block.norm1(x), block.attn.heads
    query, key = (
        torch.unflatten(block.attn.part(seen, kind)[0], 1, (heads, -1)).transpose(0, 1)
        for kind in ("query", "key")
    )
    return query.float() / math.sqrt(query.shape[-1]), key.float()


def _through(flow: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return flow · softmax(query · keyᵀ), (heads, 1, n + 1)."""
    total = torch.zeros_like(flow)
    for share, rows in zip(
        torch.split(flow, _ROWS, 2), torch.split(query, _ROWS, 1), strict=True
    ):
        total += share @ (rows @ key.transpose(1, 2)).softmax(2)
    return total
