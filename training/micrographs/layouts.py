"""Ways to part a picture into classes: grains, fields, layers, lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from micrographs.fields import (
    Indices,
    Labels,
    Plane,
    Rng,
    Shape,
    band_noise,
    cloud_noise,
    plane_grid,
    scatter,
    warped_grid,
    worley,
)
from micrographs.streams import of_material, of_picture


@dataclass
class Layout:
    """Where the classes 0..K-1 are, and what the brush needs to paint them.

    `objects` tells grains or particles apart (numbers below `count`), `height` is a
    relief in 0..1, `alike` are classes that differ in size, shape or surroundings
    and may look the same, `fine` marks structures of a few pixels.
    """

    labels: Labels
    objects: Indices
    count: int = 1
    height: Plane | None = None
    alike: tuple[int, ...] = ()
    fine: bool = False
    name: str = ""


class MakeLayout(Protocol):
    """How a layout is made."""

    def __call__(self, rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
        """Layout of `k` classes with structures of about `unit` pixels."""


def chance(rng: Rng, probability: float) -> bool:
    """Return whether it happens."""
    return bool(rng.random() < probability)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Return a number between `low` and `high`, each octave as likely."""
    return float(low * (high / low) ** rng.random())


def shares(rng: Rng, k: int) -> NDArray[np.float64]:
    """Return `k` uneven shares of one, none of them tiny."""
    drawn = 0.12 + rng.dirichlet(np.full(k, 2.0))
    return np.asarray(drawn / drawn.sum())


def nothing(shape: Shape) -> Indices:
    """One object everywhere."""
    return np.zeros(shape, np.intp)


def as_labels(values: NDArray[np.generic]) -> Labels:
    """Return the values as labels."""
    return values.astype(np.uint8)


def by_quantile(rng: Rng, field: Plane, k: int) -> Labels:
    """Cut a field into `k` levels of random shares."""
    cuts = np.quantile(field[::3, ::3], np.cumsum(shares(rng, k))[:-1])
    return as_labels(np.searchsorted(cuts.astype(np.float32), field))


