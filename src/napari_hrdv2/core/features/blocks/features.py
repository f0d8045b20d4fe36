"""Features of an image of any size: blocks of it, computed when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.checks import (
    bands_of,
    channels_first,
    check_whole,
    checked_range,
)
from napari_hrdv2.core.errors import stop_if
from napari_hrdv2.core.features.base import Features
from napari_hrdv2.core.features.compute import Steps, checked_options
from napari_hrdv2.core.features.memory import check_available, make_plans, parts_of
from napari_hrdv2.core.features.resampled import (
    ResizedImage,
    resampling_factors,
    resized_shape,
)
from napari_hrdv2.core.features.sample_cache import BACKGROUND_PIXELS, background_pixels
from napari_hrdv2.core.features.tiles import (
    LinearModel,
    Stop,
    Tile,
    checked_region,
    moved,
    shared,
    within,
)
from napari_hrdv2.core.features.upsampling.sharpening import parse_interpolation

from .cache import BlockCache, Spill
from .grid import BlockAxis, BlockGrid, Key, plan_blocks, resized_grid
from .making import BlockMaker
from .statistics import bands_in, read_statistics

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.tiles import Region
    from napari_hrdv2.core.features.transforms import TransformSet

    from .statistics import ImageLike

    Progress = Callable[[int, int], None]

BUDGET_BYTES, SPILL_BYTES = 600_000_000, 10_000_000_000
SAMPLED_BLOCKS = 16  # that the background sample is from, at most
WAIT_SECONDS = 0.1  # for another thread's block, before asking whether to stop

_REPORT: ContextVar[tuple[Progress | None, Stop]] = ContextVar("_REPORT")
"""What is told of the blocks that are computed on demand, in this thread."""


class BlockFeatures(Features):
    """The features of an image that need not be in memory; see `block_features`.

    Threads may share them; one block is computed at a time.

    Attributes
    ----------
    axes : BlockGrid
        How rows and columns are cut into blocks.
    """

    pixels_at_once = BACKGROUND_PIXELS  # else each few of them need all blocks again

    def __init__(self, maker: BlockMaker, cache: BlockCache) -> None:
        self._maker, self._cache = maker, cache
        self._computing = Lock()
        self.axes = maker.before or maker.grid
        smallest = maker.smallest()
        self.shape = (smallest.shape[0], self.axes[0].length, self.axes[1].length)
        self.part_options = smallest.part_options
        self.channel_weights = smallest.channel_weights

    def __getstate__(self) -> dict[str, Any]:
        """Leave out image, backbone and blocks, for another process; see `again`."""
        bare = replace(self._maker, image=None, backbone=None)  # type: ignore[arg-type]
        state = super().__getstate__() | {"_maker": bare}
        return {k: v for k, v in state.items() if k not in ("_cache", "_computing")}

    def again(
        self, image: ImageLike, backbone: Backbone | JoinedBackbone
    ) -> BlockFeatures:
        """Return what a copy elsewhere stands for; the grain alone is read, if any."""
        if self._maker.before is not None:
            sides = [axis.length for axis in self._maker.grid]
            names = self._maker.options.channels
            image = ResizedImage(image, sides, channels=bool(names))
        maker = replace(self._maker, image=image, backbone=backbone)
        return BlockFeatures(maker, BlockCache(BUDGET_BYTES, None))

    @property
    def block(self) -> int:
        """Side of a block in pixels: along both axes they begin at multiples of it."""
        return self.axes.rows.side

    @property
    def seen(self) -> BlockGrid:
        """How the image is cut as it is seen, which may be resized."""
        return self._maker.grid

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the blocks take that are kept now."""
        return self._cache.nbytes

    @contextmanager
    def reporting(
        self,
        progress: Progress | None = None,
        should_stop: Stop = None,
    ) -> Iterator[None]:
        """Tell of the blocks that this thread has computed within, and ask to stop.

        ``progress(done, total)`` is that of the block in work.
        """
        token = _REPORT.set((progress, should_stop))
        try:
            yield
        finally:
            _REPORT.reset(token)

    def blocks(self, region: Region | None = None) -> Iterator[Tile]:
        """Yield the part of each block that lies in a region, row by row.

        To be read one after the other: together they are the region, and each is read
        without computing a block twice, as far as the budget holds neighbours.
        """
        area = checked_region(region, self.shape[1:])
        for key in self.axes.in_area(area):
            yield shared(self.axes.core(key), area)

    def block_at(self, row: int, column: int) -> Key:
        """Return the number of the block, down and across, that has a pixel."""
        return row // self.block, column // self.block

    def is_kept(self, region: Region) -> bool:
        """Whether nothing has to be computed for a region, but perhaps read again."""
        area = checked_region(region, self.shape[1:])
        return all(map(self._cache.has, self.axes.counting_in(area)))

    @property
    def kept(self) -> list[Tile]:
        """The blocks in memory, as far as nothing is to be computed of them."""
        cores = map(self.axes.core, self._cache.keys())
        return [core for core in cores if self.is_kept(core)]

    @property
    def most_kept(self) -> int:
        """How many blocks the memory holds."""
        plans = self._maker.plans(self._maker.grid.window((0, 0)).shape)
        nbytes = sum(plan.token_bytes for plan in plans)
        return max(self._cache.budget_bytes // max(nbytes, 1), 1)

    def drop(self) -> None:
        """Forget the blocks that are in memory."""
        self._cache.clear()

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        for inside in self.blocks(area):
            keys = self.axes.counting_in(inside)
            if len(keys) == 1:
                yield from self._planes_of(keys[0], model, inside, stop)
                continue
            total = torch.zeros(inside.shape[0], len(model.bias), inside.shape[1])
            for key in keys:
                down, across = map(torch.from_numpy, self.axes.weights(key, inside))
                for tile, values in self._planes_of(key, model, inside, stop):
                    rows, columns = map(within, tile, inside)
                    weight = down[rows, None, None] * across[columns]
                    total[rows, :, columns] += weight * values.cpu()
            yield inside, total

    def _planes_of(
        self, key: Key, model: LinearModel, inside: Tile, stop: Stop
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield what one block says of a rectangle, as far as its window reaches."""
        window = self.axes.window(key)
        local = moved(shared(inside, window), window, -1)
        for tile, values in self._block(key, stop).planes(model, local, stop):
            kept = shared(tile, local)
            rows, columns = map(within, kept, tile)
            yield moved(kept, window, 1), values[rows, :, columns]

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        pixels = [each.numpy() for each in self._pixels(rows, cols)]
        output = np.zeros((len(pixels[0]), self.shape[0]), np.float32)
        cores = np.unique(np.stack(pixels) // self.block, axis=1).T.tolist()
        around = (self.axes.counting_in(self.axes.core((y, x))) for y, x in cores)
        for key in sorted(set(chain.from_iterable(around))):
            down, across = (
                axis.weights(n, each)
                for axis, n, each in zip(self.axes, key, pixels, strict=True)
            )
            weights = down * across
            counts = np.flatnonzero(weights)
            if not len(counts):
                continue
            starts = [span.start for span in self.axes.window(key)]
            local = [p[counts] - start for p, start in zip(pixels, starts, strict=True)]
            output[counts] += weights[counts, None] * self._block(key).sample(*local)
        return output

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        total = np.zeros(self.shape, np.float32)
        for key in self.axes.in_area(checked_region(None, self.shape[1:])):
            window = self.axes.window(key)
            weight = np.outer(*self.axes.weights(key, window))
            part = self._block(key).materialize()
            total[:, window.rows, window.columns] += weight * part
        return total

    def background_pixels(self, count: int | None = None) -> NDArray[np.int64]:
        """Return the pixels of the background sample; see `Features`.

        Where there are many blocks they are from some of them, evenly spread.
        """
        counts = self.axes.counts
        if math.prod(counts) <= SAMPLED_BLOCKS:
            return super().background_pixels(count)
        down = round(math.sqrt(SAMPLED_BLOCKS * counts[0] / counts[1]))
        down = min(max(down, 1), counts[0], SAMPLED_BLOCKS)
        across = min(SAMPLED_BLOCKS // down, counts[1])
        rows, columns = map(_spread, self.axes, (down, across))
        pixels = background_pixels((len(rows), len(columns)), count)
        row, column = np.divmod(pixels, len(columns))
        return np.asarray(rows[row] * self.shape[2] + columns[column])

    def at_hand(self, row: int, column: int) -> Tile:
        """Return the block that has a pixel."""
        return self.axes.core(self.block_at(row, column))

    def apart(self, pixels: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """Return flat indices block by block."""
        return self.axes.apart(pixels)

    def _block(self, key: Key, stop: Stop = None) -> Features:
        """Return the features of a window, computed if they are not kept."""
        if (known := self._cache.get(key)) is not None:
            return known
        progress, other = _REPORT.get((None, None))
        steps = Steps(progress, lambda: bool((stop and stop()) or (other and other())))
        while not self._computing.acquire(timeout=WAIT_SECONDS):
            stop_if(steps.should_stop, "waiting for features")
        try:
            known = self._cache.get(key)
            return self._computed(key, steps) if known is None else known
        finally:
            self._computing.release()

    def _computed(self, key: Key, steps: Steps) -> Features:
        """Return the features of a window, which are then kept."""
        shape, spill = self._maker.grid.window(key).shape, self._cache.spill
        nbytes = sum(plan.token_bytes for plan in self._maker.plans(shape))
        self._cache.make_room(nbytes)
        tokens = spill.load(key) if spill else None
        if tokens is None:
            tokens = self._maker.tokens(key, steps)
            if spill:
                spill.save(key, tokens)
        block = self._maker.block(key, tokens, steps)
        self._cache.put(key, block)
        return block


def _spread(axis: BlockAxis, count: int) -> NDArray[np.int64]:
    """Return the pixels of so many blocks of an axis, evenly spread."""
    numbers = [(2 * k + 1) * axis.count // (2 * count) for k in range(count)]
    return np.concatenate([np.r_[axis.core(number)] for number in numbers])


def block_features(
    image: ImageLike,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    progress: Progress | None = None,
    should_stop: Stop = None,
    *,
    block: int | None = None,
    budget_bytes: int = BUDGET_BYTES,
    spill: str | os.PathLike[str] | None = None,
    spill_bytes: int = SPILL_BYTES,
    pixel_ratio: tuple[float, float] | None = None,
    **others: Any,
) -> BlockFeatures:
    """Return the features of an image that need not be in memory.

    It is read part by part, once or for each channel, for range, mean and deviation of
    its grey levels; blocks are computed when they are asked for. The features are those
    of `compute_features` to rounding, if all of the backbone sees a known part of the
    image only. A Vision Transformer sees blocks that overlap, and is blended.

    Parameters
    ----------
    image : array_like
        (H, W) or (H, W, 3|4): what has a shape and a dtype and can be cut, such as an
        array of numpy, zarr or dask. Missing pixels get its median, see `filled`.
    progress, should_stop : callable, optional
        For reading the image; see `BlockFeatures.reporting` for what comes later.
    block : int, optional
        Side of a block in pixels, about. By default it is such that a block needs less
        than 1.7 GB and fits: 1024, 1536 or 2048 px.
    budget_bytes : int
        Memory for blocks that are kept; those that were used least recently go. One
        is always kept.
    spill : path, optional
        Folder for blocks that go, up to `spill_bytes`; a new folder in it, which is
        gone with the features.
    pixel_ratio : tuple of two float, optional
        How many times as high and wide its pixels are as those of the training, as
        which they are then seen; see `resampling_factors`.
    backbone, transforms, stride, others
        As for `compute_features`.

    Raises
    ------
    Cancelled
        When `should_stop` returned True.
    MemoryError
        If a block would not fit into memory.
    ValueError
        If an option needs the whole image: a backbone that divides it into regions,
        ``compat="reference"``, or interpolation "jbu".
    """
    parts = parts_of(backbone)
    if others.get("interpolation") == "auto":
        others["interpolation"] = "bilinear"  # which suits a part of an image, too
    options = checked_options(parts, stride=stride, **others)
    for name, bytes_ in (("budget_bytes", budget_bytes), ("spill_bytes", spill_bytes)):
        check_whole(name, bytes_, 0, " of bytes")
    ranges = [one and checked_range(one) for one in options.ranges]
    if not hasattr(image, "dtype") or not hasattr(image, "shape"):
        image = np.asarray(image)
    shape, factors = image.shape, resampling_factors(pixel_ratio)
    names = options.channel_names
    if factors is not None:
        image = ResizedImage(image, resized_shape(shape, factors), channels=bool(names))
    # Of the right shape and type, without a pixel read.
    blank = np.broadcast_to(np.zeros((), image.dtype), image.shape)
    count, height, width = channels_first(bands_of(blank, names)[0]).shape
    given = (height, width), count, backbone, transforms, options
    grid, needed = plan_blocks(*given, block)
    plans = make_plans(*given)
    sides = grid.rows.side, grid.columns.side
    check_available(needed.peak_bytes, sides, parts[0].device, "smaller blocks")
    kept = None if spill is None else Spill(spill, spill_bytes)
    paddings = tuple((p.padded[0] - height, p.padded[1] - width) for p in plans)
    own = options.levels is None  # then they depend on the padding
    pairs = zip(parts, paddings, strict=False)
    standardised = {by for part, by in pairs if own and not part.absolute_levels}

    def tick(done: int, total: int) -> None:
        stop_if(should_stop, "reading the image")
        if progress is not None:
            progress(done, total)

    warn = any(part.absolute_levels for part in parts)
    bands = zip(bands_in(image, names), ranges, strict=True)
    statistics = tuple(
        read_statistics(band, levels, standardised, warn=warn, tick=tick)
        for band, levels in bands
    )
    before, seen = resized_grid(grid, shape) if factors else (None, grid)
    made_from = image, count, backbone, transforms, options, statistics, paddings
    maker = BlockMaker(*made_from, seen, before)
    if parse_interpolation(options.interpolation).method == "bilateral":
        maker = maker.with_guides(lambda: stop_if(should_stop, "reading the image"))
    return BlockFeatures(maker, BlockCache(budget_bytes, kept))
