"""How far two views of the same places disagree about which places are alike.

The nearest neighbours of a place are read off by sorting, and sorting is made smooth so
that a network can be trained by it [1]_: a network of comparators that each exchange
two values partly [2]_, by as much as a Cauchy distribution says that they are out of
order [3]_.

References
----------
.. [1] V. Pariza et al., "Near, far: Patch-ordering enhances vision foundation models'
   scene understanding", ICLR 2025, arXiv:2408.11054.
.. [2] F. Petersen et al., "Differentiable Sorting Networks for Scalable Sorting and
   Ranking Supervision", ICML 2021, arXiv:2105.04019.
.. [3] F. Petersen et al., "Monotonic Differentiable Sorting Networks", ICLR 2022,
   arXiv:2203.09630.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

STEEPNESS = 100.0  # of the comparators, as in [1]
Layer = tuple[list[int], list[int]]  # wires that are compared, lower ends and upper


@cache
def sorting_network(wires: int) -> tuple[Layer, ...]:
    """Return the layers of comparators that bring values into ascending order.

    It is the bitonic one. One that is made for more wires serves for the last of them:
    what is missing would be smaller than all, and stay where it is.
    """
    size = 1 << (wires - 1).bit_length()
    missing, layers = size - wires, []
    for block in (1 << n for n in range(1, size.bit_length())):
        # Two ascending halves are laid against each other, then halved on and on.
        masks = [block - 1, *(block >> n for n in range(2, block.bit_length()))]
        for mask in masks:
            lower = [i for i in range(missing, size) if i < i ^ mask]
            ends = [i - missing for i in lower], [(i ^ mask) - missing for i in lower]
            layers.append(ends)
    return tuple(layers)


def soft_permutations(values: Tensor, *, steepness: float = STEEPNESS) -> Tensor:
    """Return the (..., rank, item) shares by which (..., n) values take each rank.

    Rows and columns add up to 1, and all shares are above 0. Rank 0 is the smallest.
    """
    count = values.shape[-1]
    shares = torch.eye(count, dtype=values.dtype, device=values.device)
    shares = shares.expand(*values.shape, count)
    for lower, upper in sorting_network(count):
        first, second = values[..., lower], values[..., upper]
        stays = torch.atan(steepness * (second - first)) / math.pi + 0.5
        values = _exchanged(values, lower, upper, stays, -1)
        shares = _exchanged(shares, lower, upper, stays.unsqueeze(-1), -2)
    return shares


def _exchanged(
    x: Tensor, lower: list[int], upper: list[int], stays: Tensor, dim: int
) -> Tensor:
    wires = torch.tensor(lower + upper, device=x.device)
    first, second = x.index_select(dim, wires).chunk(2, dim)
    moved = stays * (first - second)
    new = torch.cat([second + moved, first - moved], dim)
    return x.index_copy(dim, wires, new)


def neighbour_loss(
    student: Tensor, teacher: Tensor, reference: Tensor, *, steepness: float = STEEPNESS
) -> tuple[Tensor, Tensor]:
    """Return the loss, and the least that it could be: the teacher's own uncertainty.

    Each of the (B, n, C) places ranks the (…, m, C) reference vectors by their cosine
    similarity to it, as the student and as the teacher see it. The loss is the cross
    entropy of the ranks [1]_.
    """
    reference = normalize(reference, dim=-1)

    def ranks(places: Tensor) -> Tensor:
        similarity = normalize(places, dim=-1) @ reference.transpose(-1, -2)
        return soft_permutations(similarity, steepness=steepness)

    wanted = ranks(teacher).detach()
    # Shares are never 0, so their logarithm needs no bound.
    loss, least = (
        -(wanted * shares.log()).sum(-2).mean() for shares in (ranks(student), wanted)
    )
    return loss, least
