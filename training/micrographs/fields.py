"""Random fields: noise, blur, cells and scattered shapes, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from micrographs.streams import of_picture

Field = NDArray[np.float64]
Plane = NDArray[np.float32]
Labels = NDArray[np.uint8]
Indices = NDArray[np.intp]
Rng = np.random.Generator
Shape = tuple[int, int]
Real = TypeVar("Real", np.float32, np.float64)


def blur(field: NDArray[Real], sigma: float) -> NDArray[Real]:
    """Gaussian blur of the last two axes, mirrored at the borders."""
    pad = round(3 * sigma) + 1
    widths = [(0, 0)] * (field.ndim - 2) + [(pad, pad)] * 2
    padded = np.pad(field, widths, mode="reflect" if pad < min(field.shape) else "edge")
    rows, columns = padded.shape[-2:]
    frequency = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None] ** 2
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * frequency).astype(field.dtype)
    smooth = np.fft.irfft2(np.fft.rfft2(padded) * kernel, s=(rows, columns))
    return np.asarray(smooth[..., pad : rows - pad, pad : columns - pad], field.dtype)


def smooth_noise(rng: Rng, shape: Shape, sigma: float) -> Field:
    """Random field with zero mean, unit deviation and structure of `sigma` pixels."""
    field = blur(rng.standard_normal(shape), sigma)
    standardised: Field = (field - field.mean()) / field.std()
    return standardised


def grid(shape: Shape) -> tuple[Field, Field]:
    """Row and column of each pixel."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    return rows, columns


@lru_cache(maxsize=8)
def plane_grid(shape: Shape) -> tuple[Plane, Plane]:
    """Row and column of each pixel in single precision; do not write into them."""
    rows, columns = grid(shape)
    return rows.astype(np.float32), columns.astype(np.float32)


@lru_cache(maxsize=8)
def _frequencies(shape: Shape) -> tuple[Plane, Plane]:
    rows = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(shape[1]).astype(np.float32)[None]
    return rows, columns


