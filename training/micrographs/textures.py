"""What fills a class: noise, stripes, spots, cells, particles, mixtures."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from micrographs import layouts, objects
from micrographs.fields import (
    Plane,
    Rng,
    Shape,
    band_noise,
    cloud_noise,
    plane_grid,
    scatter,
    worley,
)
from micrographs.layouts import Layout, log_uniform


class _MakeTexture(Protocol):
    def __call__(self, rng: Rng, layout: Layout, size: float) -> Plane:
        """Texture of about unit deviation with structures of `size` pixels."""


def _shape(layout: Layout) -> Shape:
    return (layout.labels.shape[0], layout.labels.shape[1])


def _grainy(rng: Rng, layout: Layout, size: float) -> Plane:
    return band_noise(rng, _shape(layout), size / 2.5, band=rng.choice([0.0, 1.5]))


def _clouds(rng: Rng, layout: Layout, size: float) -> Plane:
    return cloud_noise(rng, _shape(layout), rng.uniform(0.5, 1.6))


def _brushed(rng: Rng, layout: Layout, size: float) -> Plane:
    stretch, angle = log_uniform(rng, 3, 12), rng.uniform(0, np.pi)
    return band_noise(rng, _shape(layout), size / 3, stretch=stretch, angle=angle)


def _stripes(rng: Rng, layout: Layout, size: float) -> Plane:
    """Lamellae with a direction in each object."""
    rows, columns = plane_grid(_shape(layout))
    angle = rng.uniform(0, np.pi, layout.count).astype(np.float32)
    period = (size * rng.uniform(0.85, 1.2, layout.count)).astype(np.float32)
    turn = np.float32(2 * np.pi) / np.maximum(period, 2.5)
    y, x = (
        (np.cos(angle) * turn)[layout.objects],
        (np.sin(angle) * turn)[layout.objects],
    )
    bend = band_noise(rng, _shape(layout), 2 * size)
    wave = np.sin(rows * y + columns * x + np.float32(rng.uniform(0, 1.5)) * bend)
    return np.asarray(1.4 * np.tanh(np.float32(rng.uniform(0.5, 4)) * wave), np.float32)


def _spots(rng: Rng, layout: Layout, size: float) -> Plane:
    noise = band_noise(rng, _shape(layout), size / 3.5)
    sign = np.float32(rng.choice([-1.0, 1.0]))
    spots = np.clip(noise - np.float32(rng.uniform(0.4, 1.3)), 0, 1)
    return np.asarray(sign * spots / max(float(spots.std()), 1e-3), np.float32)


def _ridges(rng: Rng, layout: Layout, size: float) -> Plane:
    ridges = np.exp(-4 * np.abs(band_noise(rng, _shape(layout), size / 2)))
    sign = np.float32(rng.choice([-1.0, 1.0]))
    return np.asarray(sign * (ridges - ridges.mean()) / ridges.std(), np.float32)


def _mesh(rng: Rng, layout: Layout, size: float) -> Plane:
    """Small cells, grey by grey or with marked walls."""
    found = worley(rng, *plane_grid(_shape(layout)), max(1.6 * size, 4.0))
    if rng.random() < 0.5:
        tints = rng.standard_normal(found.count).astype(np.float32)
        return tints[found.index]
    return np.asarray(1 - 3 * np.exp(-((found.wall / 1.2) ** 2)), np.float32)


def _dots(rng: Rng, layout: Layout, size: float) -> Plane:
    """Fine particles, the same everywhere."""
    found = scatter(
        rng,
        *plane_grid(_shape(layout)),
        max(1.8 * size, 4.0),
        radius=(0.28, 0.3),
        share=rng.uniform(0.4, 1),
        power=int(rng.choice([2, 4])),
    )
    dots = np.clip(2 * (1.2 - found.rho), 0, 1)
    sign = np.float32(rng.choice([-1.0, 1.0]))
    return np.asarray(sign * (dots - dots.mean()) / (dots.std() + 1e-3), np.float32)


def _mixture(rng: Rng, layout: Layout, size: float) -> Plane:
    """Two phases too fine to be told apart: one class to the person."""
    noise = band_noise(rng, _shape(layout), size / 3, band=rng.choice([0.0, 1.4]))
    level = rng.uniform(-0.8, 0.8)
    return np.asarray(np.clip(4 * (noise - np.float32(level)), -1, 1), np.float32)


_STRUCTURES = (
    layouts.walls,
    layouts.lamellae,
    layouts.dendrites,
    objects.particles,
    objects.needles,
    objects.rings,
    objects.foam,
    objects.fibres,
)


def _structure(rng: Rng, layout: Layout, size: float) -> Plane:
    """Things that a person would not mark: the class is all of them together."""
    make = _STRUCTURES[rng.integers(len(_STRUCTURES))]
    inner = make(rng, _shape(layout), max(2 * size, 5.0), 2).labels.astype(np.float32)
    sign = np.float32(rng.choice([-1.0, 1.0]))
    return np.asarray(sign * (inner - inner.mean()) / (inner.std() + 1e-3), np.float32)


# How it is made, how often, is it strong enough to tell classes of one grey apart.
TEXTURES: dict[str, tuple[_MakeTexture, float, bool]] = {
    "grainy": (_grainy, 5, True),
    "clouds": (_clouds, 2, False),
    "brushed": (_brushed, 1.5, True),
    "stripes": (_stripes, 2, True),
    "spots": (_spots, 1.5, True),
    "ridges": (_ridges, 1, True),
    "mesh": (_mesh, 1, True),
    "dots": (_dots, 1.2, True),
    "mixture": (_mixture, 1.5, True),
    "structure": (_structure, 2.5, True),
}


def pick_texture(rng: Rng, *, strong: bool = False) -> str:
    """Return the name of a texture, of those that mark a class if `strong`."""
    names = [name for name, (_, _, marks) in TEXTURES.items() if marks or not strong]
    weights = np.array([TEXTURES[name][1] for name in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def make_texture(rng: Rng, name: str, layout: Layout, size: float) -> Plane:
    """Return a texture of about unit deviation with structures of `size` pixels."""
    return TEXTURES[name][0](rng, layout, size)
