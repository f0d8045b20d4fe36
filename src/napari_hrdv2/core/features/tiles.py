"""The fixed tiles in which pixels are worked on, and the part of an image asked for.

How a matrix product rounds depends on its shape. So a region is not computed on its
own: it takes the tiles that it touches, each of which is the same whatever else is
computed. That is why a region equals the same part of the whole, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_hrdv2.core.errors import Cancelled

if TYPE_CHECKING:
    Region = tuple[slice, slice]

ROWS_PER_TILE = 112  # so that a tile stays in the cache
COLUMNS_PER_TILE = 1024


class Tile(NamedTuple):
    """A rectangle of pixels; both slices have a start and a stop."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return length_of(self.rows), length_of(self.columns)


def checked_region(region: Region | None, shape: tuple[int, int]) -> Tile:
    """Return the pixels that ``array[region]`` would be of an (H, W) array.

    Raises
    ------
    TypeError, ValueError
        If it is not two slices, or one of them has a step.
    """
    if region is None:
        return Tile(slice(0, shape[0]), slice(0, shape[1]))
    is_pair = isinstance(region, tuple) and len(region) == 2
    if not is_pair or not all(isinstance(part, slice) for part in region):
        raise TypeError(
            f"region: {region!r} is not (rows, columns) in slices; "
            "(slice(0, 100), slice(0, 200)) is what is needed"
        )
    spans = []
    for part, length in zip(region, shape, strict=True):
        start, stop, step = part.indices(length)
        if step != 1:
            raise ValueError(f"region: {part} has a step; only neighbouring pixels go")
        spans.append(slice(start, max(start, stop)))
    return Tile(*spans)


def tiles_of(shape: tuple[int, int], region: Tile) -> Iterator[Tile]:
    """Yield the tiles that a region touches, one column of tiles after the other."""
    for columns in column_runs(shape[1]):
        for rows in runs(0, shape[0], ROWS_PER_TILE):
            tile = Tile(rows, columns)
            if touches(tile, region):
                yield tile


def column_runs(width: int) -> list[slice]:
    """Return how the columns of an image are divided; a narrow rest joins the last."""
    count = max(1, round(width / COLUMNS_PER_TILE))
    starts = [number * COLUMNS_PER_TILE for number in range(count)]
    return [
        slice(start, stop)
        for start, stop in zip(starts, [*starts[1:], width], strict=True)
    ]


def runs(start: int, stop: int, step: int) -> list[slice]:
    """Return stretches of one length, but for the last."""
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]


def touches(tile: Tile, region: Tile) -> bool:
    """Return whether two rectangles have a pixel in common."""
    return all(overlap(a, b) is not None for a, b in zip(tile, region, strict=True))


def overlap(one: slice, other: slice) -> slice | None:
    """Return what two stretches have in common, None if nothing."""
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return slice(start, stop) if start < stop else None


def within(part: slice, whole: slice) -> slice:
    """Return a stretch as counted from the start of another."""
    return slice(part.start - whole.start, part.stop - whole.start)


def length_of(span: slice) -> int:
    """Return how many pixels a stretch has."""
    length: int = span.stop - span.start
    return length


def paste(output: Any, tile: Tile, block: Any, region: Tile) -> None:
    """Write what a tile (…, rows, columns) and a region share into the region's array.

    Parameters
    ----------
    output : (…, rows, columns) array or tensor
        Of the region.
    """
    rows, columns = (overlap(a, b) for a, b in zip(tile, region, strict=True))
    assert rows is not None  # the tile touches the region
    assert columns is not None
    inside = block[..., within(rows, tile.rows), within(columns, tile.columns)]
    target = within(rows, region.rows), within(columns, region.columns)
    output[(..., *target)] = inside


def stop_if(should_stop: Callable[[], bool] | None) -> None:
    """Raise `Cancelled` if the caller wants no more."""
    if should_stop is not None and should_stop():
        raise Cancelled("the prediction was cancelled")
