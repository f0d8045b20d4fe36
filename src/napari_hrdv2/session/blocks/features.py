"""Features of blocks: the room that they may take, and what is computed beforehand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
from napari_hrdv2.core.features.base import Features
from napari_hrdv2.core.features.blocks import BlockFeatures, block_features
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session.tasks import TaskContext

MOST_BYTES, _MOST_ON_DISK = 1_000_000_000, 10_000_000_000
_PART_OF_DISK = 4  # of what is free there
_STEPS = 1000  # of the progress of one block


@dataclass(frozen=True)
class BlockRoom:
    """How much of the features of blocks is kept, in memory and in a folder."""

    memory_bytes: int
    folder: Path
    disk_bytes: int
    block: int  # pixels along a side, about

    @classmethod
    def within(cls, budget_bytes: int, block: int) -> BlockRoom:
        """Return the room under a budget of memory, and in the user's cache."""
        folder = user_cache_path("napari-hrdv2", appauthor=False) / "blocks"
        there = next(one for one in (folder, *folder.parents) if one.exists())
        disk = shutil.disk_usage(there).free // _PART_OF_DISK
        return cls(budget_bytes, folder, min(disk, _MOST_ON_DISK), block)

    def features(
        self,
        image: Any,
        backbone: Backbone | JoinedBackbone,
        options: FeatureOptions,
        context: TaskContext,
    ) -> BlockFeatures:
        """Return the features of an image, which is read once, part by part.

        The background sample is computed at once: each fit needs it.
        """
        found = block_features(
            image,
            backbone,
            progress=partial(context.progress, "Reading the image"),
            should_stop=context.should_stop,
            levels=options.levels,
            block=self.block,
            budget_bytes=self.memory_bytes,
            spill=self.folder,
            spill_bytes=self.disk_bytes,
            pixel_ratio=options.pixel_ratio,
            **options.choices,
        )
        pixels = found.background_pixels()
        count = len(found.axes.apart(pixels))
        told = progress_over(count, "Computing the background sample", context)
        with found.reporting(told, context.should_stop):
            found.samples.background(len(pixels), context.should_stop)
        return found


def progress_over(
    total: int, stage: str, context: TaskContext
) -> Callable[[int, int], None]:
    """Return what tells of blocks one after the other as of one work."""
    finished = 0

    def progress(done: int, of: int) -> None:
        nonlocal finished
        part = min(_STEPS * done // max(of, 1), _STEPS)
        at = min(finished, total - 1) * _STEPS + part
        finished += done == of
        context.progress(stage, at, total * _STEPS)

    return progress


@contextmanager
def reporting(features: Sequence[Features], context: TaskContext) -> Iterator[None]:
    """Tell of the blocks that are computed within, where any are in blocks."""
    found = next((one for one in features if isinstance(one, BlockFeatures)), None)
    if found is None:
        yield
        return
    with found.reporting(partial(context.progress, "A block"), context.should_stop):
        yield
