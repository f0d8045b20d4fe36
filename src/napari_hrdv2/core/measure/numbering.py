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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import check_are_classes, spread_levels

from .comparison import best_order, checked_pair, confusion_matrix, mean_agreement

Ids = Sequence[int]  # that occur, ascending
Names = Mapping[int, str]  # of the classes that a file lists, "" for one without
Shifts = tuple[int, int]  # of the segmentation and of the truth
Table = dict[int, int]  # what ids become; 0, and what is missing, is no class

BETTER = 0.05  # mean IoU by which another way to number must not be better
CLEARLY_BETTER = 0.2  # the same where the ids fit exactly, and of another order
_REMEDY = (
    "say which id of the truth is which of the segmentation (match), such as 0=1,255=2"
)
# What is added to the numbers of the segmentation and of the truth: 1 where 0 is one.
_WAYS = {
    (0, 0): "both are numbered alike, and 0 is no class",
    (1, 1): "both are numbered alike, and 0 is a class",
    (0, 1): "the truth is numbered from 0, the segmentation from 1",
    (1, 0): "the segmentation is numbered from 0, the truth from 1",
}


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
    true, made = checked_pair(truth, segmentation)
    ids = np.unique(made).tolist(), np.unique(true).tolist()
    names = segmentation_names or {}, truth_names or {}
    check_are_classes("segmentation", ids[0])
    check_are_classes("truth", ids[1])
    if match is not None:
        names, rule = (names[0], {}), "classes are matched as was said"
        tables = _by_pairs(*ids, match)
    elif _are_named(ids[0], names[0]) and _are_named(ids[1], names[1]):
        tables, rule = _by_names(*ids, *names), "classes are told by their names"
    else:
        every = sorted({*ids[0], *ids[1]})
        counts = confusion_matrix(true, made, every)
        sides = NumberedIds.of(ids[0], names[0]), NumberedIds.of(ids[1], names[1])
        tables, rule = _by_numbers(*sides, every, counts)
    classes = []
    for new in sorted({*tables[0].values(), *tables[1].values()} - {0}):
        olds = [
            next((i for i in (*found, *table) if table.get(i) == new), None)
            for found, table in zip(ids, tables, strict=True)
        ]
        if olds[0] in ids[0] or olds[1] in ids[1]:
            known = [(n, i) for n, i in zip(names, olds, strict=True) if i is not None]
            given = (n.get(i) for n, i in known)
            name = next(filter(None, given), f"class {known[0][1]}")
            classes.append(MatchedClass(new, name, *olds))
    pair = renumbered(made, tables[0]), renumbered(true, tables[1])
    return MatchedLabels(*pair, tuple(classes), rule)


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


def renumbered(labels: NDArray[Any], table: Mapping[int, int]) -> NDArray[np.int64]:
    """Return labels with other ids; those that the table lacks become 0."""
    ids, places = np.unique(labels, return_inverse=True)
    new = np.array([table.get(i, 0) for i in ids.tolist()], np.int64)
    return new[places.reshape(labels.shape)]


def listed(ids: Iterable[int]) -> str:
    """Return ids for a sentence, no more than fit into one."""
    ids = list(ids)
    shown = ", ".join(map(str, ids[:8]))
    return f"{shown} … {ids[-1]}" if len(ids) > 8 else shown


def _by_pairs(made: Ids, true: Ids, match: Mapping[int, int]) -> tuple[Table, Table]:
    if not match or min((*match, *match.values())) < 0:
        raise ValueError(f"match: {dict(match)} has no pairs of ids; 0=1,1=2 is one")
    if not set(match) & set(true):
        raise ValueError(
            f"match: the truth has no pixel of {', '.join(map(str, match))}; it has "
            f"the ids {listed(true)}"
        )
    shift = int(0 in match.values())
    taken = {*made, *match.values()}
    return {i: i + shift for i in taken}, {i: j + shift for i, j in match.items()}


# --- By names -------------------------------------------------------------------------
def _are_named(ids: Ids, names: Names) -> bool:
    """Whether each class that occurs has a name of its own that is no number."""
    found = [_plain(names.get(i, "")) for i in ids if i or 0 in names]
    is_name = all(name and not re.fullmatch(r"class \d+", name) for name in found)
    return bool(found) and is_name and len(set(found)) == len(found)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _by_names(
    made: Ids, true: Ids, made_names: Names, true_names: Names
) -> tuple[Table, Table]:
    shift, known = int(0 in made_names), [i for i in made if i in made_names]
    ours = {_plain(name): i + shift for i, name in made_names.items() if name}
    theirs = {i: _plain(name) for i, name in true_names.items()}
    table = {i: ours[name] for i, name in theirs.items() if name in ours}
    new = [i for i in true if i in theirs and i not in table]
    lost = [i for i in known if _plain(made_names[i]) not in theirs.values()]
    if new and lost:
        raise ValueError(
            f"truth: it calls a class {true_names[new[0]]!r} and the segmentation one "
            f"{made_names[lost[0]]!r}, which may be the same; name them alike, or "
            f"{_REMEDY}"
        )
    table |= {i: max(made_names) + shift + n for n, i in enumerate(new, start=1)}
    return {i: i + shift for i in made_names}, table


