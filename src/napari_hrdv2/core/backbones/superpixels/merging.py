"""SPiT's superpixels: neighbours that look alike are merged, level by level.

A level of SPiT's hierarchy [1]_: every region picks the neighbour most like it, and
regions that picked one another, directly or by way of others, become one.

Which region is picked must not depend on threads, on the device or on chance: scores
are whole numbers with a rule for ties; sums are of whole numbers, whose order does not
matter; merged regions are numbered by the region that each grew from.

In the reference the neighbour with the larger label wins a tie. In a flat area, where
all scores are equal, every pixel then picks the one below it, and the area is one
region after one level. A hash of the two labels decides here, and flat areas are
divided like any other.

References
----------
.. [1] M. Aasan et al., "A Spitting Image: Modular Superpixel Tokenization in Vision
   Transformers", ECCV Workshops 2024, arXiv:2408.07680.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .pixels import pixel_features, vertex_features

LEVELS = 4
COMPACTNESS = 0.1
_STEPS = 65535  # scores are told apart in so many steps
# The bits of a key, from above: 16 of the score, 15 to decide ties, 32 of the label.
_SCORE_SHIFT, _TIE_SHIFT = 47, 32
_TIE_MASK, _LABEL_MASK = (1 << 15) - 1, (1 << 32) - 1
_FIXED_POINT = 2.0**40  # features are at most 1, so sums of 2**22 of them fit
_OWN_LIMIT = 0.75
_SMALLEST = 1e-12


def superpixels(
    image: Tensor, *, compactness: float = COMPACTNESS, levels: int = LEVELS
) -> Tensor:
    """Return SPiT's superpixels of an image, (H, W) int64 from 0 to n - 1.

    They are the same on every run, with any number of threads.

    Parameters
    ----------
    image : (3, H, W) float32 tensor
        In 0..1.
    compactness : float
        0 to 1: how much regions are kept from spreading over areas of little contrast.
    levels : int
        Each makes regions about four times larger; 4 give about 256 px.

    Examples
    --------
    >>> import torch
    >>> image = torch.zeros(3, 32, 48)
    >>> image[:, :, 20:] = 1
    >>> labels = superpixels(image)
    >>> bool((labels[:, 19] == labels[:, 20]).any())
    False
    """
    return hierarchy(
        vertex_features(pixel_features(image)), compactness=compactness, levels=levels
    )[-1]


def hierarchy(
    features: Tensor,
    *,
    compactness: float = COMPACTNESS,
    levels: int = LEVELS,
    shuffle_ties: bool = True,
) -> list[Tensor]:
    """Return the label map after each level of merging.

    Parameters
    ----------
    features : (4, H, W) float32 tensor
        From `vertex_features`.
    compactness, levels
        As for `superpixels`.
    shuffle_ties : bool
        Among neighbours that are alike to the same degree, whether a hash decides; if
        not, the larger label does, as in the reference, and flat areas become one
        region whatever the compactness.
    """
    if not 0 <= compactness <= 1:
        raise ValueError(f"compactness: {compactness} is not a number from 0 to 1")
    if levels < 1:
        raise ValueError(f"levels: {levels} is not a number of at least 1")
    regions = pixels_as_regions(features)
    maps: list[Tensor] = []
    for _ in range(levels):
        labels, regions = merged(
            regions, compactness=compactness, shuffle_ties=shuffle_ties
        )
        last = labels if not maps else labels[maps[-1]]
        maps.append(last.view(features.shape[1:]))
    return maps


# --- One level ------------------------------------------------------------------------
@dataclass(frozen=True)
class Regions:
    """The regions of an image with what they look like and which of them touch."""

    features: Tensor  # (4, n) float32
    sizes: Tensor  # (n,) int64, in pixels
    # (4, n) int64: first row, first column, minus the last row, minus the last column.
    # The box of two regions is the smaller of each.
    boxes: Tensor
    edges: Tensor  # (2, m) int64: neighbouring regions, each pair once


def pixels_as_regions(features: Tensor) -> Regions:
    """Return the regions of one pixel each that merging begins with."""
    _, height, width = features.shape
    labels = torch.arange(height * width, device=features.device)
    grid = labels.view(height, width)
    rows, columns = labels // width, labels % width
    beside = torch.stack([grid[:, :-1].flatten(), grid[:, 1:].flatten()])
    below = torch.stack([grid[:-1].flatten(), grid[1:].flatten()])
    return Regions(
        features=features.flatten(1),
        sizes=torch.ones_like(labels),
        boxes=torch.stack([rows, columns, -rows, -columns]),
        edges=torch.cat([beside, below], 1),
    )


def merged(
    regions: Regions, *, compactness: float, shuffle_ties: bool
) -> tuple[Tensor, Regions]:
    """Return the new label of every region, and the regions of the next level.

    Compactness is the part of the score that goes to how well two regions fill their
    common box.
    """
    labels = _components(_picks(regions, compactness, shuffle_ties))
    count = int(labels.max()) + 1
    pairs = labels[regions.edges]
    pairs = pairs[:, pairs[0] != pairs[1]]
    low, high = torch.minimum(pairs[0], pairs[1]), torch.maximum(pairs[0], pairs[1])
    codes = torch.unique(low * count + high)
    return labels, Regions(
        features=_means(regions.features, labels, count),
        sizes=_sums(regions.sizes, labels, count),
        boxes=_minima(regions.boxes, labels, count),
        edges=torch.stack([codes // count, codes % count]),
    )


def _picks(regions: Regions, compactness: float, shuffle_ties: bool) -> Tensor:
    """Return which region each one merges with, perhaps itself, (n,)."""
    first, second = regions.edges
    keys = _keys(_similarity(regions, compactness))
    if shuffle_ties:
        keys |= _hash(first, second) << _TIE_SHIFT
    own = torch.arange(len(regions.sizes), device=first.device)
    best = _keys(_attachment(regions, compactness)) | own
    best.scatter_reduce_(0, first, keys | second, "amax")
    best.scatter_reduce_(0, second, keys | first, "amax")
    return best & _LABEL_MASK


def _keys(scores: Tensor) -> Tensor:
    """Return whole numbers that order by score, with room below."""
    return (scores.clamp(0, 1) * _STEPS + 0.5).long() << _SCORE_SHIFT


def _hash(first: Tensor, second: Tensor) -> Tensor:
    """Return 15 bits for each pair that look random and are always the same."""
    mask = (1 << 31) - 1
    mixed = (first * 0x27D4EB2F + second * 0x165667B1) & mask
    for factor in (0x2C1B3C6D, 0x297A2D39):
        mixed = ((mixed ^ (mixed >> 15)) * factor) & mask
    return (mixed ^ (mixed >> 15)) & _TIE_MASK


def _similarity(regions: Regions, compactness: float) -> Tensor:
    """Return how well each pair of neighbours goes together, (m,) in 0..1."""
    first, second = regions.edges
    # One channel after the other: the order of the sum is the same everywhere.
    product = torch.zeros(len(first), device=first.device)
    square = torch.zeros(len(regions.sizes), device=first.device)
    for channel in regions.features:
        product = product + channel[first] * channel[second]
        square = square + channel * channel
    length = square.sqrt()
    cosine = product / (length[first] * length[second]).clamp_min(_SMALLEST)
    score = (cosine + 1) / 2
    if not compactness:
        return score
    box = torch.minimum(regions.boxes[:, first], regions.boxes[:, second])
    fill = _fill(regions.sizes[first] + regions.sizes[second], box)
    return compactness * fill + (1 - compactness) * score


def _attachment(regions: Regions, compactness: float) -> Tensor:
    """Return how much each region wants to stay as it is, (n,) in 0..1.

    The larger, the more. Single pixels don't.
    """
    sizes = regions.sizes
    count, total = len(sizes), int(sizes.sum())
    if total == count:
        return torch.zeros(count, device=sizes.device)
    variance = (int((sizes * sizes).sum()) - total * total / count) / max(count - 1, 1)
    deviation = max(variance**0.5, 1e-6)
    excess: Tensor = (sizes - 2 * total / count) / deviation
    score = (excess.clamp(-_OWN_LIMIT, _OWN_LIMIT) + 1) / 2
    if not compactness:
        return score
    return compactness * _fill(sizes, regions.boxes) + (1 - compactness) * score


def _fill(sizes: Tensor, boxes: Tensor) -> Tensor:
    """Return the part of a square with the box's circumference that is filled."""
    half: Tensor = 2 - (boxes[0] + boxes[1] + boxes[2] + boxes[3])
    return (4 * sizes / (half * half)).clamp_max(1)


