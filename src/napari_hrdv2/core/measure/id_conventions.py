"""How programs number classes: from 0, from 1, or as grey levels of a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CLASSES = 64
"""More than these are objects that were numbered, not classes."""

FULL_SCALES = (255, 65535)  # white in 8 and in 16 bit
REMEDY = (
    "say which id of the truth is which of the segmentation (match), such as 0=1,255=2"
)


class NumberedIds(NamedTuple):
    """The ids of a label image, and the small numbers that they stand for."""

    ids: tuple[int, ...]  # that occur, ascending
    numbers: dict[int, int]  # by id, of those that can be classes
    listed: frozenset[int]  # that the file says are classes

    @classmethod
    def of(cls, ids: Iterable[int], names: Mapping[int, str]) -> NumberedIds:
        """Return them for the ids that occur and the classes that the file lists."""
        found, listed = tuple(ids), frozenset(names)
        if listed:
            return cls(found, {i: i for i in found}, listed)
        if levels := grey_levels(found):
            return cls(found, {i: [0, *levels].index(i) for i in found}, listed)
        numbers = {i: i for i in found if i not in FULL_SCALES}
        return cls(found, numbers, listed)

    @property
    def has_zero(self) -> bool:
        """Whether 0 occurs."""
        return 0 in self.ids

    def zero_can_be_class(self) -> bool:
        """Whether 0 occurs and the file does not leave it out of its classes."""
        return self.has_zero and (not self.listed or 0 in self.listed)

    def may_start_at_zero(self) -> bool:
        """Whether the file does not say that classes start at 1."""
        return not self.listed or 0 in self.listed

    def classes(self, shift: int) -> frozenset[int]:
        """Return the classes that occur; with a shift of 1, 0 is one of them."""
        return frozenset(i + shift for i in self.numbers.values() if i + shift > 0)

    def known(self, shift: int) -> frozenset[int]:
        """Return those and the listed ones that do not occur."""
        return self.classes(shift) | {i + shift for i in self.listed}

    def table(self, shift: int) -> dict[int, int]:
        """Return what the ids become; 0 is no class."""
        return {i: number + shift for i, number in self.numbers.items()}


class Numbering(NamedTuple):
    """How much is added to the numbers of each: 1 where 0 is a class."""

    segmentation: int
    truth: int

    def pairs_as(self, other: Numbering) -> bool:
        """Whether the same ids are taken for the same class."""
        return self.segmentation - self.truth == other.segmentation - other.truth


NUMBERINGS = {
    Numbering(0, 0): "both are numbered alike, and 0 is no class",
    Numbering(1, 1): "both are numbered alike, and 0 is a class",
    Numbering(0, 1): "the truth is numbered from 0, the segmentation from 1",
    Numbering(1, 0): "the segmentation is numbered from 0, the truth from 1",
}


def numbering_of(
    made: NumberedIds, true: NumberedIds
) -> tuple[Numbering, set[Numbering], bool]:
    """Return the numbering that the ids tell, and all that they do not rule out.

    And whether both have the same classes under it. Raises ValueError if the ids tell
    none, or several.
    """
    exact: list[Numbering] = []
    partial: list[Numbering] = []
    possible = set()
    for one in NUMBERINGS:
        sides = ((made, one.segmentation), (true, one.truth))
        found = [side.classes(shift) for side, shift in sides]
        known = [side.known(shift) for side, shift in sides]
        if not all(found) or not (found[0] <= known[1] or found[1] <= known[0]):
            continue
        if any(shift and not side.may_start_at_zero() for side, shift in sides):
            continue
        possible.add(one)
        if any(shift and not side.zero_can_be_class() for side, shift in sides):
            continue  # from 0, though 0 does not occur: no more than a doubt
        is_exact = found[0] in (found[1], known[1]) or found[1] == known[0]
        (exact if is_exact else partial).append(one)
    if Numbering(1, 1) in exact:  # 0 occurs in both
        return Numbering(1, 1), possible, True
    candidates = exact or partial
    if true.ids == (0,) and not made.has_zero:
        candidates = []
    if len(candidates) == 1:
        return candidates[0], possible, bool(exact)
    seen = f"the segmentation has the ids {listed(made.ids)} and the truth "
    seen += listed(true.ids)
    if not candidates:
        raise ValueError(f"truth: {seen}, which are different classes; {REMEDY}")
    ways = ", or ".join(NUMBERINGS[one] for one in candidates)
    raise ValueError(f"truth: {seen}: {ways}; {REMEDY}")


def check_are_classes(name: str, ids: Iterable[int]) -> None:
    """Raise ValueError for more ids than there are classes."""
    found = [i for i in ids if i]
    if len(found) > MOST_CLASSES:
        raise ValueError(
            f"{name}: there are {len(found)} ids from {found[0]} to {found[-1]}, which "
            f"are objects rather than classes; up to {MOST_CLASSES} are possible"
        )


def grey_levels(ids: Iterable[int]) -> list[int]:
    """Return the ids above 0 if they are evenly spaced from black to white, else [].

    >>> grey_levels((0, 255)), grey_levels((0, 127, 255)), grey_levels((0, 1, 255))
    ([255], [127, 255], [])
    """
    levels = [i for i in ids if i > 0]
    count = len(levels)
    if not 1 <= count <= MOST_CLASSES:
        return []
    places = range(1, count + 1)
    for full in FULL_SCALES:
        exact = [n * full / count for n in places]
        if all(abs(a - b) <= 1 for a, b in zip(levels, exact, strict=True)):
            return levels
        if count > 1 and levels == [n * (full // count) for n in places]:
            return levels
    return []


def renumbered(labels: NDArray[Any], table: Mapping[int, int]) -> NDArray[np.int64]:
    """Return labels with other ids; those that the table lacks become 0."""
    ids, places = np.unique(labels, return_inverse=True)
    new = np.array([table.get(int(i), 0) for i in ids], np.int64)
    return new[places.reshape(labels.shape)]


def listed(ids: Iterable[int]) -> str:
    """Return ids for a sentence, no more than fit into one."""
    ids = list(ids)
    shown = ", ".join(str(i) for i in ids[:8])
    return f"{shown} … {ids[-1]}" if len(ids) > 8 else shown
