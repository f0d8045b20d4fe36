"""How each kind of sample micrograph is drawn: a signal in 0..1 and true labels."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from micrographs.fields import Field, blur, grid, smooth_noise
from micrographs.parts import cells

Drawing = tuple[Field, NDArray[np.uint8]]


class _Draw(Protocol):
    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, int], size: float
    ) -> Drawing:
        """Signal ([3,] H, W) and labels (H, W) 1..K, structures scaled by `size`."""


def _grains(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Drawing:
    """Etched steel: pale ferrite, striped pearlite, rough bainite."""
    grains = cells(rng, shape, 74 * size, 5 * size)
    phase = rng.choice(3, p=[0.5, 0.28, 0.22], size=grains.count)
    angle = rng.uniform(0, np.pi, size=grains.count)[grains.index]
    spacing = rng.uniform(6, 8.5, size=grains.count)[grains.index]
    tint = rng.normal(0, 0.028, size=grains.count)[grains.index]
    rows, columns = grid(shape)
    wave = 1.2 * smooth_noise(rng, shape, 9)
    along = rows * np.cos(angle) + columns * np.sin(angle) + wave
    stripes = np.tanh(2.5 * np.sin(2 * np.pi * along / spacing))
    rough = smooth_noise(rng, shape, 2.2)
    levels = np.stack([0.66 + 0 * rough, 0.54 + 0.15 * stripes, 0.42 + 0.1 * rough])
    signal = np.take_along_axis(levels, phase[grains.index][None], axis=0)[0] + tint
    signal += 0.012 * smooth_noise(rng, shape, 1.2)
    signal -= 0.3 * np.exp(-((grains.wall / 1.1) ** 2))
    return signal, (phase[grains.index] + 1).astype(np.uint8)


def _particles(
    rng: np.random.Generator, shape: tuple[int, int], size: float
) -> Drawing:
    """Bright spheroids, brighter at their edges, on a mottled matrix."""
    signal = 0.33 + 0.05 * smooth_noise(rng, shape, 5)
    signal += 0.02 * smooth_noise(rng, shape, 1.5)
    signal += 0.075 * smooth_noise(rng, shape, 60 * size)
    labels = np.ones(shape, dtype=np.uint8)
    for _ in range(int(np.prod(shape) / (42 * size) ** 2)):
        radius = size * np.clip(rng.lognormal(2.75, 0.4), 9, 40)
        window, u, v = _ellipse(rng, shape, radius, rng.uniform(0.72, 1.0))
        distance = np.hypot(u, v)
        if (labels[window][distance < 1.12] == 2).any():
            continue
        inside = distance < 1
        signal[window][(distance >= 1) & (distance < 1.25)] -= 0.05
        dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
        shade = 0.73 - 0.14 * dome - 0.06 * u + rng.normal(0, 0.04)
        shade += 0.02 * rng.standard_normal(distance.shape)
        signal[window][inside] = shade[inside]
        labels[window][inside] = 2
    return signal, labels


def _ellipse(
    rng: np.random.Generator, shape: tuple[int, int], radius: float, flat: float
) -> tuple[tuple[slice, slice], Field, Field]:
    """A window somewhere in the image and an ellipse's own coordinates in it."""
    angle = rng.uniform(0, np.pi)
    row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    reach = int(1.3 * radius) + 2
    window = (
        slice(max(int(row) - reach, 0), int(row) + reach),
        slice(max(int(column) - reach, 0), int(column) + reach),
    )
    rows, columns = np.ogrid[window[0], window[1]]
    y = rows[rows < shape[0]].reshape(-1, 1) - row
    x = columns[columns < shape[1]].reshape(1, -1) - column
    u = (y * np.cos(angle) + x * np.sin(angle)) / radius
    v = (x * np.cos(angle) - y * np.sin(angle)) / (radius * flat)
    return window, u, v


