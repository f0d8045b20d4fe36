"""How an image is cut into blocks, and what each of them is computed from.

The cores of the blocks tile the image. A block is computed on its window, which has a
margin around the core. A backbone with a reach is shown as much more of the image as it
looks at, and its margin is what interpolation and context features read. Any other,
such as a Vision Transformer, sees the window alone; windows overlap, and their results
are blended over the overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import check_whole
from napari_hrdv2.core.features.high_resolution import CONTEXT_CELLS
from napari_hrdv2.core.features.memory import (
    Estimate,
    Plan,
    check_can_be_cut,
    free_bytes,
    make_plans,
    parts_of,
    reach_of,
)
from napari_hrdv2.core.features.tiles import Tile

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.features.transforms import TransformSet

BLOCKS = (2048, 1536, 1024)  # px along a block's side: by default, the largest of
MOST_BYTES = 1_700_000_000  # which the peak is below this, and fits
LEAST_BLOCK = 256
OVERLAP = 8  # patches around a core that its window has, if there is no reach
SEEN_PLANES = 4  # float32 planes of what is seen that there are at once
LEAST_MARGIN = 4  # tokens around a core, for the interpolation
TAPS = 6  # px of a resized image around those that make up one before

Key = tuple[int, int]
"""The number of a block, down and across."""


@dataclass(frozen=True)
class BlockAxis:
    """One axis of an image that is cut into blocks."""

    length: int
    side: int  # of a core; that of the last may be smaller
    margin: int  # of a window around its core, on both sides
    blend: int  # px around the borders of cores over which results are blended
    unit: int  # windows start at multiples of this many px
    reach: int  # px around a window that are seen
    alignment: int  # what is seen starts at multiples of this many px

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return -(-self.length // self.side)

    def core(self, number: int) -> slice:
        """Return the pixels that a block stands for."""
        start = number * self.side
        return slice(start, min(start + self.side, self.length))

    def window(self, number: int) -> slice:
        """Return the pixels that a block is computed on."""
        core = self.core(number)
        start, stop = core.start - self.margin, core.stop + self.margin
        if self.blend:  # all of one size, where a network looks at all of it
            size = self.side + 2 * self.margin
            start = min(start, (self.length - size) // self.unit * self.unit)
            stop = max(stop, size)
        return slice(max(start, 0), min(stop, self.length))

    def seen(self, number: int) -> slice:
        """Return the pixels that are read for a block."""
        window = self.window(number)
        start = max(window.start - self.reach, 0) // self.alignment * self.alignment
        stop = -(-(window.stop + self.reach) // self.alignment) * self.alignment
        return slice(start, min(stop, self.length))

    def cores_in(self, span: slice) -> range:
        """Return the blocks whose cores have pixels of a stretch."""
        return range(span.start // self.side, -(-span.stop // self.side))

    def touching(self, span: slice) -> range:
        """Return the blocks that count somewhere in a stretch."""
        first = (span.start - self.blend) // self.side
        last = (span.stop - 1 + self.blend) // self.side
        return range(max(first, 0), min(last + 1, self.count))

    def weights(self, number: int, pixels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how much a block counts at (N,) pixels; all blocks together 1."""
        core, blend, depths = self.core(number), self.blend, []
        if number > 0:
            depths.append(pixels + 0.5 - (core.start - blend))
        if number < self.count - 1:
            depths.append(core.stop + blend - (pixels + 0.5))
        weights = np.ones(len(pixels))
        for depth in depths:
            weights *= np.clip(depth / (2 * blend), 0, 1) if blend else depth > 0
        return weights.astype(np.float32)


