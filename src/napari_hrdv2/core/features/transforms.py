"""Invertible transforms of an image, sets of them, and the grammar that names them.

Every composition of shifts, flips and quarter turns equals one shift followed by one
of the eight symmetries of the square, so that is the only form kept here. It makes
duplicates visible (they become weights), and it splits the inverse in two: the
symmetry is undone on the small token grid, exactly and on any image shape, and only
the shift is left for the upsampling.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

GRAMMAR = (
    "factors joined by '*': identity, shift:1,2, shift:1,2:neumann, lattice:4, flip, "
    "rotate"
)
BOUNDARIES = ("periodic", "reflect")
COMPATS = ("corrected", "reference")


@dataclass(frozen=True, order=True)
class Transform:
    """A shift by whole pixels (down, right), then a transposition, then flips."""

    row_shift: int = 0
    column_shift: int = 0
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def shift(self) -> tuple[int, int]:
        """The shift as (rows, columns)."""
        return self.row_shift, self.column_shift

    @property
    def _flips(self) -> tuple[int, ...]:
        return (-2,) * self.flip_rows + (-1,) * self.flip_columns

    def then(self, other: Transform) -> Transform:
        """Return the transform that applies this one and afterwards `other`."""
        # other's shift happens behind our symmetry; moved in front of it, the
        # shift vector is seen through the inverse of that symmetry.
        rows = -other.row_shift if self.flip_rows else other.row_shift
        columns = -other.column_shift if self.flip_columns else other.column_shift
        if self.transpose:
            rows, columns = columns, rows
        flips = (self.flip_rows, self.flip_columns)
        if other.transpose:
            flips = flips[::-1]
        return Transform(
            row_shift=self.row_shift + rows,
            column_shift=self.column_shift + columns,
            transpose=self.transpose != other.transpose,
            flip_rows=flips[0] != other.flip_rows,
            flip_columns=flips[1] != other.flip_columns,
        )

    def apply(self, image: Tensor, boundary: str = "periodic") -> Tensor:
        """Return the transformed (..., H, W) image, (..., W, H) if it transposes.

        At the border the other side moves in ("periodic"), or the mirror image
        ("reflect").
        """
        if self.shift != (0, 0):
            image = _moved(image, self.shift, boundary)
        return self.symmetry(image)

    def inverse(self) -> Transform:
        """Return the transform that undoes this one."""
        flips = (self.flip_rows, self.flip_columns)
        if self.transpose:
            flips = flips[::-1]
        symmetry = Transform(0, 0, self.transpose, *flips)
        return symmetry.then(Transform(-self.row_shift, -self.column_shift))

    def symmetry(self, image: Tensor) -> Tensor:
        """Return the (..., H, W) image transposed and flipped, not shifted."""
        if self.transpose:
            image = image.transpose(-2, -1)
        return image.flip(self._flips) if self._flips else image

    def apply_symmetry(self, tokens: Tensor) -> Tensor:
        """Return a token grid (..., h, w, C) transposed and flipped, not shifted."""
        return self.symmetry(tokens.movedim(-1, 0)).movedim(0, -1)


@dataclass(frozen=True)
class Copy:
    """One copy of an image that a backbone sees, and how its map is brought back."""

    transform: Transform
    inverse: Transform

    @property
    def shift(self) -> tuple[int, int]:
        """How far the map is moved back, after its symmetry was undone."""
        back = Transform(*self.inverse.shift)
        upright = replace(self.inverse, row_shift=0, column_shift=0)
        # symmetry after shift = another shift after symmetry
        rows, columns = upright.inverse().then(back).then(upright).shift
        return -rows, -columns


@dataclass(frozen=True)
class TransformSet:
    """Distinct copies of an image with their weights, which sum to 1.

    `compat` tells whether they are brought back rightly ("corrected"), or as the
    published code does ("reference").
    """

    spec: str
    copies: tuple[Copy, ...]
    weights: tuple[float, ...]
    compat: str = "corrected"

    def __len__(self) -> int:
        return len(self.copies)

    def shifts(self) -> TransformSet:
        """Return the distinct shifts, each with the weight of all that share it."""
        weights: dict[tuple[int, int], float] = {}
        for copy, weight in zip(self.copies, self.weights, strict=True):
            weights[copy.shift] = weights.get(copy.shift, 0.0) + weight
        moves = [Transform(*shift) for shift in weights]
        copies = tuple(Copy(move, move.inverse()) for move in moves)
        return replace(self, copies=copies, weights=tuple(weights.values()))

    def members(self) -> Iterator[tuple[int, int, float]]:
        """Yield the copies of each shift: its number, theirs, and weights of sum 1."""
        shifts = [copy.shift for copy in self.copies]
        for number, shift in enumerate(dict.fromkeys(shifts)):
            members = [n for n, other in enumerate(shifts) if other == shift]
            total = math.fsum(self.weights[member] for member in members)
            yield from ((number, n, self.weights[n] / total) for n in members)


def parse_transforms(
    spec: str | TransformSet, stride: int, *, compat: str = "corrected"
) -> TransformSet:
    """Return the transform set that a specification names.

    Parameters
    ----------
    spec : str or TransformSet
        Factors joined by ``*``: ``identity``; ``shift:1,2`` (identity and the eight
        directions at each distance in pixels); ``shift:1,2:neumann`` (four
        directions); ``lattice:4`` (4 × 4 shifts that cover one stride, the distance of
        the tokens, evenly); ``flip`` (none, horizontal, vertical, both); ``rotate``
        (quarter turns). A finished set is returned as it is.
    compat : {"corrected", "reference"}
        ``"reference"`` gives the sets of HR-Dv2's published code: flips are none,
        horizontal, none again and vertical; of the quarter turns, 90° and 270° count
        twice; products are undone in the order in which they were made.

    Examples
    --------
    >>> len(parse_transforms("shift:1,2", 14)), len(parse_transforms("flip*rotate", 14))
    (17, 8)
    >>> parse_transforms("lattice:2", 14).copies[1].shift
    (0, 7)
    """
    if isinstance(spec, TransformSet):
        return spec
    if not isinstance(spec, str):
        raise TypeError(f"transforms: {spec!r} is not a text; give {GRAMMAR}")
    symmetries = _REFERENCE if compat == "reference" else _SYMMETRIES
    words = re.sub(r"\s", "", spec).split("*")
    factors = [_factor(word, spec, stride, symmetries) for word in words]
    counts: Counter[Copy] = Counter()
    for parts in itertools.product(*factors):
        whole = _chained(parts)
        back = whole.inverse()
        if compat == "reference":  # in the wrong order
            back = _chained([part.inverse() for part in parts])
        counts[Copy(whole, back)] += 1
    total = sum(counts.values())
    weights = tuple(count / total for count in counts.values())
    return TransformSet(spec, tuple(counts), weights, compat)


def _chained(transforms: Sequence[Transform]) -> Transform:
    return reduce(Transform.then, transforms, Transform())


def _factor(
    word: str, spec: str, stride: int, symmetries: dict[str, list[Transform]]
) -> list[Transform]:
    name, _, rest = word.lower().partition(":")
    if word.lower() in symmetries:
        return symmetries[word.lower()]
    if name == "lattice" and re.fullmatch(r"[1-9]\d{0,2}", rest):
        # Starting at zero and going both ways keeps the shifts short.
        steps = [(i + 1) // 2 * (1 if i % 2 else -1) for i in range(int(rest))]
        offsets = [math.floor(step * stride / int(rest) + 0.5) for step in steps]
        return [Transform(rows, columns) for rows in offsets for columns in offsets]
    match = re.fullmatch(r"(\d{1,4}(?:,\d{1,4})*)(?::(moore|neumann))?", rest)
    if name == "shift" and match:
        around = itertools.product((-1, 0, 1), repeat=2)
        directions = [(y, x) for y, x in around if (y, x) != (0, 0)]
        if match[2] == "neumann":  # no diagonals
            directions = [(y, x) for y, x in directions if 0 in (y, x)]
        moves = itertools.product(map(int, match[1].split(",")), directions)
        return [Transform(), *(Transform(n * y, n * x) for n, (y, x) in moves)]
    raise ValueError(
        f"transforms: {word!r} in {spec!r} is not understood; use {GRAMMAR}"
    )


def moved_back(image: Tensor, shift: tuple[int, int], boundary: str) -> Tensor:
    """Undo a shift of (..., H, W); what was moved out shows what is nearest to it."""
    back = (-shift[0], -shift[1])
    return _moved(image, back, "periodic" if boundary == "periodic" else "nearest")


def _moved(image: Tensor, shift: tuple[int, int], boundary: str) -> Tensor:
    if boundary == "periodic":
        return torch.roll(image, shift, dims=(-2, -1))
    for axis, distance in zip((-2, -1), shift, strict=True):
        last = image.shape[axis] - 1
        source = torch.arange(last + 1, device=image.device) - distance
        if boundary == "reflect":
            source = source.remainder(max(1, 2 * last))
            source = torch.minimum(source, 2 * last - source)
        source = source.clamp(0, last)
        image = image.index_select(image.ndim + axis, source)
    return image


def one_map_per_shift(tokens: Any, transforms: TransformSet) -> Tensor:
    """Undo flips and turns of T (h, w, C) grids and average those of each shift."""
    shifts = transforms.shifts()
    if isinstance(tokens, np.ndarray):
        tokens = torch.from_numpy(tokens)
    is_one = isinstance(tokens, Tensor)
    maps: Any = tokens.detach() if is_one else [torch.as_tensor(t) for t in tokens]
    if len(maps) != len(transforms) or any(grid.ndim != 3 for grid in maps):
        shapes = sorted({tuple(grid.shape) for grid in maps})
        raise ValueError(
            f"tokens: {len(maps)} of shape {', '.join(map(str, shapes))} do not fit "
            f"{len(transforms)} transforms; ({len(transforms)}, h, w, C) is needed"
        )
    if transforms.copies == shifts.copies and is_one:
        return torch.as_tensor(maps)
    pairs = zip(transforms.copies, maps, strict=True)
    upright = [copy.inverse.apply_symmetry(grid) for copy, grid in pairs]
    if len({grid.shape for grid in upright}) > 1:
        raise ValueError(
            f"tokens: grids of {sorted({tuple(grid.shape) for grid in upright})} after "
            "undoing the transforms differ; where one turns the image, h and w swap"
        )
    output = upright[0].new_empty(len(shifts), *upright[0].shape)
    grids = ((number, weight, upright[n]) for number, n, weight in transforms.members())
    return average_into(output, grids)


def average_into(output: Tensor, maps: Iterable[tuple[int, float, Tensor]]) -> Tensor:
    """Fill (shifts, h, w, C) with sums of upright maps: number of the shift, weight."""
    for number, same_shift in groupby(maps, key=itemgetter(0)):
        total: Tensor | None = None
        for _, weight, grid in same_shift:
            upright = grid.to(output.device)
            if weight < 1:  # sums of half precision numbers are made in float32
                upright = weight * upright.float()
            total = upright if total is None else total.add_(upright)
        assert total is not None
        output[number] = total
    return output


_ACROSS, _DOWN = Transform(flip_columns=True), Transform(flip_rows=True)
_QUARTER = Transform(transpose=True, flip_rows=True)
_SYMMETRIES = {
    "identity": [Transform()],
    "flip": [Transform(), _ACROSS, _DOWN, _DOWN.then(_ACROSS)],
    "rotate": [Transform(), _QUARTER, _QUARTER.then(_QUARTER), _QUARTER.inverse()],
}
_REFERENCE = {
    "identity": [Transform()],
    "flip": [Transform(), _ACROSS, Transform(), _DOWN],
    "rotate": [*_SYMMETRIES["rotate"], _QUARTER, _QUARTER.inverse()],
}
