"""Units of length: any spelling to one short symbol, and back to names, by pint."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

NO_UNIT = "pixel"
_NONE = ("", "pixel", "pixels", "px", "dimensionless")
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
