"""Which class of a truth is which of a segmentation, where they are numbered apart.

Programs number classes 0 … K - 1, or 1 … K with 0 for "not labelled", or spread them
over the grey levels of a mask (0 and 255). Taking one for another gives scores that
look like scores. The rule, in this order:

1. Names, where both files name every class that occurs in them.
2. Without them, ids. Grey levels evenly spaced from black to white are numbered
   0 … K - 1 first; 255 beside other numbers is no class. Nor is 0 in a label file of
   ours, which lists its classes, unless it is among them.
3. Of the ways to number that are left (0 is a class in both, in one or in neither),
   that under which both have the same classes; else the only one under which one has
   all classes of the other. If there are several, or none, nothing is guessed.
4. What the ids tell must not be contradicted by the pixels: if another way to number,
   or another order of the classes, fits clearly better, nothing is guessed either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_hrdv2.core.checks import checked_labels

from .comparison import confusion_matrix, iou_of_confusion
from .id_conventions import (
    NUMBERINGS,
    REMEDY,
    NumberedIds,
    check_are_classes,
    listed,
    numbering_of,
    renumbered,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BETTER = 0.05  # mean IoU by which another way to number must not be better
CLEARLY_BETTER = 0.2  # the same where the ids fit exactly, and of another order
_DEFAULT_NAME = re.compile(r"class \d+")


class MatchedClass(NamedTuple):
    """A class, and its id in each of the files; None where it has none."""

    id: int  # in the matched arrays
    name: str
    segmentation_id: int | None
    truth_id: int | None


@dataclass(frozen=True, eq=False)
class MatchedLabels:
    """A segmentation and a truth in one numbering, where 0 stands for no class.

    Ids are those of the segmentation, one more if it has a class 0. `rule` says how
    they were told.
    """

    segmentation: NDArray[np.int64]
    truth: NDArray[np.int64]
    classes: tuple[MatchedClass, ...]
    rule: str


def match_labels(
    segmentation: ArrayLike,
    truth: ArrayLike,
    *,
    segmentation_names: Mapping[int, str] | None = None,
    truth_names: Mapping[int, str] | None = None,
    match: Mapping[int, int] | None = None,
) -> MatchedLabels:
    """Return both in one numbering, or raise ValueError where that would be a guess.

    Parameters
    ----------
    segmentation, truth : (H, W) arrays of int
    segmentation_names, truth_names : mapping of int to str, optional
        The classes that a file lists, with their names or "".
    match : mapping of int to int, optional
        Which id of the truth is which of the segmentation; other ids of the truth are
        not known then. By default by rule, see the module.

    Examples
    --------
    >>> found = match_labels(np.array([[1, 2, 2]]), np.array([[0, 255, 255]]))
    >>> found.truth.tolist(), found.rule
    ([[1, 2, 2]], 'the truth is numbered from 0, the segmentation from 1 (grey levels)')
    """
    arrays = (
        checked_labels(segmentation, "segmentation"),
        checked_labels(truth, "truth"),
    )
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            f"segmentation: shape {arrays[0].shape} differs from the truth's "
            f"{arrays[1].shape}"
        )
    names = dict(segmentation_names or {}), dict(truth_names or {})
    counts = _joint_counts(*arrays)
    if match is not None:
        return _by_pairs(arrays, names[0], match)
    if _are_named(counts.made, names[0]) and _are_named(counts.true, names[1]):
        return _by_names(arrays, counts, names)
    return _by_numbers(arrays, counts, names)


def pairs_from_text(text: str) -> dict[int, int]:
    """Return pairs of ids, such as "0=1, 255=2", by the id of the truth.

    >>> pairs_from_text("0=1, 255=2")
    {0: 1, 255: 2}
    """
    pairs: dict[int, int] = {}
    for part in text.split(","):
        true, sign, made = (each.strip() for each in part.partition("="))
        if not (sign and true.isdecimal() and made.isdecimal()) or int(true) in pairs:
            raise ValueError(
                f"match: {part.strip()!r} in {text!r} is not a pair of ids, of the "
                "truth and of the segmentation, each of the truth once, as in "
                "0=1,255=2"
            )
        pairs[int(true)] = int(made)
    return pairs


class _Counts(NamedTuple):
    """How often each pair of ids occurs: (n, m), truth by segmentation."""

    true: tuple[int, ...]
    made: tuple[int, ...]
    table: NDArray[np.int64]

    def in_classes(
        self, made: Mapping[int, int], true: Mapping[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return confusion matrix and unsegmented pixels under two renumberings."""
        places = (
            [true.get(i, 0) for i in self.true],
            [made.get(i, 0) for i in self.made],
        )
        classes = sorted({0, *places[0], *places[1]})  # ids may be large
        rows, columns = (np.searchsorted(classes, each) for each in places)
        total = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(total, np.ix_(rows, columns), self.table)
        return total[1:, 1:], total[1:, 0]


