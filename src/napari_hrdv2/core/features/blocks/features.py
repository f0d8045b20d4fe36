"""Features of an image of any size: blocks of it, computed when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.checks import channels_first
from napari_hrdv2.core.errors import stop_if
from napari_hrdv2.core.features.base import Features
from napari_hrdv2.core.features.compute import Steps, checked_options
from napari_hrdv2.core.features.memory import (
    check_available,
    check_can_be_cut,
    make_plans,
    parts_of,
)
from napari_hrdv2.core.features.sample_cache import BACKGROUND_PIXELS, pixels_from
from napari_hrdv2.core.features.tiles import (
    LinearModel,
    Stop,
    Tile,
    checked_region,
    moved,
    shared,
    within,
)

from .cache import BlockCache, Key, Spill
from .grid import BLOCK, block_axes, block_estimate
from .making import BlockMaker
from .statistics import read_statistics

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.tiles import Region
    from napari_hrdv2.core.features.transforms import TransformSet

    from .statistics import ImageLike

    Progress = Callable[[int, int], None]

BUDGET_BYTES, SPILL_BYTES = 1_000_000_000, 10_000_000_000
SAMPLED_BLOCKS = 16  # that the background sample is from, at most

_REPORT: ContextVar[tuple[Progress | None, Stop]] = ContextVar("_REPORT")
"""What is told of the blocks that are computed on demand, in this thread."""


class BlockFeatures(Features):
    """The features of an image that need not be in memory; see `block_features`.

    Threads may share them; one block is computed at a time.

    Attributes
    ----------
    axes : tuple of two BlockAxis
        How rows and columns are cut into blocks.
    """

    pixels_at_once = BACKGROUND_PIXELS  # else each few of them need all blocks again

    def __init__(self, maker: BlockMaker, cache: BlockCache) -> None:
        self._maker, self._cache = maker, cache
        self._computing = Lock()
        self.axes = maker.axes
        smallest = maker.smallest()
        self.shape = (smallest.shape[0], self.axes[0].length, self.axes[1].length)
        self.part_options = smallest.part_options
        self.channel_weights = smallest.channel_weights

    def __repr__(self) -> str:
        down, across = (axis.count for axis in self.axes)
        return f"BlockFeatures(shape={self.shape}, {down} × {across} blocks)"

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the blocks take that are kept now."""
        return self._cache.nbytes

    @contextmanager
    def reporting(
        self,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
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
        for key in self._cores(area):
            yield self._inside(key, area)

    def block_at(self, row: int, column: int) -> Key:
        """Return the number of the block, down and across, that has a pixel."""
        return row // self.axes[0].side, column // self.axes[1].side

    def is_kept(self, region: Region) -> bool:
        """Whether nothing has to be computed for a region, but perhaps read again."""
        return all(
            map(self._cache.has, self._keys(checked_region(region, self.shape[1:])))
        )

    @property
    def most_kept(self) -> int:
        """How many blocks the memory holds."""
        plans = self._maker.plans(self._window((0, 0)).shape)
        nbytes = sum(plan.token_bytes for plan in plans)
        return max(self._cache.budget_bytes // max(nbytes, 1), 1)

    def drop(self) -> None:
        """Forget the blocks that are in memory."""
        self._cache.clear()

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        for core in self._cores(area):
            inside = self._inside(core, area)
            keys = self._keys(inside)
            if len(keys) == 1:
                yield from self._planes_of(keys[0], model, inside, stop)
                continue
            total = torch.zeros(inside.shape[0], len(model.bias), inside.shape[1])
            for key in keys:
                down, across = self._weights(key, inside)
                for tile, values in self._planes_of(key, model, inside, stop):
                    rows, columns = (
                        within(tile.rows, inside.rows),
                        within(tile.columns, inside.columns),
                    )
                    weight = down[rows, None, None] * across[columns]
                    total[rows, :, columns] += weight * values.cpu()
            yield inside, total

    def _planes_of(
        self, key: Key, model: LinearModel, inside: Tile, stop: Stop
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield what one block says of a rectangle, as far as its window reaches."""
        window = self._window(key)
        area = shared(inside, window)
        block, local = self._block(key, stop), moved(area, window, -1)
        for tile, values in block.planes(model, local, stop):
            kept = shared(tile, local)
            part = values[within(kept.rows, tile.rows), :, within(kept[1], tile[1])]
            yield moved(kept, window, 1), part

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        pixels = [each.numpy() for each in self._pixels(rows, cols)]
        output = np.zeros((len(pixels[0]), self.shape[0]), np.float32)
        sides = [[axis.side] for axis in self.axes]
        cores = np.unique(np.stack(pixels) // sides, axis=1).T.tolist()
        keys = {
            key
            for row, column in cores
            for key in self._keys(self._core((row, column)))
        }
        for key in sorted(keys):
            down, across = (
                axis.weights(n, each)
                for axis, n, each in zip(self.axes, key, pixels, strict=True)
            )
            counts = np.flatnonzero(down * across)
            if not len(counts):
                continue
            window = self._window(key)
            found = self._block(key).sample(
                pixels[0][counts] - window.rows.start,
                pixels[1][counts] - window.columns.start,
            )
            output[counts] += (down * across)[counts, None] * found
        return output

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        total = np.zeros(self.shape, np.float32)
        down, across = (range(axis.count) for axis in self.axes)
        for key in product(down, across):
            window = self._window(key)
            rows, columns = self._weights(key, window)
            weight = (rows[:, None] * columns).numpy()
            total[:, window.rows, window.columns] += (
                weight * self._block(key).materialize()
            )
        return total

    def background_pixels(self, count: int | None = None) -> NDArray[np.int64]:
        """Return the pixels of the background sample; see `Features`.

        Where there are many blocks they are from some of them, evenly spread.
        """
        counts = [axis.count for axis in self.axes]
        if math.prod(counts) <= SAMPLED_BLOCKS:
            return super().background_pixels(count)
        down = round(math.sqrt(SAMPLED_BLOCKS * counts[0] / counts[1]))
        down = min(max(down, 1), counts[0], SAMPLED_BLOCKS)
        across = min(SAMPLED_BLOCKS // down, counts[1])
        chosen = [
            [(2 * k + 1) * every // (2 * some) for k in range(some)]
            for some, every in zip((down, across), counts, strict=True)
        ]
        cores = [self._core(key) for key in product(chosen[0], chosen[1])]
        ends = np.cumsum([math.prod(core.shape) for core in cores])
        pixels = pixels_from(int(ends[-1]), BACKGROUND_PIXELS)[:count]
        which = np.searchsorted(ends, pixels, side="right")
        starts = np.array([(c.rows.start, c.columns.start, c.shape[1]) for c in cores])
        top, left, widths = starts[which].T
        rows, columns = np.divmod(
            pixels - (ends - np.diff(ends, prepend=0))[which], widths
        )
        flat: NDArray[np.int64] = (rows + top) * self.shape[2] + columns + left
        return flat

    def _cores(self, area: Tile) -> Iterator[Key]:
        """Yield the blocks whose cores have pixels of an area."""
        if 0 in area.shape:
            return
        yield from product(
            *(
                range(span.start // axis.side, -(-span.stop // axis.side))
                for axis, span in zip(self.axes, area, strict=True)
            )
        )

    def _keys(self, area: Tile) -> list[Key]:
        """Return the blocks that count somewhere in an area."""
        down, across = (
            axis.touching(span) for axis, span in zip(self.axes, area, strict=True)
        )
        return list(product(down, across))

    def _inside(self, key: Key, area: Tile) -> Tile:
        return shared(self._core(key), area)

    def _core(self, key: Key) -> Tile:
        return Tile(self.axes[0].core(key[0]), self.axes[1].core(key[1]))

    def _window(self, key: Key) -> Tile:
        return Tile(self.axes[0].window(key[0]), self.axes[1].window(key[1]))

    def _weights(self, key: Key, area: Tile) -> list[Tensor]:
        return [
            torch.from_numpy(axis.weights(n, np.arange(span.start, span.stop)))
            for axis, n, span in zip(self.axes, key, area, strict=True)
        ]

    def _block(self, key: Key, stop: Stop = None) -> Features:
        """Return the features of a window, computed if they are not kept."""
        if (known := self._cache.get(key)) is not None:
            return known
        progress, other = _REPORT.get((None, None))
        steps = Steps(progress, lambda: bool((stop and stop()) or (other and other())))
        with self._computing:
            if (known := self._cache.get(key)) is not None:
                return known
            plans = self._maker.plans(self._window(key).shape)
            self._cache.make_room(sum(plan.token_bytes for plan in plans))
            spill = self._cache.spill
            tokens = spill.load(key) if spill else None
            block, found = self._maker.block(key, steps, tokens)
            if spill and tokens is None:
                spill.save(key, found)
            self._cache.put(key, block)
            return block


def block_features(
    image: ImageLike,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    boundary: str = "periodic",
    interpolation: str | None = None,
    debias: str = "none",
    compat: str = "corrected",
    value_range: tuple[float, float] | None = None,
    levels: tuple[float, float] | None = None,
    block: int = BLOCK,
    budget_bytes: int = BUDGET_BYTES,
    spill: str | os.PathLike[str] | None = None,
    spill_bytes: int = SPILL_BYTES,
) -> BlockFeatures:
    """Return the features of an image that need not be in memory.

    It is read once, part by part, for the range of its grey levels, their mean and
    their deviation; blocks are computed when they are asked for. The features are those
    of `compute_features` to rounding, if all of the backbone sees a known part of the
    image only. A Vision Transformer sees blocks that overlap, and is blended.

    Parameters
    ----------
    image : array_like
        (H, W) or (H, W, 3|4): what has a shape and a dtype and can be cut, such as an
        array of numpy, zarr or dask. Missing pixels get its median, see `filled`.
    progress, should_stop : callable, optional
        For reading the image; see `BlockFeatures.reporting` for what comes later.
    block : int
        Side of a block in pixels, about.
    budget_bytes : int
        Memory for blocks that are kept; those that were used least recently go. One
        is always kept.
    spill : path, optional
        Folder for blocks that go, up to `spill_bytes`; a new folder in it, which is
        gone with the features.
    backbone, transforms, stride, boundary, interpolation, debias, value_range, levels
        As for `compute_features`.

    Raises
    ------
    Cancelled
        When `should_stop` returned True.
    MemoryError
        If a block would not fit into memory.
    ValueError
        If an option needs the whole image: a backbone that divides it into regions,
        ``compat="reference"``, or interpolation "bilateral" or "jbu".
    """
    parts = parts_of(backbone)
    options = checked_options(
        parts,
        stride=stride,
        value_range=value_range,
        boundary=boundary,
        interpolation=interpolation,
        compat=compat,
        debias=debias,
        levels=levels,
    )
    check_can_be_cut(parts, options)
    if not hasattr(image, "dtype") or not hasattr(image, "shape"):
        image = np.asarray(image)
    # Of the right shape and type, without a pixel read.
    outline = channels_first(np.broadcast_to(np.zeros((), image.dtype), image.shape))
    channels, height, width = outline.shape
    plans = make_plans((height, width), channels, backbone, transforms, options)
    axes = block_axes((height, width), parts, plans, block)
    needed = block_estimate(
        (height, width),
        backbone,
        transforms,
        stride,
        image_channels=channels,
        interpolation=options.interpolation,
        debias=debias,
        block=block,
    )
    sides = axes[0].side, axes[1].side
    check_available(needed.peak_bytes, sides, parts[0].device, "smaller blocks")
    paddings = tuple(
        (plan.padded[0] - height, plan.padded[1] - width) for plan in plans
    )
    standardised = {
        padding
        for part, padding in zip(parts, paddings, strict=True)
        if not part.absolute_levels and options.levels is None
    }

    def tick(done: int, total: int) -> None:
        stop_if(should_stop, "reading the image")
        if progress is not None:
            progress(done, total)

    warn = any(part.absolute_levels for part in parts)
    statistics = read_statistics(image, value_range, standardised, warn=warn, tick=tick)
    kept = None if spill is None else Spill(spill, spill_bytes)
    maker = BlockMaker(
        image, channels, backbone, transforms, options, statistics, paddings, axes
    )
    return BlockFeatures(maker, BlockCache(budget_bytes, kept))
