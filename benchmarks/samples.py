"""The made micrographs of ``training/``, for scripts that are run from elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from micrographs import (
    draw_scribbles,
    make_sample,
    random_micrograph,
    random_series,
)
from micrographs.compose import LAYOUTS, is_complete
from micrographs.fields import blur
from micrographs.layouts import log_uniform
from micrographs.paint import choose_looks, paint

__all__ = [
    "Picture",
    "draw_scribbles",
    "make_sample",
    "make_series",
    "random_micrograph",
    "random_series",
]


class Picture(NamedTuple):
    """An image, its truth 1 … K, and scribbles."""

    name: str
    image: NDArray[Any]
    truth: NDArray[Any]
    drawn: NDArray[Any]


def make_series(seed: int, count: int, size: int, exposure: str) -> list[Picture]:
    """Return images of one layout and one set of looks, at other places."""
    style = np.random.default_rng([seed, 1])
    k = int(style.choice([2, 3, 4], p=[0.5, 0.35, 0.15]))
    names = [name for name, (_, _, classes, _) in LAYOUTS.items() if k in classes]
    weights = np.array([LAYOUTS[name][1] for name in names])
    name = str(style.choice(names, p=weights / weights.sum()))
    unit = log_uniform(style, 4.5 + 1.5 * k, min(60.0, size / 2.5))
    numbers = style.permutation(k) + 1
    noise, soft = log_uniform(style, 0.03, 0.5), style.uniform(0.3, 1.0)
    is_inverted, gamma = style.random() < 0.3, log_uniform(style, 0.7, 1.4)
    made: list[Picture] = []
    for index in range(count):
        for attempt in range(30):
            rng = np.random.default_rng([seed, 2, index, attempt])
            layout = LAYOUTS[name][0](rng, (size, size), unit, k)
            if is_complete(layout.labels, k) or (made and attempt > 2):
                break
        if layout.labels.max() + 1 == k:
            looks, gap = choose_looks(np.random.default_rng([seed, 3]), layout, unit)
        grey = blur(paint(np.random.default_rng([seed, 4]), layout, looks, gap), soft)
        grain = np.float32(gap * noise * (0.45 if layout.fine else 1))
        grey = grey + grain * rng.standard_normal(grey.shape, dtype=np.float32)
        if not made:
            low, high = np.quantile(grey, [0.005, 0.995])
            low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
        grey = (grey - low) / (high - low)
        grey = np.clip(1 - grey if is_inverted else grey, 0, None) ** gamma * 0.7 + 0.15
        if exposure == "varies":
            grey = grey * rng.uniform(0.8, 1.2) + rng.uniform(-0.1, 0.1)
        elif exposure == "stretched":
            darkest, lightest = np.quantile(grey, [0.005, 0.995])
            grey = (grey - darkest) / (lightest - darkest)
        image = np.clip(np.rint(grey * 255), 0, 255).astype(np.float32) / 255
        truth = numbers.astype(np.uint8)[layout.labels]
        made.append(Picture(str(index), image, truth, draw_scribbles(rng, truth, 4)))
    return made
