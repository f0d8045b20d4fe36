"""Exclusion masks, and the outlines that they are drawn by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.limits import MOST_DRAWN

Rectangle = tuple[int, int, int, int]
"""Top, left, bottom and right; bottom and right are the first beyond it."""

MOST_UNASKED = 10**8  # pixels of an image that is looked at though nobody asked
MOST_OF_HEIGHT, EDGE = 0.3, 5  # of a databar; rows on either side of where it begins
LEVEL = 0.025  # of the range of grey levels: differences that are none, as by JPEG
MOST, FEW = 0.6, 0.1  # of a row that has the level of the databar: in it, and above


@dataclass(frozen=True)
class SharedExclusion:
    """What is excluded of every image of one size, such as a databar.

    >>> databar = SharedExclusion((3, 4), ((2, 0, 3, 4),))
    >>> databar.mask_for((3, 4)).astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 0, 0],
           [1, 1, 1, 1]])
    >>> databar.mask_for((9, 9)) is None
    True
    """

    shape: tuple[int, int]
    rectangles: tuple[Rectangle, ...]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> SharedExclusion:
        """Return what excludes exactly the pixels of a mask."""
        height, width = mask.shape
        return cls((height, width), tuple(rectangles_of(mask)))

    def mask_for(self, shape: Sequence[int]) -> NDArray[np.bool_] | None:
        """Return the mask of an image of this shape, None where that is another one."""
        if tuple(shape[:2]) != self.shape:
            return None
        mask = np.zeros(self.shape, bool)
        for top, left, bottom, right in self.rectangles:
            mask[top:bottom, left:right] = True
        return mask


def find_databar(image: Any) -> Rectangle | None:
    """Return the databar below an (H, W[, 3|4]) image, None where there is none.

    Rows at the bottom, up to 30 % of the height, most of whose pixels have one grey
    level, which is suddenly rare above. What is dark at the bottom has no such edge
    from side to side.

    >>> image = np.arange(4800).reshape(60, 80) % 97
    >>> image[52:] = 0
    >>> image[54:57, 10:30] = 255
    >>> find_databar(image)
    (52, 0, 60, 80)
    """
    height, width = image.shape[:2]
    first = max(height - int(MOST_OF_HEIGHT * height) - EDGE, 0)
    below = np.asarray(image[first:]).astype(np.float32)  # it may be in a file
    if below.ndim == 3:
        below = below[..., :3].mean(-1)
    if len(below) < 2 * EDGE:
        return None
    level, tolerance = np.median(below[-EDGE:]), LEVEL * np.ptp(below)
    share = (np.abs(below - level) <= tolerance).mean(1)
    is_rare = np.lib.stride_tricks.sliding_window_view(share <= FEW, EDGE).all(1)
    top = int(np.flatnonzero(is_rare).max(initial=-EDGE)) + EDGE
    bar = share[top:]
    is_bar = len(bar) > EDGE and min(np.median(bar), bar[:EDGE].max()) >= MOST
    return (first + top, 0, height, width) if top and is_bar else None


@np.errstate(all="ignore")  # missing pixels are no number
def unasked_databar(image: Any) -> Rectangle | None:
    """Return the databar that may be offered, None of very large images."""
    is_small = image.shape[0] * image.shape[1] <= MOST_UNASKED
    return find_databar(image) if is_small else None


def mask_of(outlines: Iterable[ArrayLike], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return where pixels have their centre in one of the outlines.

    >>> mask_of([[(0.5, 1), (0.5, 9), (2, 9), (2, 1)]], (3, 4)).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 1],
           [0, 0, 0, 0]])
    """
    mask = np.zeros(tuple(shape), bool)
    for outline in outlines:
        patch = fill_outlines([np.asarray(outline, np.float64)], mask.shape)
        mask[patch.window] |= patch.mask
    return mask


def rectangles_of(mask: NDArray[np.bool_]) -> list[Rectangle]:
    """Return rectangles that cover exactly the pixels of a mask, from the top.

    >>> rectangles_of(np.array([[0, 1, 1], [0, 1, 1], [1, 1, 1]], bool))
    [(0, 1, 2, 3), (2, 0, 3, 3)]
    """
    done: list[Rectangle] = []
    growing: dict[tuple[int, int], int] = {}  # a run of columns, and its first row
    for row in range(len(mask) + 1):
        runs = _runs(mask[row]) if row < len(mask) else []
        for run in [run for run in growing if run not in runs]:
            done.append((growing.pop(run), run[0], row, run[1]))
        for run in runs:
            growing.setdefault(run, row)
    return sorted(done)


