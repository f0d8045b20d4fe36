"""Smoothing an image that is read block by block, as in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .blocks import Read, Window, Write, around
from .guides import REACH, guide_ends, guide_step, smoothed_guide, stretched_guide
from .smoothing import ITERATIONS, Planes, channels_of, smoothed

if TYPE_CHECKING:
    from torch import Tensor

    from .refinement import Refinement

Mask = Callable[[Window], NDArray[np.bool_] | None]


def smooth_blocks(
    image: Any,
    mask: Mask,
    read: Read,
    write: Write,
    blocks: Sequence[Window],
    classes: NDArray[Any],
    refinement: Refinement,
    tick: Callable[[], None],
) -> None:
    """Write the labels of smoothed probabilities, which `refine` has before cleaning.

    `read` gives (K, h, w) probabilities of any window, `mask` where nothing is told of
    one; around a block is read how far its pixels ask their neighbours.
    """
    guide = BlockGuide.of(image, mask, blocks, tick)
    times = 2 if refinement.smoothing == "guided" else ITERATIONS
    for block in blocks:
        tick()
        seen, inner = around(block, times * refinement.radius, image.shape)
        excluded = mask(seen)
        planes = smoothed(
            read(seen),
            guide(seen),
            refinement.smoothing,
            radius=refinement.radius,
            strength=refinement.strength,
            exclusion=excluded,
            tick=tick,
        )
        labels = classes[planes[:, *inner].argmax(axis=0)]
        if excluded is not None:
            labels[excluded[inner]] = 0
        write(block, labels)


@dataclass(frozen=True)
class BlockGuide:
    """What `guide_of` returns, window by window.

    `middle` is what stands where pixels are excluded, `ends` are the grey levels that
    become 0 and 1, both of the whole image; of many pixels a sample tells the middle.
    """

    image: Any
    mask: Mask
    middle: NDArray[np.float32]
    ends: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(
        cls, image: Any, mask: Mask, blocks: Sequence[Window], tick: Callable[[], None]
    ) -> BlockGuide:
        """Return the guide of an image, which is read twice."""
        guide = cls(image, mask, np.array([np.nan], np.float32))
        levels = guide._sampled(guide._levels, blocks, tick)
        known = [each[np.isfinite(each)] for each in levels]
        middle = [np.median(each) if len(each) else 0.0 for each in known]
        guide = replace(guide, middle=np.array(middle, np.float32))
        levels = guide._sampled(guide._smooth, blocks, tick)
        return replace(guide, ends=guide_ends(torch.from_numpy(np.concatenate(levels))))

    def __call__(self, window: Window) -> Planes:
        """Return a window of the image as (1 or 3, h, w) in 0..1."""
        return (self.in_bytes(window).float() / 255).numpy()

    def in_bytes(self, window: Window) -> Tensor:
        """Return the same in 0..255, as `guide_from` has it of the whole image."""
        assert self.ends is not None
        smooth = torch.from_numpy(self._smooth(window))
        return stretched_guide(smooth, self.ends)

    def _levels(self, window: Window) -> Planes:
        planes = channels_of(np.asarray(self.image[window], np.float32))
        excluded = self.mask(window)
        if excluded is None:
            return planes
        return np.where(excluded, self.middle[:, None, None], planes)

    def _smooth(self, window: Window) -> Planes:
        seen, inner = around(window, REACH, self.image.shape)
        planes = np.ascontiguousarray(self._levels(seen))
        return smoothed_guide(torch.from_numpy(planes))[:, *inner].numpy()

    def _sampled(
        self,
        read: Callable[[Window], Planes],
        blocks: Sequence[Window],
        tick: Callable[[], None],
    ) -> list[NDArray[np.float32]]:
        """Return the levels of each channel that tell of the whole image."""
        found = []
        for window in blocks:
            tick()
            planes = read(window)
            shape = len(planes), *self.image.shape[:2]
            rows, columns = (np.arange(span.start, span.stop) for span in window)
            lines = np.arange(len(planes))[:, None] * shape[1] + rows
            told = (lines[..., None] * shape[2] + columns) % guide_step(shape) == 0
            found.append([plane[at] for plane, at in zip(planes, told, strict=True)])
        return [np.concatenate(each) for each in zip(*found, strict=True)]
