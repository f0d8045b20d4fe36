"""Labels of Labkit, the Fiji plugin: `.labeling` (JSON), or TIFF with `.labels`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.files.labels import (
    ImportedLabels,
    LabelClasses,
    check_size,
    checked_ids,
    count_text,
)
from napari_hrdv2.files.reading import damaged


def read_labkit(path: Path, shape: tuple[int, int] | None) -> ImportedLabels:
    """Return the labels of a `.labeling` file; see `import_labels`.

    It names the pixels of each label one by one, x before y. A pixel may have several
    labels; here the last one of the file stays.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "labels" not in content:
            raise ValueError(
                f"{path} is not of Labkit: it has no 'labels'; give a .labeling file"
            )
        low = np.array(content["interval"]["min"], np.int64)
        high = np.array(content["interval"]["max"], np.int64)
        regions = {
            str(name): np.array(points, np.int64).reshape(-1, len(low))
            for name, points in content["labels"].items()
        }
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise damaged(path, error) from error
    size = tuple((high - low + 1).tolist())  # x, y, …
    if len(size) < 2 or any(length > 1 for length in size[2:]):
        raise ValueError(
            f"{path} has labels of a stack ({' × '.join(map(str, size))}); labels of "
            "one 2-D image are needed"
        )
    check_size(path, (size[1], size[0]), shape)
    labels = np.zeros((size[1], size[0]), np.uint16)
    overlaps = 0
    for number, points in enumerate(regions.values(), 1):
        columns, rows = (points - low)[:, :2].T
        if len(points) and ((points < low).any() or (points > high).any()):
            raise damaged(path, ValueError("a pixel lies outside of the image"))
        overlaps += int(np.count_nonzero(labels[rows, columns]))
        labels[rows, columns] = number
    if not labels.any():
        raise ValueError(f"{path} has no labelled pixel; paint the image in Labkit")
    return ImportedLabels(
        checked_ids(labels),
        _classes(list(regions), content.get("colors") or {}),
        f"Labkit: {count_text(len(regions), 'class', 'classes')}{_told(overlaps)}.",
    )


def label_sets(path: Path) -> list[list[str]] | None:
    """Return the names that Labkit keeps beside a TIFF, by its values, or None."""
    beside = path.with_name(f"{path.name}.labels")
    if not beside.is_file():
        return None
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))["labelSets"]
        return [[str(name) for name in names] for names in found]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise damaged(beside, error) from error


def from_label_sets(
    path: Path, values: NDArray[Any], sets: list[list[str]]
) -> ImportedLabels:
    """Return the labels of a TIFF whose values stand for sets of names."""
    if int(values.max()) >= len(sets):
        raise ValueError(
            f"{path} has the value {values.max()}, for which {path.name}.labels has no "
            "label; save both again in Labkit"
        )
    names = sorted({name for each in sets for name in each}, key=_number_aware)
    number = {name: i for i, name in enumerate(names, 1)}
    table = np.array([max((number[n] for n in each), default=0) for each in sets])
    several = np.array([len(each) > 1 for each in sets])
    return ImportedLabels(
        checked_ids(table[values]),
        _classes(names, {}),
        f"Labkit: {count_text(len(names), 'class', 'classes')}"
        f"{_told(int(several[values].sum()))}.",
    )


def _classes(names: list[str], colors: dict[str, str]) -> LabelClasses:
    return LabelClasses(
        dict(enumerate(names, 1)),
        {i: colors[n].lower() for i, n in enumerate(names, 1) if n in colors},
    )


def _told(overlaps: int) -> str:
    if not overlaps:
        return ""
    pixels = count_text(overlaps, "pixel has", "pixels have")
    return f"; {pixels} several labels, of which the last was taken"


def _number_aware(name: str) -> list[tuple[int, str]]:
    """Sort "label 2" before "label 10", as Labkit does."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name)
    ]