def _components(picks: Tensor) -> Tensor:
    """Return the labels of the regions that picks tie together, in order of the roots.

    Picks run along ever better scores and, among equal ones, win by the same rule from
    either side: following them ends at a region that picked itself, or at two that
    picked each other.
    """
    own = torch.arange(len(picks), device=picks.device)
    roots = torch.where(picks[picks] == own, torch.minimum(own, picks), picks)
    while not torch.equal(roots[roots], roots):
        roots = roots[roots]
    numbers = (roots == own).cumsum(0) - 1
    return numbers[roots]


def _sums(values: Tensor, labels: Tensor, count: int) -> Tensor:
    return values.new_zeros(count).index_add_(0, labels, values)


def _means(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the plain mean of the members' features, (C, count)."""
    members = torch.bincount(labels, minlength=count)
    whole = (features.double() * _FIXED_POINT).round().long()
    sums = torch.stack([_sums(channel, labels, count) for channel in whole])
    return (sums.double() / (members * _FIXED_POINT)).float()


def _minima(boxes: Tensor, labels: Tensor, count: int) -> Tensor:
    smallest = boxes.new_zeros(4, count)
    for target, source in zip(smallest, boxes, strict=True):
        target.scatter_reduce_(0, labels, source, "amin", include_self=False)
    return smallest
