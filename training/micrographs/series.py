"""Pictures of one material, as of one sample or of samples like it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count as count_from
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from micrographs import layouts
from micrographs.compose import (
    Micrograph,
    arrange,
    checked_shape,
    draw_kind,
    draw_materials,
    draw_unit,
    is_complete,
    photograph,
)
from micrographs.fields import blur
from micrographs.layouts import Layout, log_uniform
from micrographs.streams import SeriesRng

if TYPE_CHECKING:
    from micrographs.fields import Labels, Plane, Shape

ZOOMS = 0.6, 1.6
MATERIALS, TRIES = 12, 3  # until each class has its share
STAGES = "layout", "looks", "paint", "colour", "develop", "names"


def random_series(
    seed: int,
    count: int,
    size: int | tuple[int, int] = 192,
    color: bool | None = None,
) -> list[Micrograph]:
    """Return pictures of one material, which the seed decides.

    Layout, textures, grey levels and classes are the material's. Places, fractions,
    magnification (0.6 to 1.6), exposure (gain ±20 %, offset ±10 % of the range), gamma,
    shading, blur and noise are each picture's own.

    Parameters
    ----------
    seed : int
        With the size it decides everything.
    count : int
        How many pictures; the first ones are the same whatever it is.
    size : int or (int, int)
        Height and width in pixels, at least 48.
    color : bool, optional
        Colour or grey; by default one in four is in colour.

    Returns
    -------
    list of Micrograph
        Every class is present in the first, and mostly in the others.
    """
    shape = checked_shape(size)
    in_color, classes = draw_kind(np.random.default_rng([seed, *shape]), color)
    k = draw_materials((seed, *shape), classes)
    for number in count_from():
        material = _Material((seed, *shape, number), shape, k, in_color)
        layout, unit = material.layout(0, 0)
        if is_complete(layout.labels, k):
            break
    made: list[Micrograph] = []
    for index in range(count):
        for attempt in range(TRIES):
            layout, unit = material.layout(index, attempt)
            if is_complete(layout.labels, k):
                break
        rng_of = partial(material.rng, index)
        made.append(
            photograph(
                rng_of,
                layout,
                unit,
                classes,
                in_color=in_color,
                magnified=material.magnified,
            )
        )
    return made


@dataclass(frozen=True)
class _Material:
    """What the pictures of a series have in common, and how one is drawn."""

    seed: tuple[int, ...]
    shape: Shape
    k: int
    in_color: bool
    settled: dict[str, Any] = field(default_factory=dict)  # by the first picture

    def rng(self, index: int, stage: str, attempt: int = 0) -> SeriesRng:
        material = [*self.seed, STAGES.index(stage)]
        return SeriesRng(material, [*material, index, attempt], self.settled)

    def layout(self, index: int, attempt: int) -> tuple[Layout, float]:
        """Return a layout, larger or smaller than the picture, and its unit."""
        rng = self.rng(index, "layout", attempt)
        zoom = log_uniform(rng.picture, *ZOOMS)
        rows, columns = (max(48, round(length / zoom)) for length in self.shape)
        unit = draw_unit(rng, self.shape, self.k)
        if self.seed[-1] >= MATERIALS:  # a random field has all classes
            made = layouts.field(rng, (rows, columns), unit, self.k)
            return replace(made, name="field"), unit
        return arrange(rng, (rows, columns), unit, self.k), unit

    def magnified(self, signal: Plane, labels: Labels) -> tuple[Plane, Labels]:
        """Return both at the size of the picture."""
        factor = [new / old for new, old in zip(self.shape, labels.shape, strict=True)]
        zoom = partial(ndimage.zoom, mode="nearest", grid_mode=True)
        if min(factor) < 1:
            signal = blur(signal, 0.4 / min(factor))
        factors = [1.0] * (signal.ndim - 2) + factor
        return zoom(signal, factors, order=1), zoom(labels, factor, order=0)
