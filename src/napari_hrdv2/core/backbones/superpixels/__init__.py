"""Dividing an image into regions: superpixels, squares, cells about random points.

SPiT's superpixels [1]_ are neighbours that look alike, merged level by level: every
region picks the neighbour most like it, and regions that picked one another, directly
or by way of others, become one. Which one is picked must not depend on threads, on the
device or on chance: scores are whole numbers with a rule for ties; sums are of whole
numbers, whose order does not matter; merged regions are numbered by the region that
each grew from.

In the reference the neighbour with the larger label wins a tie, and a flat area, where
all scores are equal, is one region after one level. A hash of the two labels decides
here, and flat areas are divided like any other.

References
----------
.. [1] M. Aasan et al., "A Spitting Image: Modular Superpixel Tokenization in Vision
   Transformers", ECCV Workshops 2024, arXiv:2408.07680.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .pixels import pixel_features, vertex_features

LEVELS = 4  # each makes regions about four times larger
COMPACTNESS = 0.1
_STEPS = 65535  # scores are told apart in so many steps
# The bits of a key, from above: 16 of the score, 15 to decide ties, 32 of the label.
_SCORE_SHIFT, _TIE_SHIFT = 47, 32
_TIE_MASK, _LABEL_MASK = (1 << 15) - 1, (1 << 32) - 1
_FIXED_POINT = 2.0**40  # features are at most 1, so sums of 2**22 of them fit
_OWN_LIMIT = 0.75
_SMALLEST = 1e-12


def superpixels(image: Tensor, *, compactness: float = COMPACTNESS) -> Tensor:
    """Return SPiT's superpixels of an image, (H, W) int64 from 0 to n - 1.

    They are of about 256 px, and the same on every run, with any number of threads.

    Parameters
    ----------
    image : (3, H, W) float32 tensor
        In 0..1.
    compactness : float
        0 to 1: how much regions are kept from spreading over areas of little contrast.

    Examples
    --------
    >>> import torch
    >>> image = torch.zeros(3, 32, 48)
    >>> image[:, :, 20:] = 1
    >>> labels = superpixels(image)
    >>> bool((labels[:, 19] == labels[:, 20]).any())
    False
    """
    features = vertex_features(pixel_features(image))
    return hierarchy(features, compactness=compactness)[-1]


def hierarchy(
    features: Tensor, *, compactness: float = COMPACTNESS, shuffle_ties: bool = True
) -> list[Tensor]:
    """Return the label map of (4, H, W) `vertex_features` after each level of merging.

    Without shuffling, ties go to the larger label, as in the reference, and flat areas
    become one region whatever the compactness.
    """
    if not 0 <= compactness <= 1:
        raise ValueError(f"compactness: {compactness} is not a number from 0 to 1")
    regions = _pixels_as_regions(features)
    maps: list[Tensor] = []
    for _ in range(LEVELS):
        labels, regions = _merged(regions, compactness, shuffle_ties)
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


def _pixels_as_regions(features: Tensor) -> Regions:
    """Return the regions of one pixel each that merging begins with."""
    _, height, width = features.shape
    labels = torch.arange(height * width, device=features.device)
    grid = labels.view(height, width)
    beside = torch.stack([grid[:, :-1].flatten(), grid[:, 1:].flatten()])
    below = torch.stack([grid[:-1].flatten(), grid[1:].flatten()])
    return Regions(
        features=features.flatten(1),
        sizes=torch.ones_like(labels),
        boxes=_edges(labels, width),
        edges=torch.cat([beside, below], 1),
    )


def _merged(
    regions: Regions, compactness: float, shuffle_ties: bool
) -> tuple[Tensor, Regions]:
    """Return the new label of every region, and the regions of the next level."""
    labels = _components(_picks(regions, compactness, shuffle_ties))
    count = int(labels.max()) + 1
    pairs = labels[regions.edges]
    pairs = pairs[:, pairs[0] != pairs[1]]
    low, high = torch.minimum(pairs[0], pairs[1]), torch.maximum(pairs[0], pairs[1])
    codes = torch.unique(low * count + high)
    return labels, Regions(
        features=_means(regions.features, labels, count),
        sizes=regions.sizes.new_zeros(count).index_add_(0, labels, regions.sizes),
        boxes=_least(regions.boxes, labels),
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
    score = (product / (length[first] * length[second]).clamp_min(_SMALLEST) + 1) / 2
    box = torch.minimum(regions.boxes[:, first], regions.boxes[:, second])
    fill = _fill(regions.sizes[first] + regions.sizes[second], box)
    return compactness * fill + (1 - compactness) * score


def _attachment(regions: Regions, compactness: float) -> Tensor:
    """Return how much each region wants to stay as it is, (n,); single pixels don't."""
    sizes = regions.sizes
    count, total = len(sizes), int(sizes.sum())
    if total == count:
        return torch.zeros(count, device=sizes.device)
    variance = (int((sizes * sizes).sum()) - total * total / count) / max(count - 1, 1)
    deviation = max(variance**0.5, 1e-6)
    excess: Tensor = (sizes - 2 * total / count) / deviation
    score = (excess.clamp(-_OWN_LIMIT, _OWN_LIMIT) + 1) / 2
    return compactness * _fill(sizes, regions.boxes) + (1 - compactness) * score


