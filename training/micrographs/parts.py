"""What the sample micrographs are made of: fields, shapes, a microscope, strokes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from micrographs.fields import Field, blur, grid, smooth_noise


@dataclass(frozen=True)
class Cells:
    """A Voronoi tessellation: which cell each pixel is in, how far from its wall."""

    index: NDArray[np.int64]
    wall: Field
    count: int


def cells(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float, bend: float
) -> Cells:
    """Voronoi cells of about `diameter` pixels, walls bent by `bend` pixels."""
    rows, columns = grid(shape)
    rows = rows + bend * smooth_noise(rng, shape, diameter / 6)
    columns = columns + bend * smooth_noise(rng, shape, diameter / 6)
    centres = _spread_points(rng, shape, diameter)
    nearest, second = np.full(shape, np.inf), np.full(shape, np.inf)
    index = np.zeros(shape, dtype=np.int64)
    for i, (row, column) in enumerate(centres):
        distance = np.hypot(rows - row, columns - column)
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        nearest = np.where(closer, distance, nearest)
        index[closer] = i
    return Cells(index=index, wall=(second - nearest) / 2, count=len(centres))


def _spread_points(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float
) -> Field:
    # A shaken hexagonal lattice: even enough to look grown, irregular enough to look
    # real; a margin around the image keeps the cells at its borders like the others.
    points = []
    for i, row in enumerate(np.arange(-spacing, shape[0] + spacing, 0.87 * spacing)):
        start = -spacing + (i % 2) * spacing / 2
        for column in np.arange(start, shape[1] + spacing, spacing):
            points.append((row, column))
    shake = rng.uniform(-0.42, 0.42, size=(len(points), 2)) * spacing
    return np.asarray(points) + shake


def expose(
    rng: np.random.Generator,
    signal: Field,
    *,
    focus: float = 0.8,
    dose: float = 350.0,
    shading: float = 0.06,
) -> NDArray[np.uint8]:
    """Image a (..., H, W) signal in 0..1: uneven light, blur, shot and read noise."""
    shape = (signal.shape[-2], signal.shape[-1])
    light = 1 + shading * smooth_noise(rng, shape, max(shape) / 3)
    seen = np.clip(blur(signal * light, focus), 0, None)
    counted = rng.poisson(seen * dose) / dose
    counted += 0.008 * rng.standard_normal(counted.shape)
    return np.clip(np.rint(counted * 255), 0, 255).astype(np.uint8)


def strokes(
    rng: np.random.Generator, region: NDArray[np.bool_], *, count: int, length: float
) -> NDArray[np.bool_]:
    """Pixels of smooth strokes, 3 to 5 pixels wide, well inside `region`."""
    depth = _depth(region, 6)
    drawn = np.zeros(region.shape, dtype=bool)
    starts: list[tuple[float, float]] = []
    for _ in range(count):
        radius = rng.uniform(1.3, 2.3)
        path = _longest_path(rng, depth, starts, radius, length)
        starts.append((path[0][0], path[0][1]))
        for row, column in path:
            _stamp(drawn, row, column, radius)
    return drawn & region


def _depth(region: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """Distance from the outside, counted up to `limit`."""
    depth = np.zeros(region.shape, dtype=np.int64)
    inside = region.copy()
    for _ in range(limit):
        depth += inside
        padded = np.pad(inside, 1, mode="edge")
        inside = (
            inside
            & padded[:-2, 1:-1]
            & padded[2:, 1:-1]
            & padded[1:-1, :-2]
            & padded[1:-1, 2:]
        )
    return depth


def _longest_path(
    rng: np.random.Generator,
    depth: NDArray[np.int64],
    starts: list[tuple[float, float]],
    radius: float,
    length: float,
) -> list[tuple[float, float]]:
    """Best of some paths: long enough, and away from the strokes that are there."""
    needed = min(int(np.ceil(radius)) + 2, int(depth.max()))
    rows, columns = np.nonzero(depth >= needed)
    best: list[tuple[float, float]] = []
    best_score = -1.0
    for candidate in rng.integers(len(rows), size=30):
        start = (float(rows[candidate]), float(columns[candidate]))
        path = _path(rng, depth, start, needed, length * rng.uniform(0.6, 1.2))
        apart = min((np.hypot(*np.subtract(start, s)) for s in starts), default=1e9)
        score = min(len(path), 0.4 * length) * min(
            1.0, apart / (0.4 * min(depth.shape))
        )
        if score > best_score:
            best, best_score = path, score
    return best


def _path(
    rng: np.random.Generator,
    depth: NDArray[np.int64],
    start: tuple[float, float],
    needed: int,
    length: float,
) -> list[tuple[float, float]]:
    """Walk from `start`, turning gently, as long as the ground is deep enough."""
    heading, turn = rng.uniform(0, 2 * np.pi), 0.0
    path = [start]
    while len(path) < length:
        turn = 0.9 * turn + rng.normal(0, 0.012)
        for extra in (0.0, 0.15, -0.15, 0.3, -0.3):
            angle = heading + turn + extra
            row, column = path[-1][0] + np.sin(angle), path[-1][1] + np.cos(angle)
            i, j = round(row), round(column)
            within = 0 <= i < depth.shape[0] and 0 <= j < depth.shape[1]
            if within and depth[i, j] >= needed:
                break
        else:
            return path
        heading = angle
        path.append((float(row), float(column)))
    return path


def _stamp(drawn: NDArray[np.bool_], row: float, column: float, radius: float) -> None:
    low_row, low_column = max(int(row) - 4, 0), max(int(column) - 4, 0)
    window = drawn[low_row : low_row + 9, low_column : low_column + 9]
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    window |= np.hypot(rows + low_row - row, columns + low_column - column) <= radius
