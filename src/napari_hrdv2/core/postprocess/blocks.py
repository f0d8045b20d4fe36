"""Objects of an image that is read block by block, and cleaning it, as in memory.

Blocks are numbered one by one, and what touches across their borders is joined by a
graph: no more than a block, and a few numbers of each object, are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.errors import Stop, stop_if

from .refinement import given_away, shared_edges

Ids = NDArray[np.integer[Any]]
Window = tuple[slice, slice]
Read = Callable[[Window], NDArray[Any]]
Write = Callable[[Window, NDArray[Any]], None]


def around(window: Window, reach: int, shape: Sequence[int]) -> tuple[Window, Window]:
    """Return a window with what is around it in the image, and where it is in that."""
    seen, inner = [], []
    for span, length in zip(window, shape[:2], strict=True):
        start = max(span.start - reach, 0)
        seen.append(slice(start, min(span.stop + reach, length)))
        inner.append(slice(span.start - start, span.stop - start))
    return (seen[0], seen[1]), (inner[0], inner[1])


class BlockObjects:
    """Objects of an (H, W) image by number: pixels of one value that touch.

    Pixels of 0 are of no object. `sizes` are in pixels, with that of 0 first. `read`
    returns the (h, w) values of one of the `blocks`, which cover the image, row by row,
    in a grid. With a connectivity of 2 pixels also touch by their corners.
    """

    def __init__(
        self,
        read: Read,
        blocks: Sequence[Window],
        connectivity: int,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        self._read, self._blocks, self._connectivity = read, blocks, connectivity
        self._starts = [0]  # the first numbers of the blocks, less one
        sizes, pairs = [np.zeros(1, np.int64)], [np.empty((2, 0), np.int64)]
        borders = _Borders(blocks)
        for block in blocks:
            tick()
            values = read(block)
            objects = _objects(values, connectivity)
            counts = np.bincount(objects.ravel(), minlength=1)
            objects[objects > 0] += self._starts[-1]
            self._starts.append(self._starts[-1] + len(counts) - 1)
            sizes.append(counts[1:])
            table = np.stack([values.astype(np.int64), objects])
            for here, there in borders.met_by(block, table):
                pairs += _touching(here, there, connectivity)
        count, ends = self._starts[-1] + 1, np.concatenate(pairs, axis=1)
        graph = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), (count, count))
        # Of each number, the object that it is of; 0 stays alone, first.
        _, self._joined = connected_components(graph, directed=False)
        total = np.bincount(self._joined, np.concatenate(sizes))
        self.sizes = total.astype(np.int64)

    def numbered(self, index: int) -> Ids:
        """Return the objects in a block, (h, w), given its position in `blocks`."""
        objects = _objects(self._read(self._blocks[index]), self._connectivity)
        inside = objects > 0
        objects[inside] = self._joined[objects[inside] + self._starts[index]]
        return objects


class _Borders:
    """The last row above, and the last column to the left, of the next block."""

    def __init__(self, blocks: Sequence[Window]) -> None:
        width = max(columns.stop for _, columns in blocks)
        self._above = np.zeros((2, width), np.int64)
        self._below = np.zeros((2, width), np.int64)
        self._left = np.zeros((2, 0), np.int64)
        self._row = 0

    def met_by(
        self, block: Window, table: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return lines that meet, (2, N) each: (values, numbers) of a block."""
        rows, columns = block
        if rows.start != self._row:
            self._above, self._below = self._below, np.zeros_like(self._below)
            self._row = rows.start
        met, margin = [], ((0, 0), (1, 1))
        if rows.start:
            above = np.pad(self._above, margin)[:, columns.start : columns.stop + 2]
            met.append((np.pad(table[:, 0], margin), above))
        if columns.start:
            met.append((np.pad(table[:, :, 0], margin), np.pad(self._left, margin)))
        self._left = table[:, :, -1]
        self._below[:, columns] = table[:, -1]
        return met


