"""Units of length: any spelling to one short symbol, and back to names, by pint."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

Sides = tuple[float, float]
"""Height and width of a pixel, in the order of the axes of an image."""

Size = float | Sides
"""The side of a square pixel, or both sides."""

NO_UNIT = "pixel"
_NONE = (
    *("", "pixel", "pixels", "px", "voxel", "voxels", "dimensionless", "arbitrary"),
    *("null", "none", "nan", "n/a", "na", "nil", "unknown", "undefined", "default"),
    *("unit", "units", "nounit", "uncalibrated", "a.u.", "au", "arb.", "?", "-", "--"),
)
_SPELLINGS = {"micron": "µm", "microns": "µm", "å": "Å"}


@lru_cache
def unit_symbol(name: str) -> str:
    """Return the symbol of a unit, "pixel" for none, other words as they are.

    Examples
    --------
    >>> [unit_symbol(name) for name in ("um", "Micrometer", "angstrom", "inch", "")]
    ['µm', 'µm', 'Å', 'inch', 'pixel']
    """
    word = "".join(name.split())
    return NO_UNIT if word.lower() in _NONE else _spelled(word, "~P") or word


def is_length(name: str) -> bool:
    """Whether a word is a unit of length, which napari takes.

    Examples
    --------
    >>> [is_length(name) for name in ("Micrometers", "nm", "wobble", "null")]
    [True, True, False, False]
    """
    return unit_symbol(name) != NO_UNIT and bool(_spelled("".join(name.split()), ""))


def length_of(text: str) -> tuple[float, str]:
    """Return a length above 0 that was typed, and its unit; ValueError for others.

    Examples
    --------
    >>> length_of("0,5 um"), length_of("250nm")
    ((0.5, 'µm'), (250.0, 'nm'))
    """
    if typed := re.match(r"\s*([1-9]\d{0,2}),(\d{3})(?!\d)", text):
        raise ValueError(
            f"pixel size: {text!r} may be {typed[1]}.{typed[2]} or {typed[1]}"
            f"{typed[2]}; type it without a comma"
        )
    found = re.fullmatch(r"\s*([\d.,]+(?:e[+-]?\d+)?)\s*([^\d\s].*?)\s*", text, re.I)
    if found is not None and is_length(found[2]):
        with suppress(ValueError):
            if 0 < (length := float(found[1].replace(",", "."))) < math.inf:
                return length, unit_symbol(found[2])
    raise ValueError(
        f"pixel size: {text!r} is none; a length above 0 is needed, such as 0.5 nm"
    )


def sides_of(size: Size) -> Sides:
    """Return height and width of a pixel."""
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return float(height), float(width)


def size_text(size: tuple[Size, str]) -> str:
    """Return a pixel size as text, one side for all: "250 nm"."""
    return f"{math.sqrt(math.prod(sides_of(size[0]))):.4g} {size[1]}"


def size_of(sides: Sides) -> Size:
    """Return one number for a square pixel, else both sides.

    Examples
    --------
    >>> size_of((0.5, 0.5)), size_of((0.5, 0.25))
    (0.5, (0.5, 0.25))
    """
    height, width = sides
    return width if math.isclose(height, width, rel_tol=1e-6) else (height, width)


def unit_name(name: str) -> str:
    """Return a unit written out, as OME-Zarr has it: "micrometer"."""
    return _spelled(name, "") or name


def ascii_unit(name: str) -> str:
    """Return a unit as ImageJ has it, where that needs no escapes: "um"."""
    return {"µm": "um", "Å": "angstrom"}.get(symbol := unit_symbol(name), symbol)


def converted(length: float, unit: str, to: str) -> float:
    """Return a length in another unit.

    Examples
    --------
    >>> converted(1, "inch", "µm")
    25400.0
    """
    return float(_registry().Quantity(length, unit).m_as(to))


def pixel_ratio(
    one: tuple[Size, str] | None, other: tuple[Size, str] | None
) -> Sides | None:
    """Return how many times as high and as wide a pixel is as another one.

    None where one of the sizes is not known, or is no length.

    Examples
    --------
    >>> pixel_ratio((2.5, "µm"), (250.0, "nm")), pixel_ratio(None, (2.5, "µm"))
    ((10.0, 10.0), None)
    """
    if one is None or other is None:
        return None
    try:
        (y, x), (height, width) = (
            [converted(side, unit, "nm") for side in sides_of(size)]
            for size, unit in (one, other)
        )
        return round(y / height, 9), round(x / width, 9)
    except Exception:  # noqa: BLE001 - units that are no lengths raise anything
        return None


def common_size(sizes: Sequence[tuple[Size, str] | None]) -> tuple[Size, str] | None:
    """Return the pixel size that images of several are brought to: the median one.

    The finer of the two in the middle; where none is known as a length, the first.

    Examples
    --------
    >>> common_size([None, (3.0, "µm"), (500.0, "nm"), (2.0, "µm"), (1.0, "µm")])
    (1.0, 'µm')
    """
    ratios = [pixel_ratio(size, (1.0, "nm")) for size in sizes]
    areas = sorted((math.prod(r), n) for n, r in enumerate(ratios) if r is not None)
    first = areas[(len(areas) - 1) // 2][1] if areas else 0
    return sizes[first] if sizes else None


def _spelled(word: str, style: str) -> str | None:
    """Return a unit of length in a style of pint's, or None for anything else."""
    registry = _registry()
    for text in (word, word.lower()):
        spelling = _SPELLINGS.get(text, text)
        try:
            unit = registry.Unit(spelling)
            prefix = registry.parse_unit_name(spelling)[0][0]
        except Exception:  # noqa: BLE001 - words that are no units raise anything
            continue
        # "kångström" is no spelling: a symbol's prefix before a name.
        is_mixed = len(spelling) > 3 and not spelling.startswith(prefix)
        if unit.dimensionality == {"[length]": 1} and not is_mixed:
            return "inch" if unit == registry.inch else f"{unit:{style}}"
    return None


def _registry() -> Any:
    import pint

    return pint.application_registry