def _fill(sizes: Tensor, boxes: Tensor) -> Tensor:
    """Return the part of a square with the box's circumference that is filled."""
    half: Tensor = 2 - (boxes[0] + boxes[1] + boxes[2] + boxes[3])
    return (4 * sizes / (half * half)).clamp_max(1)


def _components(picks: Tensor) -> Tensor:
    """Return the labels of regions that picks tie together, in order of the roots."""
    # Picks run along ever better scores and, among equal ones, win by the same rule
    # from either side: they end at a region that picked itself, or two that each other.
    own = torch.arange(len(picks), device=picks.device)
    roots = torch.where(picks[picks] == own, torch.minimum(own, picks), picks)
    while not torch.equal(roots[roots], roots):
        roots = roots[roots]
    return ((roots == own).cumsum(0) - 1)[roots]


def _means(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the plain mean of the members' features, (C, count)."""
    members = torch.bincount(labels, minlength=count)
    whole = (features.double() * _FIXED_POINT).round().long()
    sums = whole.new_zeros(len(whole), count).index_add_(1, labels, whole)
    return (sums.double() / (members * _FIXED_POINT)).float()


def _least(values: Tensor, labels: Tensor) -> Tensor:
    """Return the least of the members' values in each row, (rows, n)."""
    least = values.new_zeros(len(values), int(labels.max()) + 1)
    index = labels.expand_as(values)
    return least.scatter_reduce_(1, index, values, "amin", include_self=False)


# --- Label maps -----------------------------------------------------------------------
def numbered(labels: Tensor) -> Tensor:
    """Return a label map with its values numbered from 0, in their order."""
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers


def borders(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return where a pixel has another label than the one to its right or below."""
    labels = np.asarray(labels)
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def boxes_of(labels: Tensor) -> Tensor:
    """Return the first row and column and the last ones of every region, (4, n)."""
    height, width = labels.shape
    pixels = torch.arange(height * width, device=labels.device)
    first_and_last = _least(_edges(pixels, width), labels.flatten())
    return torch.cat([first_and_last[:2], -first_and_last[2:]])


def _edges(pixels: Tensor, width: int) -> Tensor:
    """Return the boxes of single pixels; see `Regions`."""
    rows, columns = pixels // width, pixels % width
    return torch.stack([rows, columns, -rows, -columns])


def squares(shape: tuple[int, int], side: int = 16) -> Tensor:
    """Return the grid of squares, by default a plain ViT's; the last may be cut."""
    rows, columns = (torch.arange(length) // side for length in shape)
    return rows[:, None] * int(columns[-1] + 1) + columns


def pca_tree(shape: tuple[int, int], points: Tensor | None = None) -> Tensor:
    """Return cells that resemble those of a Voronoi diagram of random points.

    Points are (n, 2) rows and columns; by default 1.1 √(H W) of a scrambled Sobol
    sequence, always the same.

    Notes
    -----
    The points are split into halves across the direction in which they spread most,
    again and again [1]_, until there are at least as many cells as points.

    References
    ----------
    .. [1] R. Sproull, "Refinements to nearest-neighbor searching in k-dimensional
       trees", Algorithmica 6 (1991), 579-589.
    """
    if points is None:
        count = max(1, round(1.1 * math.sqrt(math.prod(shape))))
        engine = torch.quasirandom.SobolEngine(2, scramble=True, seed=0)  # type: ignore[no-untyped-call]
        points = (engine.draw(count) * torch.tensor(shape)).round()
    points = points.float()
    pixels = torch.cartesian_prod(*map(torch.arange, shape)).float()
    cells = torch.zeros(len(points), dtype=torch.int64)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    for level in range(math.ceil(math.log2(len(points)))):
        centre, direction = _principal_axes(points, cells, 2**level)
        labels = 2 * labels + _beyond(pixels, labels, centre, direction)
        cells = 2 * cells + _beyond(points, cells, centre, direction)
    return numbered(labels).view(shape)


def _principal_axes(points: Tensor, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each cell's centre of points and where they spread most, (count, 2)."""
    # One point alone spreads along rows, and an empty cell lies at the origin.
    members = torch.bincount(cells, minlength=count).clamp_min(1)[:, None]
    empty = points.new_zeros(count, 2)
    centre = empty.index_add(0, cells, points) / members
    row, column = (points - centre[cells]).unbind(1)
    moments = torch.stack([row * row - column * column, 2 * row * column], 1)
    spread, mixed = empty.index_add(0, cells, moments).unbind(1)
    angle = torch.atan2(mixed, spread) / 2
    return centre, torch.stack([angle.cos(), angle.sin()], 1)


def _beyond(points: Tensor, cells: Tensor, centre: Tensor, direction: Tensor) -> Tensor:
    offset = points - centre[cells]
    axis = direction[cells]
    return (offset[:, 0] * axis[:, 0] + offset[:, 1] * axis[:, 1] >= 0).long()