def _joint_counts(made: NDArray[Any], true: NDArray[Any]) -> _Counts:
    ids = [np.unique(each) for each in (made, true)]
    for name, found in zip(("segmentation", "truth"), ids, strict=True):
        check_are_classes(name, found.tolist())
    every = np.union1d(*ids)
    table = confusion_matrix(true, made, every.tolist())
    rows, columns = (np.searchsorted(every, each) for each in (ids[1], ids[0]))
    used = table[np.ix_(rows, columns)]
    return _Counts(tuple(ids[1].tolist()), tuple(ids[0].tolist()), used)


def _are_named(ids: tuple[int, ...], names: Mapping[int, str]) -> bool:
    """Whether each class that occurs has a name of its own that is no number."""
    found = [_plain(names.get(i, "")) for i in ids if i or 0 in names]
    is_name = all(name and not _DEFAULT_NAME.fullmatch(name) for name in found)
    return bool(found) and is_name and len(set(found)) == len(found)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _by_names(
    arrays: tuple[NDArray[Any], NDArray[Any]],
    counts: _Counts,
    names: tuple[dict[int, str], dict[int, str]],
) -> MatchedLabels:
    shift = int(0 in names[0])
    made = {i: i + shift for i in names[0]}
    ours = {_plain(name): i for i, name in names[0].items() if name}
    true: dict[int, int] = {}
    free = max((*made.values(), 0)) + 1
    for i, name in names[1].items():
        if _plain(name) in ours:
            true[i] = made[ours[_plain(name)]]
        elif i in counts.true:
            true[i], free = free, free + 1
    alone = [
        names[1][i] for i in counts.true if true.get(i, 0) not in (0, *made.values())
    ]
    theirs = {_plain(name) for name in names[1].values()}
    others = [names[0][i] for i in counts.made if i in names[0]]
    others = [name for name in others if _plain(name) not in theirs]
    if alone and others:
        raise ValueError(
            f"truth: it calls a class {alone[0]!r} and the segmentation one "
            f"{others[0]!r}, which may be the same; name them alike, or {REMEDY}"
        )
    return _matched(arrays, made, true, names, "classes are told by their names")


def _by_pairs(
    arrays: tuple[NDArray[Any], NDArray[Any]],
    names: dict[int, str],
    match: Mapping[int, int],
) -> MatchedLabels:
    if not match or min((*match, *match.values())) < 0:
        raise ValueError(f"match: {dict(match)} has no pairs of ids; 0=1,1=2 is one")
    made_ids = np.unique(arrays[0]).tolist()
    shift = int(0 in match.values())
    missing = [i for i in match if not (arrays[1] == i).any()]
    if len(missing) == len(match):
        raise ValueError(
            f"match: the truth has no pixel of {', '.join(map(str, missing))}; it has "
            f"the ids {listed(np.unique(arrays[1]).tolist())}"
        )
    made = {i: i + shift for i in {*made_ids, *match.values()} if i + shift}
    true = {i: j + shift for i, j in match.items()}
    return _matched(arrays, made, true, (names, {}), "classes are matched as was said")