def _objects(values: NDArray[Any], connectivity: int) -> NDArray[np.int64]:
    from skimage.measure import label

    found: NDArray[np.int64] = label(values, connectivity=connectivity, background=0)
    return found.astype(np.int64)


def _touching(
    here: NDArray[np.int64], there: NDArray[np.int64], connectivity: int
) -> list[NDArray[np.int64]]:
    """Return (2, n) numbers of what touches across a border; both have a margin."""
    found = []
    for shift in (0,) if connectivity == 1 else (-1, 0, 1):
        other = np.roll(there, shift, axis=1)
        same = (here[0] == other[0]) & (here[1] > 0) & (other[1] > 0)
        found.append(np.unique(np.stack([here[1], other[1]])[:, same], axis=1))
    return found


def clean_blocks(
    read: Read,
    write: Write,
    written: Read,
    blocks: Sequence[Window],
    *,
    min_object: int = 0,
    fill_holes: int = 0,
    should_stop: Stop = None,
) -> None:
    """Do what `clean` does, block by block, with the same result.

    `read` gives the labels of a block, `write` takes those that are kept, and `written`
    gives these again.
    """
    tick = partial(stop_if, should_stop, "refining")
    classes = _without_small_objects(read, write, blocks, min_object, tick)
    if fill_holes > 1:
        for one in classes:
            _fill_holes(written, write, blocks, one, fill_holes, tick)


def _without_small_objects(
    read: Read,
    write: Write,
    blocks: Sequence[Window],
    smallest: int,
    tick: Callable[[], None],
) -> list[int]:
    """Write the labels without small objects; return the classes there are."""
    if smallest <= 1:
        seen: set[int] = set()
        for block in blocks:
            tick()
            write(block, labels := read(block))
            seen |= set(np.unique(labels).tolist())
        return sorted(seen - {0})
    objects = BlockObjects(read, blocks, 2, tick)
    small = objects.sizes < smallest
    small[0] = False
    label_of = np.zeros(len(small), np.int64)
    edges, borders = [], _Borders(blocks)
    for index, block in enumerate(blocks):
        tick()
        labels, numbers = read(block), objects.numbered(index)
        label_of[numbers.ravel()] = labels.ravel()
        met = [(numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])]
        for here, there in borders.met_by(block, np.stack([numbers, numbers])):
            met.append((here[0], there[0]))
        for a, b in met:
            pairs = np.unique(shared_edges(a, b, small), axis=1, return_counts=True)
            edges.append(np.vstack(pairs))
    label_of[0] = 0
    ids, class_of = np.unique(label_of, return_inverse=True)
    inside, outside, counts = np.concatenate(edges, axis=1)
    given = ids[given_away(inside, outside, counts, small, class_of)]
    for index, block in enumerate(blocks):
        tick()
        write(block, given[objects.numbered(index)].astype(read(block).dtype))
    return sorted(set(given.tolist()) - {0})


def _fill_holes(
    read: Read,
    write: Write,
    blocks: Sequence[Window],
    one: int,
    largest: int,
    tick: Callable[[], None],
) -> None:
    """Fill what a class encloses, in place."""
    height, width = (max(block[axis].stop for block in blocks) for axis in (0, 1))
    holes = BlockObjects(lambda block: read(block) != one, blocks, 1, tick)
    small = holes.sizes < largest
    small[0] = False
    for index, (rows, columns) in enumerate(blocks):
        tick()
        numbers, is_open = holes.numbered(index), read((rows, columns)) == 0
        is_open[: rows.start == 0] = True
        is_open[len(is_open) - (rows.stop == height) :] = True
        is_open[:, : columns.start == 0] = True
        is_open[:, is_open.shape[1] - (columns.stop == width) :] = True
        small[np.unique(numbers[is_open])] = False
    for index, block in enumerate(blocks):
        tick()
        labels = read(block)
        labels[small[holes.numbered(index)]] = one
        write(block, labels)
