"""A conditional random field: neighbours that look alike tend to be of one class."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ITERATIONS = 5  # the labels hardly change after
COLOUR = 0.05  # standard deviation of the guide's differences, of which it has 0..1
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # and, by symmetry, their opposites

Slices = tuple[slice, slice]


def mean_field(
    log_probabilities: Tensor,
    guide: Tensor,
    *,
    radius: int,
    strength: float,
    included: Tensor | None = None,
    tick: Callable[[], None] | None = None,
) -> Tensor:
    """Return the probabilities of a local CRF with a colour term.

    A pixel i listens to pixels j at distances 1, 2, 4, … ≤ radius in eight directions.
    With the guide I they weigh, and from the probabilities p mean field [1]_ iterates,

        w_ij = exp(−|i − j|² / 2 (r/2)² − |I_i − I_j|² / 2 (0.05)²)
        Q_i(k) ∝ p_i(k) · exp(strength · Σ_j w_ij Q_j(k) / Σ_j w_ij)

    The sum is divided by the weights, so a class gains at most a factor
    exp(strength) on another: a pixel that is surer than that keeps its class, whatever
    its neighbours say. That is what keeps thin phases.

    Parameters
    ----------
    log_probabilities : (K, H, W) float32 tensor
    guide : (C, H, W) float32 tensor
        In 0..1.
    radius : int
        In pixels.
    strength : float
        In nats.
    included : (H, W) bool tensor, optional
        Pixels that count; the others say nothing to their neighbours.
    tick : callable
        Called between iterations; it may raise.

    Returns
    -------
    (K, H, W) float32 tensor

    References
    ----------
    .. [1] P. Krähenbühl and V. Koltun, "Efficient inference in fully connected CRFs
       with Gaussian edge potentials", NeurIPS 2011, algorithm 1.
    """
    probabilities = log_probabilities.softmax(0)
    norm = torch.full(guide.shape[1:], 1e-6)
    for here, there, weight in _pairs(guide, radius, included):
        norm[here] += weight
        norm[there] += weight
    for _ in range(ITERATIONS):
        if tick is not None:
            tick()
        message = torch.zeros_like(probabilities)
        for here, there, weight in _pairs(guide, radius, included):
            for heard, said in zip(message, probabilities, strict=True):
                heard[here].addcmul_(weight, said[there])
                heard[there].addcmul_(weight, said[here])
        message.mul_(strength).div_(norm).add_(log_probabilities)
        probabilities = message.softmax(0)
    return probabilities


def _pairs(
    guide: Tensor, radius: int, included: Tensor | None
) -> Iterator[tuple[Slices, Slices, Tensor]]:
    """Yield two views of the image for each offset, and the weight of each pair.

    The weights are made anew each time: they would take more memory than all else.
    """
    height, width = guide.shape[1:]
    for down, right in DIRECTIONS:
        distance = 1
        while distance <= radius:
            rows, columns = down * distance, right * distance
            if rows < height and abs(columns) < width:
                here, there = _shifted(rows, columns, height, width)
                weight = (guide[:, *here] - guide[:, *there]).square_().sum(0)
                squared = rows**2 + columns**2
                weight.mul_(-0.5 / COLOUR**2).sub_(0.5 * squared / (radius / 2) ** 2)
                weight.exp_()
                if included is not None:
                    weight *= included[here] & included[there]
                yield here, there, weight
            distance *= 2


def _shifted(rows: int, columns: int, height: int, width: int) -> tuple[Slices, Slices]:
    """Return where pixels with a partner at that offset lie, and where the partners."""
    left, right = max(0, -columns), width - max(0, columns)
    here = slice(0, height - rows), slice(left, right)
    there = slice(rows, height), slice(left + columns, right + columns)
    return here, there
