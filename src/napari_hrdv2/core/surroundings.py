"""What lies around a place, as further channels.

Beside the features of a place stand the means of the same features over its
surroundings: Gaussian means, kept on a grid of large cells, so that they cost a
hundredth of the features themselves. They are linear in the tokens, and the tokens
that they are kept as are read like any other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ._filter_kernels import correlate, gaussian_taps
from .feature_map import JoinedFeatures
from .features import HighResFeatures

WIDTH = 14 / 16  # standard deviation of the Gaussian, in cells
TRUST = 0.25  # against 1 of the channels of a place itself


class SurroundedFeatures(JoinedFeatures):
    """Features beside their means over the surroundings of each place.

    Parameters
    ----------
    own : HighResFeatures
        Of C channels; the surroundings have as many.
    cell : int
        Side in pixels of the cells that the means are kept on, a multiple of the
        stride. The means reach about three cells far.

    Examples
    --------
    >>> own = HighResFeatures(torch.ones(1, 20, 30, 5), "identity", (40, 60), 2, 2)
    >>> SurroundedFeatures(own, 16).shape
    (10, 40, 60)
    """

    def __init__(self, own: HighResFeatures, cell: int) -> None:
        super().__init__([own, _around(own, cell)])
        self.recipes = tuple(
            replace(recipe, channels=self.shape[0]) for recipe in own.recipes
        )

    def __repr__(self) -> str:
        return f"SurroundedFeatures({self.parts[0]!r})"


def _around(own: HighResFeatures, cell: int) -> HighResFeatures:
    """Return the means of the features around each place."""
    patch_size, stride = own.rows.patch_size, own.rows.stride
    count = max(cell // stride, 1)
    means = means_around(own.tokens, count).to(own.tokens.dtype)
    trust = torch.ones(own.shape[0]) if own.trust is None else own.trust
    return HighResFeatures(
        means,
        own.shifts,
        own.shape[1:],
        patch_size + (count - 1) * stride,
        count * stride,
        boundary=own.boundary,
        trust=TRUST * trust,
    )


def means_around(tokens: Tensor, count: int) -> Tensor:
    """Return Gaussian means of tokens on a grid of cells of `count` × `count` tokens.

    Parameters
    ----------
    tokens : (T, h, w, C) tensor
    count : int

    Returns
    -------
    (T, ⌈h / count⌉, ⌈w / count⌉, C) float32 tensor
        Mirrored at the borders.
    """
    bands = [
        _cells(rows.mean(1, dtype=torch.float32), count)
        for rows in torch.split(tokens, count, 1)
    ]
    taps = gaussian_taps(WIDTH)
    return correlate(correlate(torch.stack(bands, 1), taps, 1), taps, 2)


def _cells(band: Tensor, count: int) -> Tensor:
    """Return means of (T, w, C) columns over runs of `count`, the last one shorter."""
    maps, width, channels = band.shape
    whole = width - width % count
    cells = band[:, :whole].reshape(maps, -1, count, channels).mean(2)
    if whole == width:
        return cells
    return torch.cat([cells, band[:, whole:].mean(1, keepdim=True)], 1)
