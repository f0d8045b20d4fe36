"""Random numbers of a series: those of its material, and those of each picture.

What draws a single micrograph takes any generator. Given a `SeriesRng`, the same code
draws the same material at other places: a single number (the width of a wall, the
strength of a texture) is the material's, an array (noise, places, the kinds of grains)
is the picture's own. `of_material` and `of_picture` say where it is otherwise.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")


class SeriesRng(np.random.Generator):
    """The random numbers of one picture of a series.

    Parameters
    ----------
    material, picture : list of int
        Seeds; pictures of one series have the first in common.
    settled : dict
        What the first picture decided for all, see `settle`.
    """

    def __init__(
        self, material: list[int], picture: list[int], settled: dict[str, Any]
    ) -> None:
        super().__init__(np.random.default_rng(picture).bit_generator)
        self.material = np.random.default_rng(material)
        self.picture = np.random.Generator(self.bit_generator)
        self.settled = settled

    def _of(self, size: object) -> Any:
        return self.material if size is None else self.picture

    def random(self, size: Any = None, **kinds: Any) -> Any:  # type: ignore[override]  # noqa: D102
        return self._of(size).random(size, **kinds)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:  # noqa: D102
        return self._of(size).uniform(low, high, size)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:  # noqa: D102
        return self._of(size).normal(loc, scale, size)

    def standard_normal(self, size: Any = None, **kinds: Any) -> Any:  # type: ignore[override]  # noqa: D102
        return self._of(size).standard_normal(size, **kinds)

    def integers(self, low: Any, high: Any = None, size: Any = None) -> Any:  # type: ignore[override]  # noqa: D102
        return self._of(size).integers(low, high, size)

    def choice(self, a: Any, size: Any = None, **how: Any) -> Any:  # type: ignore[override]  # noqa: D102
        return self._of(size).choice(a, size, **how)


def of_material(rng: np.random.Generator) -> np.random.Generator:
    """Return what draws for all pictures of the series; of a single one, itself."""
    return rng.material if isinstance(rng, SeriesRng) else rng


def of_picture(rng: np.random.Generator) -> np.random.Generator:
    """Return what draws for this picture alone."""
    return rng.picture if isinstance(rng, SeriesRng) else rng


def settle(rng: np.random.Generator, name: str, value: Value) -> Value:
    """Return the value that the first picture of the series had."""
    return rng.settled.setdefault(name, value) if isinstance(rng, SeriesRng) else value


def varied(rng: np.random.Generator, most: float) -> float:
    """Return a factor within `most` both ways of each picture; 1 for a single one."""
    if not isinstance(rng, SeriesRng):
        return 1.0
    return float(most ** rng.picture.uniform(-1, 1))
