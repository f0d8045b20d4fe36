"""Labels of Labkit, the Fiji plugin: `.labeling` (JSON), or TIFF with `.labels`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import JSON_BYTES, check_claim, parse_json
from napari_hrdv2.files import labels as label_files
from napari_hrdv2.files.reading import NotReadError, told

_FARTHEST = 2**40  # more pixels than an image has
_OTHERS = {  # what files of other programs hold, and what they are
    "shapes": "; it seems to be of labelme",
    "annotations": "; it seems to be of COCO",
    "features": "; it seems to be GeoJSON, as QuPath writes it",
    "regions": "; it seems to be of VIA",
}


def read_labkit(
    path: Path, shape: tuple[int, int] | None
) -> label_files.ImportedLabels:
    """Return the labels of a `.labeling` file; see `import_labels`.

    It names the pixels of each label one by one, x before y. A pixel may have several
    labels; here the last one of the file stays.
    """
    with told(path):
        return _read(path, shape)


def _read(path: Path, shape: tuple[int, int] | None) -> label_files.ImportedLabels:
    content = _json(path)
    if not isinstance(content, dict) or "labels" not in content:
        known = content if isinstance(content, dict) else {}
        kind = next((_OTHERS[key] for key in _OTHERS if key in known), "")
        raise NotReadError(
            f"{path} is not of Labkit: it has no 'labels'{kind}; give a .labeling "
            "file, or an image with a number for each class"
        )
    if not isinstance(content["labels"], dict):
        raise NotReadError(
            f"{path} is not of Labkit: its labels have no names; give a .labeling file"
        )
    low, high = (_whole(content["interval"][key]) for key in ("min", "max"))
    size = tuple((high - low + 1).tolist())  # x, y, …
    if len(size) < 2 or any(length > 1 for length in size[2:]):
        raise NotReadError(
            f"{path} has labels of a stack ({' × '.join(map(str, size))}); labels of "
            "one 2-D image are needed"
        )
    if min(size) < 1:
        raise ValueError(f"an image of {' × '.join(map(str, size))} pixels")
    label_files.check_size(path, (size[1], size[0]), shape)
    regions = content["labels"]
    number_type = np.min_scalar_type(max(len(regions), 256))
    if shape is None:
        check_claim(size[0] * size[1] * number_type.itemsize, path.stat().st_size, path)
    labels = np.zeros((size[1], size[0]), number_type)
    overlaps = 0
    for number, given in enumerate(regions.values(), 1):
        points = _whole(given).reshape(-1, len(low))
        columns, rows = (points - low)[:, :2].T
        if len(points) and ((points < low).any() or (points > high).any()):
            raise ValueError("a pixel lies outside of the image")
        overlaps += int(np.count_nonzero(labels[rows, columns]))
        labels[rows, columns] = number
    if not labels.any():
        raise NotReadError(f"{path} has no labelled pixel; paint the image in Labkit")
    classes = _classes(list(regions), content.get("colors") or {})
    note = label_files.count_text(len(regions), "class", "classes") + _told(overlaps)
    ids = label_files.checked_ids(labels)
    return label_files.ImportedLabels(ids, classes, f"Labkit: {note}.")


def _json(path: Path) -> Any:
    """Return what a file of JSON holds, if it is not too long."""
    if path.stat().st_size > JSON_BYTES:
        raise ValueError(f"it is longer than {JSON_BYTES / 1e6:.0f} MB")
    return parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))


def _whole(numbers: Any) -> NDArray[np.int64]:
    """Return whole numbers that are far from the end of what 64 bits hold."""
    found = np.array(numbers)
    if found.size and (found.dtype.kind not in "iu" or np.abs(found).max() > _FARTHEST):
        raise ValueError("coordinates that are no whole numbers, or too large")
    return found.astype(np.int64)


def label_sets(path: Path) -> list[list[str]] | None:
    """Return the names that Labkit keeps beside a TIFF, by its values, or None."""
    beside = path.with_name(f"{path.name}.labels")
    if not beside.is_file():
        return None
    with told(beside):
        return [[str(name) for name in names] for names in _json(beside)["labelSets"]]


def from_label_sets(
    path: Path, values: NDArray[Any], sets: list[list[str]]
) -> label_files.ImportedLabels:
    """Return the labels of a TIFF whose values stand for sets of names."""
    if int(values.max()) >= len(sets):
        raise NotReadError(
            f"{path} has the value {values.max()}, for which {path.name}.labels has no "
            "label; save both again in Labkit"
        )
    names = sorted({name for each in sets for name in each}, key=_number_aware)
    number = {name: i for i, name in enumerate(names, 1)}
    table = np.array([max((number[n] for n in each), default=0) for each in sets])
    several = np.array([len(each) > 1 for each in sets])
    return label_files.ImportedLabels(
        label_files.checked_ids(table[values]),
        _classes(names, {}),
        f"Labkit: {label_files.count_text(len(names), 'class', 'classes')}"
        f"{_told(int(several[values].sum()))}.",
    )


def _classes(names: list[str], colors: dict[str, str]) -> label_files.LabelClasses:
    shades = {i: str(colors.get(name)).lower() for i, name in enumerate(names, 1)}
    return label_files.LabelClasses(
        dict(enumerate(names, 1)),
        {i: shade for i, shade in shades.items() if label_files.COLOR.fullmatch(shade)},
    )


def _told(overlaps: int) -> str:
    if not overlaps:
        return ""
    pixels = label_files.count_text(overlaps, "pixel has", "pixels have")
    return f"; {pixels} several labels, of which the last was taken"


def _number_aware(name: str) -> list[tuple[int, str]]:
    """Sort "label 2" before "label 10", as Labkit does."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name)
    ]