def outline_of(rectangle: Rectangle) -> NDArray[np.float64]:
    """Return the (4, 2) corners of a rectangle, along the edges of its pixels."""
    top, left, bottom, right = np.subtract(rectangle, 0.5)
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)])


class Patch(NamedTuple):
    """Part of an image, from its row `top` and column `left`, and what is drawn on."""

    top: int
    left: int
    mask: NDArray[np.bool_]

    @property
    def window(self) -> tuple[slice, slice]:
        """Where it is in the image."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def fill_outlines(
    outlines: Sequence[NDArray[np.float64]],
    shape: Sequence[int],
    *,
    with_edges: bool = False,
) -> Patch:
    """Return the pixels with centres within an odd number of outlines.

    These are (N, 2) rows and columns of corners, the last joined to the first; nothing
    beyond the image is drawn. `with_edges` takes centres on an outline as within it.
    """
    patch = empty_patch(outlines, 0, shape)
    for outline in outlines if patch.mask.size else ():
        inner = outline - (patch.top, patch.left)
        patch.mask[...] ^= _inside(inner, patch.mask.shape, with_edges)
    return patch


def empty_patch(
    outlines: Sequence[NDArray[np.float64]], reach: float, shape: Sequence[int]
) -> Patch:
    """Return an empty patch around outlines, as far as it lies in the image."""
    corners = np.concatenate([np.zeros((0, 2)), *outlines])
    if not np.isfinite(corners).all() or not np.isfinite(reach):
        raise ValueError("corners that are no numbers")
    if not len(corners):
        return Patch(0, 0, np.zeros((0, 0), bool))
    low = np.clip(np.floor(corners.min(0) - reach - 1), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(0) + reach + 1) + 1, 0, shape).astype(int)
    size = np.maximum(high - low, 0)
    return Patch(int(low[0]), int(low[1]), np.zeros(tuple(size), bool))


def _inside(
    outline: NDArray[np.float64], shape: tuple[int, ...], with_edges: bool
) -> NDArray[np.bool_]:
    """Work by runs: a row is a few numbers, however wide."""
    height, width = shape
    start, end = outline, np.roll(outline, -1, axis=0)
    low = np.clip(np.ceil(np.minimum(start, end)[:, 0]), 0, height).astype(np.int64)
    high = np.clip(np.floor(np.maximum(start, end)[:, 0]) + 1, 0, height)
    counts = np.maximum(high.astype(np.int64) - low, 0)
    check_work(int(counts.sum()))
    edges = np.zeros((height, width + 1), np.uint8)  # their number, of which odd counts
    number = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
    row += low[number]
    (y0, x0), (y1, x1) = start[number].T, end[number].T
    level = y0 == y1
    with np.errstate(divide="ignore", invalid="ignore"):
        x = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
    crosses = ~level & ((y0 <= row) != (y1 <= row))
    # Pixels to the left of an edge change sides.
    column = np.clip(np.ceil(x[crosses]), 0, width).astype(np.int64)
    place = row[crosses] * (width + 1) + column
    np.add.at(edges.ravel(), place, 1)
    # A pixel is inside where the edges to its right are odd.
    right_of = np.bitwise_xor.accumulate(edges[:, :0:-1] & 1, axis=1)[:, ::-1]
    inside: NDArray[np.bool_] = right_of.astype(bool)
    if with_edges:
        on = ~level & (x == np.round(x)) & (x >= 0) & (x < width)
        inside[row[on], x[on].astype(np.int64)] = True
        for index in np.flatnonzero(level):
            left, right = sorted((x0[index], x1[index]))
            ends = np.clip([np.ceil(left), np.floor(right) + 1], 0, width).astype(int)
            inside[row[index], ends[0] : ends[1]] = True
    return inside


def check_work(rows: int) -> None:
    """Raise ValueError where outlines cross too many rows of pixels."""
    if rows > MOST_DRAWN // 40:
        raise ValueError(f"its outlines cross {rows} rows of pixels, which is too many")


def _runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last + 1 of each run of True."""
    edges = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
