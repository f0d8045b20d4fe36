"""Tables as files: commas, UTF-8, written whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from napari_hrdv2.core.atomic import atomic_path

if TYPE_CHECKING:
    from .fractions import Fractions

FRACTION_HEADERS = (
    "image",
    "class",
    "name",
    "fraction",
    "error (half width, 95 %)",
    "area (px²)",
    "area of all classes (px²)",
    "how the error was made",
)


def write_csv(
    path: str | os.PathLike[str],
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Write a CSV file. Numbers keep all digits; None and NaN are empty cells."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(headers)
        writer.writerows([_cell(value) for value in row] for row in rows)


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
    write_csv(path, FRACTION_HEADERS, rows)


def _cell(value: object) -> object:
    if value is None or value != value:  # only NaN differs from itself
        return ""
    return str(value).lower() if isinstance(value, bool) else value
