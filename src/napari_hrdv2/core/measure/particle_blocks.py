"""The table of particles of labels that are read block by block, as in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.postprocess.blocks import BlockObjects, Read, Window, around

from .particles import (
    BOX,
    ParticleTable,
    PixelSize,
    checked_pixel_size,
    ellipses,
    units_in,
)


def block_particle_table(
    read: Read,
    blocks: Sequence[Window],
    class_id: int,
    *,
    pixel_size: PixelSize | None = None,
    exclusion: NDArray[np.bool_] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> ParticleTable:
    """Return the table of the objects of a class, whose pixels touch by their edges.

    The rows are those that `particle_table` has of `instances`, in their order. `read`
    returns the (h, w) labels of one of the `blocks`, which cover the image in a grid;
    ``tick()`` is called for each.
    """
    from scipy.ndimage import binary_erosion

    (height, width), unit = checked_pixel_size(pixel_size)
    shape = blocks[-1][0].stop, blocks[-1][1].stop
    mask = np.broadcast_to(False, shape) if exclusion is None else exclusion

    def inside(block: Window) -> NDArray[np.bool_]:
        return np.asarray((read(block) == class_id) & ~mask[block])

    objects = BlockObjects(inside, blocks, 1, tick)
    count = len(objects.sizes)
    first, origin = np.full(count, np.inf), np.zeros((2, count))
    sums, box = np.zeros((6, count)), np.full((4, count), np.inf)
    for index, block in enumerate(blocks):
        tick()
        numbers, corner = objects.numbered(index), [span.start for span in block]
        seen, inner = around(block, 1, shape)
        edge = ~binary_erosion(~mask[seen])[inner]
        at = np.nonzero(numbers)
        of = numbers[at]
        origin[:, of[np.isinf(first[of])]] = np.reshape(corner, (2, 1))
        pixels: NDArray[Any] = np.stack(at) + np.reshape(corner, (2, 1))
        np.minimum.at(first, of, pixels[0] * shape[1] + pixels[1])
        for least, each in zip(box, (*pixels, *-pixels), strict=True):
            np.minimum.at(least, of, each)
        # From the block where an object is seen first: large numbers would be rounded.
        y, x = pixels - origin[:, of]
        for total, each in zip(
            sums, (y, x, y * y, x * x, y * x, edge[at]), strict=True
        ):
            total += np.bincount(of, each, count)
    order = np.argsort(first[1:]) + 1  # 0 is no object
    area = objects.sizes[order] * height * width
    y, x, yy, xx, yx, cut = sums[:, order] / objects.sizes[order]
    columns = {
        "label": np.arange(1, count),
        "area": area,
        "equivalent diameter": np.sqrt(4 / np.pi * area),
        **ellipses(
            (xx - x * x + 1 / 12) * width**2,
            (yy - y * y + 1 / 12) * height**2,
            (x * y - yx) * height * width,
        ),
        "centroid x": (x + origin[1, order]) * width,
        "centroid y": (y + origin[0, order]) * height,
        "touches border": cut > 0,
        **dict(zip(BOX, np.abs(box[:, order]).astype(np.int64), strict=True)),
    }
    return ParticleTable(columns, units_in(unit))
