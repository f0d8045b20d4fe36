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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_hrdv2.core.checks import check_whole
from napari_hrdv2.core.features.high_resolution import CONTEXT_CELLS
from napari_hrdv2.core.features.memory import (
    Estimate,
    Plan,
    check_can_be_cut,
    make_plans,
    parts_of,
    reach_of,
)
from napari_hrdv2.core.features.options import FeatureOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.transforms import TransformSet

BLOCK = 1024  # px along a block's side, by default
LEAST_BLOCK = 256
OVERLAP = 8  # patches around a core that its window has, if there is no reach
SEEN_PLANES = 4  # float32 planes of what is seen that there are at once
LEAST_MARGIN = 4  # tokens around a core, for the interpolation


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

    def touching(self, span: slice) -> range:
        """Return the numbers of the blocks that count somewhere in a stretch."""
        first = (span.start - self.blend) // self.side
        last = (span.stop - 1 + self.blend) // self.side
        return range(max(first, 0), min(last + 1, self.count))

    def weights(self, number: int, pixels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how much a block counts at (N,) pixels; all blocks together 1."""
        core, twice = self.core(number), 2 * self.blend
        weights = np.ones(len(pixels))
        if number > 0:
            within = pixels + 0.5 - (core.start - self.blend)
            weights *= np.clip(within / twice, 0, 1) if twice else within > 0
        if number < self.count - 1:
            within = core.stop + self.blend - (pixels + 0.5)
            weights *= np.clip(within / twice, 0, 1) if twice else within > 0
        return weights.astype(np.float32)


def block_axes(
    shape: Sequence[int],
    parts: Sequence[Backbone],
    plans: Sequence[Plan],
    block: int,
) -> tuple[BlockAxis, BlockAxis]:
    """Return both axes of an image of that shape, in blocks of about one size."""
    check_whole("block", block, LEAST_BLOCK, " of pixels")
    reaches = [reach_of(part) for part in parts]
    known = [reach for reach in reaches if reach is not None]
    aligned = [p for p, r in zip(parts, reaches, strict=True) if r is not None]
    cells = [part.context_cell for part in parts if part.context_cell]
    unit = math.lcm(*(plan.stride for plan in plans), *cells)
    margins = [LEAST_MARGIN * plan.stride for plan in plans]
    margins += [CONTEXT_CELLS * cell for cell in cells]
    patches = [
        part.patch_size for part, r in zip(parts, reaches, strict=True) if r is None
    ]
    margins += [OVERLAP * patch for patch in patches]
    margin = -(-max(margins) // unit) * unit
    # The outermost patch of a window shows what a shift has moved in.
    blend = margin - max(patches) if patches else 0
    alignment = math.lcm(1, *(part.alignment for part in aligned))
    down, across = (
        BlockAxis(
            length,
            max(-(-length // (-(-length // block) * unit)) * unit, 2 * blend),
            margin,
            blend,
            unit,
            max(known, default=0),
            alignment,
        )
        for length in shape
    )
    return down, across


def block_estimate(
    image_shape: tuple[int, int],
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    *,
    image_channels: int = 1,
    interpolation: str = "bilinear",
    debias: str = "none",
    block: int = BLOCK,
    budget_bytes: int = 0,
) -> Estimate:
    """Return the passes and the memory of an image block by block, nothing of it read.

    The memory is that of one block, and of those that are kept under the budget; it
    does not depend on the size of the image. The other arguments and the errors are
    those of `block_features`.
    """
    options = FeatureOptions(stride=stride, interpolation=interpolation, debias=debias)
    parts = parts_of(backbone)
    check_can_be_cut(parts, options)
    plans = make_plans(image_shape, image_channels, backbone, transforms, options)
    axes = block_axes(image_shape, parts, plans, block)
    middle = [(axis.count - 1) // 2 for axis in axes]
    sizes = [axis.window(n) for axis, n in zip(axes, middle, strict=True)]
    window = sizes[0].stop - sizes[0].start, sizes[1].stop - sizes[1].start
    seen = math.prod(
        span.stop - span.start
        for span in (axis.seen(n) for axis, n in zip(axes, middle, strict=True))
    )
    largest = make_plans(window, image_channels, backbone, transforms, options)
    one = sum(plan.token_bytes for plan in largest)
    count = math.prod(axis.count for axis in axes)
    kept = max(one, min(budget_bytes, count * one))
    working = max(plan.working_bytes for plan in largest)
    return Estimate(
        passes=count * sum(plan.passes for plan in largest),
        tokens=max(plan.tokens for plan in largest),
        token_bytes=kept,
        peak_bytes=kept + working + SEEN_PLANES * 4 * image_channels * seen,
    )
