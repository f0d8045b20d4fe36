"""Layouts of things on a ground: particles, rings, fibres, nuclei, powder, pores."""

from __future__ import annotations

import numpy as np

from micrographs.fields import (
    Labels,
    Plane,
    Rng,
    Shape,
    Shapes,
    band_noise,
    plane_grid,
    scatter,
    warped_grid,
    worley,
)
from micrographs.layouts import (
    Layout,
    as_labels,
    chance,
    log_uniform,
    nothing,
)
from micrographs.streams import of_picture


def _bodies(
    rng: Rng,
    shape: Shape,
    unit: float,
    *,
    flat: tuple[float, float] | None = None,
    share: float | None = None,
    fill: tuple[float, float] = (0.22, 0.5),
    power: int | None = None,
    aligned: float = 0.3,
    stacked: bool = False,
) -> Shapes:
    """Shapes of about `unit` pixels across, smooth or irregular."""
    median = rng.uniform(*fill)
    spacing = unit / (2 * median)
    bend = unit * rng.uniform(0.03, 0.22) if chance(rng, 0.5) else 0.0
    rows, columns = warped_grid(rng, shape, unit * rng.uniform(0.12, 0.4), bend)
    low = rng.uniform(0.35, 0.95)
    return scatter(
        rng,
        rows,
        columns,
        spacing,
        radius=(median, rng.uniform(0.0, 0.5)),
        flat=flat or (low, min(1.0, low + 0.4)),
        share=of_picture(rng).uniform(0.35, 1.0) if share is None else share,
        angle=rng.uniform(0, np.pi) if chance(rng, aligned) else None,
        power=int(rng.choice([2, 2, 2, 4, 0, 1])) if power is None else power,
        stacked=stacked,
    )


def _dome(found: Shapes) -> Plane:
    return np.asarray(np.sqrt(np.clip(1 - found.rho * found.rho, 0, 1)))