def grains(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Polycrystal, each grain of one class; the boundaries may be a class."""
    bend = unit * rng.uniform(0.0, 0.25)
    rows, columns = warped_grid(rng, shape, unit * rng.uniform(0.1, 0.6), bend)
    found = worley(rng, rows, columns, unit, rng.uniform(0.25, 0.48))
    walls = k > 2 and chance(rng, 0.4)
    kind = rng.choice(k - walls, p=shares(rng, k - walls), size=found.count)
    labels = as_labels(kind[found.index])
    if walls:
        labels[found.wall < rng.uniform(0.7, max(1.0, min(3.0, unit / 10)))] = k - 1
    return Layout(labels, found.index, found.count, fine=walls or unit < 9)


def walls(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Cells with thin walls (membranes, grain boundaries), some with gaps."""
    bend = unit * rng.uniform(0.0, 0.4)
    rows, columns = warped_grid(rng, shape, unit * rng.uniform(0.1, 0.4), bend)
    stretch = log_uniform(rng, 0.5, 1.0)
    found = worley(rng, rows * np.float32(stretch), columns, unit)
    half = rng.uniform(0.7, float(np.clip(unit / 7, 1.0, 3.5)))
    width: float | Plane = half
    if chance(rng, 0.6):
        swell = band_noise(rng, shape, unit * rng.uniform(0.15, 0.5))
        width = np.float32(half) * (1 + np.float32(rng.uniform(0.1, 0.5)) * swell)
    kind = rng.choice(k - 1, p=shares(rng, k - 1), size=found.count) + 1
    labels = as_labels(kind[found.index])
    labels[found.wall < width] = 0
    height = np.minimum(found.wall / np.float32(unit / 2), 1)
    return Layout(labels, found.index, found.count, height, fine=True)


def field(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Levels of a random field: spinodal, islands, tissue, from smooth to ragged."""
    style = rng.integers(4)
    angle, stretch = rng.uniform(0, np.pi), 1.0
    if chance(rng, 0.3):
        stretch = log_uniform(rng, 1.5, 6)
    if style == 0:
        values = cloud_noise(rng, shape, rng.uniform(1.5, 2.2))
    else:
        sigma, band = unit / rng.uniform(3.5, 6), (0.0, 1.3, 3.0)[style - 1]
        values = band_noise(rng, shape, sigma, band=band, stretch=stretch, angle=angle)
    if chance(rng, 0.5):
        values += np.float32(rng.uniform(0.05, 0.25)) * band_noise(
            rng, shape, unit / 12
        )
    height = np.clip(0.5 + values / np.float32(5), 0, 1)
    return Layout(by_quantile(rng, values, k), nothing(shape), 1, height, fine=unit < 9)


def two_fields(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Phases that meet in any order, from fields that know nothing of each other."""
    stack = [
        band_noise(rng, shape, unit / 4, band=rng.choice([0.0, 2.0])) for _ in range(k)
    ]
    bias = rng.uniform(-0.35, 0.35, k)
    labels = np.argmax(
        [s + np.float32(b) for s, b in zip(stack, bias, strict=True)], axis=0
    )
    return Layout(as_labels(labels), nothing(shape), fine=unit < 9)


def lamellae(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Alternating bands, straight or bent, with a direction in each grain."""
    rows, columns = plane_grid(shape)
    objects, count, angle = nothing(shape), 1, np.float32(rng.uniform(0, np.pi))
    along = rows * np.cos(angle) + columns * np.sin(angle)
    period = max(unit * rng.uniform(0.4, 1.0), 5.0)
    if chance(rng, 0.5):
        colonies = worley(rng, rows, columns, unit * rng.uniform(2.5, 6))
        objects, count = colonies.index, colonies.count
        angles = rng.uniform(0, np.pi, count).astype(np.float32)
        along = rows * np.cos(angles)[objects] + columns * np.sin(angles)[objects]
    if chance(rng, 0.7):
        bend = np.float32(period * rng.uniform(0.1, 1.0))
        along = along + bend * band_noise(rng, shape, period * rng.uniform(0.5, 3))
    wave = (along / np.float32(period)) % 1
    cuts = np.cumsum(shares(rng, k))[:-1].astype(np.float32)
    swell = np.float32(rng.uniform(0, 0.07)) * band_noise(rng, shape, period * 0.5)
    labels = as_labels(np.searchsorted(cuts, wave + swell))
    return Layout(labels, objects, count, fine=period < 36)


def layers(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Cross-section of coatings: bands with rough interfaces, or a stack of them."""
    rows, columns = plane_grid(shape)
    tilt = rng.normal(0, 0.08) + (np.pi / 2 if chance(rng, 0.2) else 0)
    depth = rows * np.float32(np.cos(tilt)) + columns * np.float32(np.sin(tilt))
    low, high = float(depth.min()), float(depth.max())
    cuts = low + (high - low) * np.cumsum(shares(rng, k))[:-1]
    if k > 2 and chance(rng, 0.5):  # an oxide layer
        cuts[1:2] = cuts[0] + log_uniform(rng, 5, 18)
        cuts.sort()
    labels = np.zeros(shape, np.uint8)
    rough = unit * log_uniform(rng, 0.03, 0.6)
    shared = rough * _line_noise(rng, shape, unit * rng.uniform(0.3, 1.5))
    for cut in cuts:
        own = rng.uniform(0, 0.6) * rough
        edge = cut + shared + own * _line_noise(rng, shape, unit * rng.uniform(0.1, 1))
        labels += depth > edge.astype(np.float32)
    return Layout(as_labels(of_material(rng).permutation(k))[labels], nothing(shape))


def _line_noise(rng: Rng, shape: Shape, sigma: float) -> Plane:
    return band_noise(rng, shape, max(sigma, 1.0), band=rng.choice([0.0, 4.0]))


def dendrites(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Trunks with side arms, each grain turned its own way, in a matrix."""
    rows, columns = warped_grid(rng, shape, unit, 0.08 * unit)
    size = unit * rng.uniform(2.0, 4.0)
    flat = (0.7, 1.0)
    found = scatter(rng, rows, columns, size, radius=(0.75, 0.15), flat=flat, power=1)
    reach = np.float32(0.75 * size)
    along = np.minimum(np.abs(found.u), np.abs(found.v)) * reach
    arms = np.maximum(np.abs(found.u), np.abs(found.v)) * reach
    period = np.float32(max(unit * rng.uniform(0.3, 0.5), 6.0))
    wave = np.cos(arms * np.float32(2 * np.pi) / period)
    noise = band_noise(rng, shape, max(1.0, unit / 8))
    arm = wave + 0.2 * noise > rng.uniform(-0.3, 0.3)
    arm &= arms - along > (0.25 + 0.1 * noise) * period  # arms of two trunks part
    body = (along < 0.2 * period) | arm
    body &= found.rho + 0.07 * noise < 1
    return Layout(as_labels(body), found.index, found.count, fine=True)


def cracks(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Branching random walks, 1 to 6 pixels wide."""
    mask = np.zeros(shape, bool)
    share, thick = (
        of_picture(rng).uniform(0.012, 0.06),
        rng.uniform(0.8, 1.0 + min(unit / 12, 4)),
    )
    general, spread = rng.uniform(0, 2 * np.pi), rng.choice([0.2, 3.0])
    wander, branching = rng.uniform(0.05, 0.4), rng.uniform(0, 0.03)
    rng = of_picture(rng)
    for _ in range(30):
        place = rng.uniform(0, 1, 2) * shape
        heading = general + spread * rng.standard_normal()
        _crack(rng, mask, (place[0], place[1], heading, thick), wander, branching)
        if mask.mean() > share:
            break
    return Layout(as_labels(mask), nothing(shape), fine=True)


def _crack(
    rng: Rng,
    mask: NDArray[np.bool_],
    first: tuple[float, float, float, float],
    wander: float,
    branching: float,
) -> None:
    """Draw one crack (row, column, heading, width) and its branches into `mask`."""
    waiting = [first]
    for _ in range(6):
        if not waiting:
            return
        row, column, heading, width = waiting.pop()
        steps = int(rng.uniform(0.15, 0.9) * max(mask.shape))
        turns = wander * rng.standard_normal(steps)
        kinks = np.where(rng.random(steps) < 0.04, rng.normal(0, 0.7, steps), 0)
        drift = np.cumsum(turns) * 0.3 + turns + np.cumsum(kinks) * 0.4
        y = row + np.cumsum(np.sin(heading + drift))
        x = column + np.cumsum(np.cos(heading + drift))
        wide = width * np.linspace(1, 0.4, steps) * rng.uniform(0.75, 1.25, steps)
        stamp(mask, y, x, np.maximum(wide, 1.0) / 2)
        for i in np.flatnonzero(rng.random(steps) < branching)[:3]:
            side = heading + drift[i] + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
            waiting.append((y[i], x[i], side, max(0.7 * wide[i], 1.0)))


def stamp(
    mask: NDArray[np.bool_],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    radius: NDArray[np.float64],
) -> None:
    """Set the pixels of discs around the points."""
    reach = int(radius.max() + 0.5)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1, 1)
    near = dy**2 + dx**2 <= np.maximum(radius, 0.71) ** 2
    y, x = np.rint(rows).astype(np.intp) + dy, np.rint(columns).astype(np.intp) + dx
    near &= (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    mask[y[near], x[near]] = True
