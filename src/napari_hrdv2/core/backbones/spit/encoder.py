"""SPiT's encoder: a Vision Transformer whose tokens are regions of any shape.

Read it from top to bottom: the configuration, from regions to vectors of one length,
the network, and which regions its class token was made from. Tokens have no order and
no grid: where a region lies is part of its token, so there is no position embedding.

References
----------
.. [1] M. Aasan et al., "A Spitting Image: Modular Superpixel Tokenization in Vision
   Transformers", ECCV Workshops 2024, arXiv:2408.07680.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn

from napari_hrdv2.core.backbones.superpixels import boxes_of
from napari_hrdv2.core.backbones.vit.model import Block, ViTConfig

BINS = 16  # along either side of a token's square
_REGIONS_PER_CHUNK = 512
_PIECE = 64  # pixels of a region that are counted at a time
_PIECES_PER_CHUNK = 512
_LEAST_EXPONENT = -40.0  # beyond, numbers come near the smallest and take long
_NOWHERE = 1e3  # a coordinate so far from every bin that it counts for nothing
_KEPT = 0.1  # of what a token was before a block, in the attention flow
_ROWS = 512  # of the attention matrix that exist at a time


@dataclass(frozen=True)
class SpitConfig:
    """The shape of an encoder and the tokens it was trained on; by default SPiT-S."""

    embed_dim: int = 384  # channels of a token
    depth: int = 12
    heads: int = 6
    gradients: bool = True  # whether tokens hold a histogram of the image's gradient
    sigma: float = 0.025  # width of the histograms' kernel
    partition: str = "superpixels"  # or "squares", "pca-tree": how images are divided

    @property
    def density(self) -> float:
        """How many regions an image has for each square of 16 px, about."""
        # Superpixels are as many as the image needs: up to 3 of plain noise, fewer of
        # flat areas.
        return 1.5 if self.partition == "superpixels" else 1.0


# --- From regions to vectors ---------------------------------------------------------
def region_tokens(
    features: Tensor, labels: Tensor, *, sigma: float, gradients: bool = True
) -> Tensor:
    """Return the raw token of every region, (n, 256 * 5), or 4 without gradients.

    For each of 16 × 16 bins, row by row: red, green and blue where the region's box is
    sampled there, times the part of the sample that is the region's; the histogram of
    the pixels' positions in the image; that of their gradients. Features are those of
    `pixel_features`; regions are 0 to n - 1, none of them empty.
    """
    box = boxes_of(labels)
    parts = [_sampled(features[:3], labels, box)]
    members = _Members(labels.flatten(), box.shape[1])
    for first in (3, 5) if gradients else (3,):
        pair = features[first : first + 2].flatten(1)
        parts.append(_histograms(pair, members, sigma)[:, :, None])
    return torch.cat(parts, 2).flatten(1)


def _sampled(colours: Tensor, labels: Tensor, box: Tensor) -> Tensor:
    """Return every region's box on a square, zero outside of it, (n, 256, 3)."""
    _, height, width = colours.shape
    table, flat = colours.flatten(1).T.contiguous(), labels.flatten()
    numbers = torch.arange(box.shape[1], device=flat.device)
    chunks = []
    for region in torch.split(numbers, _REGIONS_PER_CHUNK):
        top, left, bottom, right = box[:, region]
        rows, columns = _taps(top, bottom, height), _taps(left, right, width)
        colour = colours.new_zeros(len(region), BINS**2, 3)
        cover = colours.new_zeros(len(region), BINS**2, 1)
        for (row, high), (column, wide) in product(rows, columns):
            pixel = (row[:, :, None] * width + column[:, None, :]).flatten()
            weight = (high[:, :, None] * wide[:, None, :]).view(cover.shape)
            owner = flat.index_select(0, pixel).view(cover.shape)
            colour += table.index_select(0, pixel).view(colour.shape) * weight
            cover += (owner == region[:, None, None]) * weight
        chunks.append(colour * cover)
    return torch.cat(chunks)


