"""Tables as files: commas, UTF-8, written whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence

from napari_hrdv2.core.atomic import atomic_path


def header(name: str, unit: str) -> str:
    """Return the head of a column, such as "area (µm²)"."""
    return f"{name} ({unit})" if unit else name


def written(
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


def _cell(value: object) -> object:
    if value is None or value != value:  # only NaN differs from itself
        return ""
    return str(value).lower() if isinstance(value, bool) else value
