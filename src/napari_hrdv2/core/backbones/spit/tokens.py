"""From regions of any shape to vectors of one length, as SPiT's encoder takes them."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.superpixels import boxes_of

BINS = 16  # along either side of a token's square
_REGIONS_PER_CHUNK = 512
_PIECE = 64  # pixels of a region that are counted at a time
_PIECES_PER_CHUNK = 512
_LEAST_EXPONENT = -40.0  # beyond, numbers come near the smallest and take long
_NOWHERE = 1e3  # a coordinate so far from every bin that it counts for nothing


def region_tokens(
    features: Tensor, labels: Tensor, *, sigma: float, gradients: bool = True
) -> Tensor:
    """Return the raw token of every region.

    Parameters
    ----------
    features : (7, H, W) float32 tensor
        From `pixel_features`.
    labels : (H, W) int64 tensor
        Regions 0 to n - 1, none of them empty.
    sigma : float
        Width of the histograms' kernel.
    gradients : bool
        Whether the token tells of the gradient too.

    Returns
    -------
    (n, 256 * C) float32 tensor
        C = 5, or 4 without gradients. For each of 16 × 16 bins, row by row: red, green
        and blue where the region's box is sampled there, times the share of the sample
        that is the region's; the histogram of the pixels' positions in the image; that
        of their gradients.
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
    for region, (top, left, bottom, right) in zip(
        torch.split(numbers, _REGIONS_PER_CHUNK),
        torch.split(box, _REGIONS_PER_CHUNK, 1),
        strict=True,
    ):
        rows, columns = _taps(top, bottom, height), _taps(left, right, width)
        colour = colours.new_zeros(len(region), BINS**2, 3)
        cover = colours.new_zeros(len(region), BINS**2, 1)
        for (row, high), (column, wide) in product(rows, columns):
            pixel = (row[:, :, None] * width + column[:, None, :]).flatten()
            share = (high[:, :, None] * wide[:, None, :]).view(cover.shape)
            owner = flat.index_select(0, pixel).view(cover.shape)
            colour += table.index_select(0, pixel).view(colour.shape) * share
            cover += (owner == region[:, None, None]) * share
        chunks.append(colour * cover)
    return torch.cat(chunks)


def _taps(first: Tensor, last: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two pixels about each of 16 positions between ends, with shares."""
    steps = torch.linspace(0, 1, BINS, device=first.device)
    position = steps * (last - first)[:, None] + first[:, None]  # (n, 16)
    low = position.floor()
    index, share = low.long(), position - low
    return [(index, 1 - share), ((index + 1).clamp_max(length - 1), share)]


class _Members:
    """The pixels of each region, cut into pieces of one length."""

    def __init__(self, labels: Tensor, count: int) -> None:
        self.sizes = torch.bincount(labels, minlength=count)
        self.pieces = (self.sizes + _PIECE - 1) // _PIECE
        self.order = torch.argsort(labels, stable=True)
        starts = self.sizes.cumsum(0) - self.sizes
        places = (self.pieces.cumsum(0) - self.pieces) * _PIECE - starts
        ranks = torch.arange(len(labels), device=labels.device)
        self.slots = ranks + places.repeat_interleave(self.sizes)

    def cut(self, values: Tensor) -> Tensor:
        """Return (pieces, 64) values; a place that no pixel fills is far away."""
        cut = values.new_full((int(self.pieces.sum()) * _PIECE,), _NOWHERE)
        cut[self.slots] = values[self.order]
        return cut.view(-1, _PIECE)


def _histograms(pair: Tensor, members: _Members, sigma: float) -> Tensor:
    """Return every region's joint histogram of two values, (n, 256).

    The kernel is a product of one factor per value, so a histogram is a product of two
    small matrices.
    """
    first, second = (members.cut(values) for values in pair)
    sums = [
        (_kernel(left, sigma).transpose(1, 2) @ _kernel(right, sigma)).flatten(1)
        for left, right in zip(
            torch.split(first, _PIECES_PER_CHUNK),
            torch.split(second, _PIECES_PER_CHUNK),
            strict=True,
        )
    ]
    totals = torch.segment_reduce(torch.cat(sums), "sum", lengths=members.pieces)
    return totals / (members.sizes[:, None] / 4)


def _kernel(values: Tensor, sigma: float) -> Tensor:
    """Return how much (n, 64) values count for each bin, (n, 64, 16)."""
    centres = torch.linspace(-1 + 1 / BINS, 1 - 1 / BINS, BINS, device=values.device)
    scale = math.sqrt(0.5) / sigma
    distance = (values * scale)[:, :, None] - centres * scale
    exponent = distance.mul_(distance).neg_()
    return exponent.clamp_min_(_LEAST_EXPONENT).exp_()
