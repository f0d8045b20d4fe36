"""Measuring a segmentation: phase fractions with an error bar, and particles."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .csv_tables import written
from .fractions import (
    Fractions,
    PhaseFraction,
    combined_fractions,
    phase_fractions_with_error,
)
from .particles import ParticleTable, PixelSize, particle_table

__all__ = [
    "Fractions",
    "ParticleTable",
    "PhaseFraction",
    "PixelSize",
    "combined_fractions",
    "particle_table",
    "phase_fractions_with_error",
    "write_fractions_csv",
]

HEADERS = (
    "image",
    "class",
    "name",
    "fraction",
    "error (half width, 95 %)",
    "area (px²)",
    "area of all classes (px²)",
    "how the error was made",
)


def write_fractions_csv(
    path: str | os.PathLike[str],
    images: Mapping[str, Fractions],
    *,
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write the phase fractions of images, a line for each class of each.

    Parameters
    ----------
    path : path-like
    images : mapping of str to Fractions
        By what to call the image; what `combined_fractions` gives may be among them.
    class_names : mapping of int to str, optional
        By label id.

    Raises
    ------
    OSError
        If the file cannot be written; one that was there before is untouched.
    """
    names = class_names or {}
    rows = [
        (
            image,
            phase.class_id,
            names.get(phase.class_id, f"class {phase.class_id}"),
            phase.fraction,
            phase.error,
            phase.pixels,
            fractions.pixels,
            fractions.method,
        )
        for image, fractions in images.items()
        for phase in fractions.phases
    ]
    written(path, HEADERS, rows)
