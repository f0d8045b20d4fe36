"""Label maps: which region each pixel belongs to, and regions that ignore the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def numbered(labels: Tensor) -> Tensor:
    """Return a label map with the labels 0 to n - 1 in the order of their values.

    What has one value is one region, be it in several pieces.
    """
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
    """Return the first row and column and the last row and column of every region.

    A (4, n) tensor for an (H, W) label map with 0 to n - 1, none missing.
    """
    width = labels.shape[1]
    flat = labels.flatten()
    pixels = torch.arange(len(flat), device=flat.device)
    rows, columns = pixels // width, pixels % width
    boxes = flat.new_zeros(4, int(flat.max()) + 1)
    for target, source, how in zip(
        boxes,
        (rows, columns, rows, columns),
        ("amin", "amin", "amax", "amax"),
        strict=True,
    ):
        target.scatter_reduce_(0, flat, source, how, include_self=False)
    return boxes


# --- Squares, and cells about random points -------------------------------------------
def squares(shape: tuple[int, int], side: int = 16) -> Tensor:
    """Return the grid of squares of a plain ViT; the last ones may be cut."""
    height, width = shape
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    return rows[:, None] * int(columns[-1] + 1) + columns


def pca_tree(
    shape: tuple[int, int], points: Tensor | None = None, *, seed: int = 0
) -> Tensor:
    """Return cells that resemble those of a Voronoi diagram of random points.

    Parameters
    ----------
    shape : tuple of int
        (H, W).
    points : (n, 2) tensor, optional
        Rows and columns; by default 1.1 √(H W) of a scrambled Sobol sequence.
    seed : int
        Of the sequence.

    Notes
    -----
    The points are split into halves across the direction in which they spread most,
    again and again [1]_, until there are at least as many cells as points.

    References
    ----------
    .. [1] R. Sproull, "Refinements to nearest-neighbor searching in k-dimensional
       trees", Algorithmica 6 (1991), 579-589.
    """
    points = (_sobol(shape, seed) if points is None else points).float()
    height, width = shape
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack(grid, 2).view(-1, 2).float()
    cells = torch.zeros(len(points), dtype=torch.int64)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    for level in range(math.ceil(math.log2(len(points)))):
        centre, direction = _principal_axes(points, cells, 2**level)
        labels = 2 * labels + _beyond(pixels, labels, centre, direction)
        cells = 2 * cells + _beyond(points, cells, centre, direction)
    return numbered(labels).view(shape)


def _sobol(shape: tuple[int, int], seed: int) -> Tensor:
    count = max(1, round(1.1 * math.sqrt(math.prod(shape))))
    engine = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points: Tensor = engine.draw(count) * torch.tensor(shape)
    return points.round()


def _principal_axes(points: Tensor, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the centre of each cell's points and where they spread most, (count, 2).

    One point alone spreads along rows, and an empty cell lies at the origin.
    """
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
