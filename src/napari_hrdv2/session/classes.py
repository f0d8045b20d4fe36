"""The classes a user paints: a name and a colour for each label id."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Told apart by colour-blind eyes and bright on a grey micrograph (Okabe and Ito).
_PALETTE = (
    "#e8590c",
    "#56b4e9",
    "#f0e442",
    "#009e73",
    "#cc79a7",
    "#2a6fdb",
    "#b5e853",
    "#8a3ffc",
)


@dataclass(frozen=True)
class ClassInfo:
    """What a class is called and how it looks."""

    name: str
    color: str


def default_color(class_id: int) -> str:
    """Return the colour of a class nobody has chosen one for, as ``"#rrggbb"``."""
    if 1 <= class_id <= len(_PALETTE):
        return _PALETTE[class_id - 1]
    # Steps of the golden angle never come near a hue that was just used.
    hue = (class_id * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def default_class(class_id: int) -> ClassInfo:
    """Return the class with its number for a name."""
    return ClassInfo(f"Class {class_id}", default_color(class_id))


def default_classes(count: int = 2) -> dict[int, ClassInfo]:
    """Return the classes 1 to `count`, with default names and colours."""
    return {class_id: default_class(class_id) for class_id in range(1, count + 1)}


def merged_classes(
    classes: Mapping[int, ClassInfo],
    ids: Iterable[int],
    *,
    names: Mapping[int, str] | None = None,
    colors: Mapping[int, str] | None = None,
) -> dict[int, ClassInfo]:
    """Return the classes with `ids` added and given names and colours taken over.

    Parameters
    ----------
    classes : mapping of int to ClassInfo
        The classes there are; not changed.
    ids : iterable of int
        Label ids that must be among the classes.
    names, colors : mapping of int to str, optional
        Names and ``"#rrggbb"`` colours that win over those there are.
    """
    names, colors = names or {}, colors or {}
    merged = {}
    for class_id in sorted({*classes, *(int(i) for i in ids if i > 0)}):
        known = classes.get(class_id) or default_class(class_id)
        merged[class_id] = ClassInfo(
            names.get(class_id) or known.name, colors.get(class_id) or known.color
        )
    return merged
