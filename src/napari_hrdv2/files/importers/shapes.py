"""Outlines and broad lines to pixels, by runs: a row is a few numbers, however wide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import MOST_DRAWN

_GROUP = 500_000  # rows of runs that are worked on at once
_NEARLY = 1e-3  # of a pixel: a line of even width covers as many rows as it is wide


class Patch(NamedTuple):
    """Part of an image, from its row `top` and column `left`, and what is drawn on."""

    top: int
    left: int
    mask: NDArray[np.bool_]


def filled(outlines: list[NDArray[np.float64]], shape: tuple[int, int]) -> Patch:
    """Return the pixels with centres within an odd number of outlines, or on one.

    Parameters
    ----------
    outlines : list of (N, 2) array
        Rows and columns of corners; the last is joined to the first.
    shape : (H, W)
        Of the image; nothing beyond it is drawn.
    """
    patch = _patch(outlines, 0, shape)
    for outline in outlines if patch.mask.size else ():
        patch.mask[...] ^= _inside(outline - (patch.top, patch.left), patch.mask.shape)
    return patch


def broad_line(
    points: NDArray[np.float64], reach: float, shape: tuple[int, int]
) -> Patch:
    """Return the pixels with centres nearer to a line than `reach`.

    Parameters
    ----------
    points : (N, 2) array
        Rows and columns of its corners.
    """
    patch = _patch([points], reach, shape)
    height, width = patch.mask.shape
    if not patch.mask.size:
        return patch
    start, end = (x - (patch.top, patch.left) for x in (points[:-1], points[1:]))
    low = np.clip(np.ceil(np.minimum(start, end)[:, 0] - reach - 1), 0, height)
    high = np.clip(np.floor(np.maximum(start, end)[:, 0] + reach + 1) + 1, 0, height)
    counts = np.maximum(high - low, 0).astype(np.int64)
    _check_work(int(counts.sum()))
    edges = np.zeros(height * (width + 1), np.int32)
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = int(ends[first] - counts[first])
        last = max(int(np.searchsorted(ends, before + _GROUP)), first + 1)
        part = slice(first, last)
        number = np.repeat(np.arange(len(counts))[part], counts[part])
        row = np.arange(before, before + len(number)) + low[number].astype(np.int64)
        row -= np.repeat(ends[part] - counts[part], counts[part])
        left, right = _run(start[number], end[number], reach, row)
        left = np.clip(np.ceil(left - _NEARLY), 0, width).astype(np.int64)
        right = np.clip(np.floor(right - _NEARLY) + 1, 0, width).astype(np.int64)
        there = left < right
        place = row[there] * (width + 1)
        np.add.at(edges, place + left[there], 1)
        np.subtract.at(edges, place + right[there], 1)
        first = last
    edges = edges.reshape(height, width + 1)
    np.cumsum(edges, axis=1, out=edges)
    return patch._replace(mask=edges[:, :width] > 0)


def _patch(
    outlines: list[NDArray[np.float64]], reach: float, shape: tuple[int, int]
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


def _inside(outline: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    height, width = shape
    start, end = outline, np.roll(outline, -1, axis=0)
    low = np.clip(np.ceil(np.minimum(start, end)[:, 0]), 0, height).astype(np.int64)
    high = np.clip(np.floor(np.maximum(start, end)[:, 0]) + 1, 0, height)
    counts = np.maximum(high.astype(np.int64) - low, 0)
    _check_work(int(counts.sum()))
    edges = np.zeros((height, width + 1), np.uint8)  # their number, of which odd counts
    border = np.zeros((height, width), bool)
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
    on = ~level & (x == np.round(x)) & (x >= 0) & (x < width)
    border[row[on], x[on].astype(np.int64)] = True
    for index in np.flatnonzero(level):
        left, right = sorted((x0[index], x1[index]))
        ends = np.clip([np.ceil(left), np.floor(right) + 1], 0, width).astype(int)
        border[row[index], ends[0] : ends[1]] = True
    # A pixel is inside where the edges to its right are odd.
    right_of = np.bitwise_xor.accumulate(edges[:, :0:-1] & 1, axis=1)[:, ::-1]
    inside: NDArray[np.bool_] = right_of.astype(bool) | border
    return inside


def _run(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    reach: float,
    row: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the first and last column within reach of a segment, in a row of each."""
    y = row + _NEARLY
    left = np.full(len(row), np.inf)
    right = np.full(len(row), -np.inf)
    for point in (start, end):
        half = reach**2 - (y - point[:, 0]) ** 2
        root = np.sqrt(np.maximum(half, 0))
        left = np.where(half >= 0, np.minimum(left, point[:, 1] - root), left)
        right = np.where(half >= 0, np.maximum(right, point[:, 1] + root), right)
    # Between the ends: a rectangle, by its two pairs of sides.
    dy, dx = (end - start).T
    length = np.hypot(dy, dx)
    down = y - start[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        along = [-down * dy / dx, (length**2 - down * dy) / dx]
        across = [(down * dx + side * reach * length) / dy for side in (-1, 1)]
    always = (dx == 0) & (down * dy >= 0) & (down * dy <= length**2)
    near = (dy == 0) & (np.abs(down) <= reach)
    low = np.maximum(
        np.where(dx == 0, np.where(always, -np.inf, np.inf), np.minimum(*along)),
        np.where(dy == 0, np.where(near, -np.inf, np.inf), np.minimum(*across)),
    )
    high = np.minimum(
        np.where(dx == 0, np.where(always, np.inf, -np.inf), np.maximum(*along)),
        np.where(dy == 0, np.where(near, np.inf, -np.inf), np.maximum(*across)),
    )
    there = (low <= high) & (length > 0)
    return (
        np.where(there, np.minimum(left, low + start[:, 1]), left),
        np.where(there, np.maximum(right, high + start[:, 1]), right),
    )


def _check_work(rows: int) -> None:
    if rows > MOST_DRAWN // 40:
        raise ValueError(f"its outlines cross {rows} rows of pixels, which is too many")
