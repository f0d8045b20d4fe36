"""Strokes like a person's: gently curved, mostly well inside what they mark."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from micrographs.fields import Labels, Rng

_DEEPEST = 7
_TURNS = (0.0, 0.2, -0.2, 0.45, -0.45, 0.8, -0.8)
Path = list[tuple[float, float]]


def draw_scribbles(
    rng: Rng,
    labels: Labels,
    strokes: int,
    *,
    length: float | tuple[float, float] = (8.0, 60.0),
    wrong: float = 0.0,
) -> Labels:
    """Return (H, W) uint8 strokes for every class in `labels`; 0 = not drawn.

    Parameters
    ----------
    rng : numpy.random.Generator
    labels : (H, W) uint8 array
        The true classes; 0 is unlabelled.
    strokes : int
        How many for each class.
    length : float or (float, float)
        Of a stroke in pixels, or its range.
    wrong : float
        Share of the strokes that stray a little over the border of their class.
    """
    depth = _depth(labels)
    shortest, longest = length if isinstance(length, tuple) else (length, length)
    drawn = np.zeros_like(labels)
    for stray in (True, False):  # a true stroke is never hidden by a wrong one
        for label in np.unique(labels[labels > 0]).tolist():
            inside = np.where(labels == label, depth, 0).astype(np.uint8)
            for _ in range(strokes if not stray else rng.binomial(strokes, wrong)):
                goal = math.exp(rng.uniform(math.log(shortest), math.log(longest)))
                rows, columns = _stroke(rng, inside, goal, stray=stray)
                if not stray:
                    true = labels[rows, columns] == label
                    rows, columns = rows[true], columns[true]
                drawn[rows, columns] = label
    return drawn


def _depth(labels: Labels) -> NDArray[np.uint8]:
    """Distance from other classes, counted from 1 up to a limit."""
    depth = np.ones(labels.shape, np.uint8)
    inside = np.ones(labels.shape, bool)
    down, right = labels[1:] == labels[:-1], labels[:, 1:] == labels[:, :-1]
    inside[1:] &= down
    inside[:-1] &= down
    inside[:, 1:] &= right
    inside[:, :-1] &= right
    for _ in range(_DEEPEST - 1):
        depth += inside
        before = inside.copy()
        inside[1:] &= before[:-1]
        inside[:-1] &= before[1:]
        inside[:, 1:] &= before[:, :-1]
        inside[:, :-1] &= before[:, 1:]
    return depth


def _stroke(
    rng: Rng, inside: NDArray[np.uint8], length: float, *, stray: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels of the longest of a few paths, with a brush of 1 to 5 pixels."""
    width = float(rng.choice([1.0, 1.6, 2.4, 3.0, 3.0, 4.0, 5.0]))
    deepest = int(inside.max())
    needed = min(1 if stray else round(width / 2 + rng.uniform(0.5, 3)), deepest)
    if not stray and rng.random() < 0.15:
        needed = min(needed, 2)
    starts = np.flatnonzero(inside >= needed)
    while needed > 1 and len(starts) < 12:  # a lone deep spot is no place to draw
        needed -= 1
        starts = np.flatnonzero(inside >= needed)
    if needed <= 2 and not stray:
        width = min(width, 2.0 * needed)
    ground, columns = inside.tobytes(), inside.shape[1]
    best: Path = []
    for start in rng.choice(starts, 4).tolist():
        path = _walk(rng, ground, inside.shape, divmod(start, columns), needed, length)
        if len(path) > len(best):
            best = path
        if len(best) >= 0.8 * length:
            break
    if stray:
        best = _overshoot(best, rng.uniform(1.5, 5))
    return _brush(best, width / 2, inside.shape)


def _walk(
    rng: Rng,
    ground: bytes,
    shape: tuple[int, ...],
    start: tuple[int, int],
    needed: int,
    length: float,
) -> Path:
    """Walk from `start`, turning gently, as long as the ground is deep enough."""
    height, width = shape
    row, column = float(start[0]), float(start[1])
    path = [(row, column)]
    wobble = (0.018 * rng.standard_normal(int(length) + 1)).tolist()
    heading, drift = rng.uniform(0, 2 * math.pi), 0.0
    for change in wobble:
        drift = 0.9 * drift + change
        options = _TURNS if len(path) > 1 else tuple(0.6 * i for i in range(11))
        for turn in options:
            angle = heading + drift + turn
            y, x = row + math.sin(angle), column + math.cos(angle)
            i, j = round(y), round(x)
            if not (0 <= i < height and 0 <= j < width):
                continue
            if ground[i * width + j] >= needed:
                break
        else:
            return path
        heading, row, column = angle, y, x
        path.append((row, column))
    return path


def _overshoot(path: Path, extra: float) -> Path:
    """Go on straight for a little, wherever that leads."""
    (y0, x0), (y1, x1) = path[max(len(path) - 4, 0)], path[-1]
    norm = math.hypot(y1 - y0, x1 - x0) or 1.0
    dy, dx = ((y1 - y0) / norm, (x1 - x0) / norm) if len(path) > 1 else (0.0, 1.0)
    return path + [(y1 + dy * k, x1 + dx * k) for k in range(1, round(extra) + 1)]


def _brush(
    path: Path, radius: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels within `radius` of a path, at least the path itself."""
    points = np.asarray(path)[:, None]
    reach = int(radius + 0.5)
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    pixels = np.rint(points).astype(np.intp) + offsets
    near = ((pixels - points) ** 2).sum(axis=-1) <= max(radius, 0.71) ** 2
    rows, columns = pixels[near].T
    within = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return rows[within], columns[within]
