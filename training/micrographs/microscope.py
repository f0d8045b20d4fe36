"""From a painted signal to the 8 bits of a file: light, focus, noise, contrast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from micrographs.fields import (
    Plane,
    Rng,
    Shape,
    band_noise,
    blur,
    plane_grid,
)
from micrographs.layouts import chance, log_uniform, stamp
from micrographs.streams import SeriesRng, of_picture, settle, varied


def develop(
    rng: Rng, signal: Plane, *, gap: float, sharpest: float, color: bool
) -> NDArray[np.uint8]:
    """Return the 8-bit image of a (H, W) or (3, H, W) signal.

    `gap` is the grey difference that must stay visible, `sharpest` the width in
    pixels of the smallest structures that must stay.
    """
    shape = (signal.shape[-2], signal.shape[-1])
    signal = _light(rng, signal, shape, gap)
    signal = _focus(rng, signal, sharpest)
    if chance(rng, 0.35):
        signal = signal + _lines(rng, shape, gap)
    signal = _noise(rng, signal, gap * (1.0 if sharpest > 4 else 0.45))
    signal = _contrast(rng, signal, color=color)
    if chance(rng, 0.12):
        signal = _jpeg(signal, rng.uniform(0.01, 0.05))
    return np.clip(np.rint(signal * 255), 0, 255).astype(np.uint8)


def _light(rng: Rng, signal: Plane, shape: Shape, gap: float) -> Plane:
    """Uneven light, a darker rim of the field, dust and scratches."""
    if chance(rng, 0.7):
        amount = np.float32(gap * rng.uniform(0, 0.5) * varied(rng, 2))
        scale = max(shape) / rng.uniform(2, 8)
        signal = signal + amount * band_noise(rng, shape, scale)
    if chance(rng, 0.15):
        rows, columns = plane_grid(shape)
        far = (rows / shape[0] - 0.5) ** 2 + (columns / shape[1] - 0.5) ** 2
        signal = np.asarray(signal * (1 - rng.uniform(0.1, 0.6) * far), np.float32)
    if chance(rng, 0.15):
        mask = np.zeros(shape, bool)
        for _ in range(rng.integers(1, 6)):
            start, angle = rng.uniform(0, 1, 2) * shape, rng.uniform(0, 2 * np.pi)
            path = np.arange(1 if chance(rng, 0.5) else int(rng.uniform(20, 200)))
            radius = np.full(len(path), rng.uniform(0.5, 1.0 if len(path) > 1 else 3.0))
            y, x = start[0] + path * np.sin(angle), start[1] + path * np.cos(angle)
            stamp(mask, y, x, radius)
        dust = np.float32(gap * rng.choice([-1.2, 0.6, 1.2])) * mask
        signal = np.asarray(signal + dust, np.float32)
    return signal


def _focus(rng: Rng, signal: Plane, sharpest: float) -> Plane:
    """Blur, here and there only in a part of the field or along one direction."""
    sigma = rng.uniform(0.2, float(np.clip(sharpest / 4, 0.5, 2.0)))
    sigma *= varied(rng, 1.6)
    if sigma < 0.3:
        return signal
    soft = blur(signal, sigma)
    if chance(rng, 0.1):
        weight = np.linspace(0, 1, signal.shape[-1], dtype=np.float32)
        return signal * (1 - weight) + soft * weight
    if chance(rng, 0.1):
        return np.asarray((soft + np.roll(soft, 1, axis=rng.integers(-2, 0))) / 2)
    return soft


def _lines(rng: Rng, shape: Shape, gap: float) -> Plane:
    """Curtains, scan lines or charging streaks."""
    style, amount = rng.integers(3), gap * log_uniform(rng, 0.05, 0.5)
    if style == 0:  # curtains of an ion beam
        curtain = band_noise(rng, (16, shape[1]), log_uniform(rng, 0.7, 5))[:1]
        return np.asarray(np.float32(amount) * curtain)
    if style == 1:  # a detector that jumps from line to line
        jumps = rng.standard_normal((shape[0], 1)).astype(np.float32)
        return np.asarray(np.float32(0.5 * amount) * jumps)
    streaks, rng = np.zeros(shape, np.float32), of_picture(rng)
    for _ in range(rng.integers(1, 8)):
        row, start = rng.integers(shape[0]), rng.integers(shape[1])
        tail = np.exp(-np.arange(shape[1] - start) / rng.uniform(5, 80))
        streaks[row : row + rng.integers(1, 4), start:] += tail.astype(np.float32)
    return np.asarray(streaks * np.float32(3 * amount * rng.choice([-1, 1])))


def _noise(rng: Rng, signal: Plane, gap: float) -> Plane:
    """Read noise, shot noise, or noise a scanner has smoothed."""
    amount = np.float32(gap * log_uniform(rng, 0.02, 0.9) * varied(rng, 2))
    white = rng.standard_normal(signal.shape, dtype=np.float32)
    style = rng.integers(4)
    if style == 0:
        white *= np.sqrt(np.clip(signal, 0.02, 1.5)) * np.float32(1.4)
    elif style == 1:
        soft = blur(white, log_uniform(rng, 0.5, 1.4))
        white = soft / soft.std() * np.float32(0.6)
    return signal + amount * white


def _contrast(rng: Rng, signal: Plane, *, color: bool) -> Plane:
    """Stretch to a range that may be narrow or too wide, bend, perhaps invert."""
    low, high = np.quantile(signal[..., ::2, ::2], [0.005, 0.995])
    low, high = settle(rng, "span", (low, high))
    if color:  # the balance of the channels was chosen: only light and dark
        low, high = min(float(low), 0.1), max(0.8, float(high))
    unit = (signal - np.float32(low)) / np.float32(max(high - low, 1e-3))
    if not color and chance(rng, 0.3):
        unit = 1 - unit
    gamma = log_uniform(rng, 0.6, 1.6) if chance(rng, 0.5) else 1.0
    gamma *= varied(rng, 1.25)
    if gamma != 1:
        unit = np.clip(unit, 0, None) ** np.float32(gamma)
    bottom, top = rng.uniform(-0.02, 0.15), rng.uniform(0.85, 1.04)
    if chance(rng, 0.3):
        middle, half = rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.3)
        bottom, top = middle - half, middle + half
    if isinstance(rng, SeriesRng):  # another exposure each time, hardly ever too much
        gain, offset = rng.picture.uniform(0.8, 1.2), rng.picture.uniform(-0.1, 0.1)
        bottom, top = (0.5 + 0.7 * gain * (x - 0.5) + offset for x in (bottom, top))
    return np.asarray(unit * np.float32(top - bottom) + np.float32(bottom), np.float32)


def _jpeg(signal: Plane, step: float) -> Plane:
    """Round the cosine transform of 8x8 blocks, coarser at high frequency."""
    height, width = signal.shape[-2:]
    widths = [(0, 0)] * (signal.ndim - 2) + [(0, -height % 8), (0, -width % 8)]
    padded = np.pad(signal, widths, mode="edge")
    k, n = np.mgrid[:8, :8]
    basis = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, 0.125, 0.25) ** 0.5
    basis = basis.astype(np.float32)
    blocks = padded.reshape(-1, padded.shape[-2] // 8, 8, padded.shape[-1] // 8, 8)
    blocks = blocks.swapaxes(2, 3)  # (C, rows, columns, 8, 8)
    coarse = np.float32(step) * (1 + k + n).astype(np.float32)
    rounded = np.rint(basis @ blocks @ basis.T / coarse) * coarse
    back = (basis.T @ rounded @ basis).swapaxes(2, 3).reshape(padded.shape)
    return np.asarray(back[..., :height, :width], np.float32)