@dataclass(frozen=True)
class ResizedAxis(BlockAxis):
    """One axis of a resized image, of which blocks are those of the image before."""

    before: BlockAxis

    def window(self, number: int) -> slice:
        """Return the pixels that a block is computed on."""
        wanted, by = self.before.window(number), self.length / self.before.length
        around = self.margin - self.blend + TAPS
        start = math.floor(wanted.start * by - around) // self.unit * self.unit
        stop = -(math.floor(-wanted.stop * by - around) // self.unit) * self.unit
        return slice(max(start, 0), min(stop, self.length))


class BlockGrid(NamedTuple):
    """Both axes of an image that is cut into blocks; a block has a number on each."""

    rows: BlockAxis
    columns: BlockAxis

    @property
    def counts(self) -> tuple[int, int]:
        """How many blocks there are, down and across."""
        return self.rows.count, self.columns.count

    def core(self, key: Key) -> Tile:
        """Return the pixels that a block stands for."""
        return Tile(self.rows.core(key[0]), self.columns.core(key[1]))

    def apart(self, pixels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return flat indices of pixels block by block."""
        rows, columns = np.divmod(pixels, self.columns.length)
        blocks = rows // self.rows.side * self.columns.count + columns // self.rows.side
        order = np.argsort(blocks, kind="stable")
        return np.split(pixels[order], np.flatnonzero(np.diff(blocks[order])) + 1)

    def window(self, key: Key) -> Tile:
        """Return the pixels that a block is computed on."""
        return Tile(self.rows.window(key[0]), self.columns.window(key[1]))

    def seen(self, key: Key) -> Tile:
        """Return the pixels that are read for a block."""
        return Tile(self.rows.seen(key[0]), self.columns.seen(key[1]))

    def in_area(self, area: Tile) -> list[Key]:
        """Return the blocks whose cores have pixels of an area, row by row."""
        if 0 in area.shape:
            return []
        down, across = map(BlockAxis.cores_in, self, area)
        return list(product(down, across))

    def counting_in(self, area: Tile) -> list[Key]:
        """Return the blocks that count somewhere in an area."""
        down, across = map(BlockAxis.touching, self, area)
        return list(product(down, across))

    def weights(self, key: Key, area: Tile) -> list[NDArray[np.float32]]:
        """Return how much a block counts at the rows and at the columns of an area."""
        pixels = [np.r_[span] for span in area]
        return list(map(BlockAxis.weights, self, key, pixels))


def block_grid(
    shape: Sequence[int], parts: Sequence[Backbone], plans: Sequence[Plan], block: int
) -> BlockGrid:
    """Return how an image of that shape is cut, in squares of about one size.

    Blocks of the longer axis are as even as can be.
    """
    check_whole("block", block, LEAST_BLOCK, " of pixels")
    patches = [part.patch_size for part in parts if reach_of(part) is None]
    cells = [part.context_cell for part in parts if part.context_cell]
    unit = math.lcm(*(plan.stride for plan in plans), *cells)
    margins = [LEAST_MARGIN * plan.stride for plan in plans]
    margins += [CONTEXT_CELLS * cell for cell in cells]
    margins += [OVERLAP * patch for patch in patches]
    margin = -(-max(margins) // unit) * unit
    # The outermost patch of a window shows what a shift has moved in.
    blend = margin - max(patches) if patches else 0
    count = -(-max(shape) // block)  # along the longer axis
    side = max(-(-max(shape) // (count * unit)) * unit, 2 * blend)
    reach = max(reach_of(part) or 0 for part in parts)
    alignment = math.lcm(*(p.alignment for p in parts if reach_of(p) is not None))
    given = side, margin, blend, unit, reach, alignment
    return BlockGrid(*(BlockAxis(length, *given) for length in shape))


def resized_grid(grid: BlockGrid, shape: Sequence[int]) -> tuple[BlockGrid, BlockGrid]:
    """Return how an image is cut that was resized to be cut so, and what is then seen.

    A block takes about as much of the one or of the other as before, not more of both.
    """
    scales = [length / axis.length for length, axis in zip(shape, grid, strict=False)]
    blend = math.ceil(grid.rows.blend * max(scales))
    side = max(int(grid.rows.side * min(1, *scales)), 2 * blend, 1)
    before = [BlockAxis(n, side, blend, blend, 1, 0, 1) for n in shape[:2]]
    seen = (ResizedAxis(**vars(a), before=b) for a, b in zip(grid, before, strict=True))
    return BlockGrid(*before), BlockGrid(*seen)


def plan_blocks(
    image_shape: tuple[int, int],
    image_channels: int,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet,
    options: FeatureOptions,
    block: int | None,
) -> tuple[BlockGrid, Estimate]:
    """Return how an image is cut and what its features take, nothing of it read.

    The memory is that of one block; it does not depend on the size of the image. Blocks
    are those of `BLOCKS` by default, and the smallest where a block is all that a
    backbone sees.
    """
    parts = parts_of(backbone)
    if options.interpolation == "auto":  # what suits a part of an image, too
        options = replace(options, interpolation="bilinear")
    check_can_be_cut(parts, options)
    given = image_channels, backbone, transforms, options
    plans = make_plans(image_shape, *given)
    default = BLOCKS[-1:] if None in map(reach_of, parts) else BLOCKS
    most = min(MOST_BYTES, free_bytes(parts[0].device))
    for side in default if block is None else (block,):
        grid = block_grid(image_shape, parts, plans, side)
        down, across = grid.counts
        middle = (down - 1) // 2, (across - 1) // 2
        largest = make_plans(grid.window(middle).shape, *given)
        kept = sum(plan.token_bytes for plan in largest)
        bands = len(options.channel_names) or image_channels
        seen = 4 * bands * math.prod(grid.seen(middle).shape)
        working = max(plan.working_bytes for plan in largest) + SEEN_PLANES * seen
        if kept + working <= most:
            break
    return grid, Estimate(
        passes=down * across * sum(plan.passes for plan in largest),
        token_bytes=kept,
        peak_bytes=kept + working,
    )