# --- By ids ---------------------------------------------------------------------------
class NumberedIds(NamedTuple):
    """The ids of a label image, and the small numbers that they stand for."""

    ids: Ids
    numbers: dict[int, int]  # by id, of those that can be classes
    listed: frozenset[int]  # that the file says are classes

    @classmethod
    def of(cls, ids: Ids, listed: Iterable[int] = ()) -> NumberedIds:
        """Return them for the ids that occur and the classes that the file lists."""
        classes, levels = frozenset(listed), spread_levels(np.array(ids))
        if classes or levels is None:
            known = [i for i in ids if classes or i not in (255, 65535)]  # white
            return cls(ids, {i: i for i in known}, classes)
        places = np.searchsorted([0, *levels], ids).tolist()
        return cls(ids, dict(zip(ids, places, strict=True)), classes)

    @property
    def zero_may_be_class(self) -> bool:
        """Whether the file does not say that 0 is none."""
        return not self.listed or 0 in self.listed

    def table(self, shift: int) -> dict[int, int]:
        """Return what the ids become; with a shift of 1, 0 is a class."""
        return {i: number + shift for i, number in self.numbers.items()}

    def classes(self, shift: int) -> frozenset[int]:
        """Return the classes that occur."""
        return frozenset(self.table(shift).values()) - {0}


def shifts_of(
    made: NumberedIds, true: NumberedIds
) -> tuple[Shifts, list[Shifts], bool]:
    """Return the shifts of both that the ids tell, and all that they do not rule out.

    And whether both have the same classes then. Raises ValueError if the ids tell none,
    or several.
    """
    fits: dict[Shifts, bool] = {}  # and whether both have the same classes
    possible: list[Shifts] = []
    for shifts in _WAYS:
        sides = list(zip((made, true), shifts, strict=True))
        ours, theirs = (one.classes(shift) for one, shift in sides)
        all_ours, all_theirs = (
            one.classes(shift) | {i + shift for i in one.listed} for one, shift in sides
        )
        from_zero = [one for one, shift in sides if shift]
        has_all = bool(ours and theirs) and (ours <= all_theirs or theirs <= all_ours)
        if has_all and all(one.zero_may_be_class for one in from_zero):
            possible.append(shifts)
            if all(0 in one.ids for one in from_zero):  # else no more than a doubt
                fits[shifts] = ours in (theirs, all_theirs) or theirs == all_ours
    is_exact = any(fits.values())
    found = [shifts for shifts in fits if fits[shifts] == is_exact]
    if fits.get((1, 1)):  # 0 occurs in both
        found = [(1, 1)]
    seen = f"truth: the segmentation has the ids {listed(made.ids)} and the truth "
    seen += listed(true.ids)
    if not found or (list(true.ids) == [0] and 0 not in made.ids):
        raise ValueError(f"{seen}, which are different classes; {_REMEDY}")
    if len(found) > 1:
        ways = ", or ".join(map(_WAYS.__getitem__, found))
        raise ValueError(f"{seen}: {ways}; {_REMEDY}")
    return found[0], possible, is_exact


def _by_numbers(
    made: NumberedIds, true: NumberedIds, ids: Ids, counts: NDArray[np.int64]
) -> tuple[tuple[Table, Table], str]:
    """Return tables and rule; `counts` says how often two ids occur together."""

    def scored(shifts: Shifts, score: Any) -> float:
        tables = true.table(shifts[1]), made.table(shifts[0])
        new = [[table.get(i, 0) for i in ids] for table in tables]
        classes = sorted({0, *new[0], *new[1]})  # ids may be large
        total = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(total, np.ix_(*(np.searchsorted(classes, n) for n in new)), counts)
        return float(score(total[1:, 1:], total[1:, 0]))

    chosen, possible, is_exact = shifts_of(made, true)
    score, best = scored(chosen, mean_agreement), scored(chosen, best_order)
    # Rivals pair ids otherwise. Nobody does so with the same ids on both sides.
    gap, others = chosen[0] - chosen[1], possible if made.ids != true.ids else []
    rivals = [one for one in others if one[0] - one[1] != gap]
    other = max((scored(one, mean_agreement) for one in rivals), default=0.0)
    rule = _WAYS[chosen]
    if chosen == (0, 0) and 0 not in (*made.ids, *true.ids):
        rule = rule.partition(",")[0]
    if any(i != number for one in (made, true) for i, number in one.numbers.items()):
        rule += " (grey levels)"
    margin = CLEARLY_BETTER if is_exact else BETTER
    if other > score + margin or best > score + CLEARLY_BETTER:
        raise ValueError(
            f"truth: by their ids ({listed(made.ids)} in the segmentation, "
            f"{listed(true.ids)} in the truth) {rule}, but by their pixels classes are "
            f"numbered otherwise (mean IoU {score:.2f}, otherwise "
            f"{max(other, best):.2f}); {_REMEDY}"
        )
    for name, one in (("segmentation", made), ("truth", true)):
        if unknown := [i for i in one.ids if i not in one.numbers]:
            rule += f"; {listed(unknown)} in the {name} is no class"
    return (made.table(chosen[0]), true.table(chosen[1])), rule