def band_noise(
    rng: Rng,
    shape: Shape,
    sigma: float,
    *,
    band: float = 0.0,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> Plane:
    """Fast periodic noise of unit deviation.

    Structures of `sigma` pixels, `stretch` times as long along `angle`; with
    `band` > 1 those coarser than ``band * sigma`` are taken out.
    """
    fy, fx = _frequencies(shape)
    square = fy**2 + fx**2
    if stretch != 1.0:
        along = fy * np.float32(np.sin(angle)) + fx * np.float32(np.cos(angle))
        square = square + along**2 * np.float32(stretch**2 - 1)
    power = np.float32(-2 * (np.pi * sigma) ** 2)
    kernel = np.exp(power * square)
    if band > 1:
        kernel -= np.exp(power * np.float32(band**2) * square)
    kernel[0, 0] = 0
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    noise = np.fft.irfft2(white * kernel, s=shape)
    return np.asarray(noise / max(float(noise.std()), 1e-9), np.float32)


def cloud_noise(rng: Rng, shape: Shape, slope: float) -> Plane:
    """Noise at all scales, amplitude falling with frequency to the power `slope`."""
    fy, fx = _frequencies(shape)
    square = fy**2 + fx**2
    square[0, 0] = 1
    kernel = square ** np.float32(-slope / 2)
    kernel[0, 0] = 0
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    noise = np.fft.irfft2(white * kernel, s=shape)
    return np.asarray(noise / noise.std(), np.float32)


def warped_grid(
    rng: Rng, shape: Shape, size: float, bend: float
) -> tuple[Plane, Plane]:
    """Row and column of each pixel, displaced by about `bend` at scale `size`."""
    rows, columns = plane_grid(shape)
    if bend <= 0:
        return rows, columns
    size = max(size, 0.7)
    return (
        rows + np.float32(bend) * band_noise(rng, shape, size),
        columns + np.float32(bend) * band_noise(rng, shape, size),
    )


@dataclass(frozen=True)
class Lattice:
    """A shaken square lattice of points, and the site of each pixel on it."""

    row: Plane  # of each pixel, in spacings
    column: Plane
    site: Indices
    width: int
    point_row: Plane  # of each point
    point_column: Plane

    @property
    def neighbours(self) -> list[int]:
        """Offsets of the nine sites around a pixel."""
        return [i * self.width + j for i in (-1, 0, 1) for j in (-1, 0, 1)]


def lattice(
    rng: Rng, rows: Plane, columns: Plane, spacing: float, shake: float = 0.45
) -> Lattice:
    """One point in each square of about `spacing` pixels, randomly turned."""
    own = of_picture(rng)
    angle = own.uniform(0, np.pi / 2)
    c, s = np.float32(np.cos(angle) / spacing), np.float32(np.sin(angle) / spacing)
    row, column = rows * c + columns * s, columns * c - rows * s
    row -= row.min() - np.float32(1 + own.random())
    column -= column.min() - np.float32(1 + own.random())
    height, width = int(row.max()) + 2, int(column.max()) + 2
    site = row.astype(np.intp) * width + column.astype(np.intp)
    jitter = rng.uniform(0.5 - shake, 0.5 + shake, (2, height * width))
    y, x = np.divmod(np.arange(height * width), width)
    return Lattice(
        row,
        column,
        site,
        width,
        (y + jitter[0]).astype(np.float32),
        (x + jitter[1]).astype(np.float32),
    )


@dataclass(frozen=True)
class Cells:
    """A Voronoi tessellation: the cell of each pixel, its distance from the wall."""

    index: Indices
    wall: Plane
    count: int


def worley(
    rng: Rng, rows: Plane, columns: Plane, spacing: float, shake: float = 0.45
) -> Cells:
    """Voronoi cells of about `spacing` pixels (Worley: only near points are asked)."""
    points = lattice(rng, rows, columns, spacing, shake)
    first = np.full(rows.shape, 99, np.float32)
    second = first.copy()
    index, other = points.site.copy(), points.site.copy()
    for offset in points.neighbours:
        site = points.site + offset
        dy = points.point_row.take(site) - points.row
        dx = points.point_column.take(site) - points.column
        square = dy * dy + dx * dx
        closer = square < first
        between = ~closer & (square < second)
        other = np.where(closer, index, np.where(between, site, other))
        second = np.where(closer, first, np.minimum(second, square))
        index = np.where(closer, site, index)
        first = np.where(closer, square, first)
    apart = np.hypot(
        points.point_row.take(index) - points.point_row.take(other),
        points.point_column.take(index) - points.point_column.take(other),
    )
    wall = (second - first) * np.float32(spacing / 2) / np.maximum(apart, 1e-3)
    return Cells(index, wall.astype(np.float32), len(points.point_row))


@dataclass(frozen=True)
class Shapes:
    """Scattered shapes: `rho` is 0 in a shape's middle and 1 at its border."""

    rho: Plane
    index: Indices
    u: Plane
    v: Plane
    radius: Plane  # of each shape (its shorter half axis), in pixels
    count: int


def scatter(
    rng: Rng,
    rows: Plane,
    columns: Plane,
    spacing: float,
    *,
    radius: tuple[float, float] = (0.35, 0.3),
    flat: tuple[float, float] = (0.6, 1.0),
    share: float = 1.0,
    angle: float | None = None,
    power: int = 2,
    stacked: bool = False,
) -> Shapes:
    """Shapes on a shaken lattice.

    `radius` is the median in spacings and its logarithmic spread, `flat` the range
    of the axis ratio, `share` the part of the sites that have a shape, `angle` the
    common direction, `power` 1 diamonds, 2 ellipses, 4 rounded boxes, 0 boxes.
    `stacked` shapes lie in front of one another; others meet half way.
    """
    points = lattice(rng, rows, columns, spacing)
    count = len(points.point_row)
    long = np.minimum(radius[0] * np.exp(radius[1] * rng.standard_normal(count)), 1.0)
    long = np.maximum(long, 1.0 / spacing)
    short = long * rng.uniform(*flat, count)
    turn = rng.uniform(0, np.pi, count)
    if angle is not None:
        turn = angle + 0.06 * rng.standard_normal(count)
    there = rng.random(count) < share
    c, s = np.cos(turn), np.sin(turn)
    across = np.where(there, 1 / np.maximum(short, 0.6 / spacing), 1e3)
    matrix = np.stack([c / long, s / long, -s * across, c * across]).astype(np.float32)
    depth = rng.random(count).astype(np.float32)
    best = np.full(rows.shape, 1e9, np.float32)
    index, u0, v0 = points.site.copy(), np.zeros_like(best), np.zeros_like(best)
    for offset in points.neighbours:
        site = points.site + offset
        dy = points.row - points.point_row.take(site)
        dx = points.column - points.point_column.take(site)
        u = dy * matrix[0].take(site) + dx * matrix[1].take(site)
        v = dy * matrix[2].take(site) + dx * matrix[3].take(site)
        key = _norm(u, v, power)
        if stacked:
            key = np.where(key < 1, depth.take(site) - 2, key)
        nearer = key < best
        np.copyto(best, key, where=nearer)
        np.copyto(index, site, where=nearer)
        np.copyto(u0, u, where=nearer)
        np.copyto(v0, v, where=nearer)
    rho = _norm(u0, v0, power)
    rho = np.sqrt(rho) if power == 2 else rho
    return Shapes(rho, index, u0, v0, (short * spacing).astype(np.float32), count)


def _norm(u: Plane, v: Plane, power: int) -> Plane:
    """Size of (u, v), or for ellipses its square: both are 1 at the border."""
    if power == 2:
        return u * u + v * v
    if power == 1:
        return np.abs(u) + np.abs(v)
    if power == 0:
        return np.maximum(np.abs(u), np.abs(v))
    u, v = u * u, v * v
    return np.sqrt(u * u + v * v)
