"""Context features: Gaussian means of features around each pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from napari_hrdv2.core.backbones.filters.kernels import correlate, gaussian_taps

from .base import JoinedFeatures, channel_weights
from .high_resolution import HighResFeatures
from .upsampling.separable import token_count

WIDTH, CHANNEL_WEIGHT = 14 / 16, 0.25


class ContextFeatures(JoinedFeatures):
    """Features, and as many channels again of their Gaussian means around each pixel.

    The means are kept on cells of `cell` px, a multiple of the stride, and reach about
    four cells far, so they cost a hundredth of the features themselves. They are linear
    in the tokens, and are read like any other tokens. `tick` is called for each row of
    cells; what it raises ends the computation.

    >>> own = HighResFeatures(torch.ones(1, 20, 30, 5), "identity", (40, 60), 2, 2)
    >>> ContextFeatures(own, 16).shape
    (10, 40, 60)
    """

    def __init__(
        self, own: HighResFeatures, cell: int, tick: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__([own, _means_of(own, cell, tick)])
        self.part_options = tuple(
            replace(part, channels=self.shape[0]) for part in own.part_options
        )

    def __repr__(self) -> str:
        return f"ContextFeatures({self.parts[0]!r})"


def tokens_per_cell(cell: int, stride: int) -> int:
    """Return how many tokens a cell of so many pixels has along a side."""
    return max(cell // stride, 1)


def means_around(
    tokens: Tensor, count: int, tick: Callable[[], None] = lambda: None
) -> Tensor:
    """Return Gaussian means of (T, h, w, C) tokens over cells of `count` × `count`.

    (T, ⌈h / count⌉, ⌈w / count⌉, C) float32, mirrored at the borders. The last cells
    may have fewer tokens, and weigh less. `tick` is called for each row of cells.
    """
    strips = []
    for strip in torch.split(tokens, count, 1):
        tick()
        planes = strip.movedim(-1, 1).float()
        strips.append(avg_pool2d(planes, (strip.shape[1], count), ceil_mode=True))
    cells = torch.cat(strips, 2)
    weight = torch.ones_like(cells[:1, :1])
    for axis, length in ((2, tokens.shape[1]), (3, tokens.shape[2])):
        if rest := length % count:
            weight.narrow(axis, -1, 1).mul_(rest / count)
    taps = gaussian_taps(WIDTH)
    total, weights = (
        correlate(correlate(planes, taps, 2), taps, 3)
        for planes in (cells * weight, weight)
    )
    return (total / weights).movedim(1, -1)


def _means_of(
    own: HighResFeatures, cell: int, tick: Callable[[], None]
) -> HighResFeatures:
    """Return the means, as features on a coarser grid."""
    patch_size, stride = own.rows.patch_size, own.rows.stride
    count = tokens_per_cell(cell, stride)
    # A grid that copies were put onto together may reach beyond the image.
    rows, columns = (
        token_count(length, patch_size, stride) for length in own.shape[1:]
    )
    means = means_around(own.tokens[:, :rows, :columns], count, tick)
    return HighResFeatures(
        means.to(own.tokens.dtype),
        own.shifts,
        own.shape[1:],
        patch_size + (count - 1) * stride,
        count * stride,
        boundary=own.boundary,
        channel_weights=CHANNEL_WEIGHT * channel_weights(own),
    )