def _by_numbers(
    arrays: tuple[NDArray[Any], NDArray[Any]],
    counts: _Counts,
    names: tuple[dict[int, str], dict[int, str]],
) -> MatchedLabels:
    made = NumberedIds.of(counts.made, names[0])
    true = NumberedIds.of(counts.true, names[1])
    chosen, possible, is_exact = numbering_of(made, true)
    tables = made.table(chosen.segmentation), true.table(chosen.truth)
    rule = NUMBERINGS[chosen]
    if chosen == (0, 0) and not (made.has_zero or true.has_zero):
        rule = rule.partition(",")[0]
    if any(i != number for one in (made, true) for i, number in one.numbers.items()):
        rule += " (grey levels)"
    score = _agreement(*counts.in_classes(*tables))
    other = max(
        _agreement(
            *counts.in_classes(made.table(one.segmentation), true.table(one.truth))
        )
        for one in possible
        if one == chosen or not (one.pairs_as(chosen) or made.ids == true.ids)
    )
    best = best_order(*counts.in_classes(*tables))
    margin = CLEARLY_BETTER if is_exact else BETTER
    if other > score + margin or best > score + CLEARLY_BETTER:
        raise ValueError(
            f"truth: by their ids ({listed(made.ids)} in the segmentation, "
            f"{listed(true.ids)} in the truth) {rule}, but by their pixels classes are "
            f"numbered otherwise (mean IoU {score:.2f}, otherwise "
            f"{max(other, best):.2f}); {REMEDY}"
        )
    for name, one in (("segmentation", made), ("truth", true)):
        if unknown := [i for i in one.ids if i not in one.numbers]:
            rule += f"; {listed(unknown)} in the {name} is no class"
    return _matched(arrays, *tables, names, rule)


def _agreement(confusion: NDArray[Any], unsegmented: NDArray[Any] | int) -> float:
    """Return the mean IoU, 0 for a class that is only where the truth is not known.

    Else a numbering under which little is known would look good.
    """
    iou = np.nan_to_num(iou_of_confusion(confusion, unsegmented))
    return float(iou.mean()) if iou.size else 0.0


def best_order(confusion: NDArray[Any], unsegmented: NDArray[Any] | int = 0) -> float:
    """Return the mean IoU if the classes of the segmentation were exchanged at best.

    >>> best_order(np.array([[0, 3], [5, 0]]))
    1.0
    """
    from scipy.optimize import linear_sum_assignment

    order = linear_sum_assignment(-confusion)[1]
    return _agreement(confusion[:, order], unsegmented)


def _matched(
    arrays: tuple[NDArray[Any], NDArray[Any]],
    made: Mapping[int, int],
    true: Mapping[int, int],
    names: tuple[Mapping[int, str], Mapping[int, str]],
    rule: str,
) -> MatchedLabels:
    ids = [{new: old for old, new in table.items() if new} for table in (made, true)]
    occur = [set(np.unique(each).tolist()) for each in arrays]
    classes = []
    for new in sorted({*ids[0], *ids[1]}):
        olds = [table.get(new) for table in ids]
        if not any(old in there for old, there in zip(olds, occur, strict=True)):
            continue
        given = [
            n.get(old, "")
            for n, old in zip(names, olds, strict=True)
            if old is not None
        ]
        shown = next(filter(None, given), "")
        number = olds[0] if olds[0] is not None else olds[1]
        classes.append(MatchedClass(new, shown or f"class {number}", *olds))
    segmentation, truth = renumbered(arrays[0], made), renumbered(arrays[1], true)
    return MatchedLabels(segmentation, truth, tuple(classes), rule)