def particles(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Particles of one or more kinds on a ground."""
    found = _bodies(rng, shape, unit)
    kind = rng.integers(1, k, found.count)
    labels = as_labels(np.where(found.rho < 1, kind[found.index], 0))
    return Layout(labels, found.index, found.count, _dome(found), fine=unit < 12)


def two_sizes(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """A ground with large and small particles of the same stuff."""
    flat = (rng.uniform(0.5, 0.9), 1.0)
    power = int(rng.choice([2, 2, 4, 0]))
    unit = float(np.clip(unit, 16.0, min(shape) / 4))
    large = _bodies(rng, shape, unit, flat=flat, power=power, fill=(0.25, 0.45))
    fine = max(unit * rng.uniform(0.12, 0.3), 3.0)
    small = _bodies(rng, shape, fine, flat=flat, power=power, fill=(0.25, 0.4))
    gap = np.float32(1 + rng.uniform(0.5, 4) / (unit / 2))
    labels = as_labels((small.rho < 1) & (large.rho > gap)) * np.uint8(2)
    labels[large.rho < 1] = 1
    height = np.where(labels == 1, _dome(large), _dome(small) * (labels == 2))
    objects = np.where(labels == 2, small.index % 97 + large.count, large.index)
    alike = (1, 2) if chance(rng, 0.75) else ()
    return Layout(labels, objects, large.count + 97, height, alike, fine=True)


def two_shapes(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """A ground with round and long particles of the same stuff."""
    unit = max(unit, 10.0)
    round_ = _bodies(rng, shape, unit, flat=(0.85, 1.0), share=0.55, power=2)
    low = rng.uniform(0.15, 0.25)
    long_ = _bodies(rng, shape, 2.5 * unit, flat=(low, low + 0.1), share=0.7, power=2)
    labels = as_labels(long_.rho < 1)
    labels[(round_.rho < 1) & (long_.rho > 1.15)] = 2
    height = np.where(labels == 1, _dome(long_), _dome(round_) * (labels == 2))
    alike = (1, 2) if chance(rng, 0.7) else ()
    objects = np.where(labels == 1, long_.index, round_.index + long_.count)
    return Layout(labels, objects, long_.count + round_.count, height, alike)


def rings(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Cores in shells: coated particles, vesicles, axons."""
    if k == 3 and chance(rng, 0.4):
        return _axons(rng, shape, max(unit, 16.0))
    unit = max(unit, 12.0)
    found = _bodies(rng, shape, unit, power=2, fill=(0.3, 0.55))
    across = found.radius[found.index]
    if chance(rng, 0.5):
        shell = np.clip(rng.uniform(1.5, max(2.0, unit / 8)) / across, 0.08, 0.6)
    else:
        spread = rng.uniform(0.1, 0.5) * rng.uniform(0.7, 1.3, found.count)
        shell = spread[found.index]
    rho = found.rho
    if chance(rng, 0.5):
        rho = rho + np.float32(0.05) * band_noise(rng, shape, unit / 6)
    labels = as_labels(rho < 1)
    inner = rho < 1 - shell
    alike: tuple[int, ...] = ()
    if k == 2:
        labels[inner] = 0
    else:
        labels[inner] = 2
        alike = (0, 2) if chance(rng, 0.6) else ()
    return Layout(labels, found.index, found.count, _dome(found), alike, fine=True)


def _axons(rng: Rng, shape: Shape, unit: float) -> Layout:
    """Closed shells of all sizes, close together; inside is as dark as between."""
    bend = unit * rng.uniform(0.0, 0.2)
    warped = warped_grid(rng, shape, unit * rng.uniform(0.15, 0.5), bend)
    found = worley(rng, *warped, unit)
    gap, apart = rng.uniform(0.02, 0.12) * unit, of_picture(rng).uniform(0.5, 1.0)
    thick = rng.uniform(0.06, 0.2) * unit * rng.uniform(0.7, 1.4, found.count)
    shell = np.maximum(thick, 1.5).astype(np.float32)[found.index]
    there = (rng.random(found.count) < apart)[found.index] & (found.wall > gap)
    inner = found.wall > gap + shell
    labels = as_labels(there) + as_labels(there & inner)
    height = np.minimum(found.wall / np.float32(unit / 2), 1)
    alike = (0, 2) if chance(rng, 0.7) else ()
    return Layout(labels, found.index, found.count, height, alike, fine=True)


def fibres(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Bent fibres in front of one another: mats, wires, vessels."""
    labels, objects = np.zeros(shape, np.uint8), nothing(shape)
    height = np.zeros(shape, np.float32)
    half = max(unit / 5, 1.0)
    general, spread = rng.uniform(0, np.pi), rng.choice([0.1, 0.4, 3.0])
    spread_of_widths, bend = rng.uniform(0.05, 0.35), rng.uniform(0.0, 0.06)
    bends = band_noise(rng, shape, max(shape) / 8) * np.float32(max(shape) * bend)
    rows, columns = plane_grid(shape)
    most = min(14, int(max(shape) / half * 0.22) + 2)
    rng = of_picture(rng)
    for i in range(1, most + 1):
        angle = general + spread * rng.standard_normal()
        place = rng.uniform(0.02, 0.98, 2) * shape
        kind = int(rng.integers(1, k))
        radius = half * np.exp(spread_of_widths * rng.standard_normal())
        radius *= 1 if kind == 1 else 2.2
        sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        far = (rows - np.float32(place[0])) * cosine
        far -= (columns - np.float32(place[1])) * sine
        far += bends * np.float32(rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.5))
        far = np.abs(far) / np.float32(radius)
        inside = far < 1
        labels[inside], objects[inside] = kind, i
        height[inside] = np.sqrt(1 - far[inside] ** 2)
    return Layout(labels, objects, most + 1, height, fine=half < 4)


def needles(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Needles and platelets in one or a few directions."""
    long_ = max(unit * 2, 14.0)
    flat = rng.uniform(2.5, max(4.0, long_ / 7)) / long_
    labels = np.zeros(shape, np.uint8)
    objects, height, base = nothing(shape), np.zeros(shape, np.float32), 0
    turn = rng.uniform(0, np.pi)
    for i in range(rng.integers(1, 4)):
        found = scatter(
            rng,
            *warped_grid(rng, shape, unit, 0.05 * unit),
            long_ / rng.uniform(0.8, 1.6),
            radius=(0.6, 0.25),
            flat=(flat, 1.5 * flat),
            share=of_picture(rng).uniform(0.4, 1),
            angle=turn + i * np.pi / 3 if chance(rng, 0.7) else None,
            power=int(rng.choice([2, 0])),
        )
        inside = found.rho < 1
        labels[inside], objects[inside] = 1, found.index[inside] + base
        height[inside] = (1 - found.rho)[inside]
        base += found.count
    return Layout(labels, objects, base, height, fine=True)


def tissue(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Nuclei in stroma, with lumens where there are three classes."""
    rough = band_noise(rng, shape, unit * rng.uniform(0.8, 1.6))
    rough += np.float32(0.1) * band_noise(rng, shape, 2)
    small = max(unit * rng.uniform(0.3, 0.6), 7.0)
    flat = (rng.uniform(0.4, 0.7), 1.0)
    nuclei = _bodies(rng, shape, small, flat=flat, power=2, aligned=0.15)
    labels = as_labels(nuclei.rho < 1)
    if k > 2:
        cut = np.float32(of_picture(rng).uniform(0.3, 1.2))
        lumen = rough > cut
        clear = lumen[_middles(nuclei, shape)]  # whole nuclei stay out of lumens
        labels[clear] = 0
        labels[lumen & (labels == 0)] = 2
    if k > 3:
        labels[(rough < -cut) & (labels == 0)] = 3
    return Layout(labels, nuclei.index, nuclei.count, _dome(nuclei), fine=small < 10)


def _middles(found: Shapes, shape: Shape) -> tuple[Labels, ...]:
    """Index of the pixel nearest to the middle of each pixel's shape."""
    flat, rho = found.index.ravel(), found.rho.ravel()
    order = np.argsort(-rho)
    middle = np.zeros(found.count, np.intp)
    middle[flat[order]] = order  # the last one written has the smallest rho
    return np.unravel_index(middle[found.index], shape)  # type: ignore[return-value]


def powder(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Heaps of touching grains in front of one another, with gaps between."""
    kind = int(rng.choice([2, 2, 4, 0]))
    low = rng.uniform(0.6, 0.95)
    labels, objects = np.zeros(shape, np.uint8), nothing(shape)
    height, base = np.zeros(shape, np.float32), 0
    for scale in (1.0, log_uniform(rng, 0.3, 0.8)):
        found = _bodies(
            rng,
            shape,
            max(unit * scale, 6.0),
            flat=(low, 1.0),
            share=of_picture(rng).uniform(0.6, 1),
            fill=(0.4, 0.65),
            power=kind,
            stacked=True,
        )
        free = (found.rho < 1) & (labels == 0)
        who = rng.integers(1, k, found.count)
        labels[free] = who[found.index][free]
        height[free], objects[free] = _dome(found)[free], found.index[free] + base
        base += found.count
    return Layout(labels, objects, base, height, fine=unit < 14)


def foam(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Round pores of all sizes, so dense that a skeleton is left."""
    pores = np.zeros(shape, bool)
    objects, height, base = nothing(shape), np.ones(shape, np.float32), 0
    for scale in (1.0, 0.5, 0.3)[: rng.integers(1, 4)]:
        found = _bodies(
            rng, shape, max(unit * scale, 4), flat=(0.8, 1.0), fill=(0.4, 0.5), power=2
        )
        inside = (found.rho < 0.93) & ~pores
        objects[inside], height[inside] = found.index[inside] + base, found.rho[inside]
        pores |= inside
        base += found.count
    return Layout(as_labels(~pores), objects, base, height, fine=True)


def cell_bodies(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """Cells with a nucleus (class 2, or not told apart) on an empty ground."""
    unit = max(unit, 20.0)
    found = _bodies(
        rng, shape, unit, fill=(0.35, 0.6), share=of_picture(rng).uniform(0.5, 1)
    )
    size = rng.uniform(0.3, 0.6)
    labels = as_labels(found.rho < 1)
    u = found.u - np.float32(rng.uniform(-0.2, 0.2))
    nucleus = u * u + found.v * found.v < size**2
    height = _dome(found)
    if k > 2:
        labels[nucleus & (labels == 1)] = 2
    else:
        height = np.where(nucleus, np.float32(1), height / 2)
    return Layout(labels, found.index, found.count, height)
