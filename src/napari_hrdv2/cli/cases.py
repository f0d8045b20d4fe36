"""Micrographs with a truth, for ``evaluate``: cases of a manifest, or any folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import check_are_classes, spread_levels
from napari_hrdv2.core.measure.numbering import (
    NumberedIds,
    listed,
    renumbered,
    shifts_of,
)
from napari_hrdv2.files import (
    is_result,
    read_image,
    read_label_classes,
    read_labels,
    size_text,
)
from napari_hrdv2.files.images import SUFFIXES

from . import shared

MANIFEST = "manifest.json"
_KEYS = {
    "id": str,
    "source": str,
    "image": str,
    "label": str,
    "classes": list,
    "scribbles": dict,
}
_KINDS = {str: "a text", list: "a list", dict: "an object"}
_TRUTH_NAMES = ("label", "labels", "truth", "mask", "masks", "gt")
_SCRIBBLE_NAMES = ("scribbles", "scribble", "strokes")
AGREE, DISAGREE = 0.9, 0.5  # fractions of the scribbled pixels

Files = tuple[Path, Path, Path | None]  # an image, its truth, its scribbles


@dataclass(frozen=True)
class Case:
    """A micrograph, its truth and perhaps its scribbles, as files.

    `ids` has the class, 1 … K, of each id in the truth of one's own folder; in a
    manifest each file is asked.
    """

    id: str
    source: str
    image: Path
    label: Path
    classes: tuple[str, ...]
    scribbles: Path | None = None
    ids: dict[int, int] | None = None

    def read(self) -> CaseArrays:
        """Read the files and bring truth and scribbles to one numbering."""
        image = read_image(self.image).data
        truth = read_labels(self.label)
        if truth.shape != image.shape[:2]:
            raise ValueError(
                f"{self.id}: {self.label} is {size_text(truth.shape)} and the image "
                f"{size_text(image.shape[:2])} (width × height); it must be this "
                "image's truth"
            )
        drawn = None
        if self.scribbles is not None:
            drawn = read_labels(self.scribbles)
            shared.check_scribbles(drawn, image.shape, self.scribbles)
            if (most := int(drawn.max())) > len(self.classes):
                raise ValueError(
                    f"{self.id}: {self.scribbles} has scribbles of class {most}, and "
                    f"there are {len(self.classes)} classes, numbered from 1"
                )
        table = self.ids
        if table is None:
            table = _manifest_table(self, truth, drawn)
        known = renumbered(truth, table)
        if not known.any():
            raise ValueError(f"{self.id}: {self.label} has no pixel of a known class")
        if drawn is not None and not known[drawn == 0].any():
            raise ValueError(
                f"{self.id}: {self.scribbles} leaves no pixel of a known class without "
                "a scribble, so there is nothing to score"
            )
        return CaseArrays(self, image, known, drawn)


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """A case that was read: `truth` is 1 … K, 0 where nothing is known."""

    case: Case
    image: NDArray[Any]
    truth: NDArray[np.int64]
    drawn: NDArray[Any] | None

    @property
    def class_ids(self) -> list[int]:
        """The ids of its classes, 1 … K."""
        return list(range(1, len(self.case.classes) + 1))


def read_cases(
    folder: Path, scribbles: str, *, needed: bool, ignored: Sequence[int] = ()
) -> list[Case]:
    """Return the cases of a folder, with or without a manifest.

    `needed` says whether each must have scribbles of that name; `ignored` are ids of
    the truth that are no class, in a folder without a manifest.
    """
    if (folder / MANIFEST).is_file():
        if ignored:
            raise ValueError(
                f"--ignore: {folder / MANIFEST} says which ids are classes; it is for "
                "folders without one"
            )
        return _manifest_cases(folder, scribbles, needed)
    return _folder_cases(folder, needed, ignored)


def images_with_scribbles(
    folder: Path, scribbles: str
) -> list[tuple[Path, Path | None]]:
    """Return the micrographs of a folder, each with its scribbles if it has any.

    They are found as for `read_cases`, but need no truth.
    """
    if (folder / MANIFEST).is_file():
        cases = _manifest_cases(folder, scribbles, needed=False)
        return [(case.image, case.scribbles) for case in cases]
    found = _all_files(folder)
    others = {path for _, *beside in found for path in beside}
    return [
        (path, drawn)
        for path, _, drawn in found
        if path not in others and not is_result(path)
    ]


def _manifest_cases(folder: Path, scribbles: str, needed: bool) -> list[Case]:
    path = folder / MANIFEST
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} is not a list of cases")
    cases = []
    for number, entry in enumerate(entries, start=1):
        _check_entry(entry, f"{path}: case {number}", scribbles, needed)
        drawn = entry.get("scribbles", {}).get(scribbles)
        cases.append(
            Case(
                entry["id"],
                entry["source"],
                folder / entry["image"],
                folder / entry["label"],
                tuple(str(name) for name in entry["classes"]),
                None if drawn is None else folder / drawn,
            )
        )
    return cases


def _check_entry(entry: Any, where: str, scribbles: str, needed: bool) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object with {', '.join(_KEYS)}")
    where = f"{where} ({entry['id']})" if "id" in entry else where
    keys = [key for key in _KEYS if needed or key != "scribbles" or key in entry]
    missing = [key for key in keys if key not in entry]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    for key in keys:
        if not isinstance(entry[key], _KEYS[key]):
            kind = _KINDS[_KEYS[key]]
            raise ValueError(f"{where}: {key} is {entry[key]!r}, not {kind}")
    if not entry["classes"]:
        raise ValueError(f"{where}: classes is empty; two or more are needed")
    sets = entry.get("scribbles", {})
    if needed and scribbles not in sets:
        raise ValueError(
            f"--scribbles: {entry['id']} has no set {scribbles!r}; it has "
            f"{', '.join(sets)}"
        )
    if scribbles in sets and not isinstance(sets[scribbles], str):
        raise ValueError(f"{where}: scribbles {scribbles!r} is not the name of a file")


def _manifest_table(
    case: Case, truth: NDArray[Any], drawn: NDArray[Any] | None
) -> dict[int, int]:
    """Return the class of each id of a truth: 0 … K - 1, unless the ids do not fit."""
    count, ids = len(case.classes), np.unique(truth).tolist()
    found, shift = NumberedIds.of(ids), 1
    is_spread = spread_levels(truth) is not None
    if is_spread or any(i >= count for i in found.numbers):
        try:
            wanted = NumberedIds.of(range(1, count + 1))
            shift = shifts_of(wanted, found)[0][1]
            if max(found.classes(shift)) > count:
                raise ValueError("more classes than there are")
        except ValueError as error:
            raise ValueError(
                f"{case.id}: {case.label} has the ids {listed(ids)}, and there are "
                f"{count} classes; number them from 0 to {count - 1}, or from 1 to "
                f"{count} with 0 where nothing is known"
            ) from error
    if drawn is not None:
        _check_agreement(case, truth, drawn, found, shift)
    return found.table(shift)


def _check_agreement(
    case: Case, truth: NDArray[Any], drawn: NDArray[Any], found: NumberedIds, shift: int
) -> None:
    """Raise ValueError if the scribbles tell another numbering than the ids."""
    painted = drawn > 0
    shares = [
        float((renumbered(truth[painted], found.table(s)) == drawn[painted]).mean())
        for s in (0, 1)
    ]
    ours, other = shares[shift], shares[1 - shift]
    if ours < DISAGREE and other > AGREE:
        raise ValueError(
            f"{case.id}: by its ids {case.label} is numbered from {1 - shift}, by the "
            f"scribbles from {shift} ({ours:.0%} and {other:.0%} of the scribbled "
            "pixels agree); number both alike"
        )


def _folder_cases(folder: Path, needed: bool, ignored: Sequence[int]) -> list[Case]:
    """Return images with dense labels: ``x.png`` and ``x_label.png``, or in folders."""
    files = [(p, label, drawn) for p, label, drawn in _all_files(folder) if label]
    if not files:
        raise FileNotFoundError(
            f"{folder / MANIFEST}: there is no such file, and no image x with labels "
            "x_label beside it, or in folders images and labels; give a folder of cases"
        )
    lacking = next((image for image, _, drawn in files if needed and not drawn), None)
    if lacking is not None:
        raise FileNotFoundError(
            f"{lacking}: there are no scribbles {lacking.stem}_scribbles beside it; "
            "add them, or choose another --protocol"
        )
    names, table = _folder_table(folder, files, ignored)
    source = folder.resolve().name
    return [
        Case(image.stem, source, image, label, names, drawn, table)
        for image, label, drawn in files
    ]


def _folder_table(
    folder: Path, files: Sequence[Files], ignored: Sequence[int]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the classes of a folder, and which of them each id of its truths is.

    By the rule of `match_labels` where there are scribbles; else every id is a class
    that is neither ignored nor left out by a file that lists its classes.
    """
    about = [read_label_classes(label) for _, label, _ in files]
    names = {i: name for one in reversed(about) for i, name in one.names.items()}
    lists = {i for one in about for i in (*one.names, *one.colors)}
    ids = _ids_in(label for _, label, _ in files) - set(ignored)
    try:
        check_are_classes("labels", ids)
        found = NumberedIds.of(sorted(ids), lists)
        drawn = _ids_in(drawn for _, _, drawn in files if drawn) - {0}
        if drawn:
            made = NumberedIds.of(sorted(drawn), drawn)
            shift = shifts_of(made, found)[0][1]
        else:
            shift = int(0 in ids and found.zero_may_be_class)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    table = found.table(shift)
    classes = {new: names.get(old, "") for old, new in table.items() if new}
    if not drawn:  # any numbers serve
        ranks = {new: rank for rank, new in enumerate(sorted(classes), start=1)}
        table = {old: ranks.get(new, 0) for old, new in table.items()}
        classes = {ranks[new]: name for new, name in classes.items()}
    count = max((*drawn, *classes))
    shown = tuple(classes.get(i) or f"class {i}" for i in range(1, count + 1))
    return shown, table


def _ids_in(paths: Iterable[Path]) -> set[int]:
    return {int(i) for path in paths for i in np.unique(read_labels(path))}


def _all_files(folder: Path) -> list[tuple[Path, Path | None, Path | None]]:
    """Return the images of a folder, each with labels and scribbles if it has any."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; give one of cases")
    if images := _files_in(folder / "images"):
        labels, drawn = (
            next(filter(None, (_files_in(folder / name) for name in names)), {})
            for names in (_TRUTH_NAMES, _SCRIBBLE_NAMES)
        )
        return [(path, labels.get(s), drawn.get(s)) for s, path in images.items()]
    stems = _files_in(folder)

    def beside(stem: str, names: Sequence[str]) -> Path | None:
        return next(filter(None, (stems.get(f"{stem}_{name}") for name in names)), None)

    return [
        (path, beside(stem, _TRUTH_NAMES), beside(stem, _SCRIBBLE_NAMES))
        for stem, path in stems.items()
    ]


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by their stems, hidden ones left out."""
    if not folder.is_dir():
        return {}
    inside = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
    return {p.stem: p for p in sorted(inside) if p.is_file() and p.name[0] != "."}
