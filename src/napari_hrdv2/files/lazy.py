"""Images that stay in their file: what is asked for of them is read, by windows."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .reading import told

SEGMENT_BYTES = 2**27  # a strip or tile is decoded whole; with larger ones, the image
_JPEG = (6, 7, 34892, 33007)


class LazyImage:
    """An (H, W) or (H, W, 3|4) array in a file; ``image[rows, columns]`` reads a part.

    ``numpy.asarray`` reads all of it. `levels` are the smaller copies of a pyramid,
    the largest first; `chunks` the rows and columns that are decoded at once. What is
    damaged is told when it is read.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[slice, slice], NDArray[Any]],
        shape: tuple[int, ...],
        dtype: Any,
        levels: tuple[LazyImage, ...] = (),
        chunks: tuple[int, int] = (1, 1),
    ) -> None:
        self.chunks = chunks
        self.path, self._read, self.shape, self.levels = path, read, shape, levels
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.ndim, self.size = len(shape), int(np.prod(shape, dtype=object))
        self.nbytes = self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"LazyImage({str(self.path)!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, window: Any) -> NDArray[Any]:
        parts = window if isinstance(window, tuple) else (window,)
        rows, columns = (*parts, slice(None), slice(None))[:2]
        (top, bottom, down), (left, right, along) = (
            part.indices(length)
            for part, length in zip((rows, columns), self.shape, strict=False)
        )
        with told(self.path):
            found = self._read(
                slice(top, max(top, bottom)), slice(left, max(left, right))
            )
        found = found[(slice(None, None, down), slice(None, None, along), *parts[2:])]
        return np.ascontiguousarray(found, self.dtype)

    def first_band(self) -> Self:
        """Return the first of its colours, as grey levels."""
        one = copy.copy(self)
        given = self.path, lambda *spans: self[spans][..., 0], self.shape[:2]
        LazyImage.__init__(one, *given, self.dtype, chunks=self.chunks)
        return one

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("copy: pixels in a file cannot be had without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)


def of_tiff(
    path: Path, tif: Any, picked: tuple[str, list[int]] | None = None
) -> LazyImage | None:
    """Return the first image of an open TIFF, in the bands that it is stored in.

    Or in those that are picked along an axis. None where it is to be decoded as a
    whole. The file is closed when nothing reads it.
    """
    first, *smaller = [_of_level(path, one, picked) for one in tif.series[0].levels]
    if first is None:
        return None
    first.levels = tuple(level for level in smaller if level is not None)
    weakref.finalize(tif, tif.filehandle.close)
    return first


def _of_level(
    path: Path, series: Any, picked: tuple[str, list[int]] | None
) -> LazyImage | None:
    page, axes = series.keyframe, series.axes
    band, places = picked or ("S", [])
    order = [axis for axis in axes if axis in ("Y", "X", band)]
    stored = tuple(series.shape[axes.index(axis)] for axis in order)
    sizes = dict(zip(order, stored, strict=True))
    kept = (..., places) if places else ...  # of the bands
    shape = (sizes["Y"], sizes["X"], *([sizes[band]] if band in sizes else []))
    seen = (*shape[:2], len(places)) if places else shape
    if series.dataoffset is None:
        chunk = math.prod(page.chunks) * page.dtype.itemsize
        count, whole = (1, shape) if band == "S" else (sizes[band], shape[:2])
        if len(series.pages) != count or page.imagedepth != 1 or chunk > SEGMENT_BYTES:
            return None
        pages = (
            [page]
            if band == "S"
            else [series.pages[place].aspage() for place in places]
        )

        def read(*spans: slice) -> NDArray[Any]:
            parts = [_from_segments(one, whole, *spans) for one in pages]
            return parts[0][kept] if band == "S" else np.stack(parts, axis=-1)

        tall, wide = page.chunks[:2]
        return LazyImage(path, read, seen, page.dtype, chunks=(tall, wide))
    if path.stat().st_size < series.dataoffset + series.nbytes:
        raise EOFError("its end is missing")
    dtype = np.dtype(page.parent.byteorder + page.dtype.char)

    def mapped(rows: slice, columns: slice) -> NDArray[Any]:
        # A mapping that lives long counts as memory, page by page.
        array = np.memmap(path, dtype, "r", series.dataoffset, stored)
        array = np.moveaxis(array, order.index(band), -1) if band in order else array
        return np.array(array[rows, columns][kept])

    return LazyImage(path, mapped, seen, dtype)


def _from_segments(
    page: Any, shape: tuple[int, ...], rows: slice, columns: slice
) -> NDArray[Any]:
    """Return a window of a page from the strips or tiles that it touches."""
    tall, wide = page.chunks[:2]
    down, across = -(-shape[0] // tall), -(-shape[1] // wide)
    planes = shape[2] if int(page.planarconfig) == 2 and len(shape) == 3 else 1
    top, left = rows.start // tall, columns.start // wide
    bottom, right = -(-rows.stop // tall), -(-columns.stop // wide)
    touched = [
        (plane * down + row) * across + column
        for plane in range(planes)
        for row in range(top, bottom)
        for column in range(left, right)
    ]
    offsets, counts = (
        [places[index] for index in touched]
        for places in (page.dataoffsets, page.databytecounts)
    )
    size = max(bottom - top, 0) * tall, max(right - left, 0) * wide
    found = np.empty((*size, *shape[2:]), page.dtype)
    by_plane = found[..., None] if found.ndim == 2 else found
    file, tables = page.parent.filehandle, {}
    if int(page.compression) in _JPEG:
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    for stored, index in file.read_segments(
        offsets, counts, indices=touched, lock=file.lock, flat=True
    ):
        part, (plane, _, row, column, _), (_, height, width, _) = page.decode(
            stored, index, **tables
        )
        row, column = row - top * tall, column - left * wide
        bands = slice(plane, plane + 1) if planes > 1 else slice(None)
        target = by_plane[row : row + height, column : column + width, bands]
        target[...] = page.nodata if part is None else part[0, :height, :width]
    above, before = rows.start - top * tall, columns.start - left * wide
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return found[above : above + height, before : before + width]