def _taps(first: Tensor, last: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two pixels about each of 16 positions between ends, with weights."""
    steps = torch.linspace(0, 1, BINS, device=first.device)
    position = steps * (last - first)[:, None] + first[:, None]  # (n, 16)
    low = position.floor()
    index, weight = low.long(), position - low
    return [(index, 1 - weight), ((index + 1).clamp_max(length - 1), weight)]


class _Members:
    """The pixels of each region, cut into pieces of one length."""

    def __init__(self, labels: Tensor, count: int) -> None:
        self.sizes = torch.bincount(labels, minlength=count)
        self.pieces = (self.sizes + _PIECE - 1) // _PIECE
        self.order = torch.argsort(labels, stable=True)
        starts = self.sizes.cumsum(0) - self.sizes
        shifts = (self.pieces.cumsum(0) - self.pieces) * _PIECE - starts
        ranks = torch.arange(len(labels), device=labels.device)
        self.slots = ranks + shifts.repeat_interleave(self.sizes)

    def cut(self, values: Tensor) -> Tensor:
        """Return (pieces, 64) values; a slot that no pixel fills is far away."""
        cut = values.new_full((int(self.pieces.sum()) * _PIECE,), _NOWHERE)
        cut[self.slots] = values[self.order]
        return cut.view(-1, _PIECE)


def _histograms(pair: Tensor, members: _Members, sigma: float) -> Tensor:
    """Return every region's joint histogram of two values, (n, 256)."""
    # The kernel is a product of one factor per value, so a histogram is a product of
    # two small matrices.
    values = torch.stack([members.cut(plane) for plane in pair])  # (2, pieces, 64)
    pairs = torch.split(values, _PIECES_PER_CHUNK, 1)
    sums = [(_kernel(a, sigma).mT @ _kernel(b, sigma)).flatten(1) for a, b in pairs]
    totals = torch.segment_reduce(torch.cat(sums), "sum", lengths=members.pieces)
    return totals / (members.sizes[:, None] / 4)


def _kernel(values: Tensor, sigma: float) -> Tensor:
    """Return how much (n, 64) values count for each bin, (n, 64, 16)."""
    centres = torch.linspace(-1 + 1 / BINS, 1 - 1 / BINS, BINS, device=values.device)
    scale = math.sqrt(0.5) / sigma
    distance = (values * scale)[:, :, None] - centres * scale
    exponent = distance.mul_(distance).neg_()
    return exponent.clamp_min_(_LEAST_EXPONENT).exp_()


# --- The network ---------------------------------------------------------------------
class SpitEncoder(nn.Module):
    """A Vision Transformer on a set of tokens."""

    def __init__(self, config: SpitConfig) -> None:
        super().__init__()
        self.config = config
        shape = ViTConfig(
            embed_dim=config.embed_dim, depth=config.depth, heads=config.heads
        )
        self.cls_token = nn.Parameter(torch.zeros(config.embed_dim))
        numbers = BINS**2 * (5 if config.gradients else 4)  # in a raw token
        self.embed = nn.Linear(numbers, config.embed_dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def forward(
        self, tokens: Tensor, *, tick: Callable[[], None] | None = None
    ) -> Tensor:
        """Return the output of every one of `region_tokens`, the class token first."""
        x = self.start(tokens)
        for block in self.blocks:
            x = block(x)  # (1, n + 1, D)
            if tick is not None:
                tick()
        return self.norm(x)[0]  # type: ignore[no-any-return]

    def start(self, tokens: Tensor) -> Tensor:
        """Return what the first block is given, (1, n + 1, D)."""
        return torch.cat([self.cls_token[None], self.embed(tokens)])[None]


# --- Attention flow -------------------------------------------------------------------
@torch.no_grad()
def attention_flow(encoder: SpitEncoder, tokens: Tensor) -> Tensor:
    """Return how much of the class token flowed in from each of n tokens, 0 to 1.

    The row of the class token in the product over all blocks of .9 A + .1 I, where A is
    the attention matrix of one head [1]_: the largest of the heads, on a logarithmic
    scale. Going from the last block to the first, only that row is ever needed.
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
    parts = (block.attn.part(seen, kind)[0] for kind in ("query", "key"))
    query, key = (
        torch.unflatten(part, 1, (heads, -1)).transpose(0, 1) for part in parts
    )
    return query.float() / math.sqrt(query.shape[-1]), key.float()


def _through(flow: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return flow · softmax(query · keyᵀ), (heads, 1, n + 1)."""
    total = torch.zeros_like(flow)
    pieces = torch.split(flow, _ROWS, 2), torch.split(query, _ROWS, 1)
    for part, rows in zip(*pieces, strict=True):
        total += part @ (rows @ key.transpose(1, 2)).softmax(2)
    return total