def _spinodal(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Drawing:
    """Two interwoven phases: one smooth, one with fine precipitates."""
    seeds = rng.standard_normal(shape)
    field = blur(seeds, 9 * size) - blur(seeds, 15 * size)
    field /= field.std()
    rich = field > 0.12
    speckle = np.clip(smooth_noise(rng, shape, 1.7) - 0.9, 0, None)
    signal = np.where(rich, 0.58, 0.42 + 0.17 * speckle)
    signal += 0.035 * smooth_noise(rng, shape, 25 * size)
    signal += 0.09 * np.exp(-(((field - 0.2) / 0.12) ** 2))  # edges shine
    return signal, np.where(rich, 2, 1).astype(np.uint8)


def _fibres(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Drawing:
    """A mat of overlapping fibres over a dark, uneven ground."""
    signal = 0.2 + 0.045 * smooth_noise(rng, shape, 4)
    signal += 0.06 * smooth_noise(rng, shape, 60 * size)
    labels = np.ones(shape, dtype=np.uint8)
    count = 16
    for i in range(count):
        radius = size * rng.uniform(8, 13)
        distance, side = _distance_to_fibre(rng, shape, radius)
        across = np.clip(distance / radius, 0, 1)
        level = 0.38 + 0.16 * i / count  # deeper ones are darker
        round_ = level + 0.22 * across**3 + 0.07 * side * across
        shadow = (distance >= radius) & (distance < 1.5 * radius)
        signal[shadow] *= 0.86
        inside = distance < radius
        texture = 0.015 * smooth_noise(rng, shape, 1.2)
        signal[inside] = (round_ + texture)[inside]
        labels[inside] = 2
    return signal, labels


def _distance_to_fibre(
    rng: np.random.Generator, shape: tuple[int, int], radius: float
) -> tuple[Field, Field]:
    """Distance from a gently bent line across the image, and the side of it."""
    angle = rng.uniform(0, np.pi)
    row, column = rng.uniform(0.05, 0.95, size=2) * shape
    rows, columns = grid(shape)
    y, x = rows - row, columns - column
    along = y * np.sin(angle) + x * np.cos(angle)
    offset = y * np.cos(angle) - x * np.sin(angle)
    wavelength = max(shape) * rng.uniform(0.6, 1.6)
    phase = 2 * np.pi * along / wavelength + rng.uniform(0, 2 * np.pi)
    height = rng.uniform(0.02, 0.06) * max(shape)
    slope = 2 * np.pi * height / wavelength * np.cos(phase)
    signed = (offset - height * np.sin(phase)) / np.hypot(1, slope)
    return np.abs(signed), np.sign(signed)


def _lamellae(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Drawing:
    """A eutectic: colonies of dark and light lamellae around primary dendrites."""
    colonies = cells(rng, shape, 170 * size, 14 * size)
    angle = rng.uniform(0, np.pi, size=colonies.count)[colonies.index]
    rows, columns = grid(shape)
    bend = 5 * size * smooth_noise(rng, shape, 26 * size)
    along = rows * np.cos(angle) + columns * np.sin(angle) + bend
    spacing = 32 * max(size, 0.7)
    wave = np.sin(2 * np.pi * along / spacing) + 0.12 * smooth_noise(rng, shape, 5)
    light = wave > 0.05
    primary = smooth_noise(rng, shape, 26 * size) + 0.1 * smooth_noise(rng, shape, 4)
    primary_here = primary > 1.0
    signal = np.where(light, 0.64, 0.36) + 0.04 * smooth_noise(rng, shape, 35 * size)
    signal += np.where(light, 0.015, 0.04) * smooth_noise(rng, shape, 1.5)
    signal += 0.07 * np.exp(-(((wave - 0.05) / 0.16) ** 2))
    inner = 0.76 + 0.07 * smooth_noise(rng, shape, 2.2)
    signal = np.where(primary_here, inner, signal)
    signal -= 0.12 * np.exp(-(((primary - 1.0) / 0.06) ** 2))
    labels = np.where(primary_here, 3, np.where(light, 2, 1))
    return signal, labels.astype(np.uint8)


def _stain(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Drawing:
    """Stained tissue in colour: white lumen, pink stroma, violet nuclei."""
    field = smooth_noise(rng, shape, 26 * size) + 0.08 * smooth_noise(rng, shape, 3)
    lumen = field > 1.1
    labels = np.where(lumen, 1, 2).astype(np.uint8)
    fibre = blur(rng.standard_normal(shape), 1.3) * 6 + smooth_noise(rng, shape, 9)
    depth = np.clip(0.55 + 0.1 * fibre, 0.15, 1.0)  # how much eosin
    violet = 0.08 + 0.04 * smooth_noise(rng, shape, 12)  # how much haematoxylin
    for _ in range(int(np.prod(shape) / (24 * size) ** 2)):
        radius = max(size, 0.6) * rng.uniform(6.5, 11)
        window, u, v = _ellipse(rng, shape, radius, rng.uniform(0.6, 1.0))
        inside = np.hypot(u, v) < 1
        there = labels[window][inside]
        if (there == 1).any() or (there == 3).mean() > 0.15:
            continue
        labels[window][inside] = 3
        violet[window][inside] = rng.uniform(0.55, 0.85)
    nuclei = labels == 3
    violet += np.where(nuclei, 0.12 * smooth_noise(rng, shape, 1.6), 0)
    violet, depth = np.where(lumen, 0.02, violet), np.where(lumen, 0.03, depth)
    # Beer and Lambert: each dye takes its share of red, green and blue light.
    eosin, haematoxylin = np.array([0.12, 0.75, 0.35]), np.array([1.1, 1.25, 0.55])
    density = depth * eosin[:, None, None] + violet * haematoxylin[:, None, None]
    return 0.93 * np.exp(-density), labels


# How to draw it, how many electrons or photons per pixel, what its classes are called.
KINDS: dict[str, tuple[_Draw, float, tuple[str, ...]]] = {
    "grains": (_grains, 600, ("ferrite", "pearlite", "bainite")),
    "particles": (_particles, 350, ("matrix", "particle")),
    "spinodal": (_spinodal, 350, ("lean phase", "rich phase")),
    "fibres": (_fibres, 350, ("ground", "fibre")),
    "lamellae": (_lamellae, 350, ("dark lamella", "light lamella", "primary")),
    "stain": (_stain, 2500, ("lumen", "stroma", "nucleus")),
}
