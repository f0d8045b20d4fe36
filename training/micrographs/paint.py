"""What the classes of a layout look like: levels, textures, rims, relief, colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from micrographs.fields import Plane, Rng, band_noise, blur
from micrographs.layouts import Layout, chance, log_uniform
from micrographs.streams import of_material, settle
from micrographs.textures import make_texture, pick_texture

# Textures that are hard to tell from each other.
_TWINS = ({"stripes", "brushed"}, {"spots", "dots"}, {"grainy", "mixture"})


@dataclass
class Look:
    """How a class is painted: a level and a texture of some size and strength."""

    level: float
    texture: str = "grainy"
    size: float = 4.0
    strength: float = 0.0


def choose_looks(rng: Rng, layout: Layout, unit: float) -> tuple[list[Look], float]:
    """Return a look for each class, and the grey gap that tells them apart."""
    k = int(layout.labels.max()) + 1
    gap = log_uniform(rng, 0.07, 0.35)
    levels = np.cumsum(gap * (1 + rng.exponential(0.5, k)))
    levels -= levels.mean()
    if np.ptp(levels) > 0.85:
        gap, levels = gap * 0.85 / np.ptp(levels), levels * (0.85 / np.ptp(levels))
    levels = rng.permutation(levels) + 0.5
    coarsest = float(np.clip(unit / 2, 3, 12))
    most = 0.25 if layout.fine else 0.6
    looks = [
        Look(
            float(level),
            pick_texture(rng),
            log_uniform(rng, 1.7, coarsest),
            0.0 if chance(rng, 0.25) else gap * rng.uniform(0, most),
        )
        for level in levels
    ]
    if not layout.fine and unit > 18 and chance(rng, 0.3):
        _one_grey(rng, looks, layout, gap, min(unit / 4, 7))
        gap *= 0.6  # textures need a quieter picture than levels
    for i in layout.alike[1:]:
        looks[i] = looks[layout.alike[0]]
    return looks, gap


def _one_grey(
    rng: Rng, looks: list[Look], layout: Layout, gap: float, coarsest: float
) -> None:
    """Give two classes one grey level; their textures tell them apart."""
    free = [i for i in range(len(looks)) if i not in layout.alike]
    if len(free) < 2:
        return
    first, second = rng.choice(free, 2, replace=False)
    strength = max(gap, 0.12) * rng.uniform(0.7, 1.2)
    a = Look(looks[first].level, pick_texture(rng, strong=True), coarsest, strength)
    a.size = log_uniform(rng, 2.0, coarsest)
    b = Look(a.level, a.texture, a.size, strength * rng.uniform(0, 0.25))
    if chance(rng, 0.5):
        while {a.texture, b.texture} in _TWINS or b.texture == a.texture:
            b.texture = pick_texture(rng, strong=True)
        b.size = min(a.size * 2.5, coarsest) if a.size < 3.5 else a.size / 2.5
        b.size, b.strength = max(b.size, 1.7), strength * rng.uniform(0.6, 1.1)
    looks[first], looks[second] = a, b


def paint(rng: Rng, layout: Layout, looks: list[Look], gap: float) -> Plane:
    """Return the grey signal (H, W) of a layout, about 0..1."""
    levels = np.array([look.level for look in looks], np.float32)
    signal = levels[layout.labels]
    textures: dict[int, Plane] = {}
    for i, look in enumerate(looks):
        if look.strength <= 0:
            continue
        if id(look) not in textures:  # alike classes share one
            textures[id(look)] = make_texture(rng, look.texture, layout, look.size)
        share = (layout.labels == i) * np.float32(look.strength)
        signal += share * textures[id(look)]
    if layout.count > 1 and chance(rng, 0.5):
        spread = gap * rng.uniform(0.05, 0.35)
        tints = (spread * rng.standard_normal(layout.count)).astype(np.float32)
        if layout.name == "walls" and chance(rng, 0.4):  # etched: of one dark grey
            walls, strength = layout.labels == 0, np.float32(rng.uniform(1, 3))
            signal = np.where(
                walls, signal.min() - gap / 2, signal + strength * tints[layout.objects]
            )
        else:
            signal += tints[layout.objects]
    signal = _shade(rng, layout, signal, gap)
    for _ in range(rng.choice(3, p=[0.5, 0.35, 0.15])):
        signal = _rim(rng, layout, signal, gap, len(looks))
    return signal


def _shade(rng: Rng, layout: Layout, signal: Plane, gap: float) -> Plane:
    """Let the relief show: bright or dark domes, light from one side."""
    if layout.height is None or chance(rng, 0.5):
        return signal
    amount = gap * rng.uniform(0.2, 1.0) * rng.choice([-1.0, 1.0])
    height = np.asarray(layout.height, np.float32)
    if chance(rng, 0.5):
        body = layout.labels > 0
        inside = height[body]
        shift = np.float32(inside.mean()) if inside.size else np.float32(0)
        signal = signal + np.float32(amount) * (height - shift) * body
    else:
        soft = blur(height, rng.uniform(0.6, 1.5))
        slope = soft - np.roll(soft, (1, 1), rng.choice([-2, -1], 2).tolist())
        signal = signal + np.float32(amount * 4) * np.clip(slope, -0.3, 0.3)
    return np.asarray(signal, np.float32)


def _rim(rng: Rng, layout: Layout, signal: Plane, gap: float, k: int) -> Plane:
    """Bright edges of an electron image, dark outlines, halos of phase contrast."""
    one = rng.integers(k)
    mask = (layout.labels == one).astype(np.float32)
    most = 0.8 if layout.fine else 1.2
    amount = np.float32(gap * rng.uniform(0.3, most) * rng.choice([-1.0, 1.0, 1.0]))
    soft = blur(mask, log_uniform(rng, 0.7, 1.5 if layout.fine else 3.0))
    style = rng.integers(4)
    if style == 0:  # both sides
        rim = 4 * soft * (1 - soft)
    elif style == 1:  # inside only
        rim = 2 * (1 - soft) * mask
    elif style == 2:  # outside only: shadow or halo
        rim = 2 * soft * (1 - mask)
    else:  # overshoot, as at a Fresnel fringe
        rim = 2 * (soft - blur(mask, log_uniform(rng, 1.5, 7)))
    return np.asarray(signal + amount * rim, np.float32)


def colour(
    rng: Rng, layout: Layout, looks: list[Look], grey: Plane, gap: float
) -> Plane:
    """Return (3, H, W) light from a grey signal: dyes, labels, tints or a mix."""
    levels = np.array([look.level for look in looks], np.float32)
    detail = grey - levels[layout.labels]
    own = of_material(rng)
    style = own.choice(4, p=[0.35, 0.2, 0.2, 0.25])
    if style == 0:
        return _dyes(rng, layout, looks, detail)
    if style == 1:
        return _fluorescence(rng, layout, looks, detail / np.float32(gap))
    if style == 2:  # one hue from dark to light, as of tinted or brownish prints
        dark, light = own.uniform(0, 0.25, 3), own.uniform(0.6, 1.0, 3)
        bend = own.uniform(0.6, 1.6, 3).astype(np.float32)[:, None, None]
        ramp = np.clip(grey, 0, 1.2)[None] ** bend
        span = (light - dark).astype(np.float32)[:, None, None]
        return np.asarray(dark.astype(np.float32)[:, None, None] + span * ramp)
    base = _same(levels[:, None] + own.normal(0, 0.5 * gap, (len(looks), 3)), layout)
    direction = own.uniform(0.6, 1.3, (len(looks), 3)).astype(np.float32)
    mix = base[layout.labels] + direction[layout.labels] * detail[..., None]
    if layout.count > 1 and chance(rng, 0.3):  # grains in polarised light
        hues = log_uniform(rng, 0.2, 1.5) * gap * rng.standard_normal((layout.count, 3))
        walls = (layout.labels == 0) & (layout.name == "walls")
        mix = mix + np.where(
            walls[..., None], 0, hues.astype(np.float32)[layout.objects]
        )
    return np.asarray(np.moveaxis(mix, -1, 0), np.float32)


def _same(values: NDArray[np.float64], layout: Layout) -> Plane:
    """Give classes that look alike the same row of values."""
    for i in layout.alike[1:]:
        values[i] = values[layout.alike[0]]
    return values.astype(np.float32)


def _spread(
    rng: Rng, k: int, n: int, distance: float, high: float = 1.0
) -> NDArray[np.float64]:
    """`k` random rows of `n` numbers, not too near each other."""
    best, best_apart = rng.uniform(0, high, (k, n)), -1.0
    for _ in range(20):
        rows = rng.uniform(0, high, (k, n))
        gaps = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + 9 * np.eye(k)
        apart = float(gaps.min())
        if apart > best_apart:
            best, best_apart = rows, apart
        if best_apart > distance:
            break
    return best


def _dyes(rng: Rng, layout: Layout, looks: list[Look], detail: Plane) -> Plane:
    """Beer and Lambert: each dye takes its share of red, green and blue light."""
    k, shape, own = len(looks), detail.shape, of_material(rng)
    dyes = np.array([[1.1, 1.25, 0.55], [0.12, 0.75, 0.35]])  # violet and pink
    if chance(rng, 0.3):
        dyes[1] = [0.35, 0.75, 1.2]  # brown
    dyes = np.clip(dyes + own.normal(0, 0.12, (2, 3)), 0.02, 1.5).astype(np.float32)
    amounts = _spread(own, k, 2, 0.3, 0.9)
    amounts += np.maximum(0.25 - amounts.sum(axis=1, keepdims=True), 0)
    if chance(rng, 0.6):  # the palest is empty
        amounts[amounts.sum(axis=1).argmin()] = own.uniform(0, 0.08, 2)
    depth = _same(amounts, layout)[layout.labels]  # (H, W, 2)
    weights = own.uniform(0.3, 1.5, 2).astype(np.float32)
    depth = depth + detail[..., None] * weights * np.sqrt(depth + np.float32(0.02))
    cloudy = 1 + np.float32(rng.uniform(0, 0.2)) * band_noise(
        rng, (shape[0], shape[1]), rng.uniform(3, 30)
    )
    density = np.maximum(depth * cloudy[..., None], 0) @ dyes
    return np.moveaxis(np.float32(rng.uniform(0.85, 1)) * np.exp(-density), -1, 0)


def _fluorescence(rng: Rng, layout: Layout, looks: list[Look], detail: Plane) -> Plane:
    """Glowing labels on black, one colour or more."""
    k, own = len(looks), of_material(rng)
    glow = _spread(own, k, 3, 0.5)
    glow *= own.uniform(0.4, 1.0, (k, 1)) / glow.max(axis=1, keepdims=True)
    largest = int(np.bincount(layout.labels.ravel(), minlength=k).argmax())
    glow[settle(rng, "dark", largest)] = own.uniform(0, 0.08, 3)
    light = _same(glow, layout)[layout.labels]
    light = light * (1 + np.float32(0.5) * np.clip(detail, -1.5, 2))[..., None]
    return np.moveaxis(np.asarray(light, np.float32), -1, 0)
