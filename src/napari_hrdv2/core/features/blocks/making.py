"""One block of features, from a part of an image and what is known of all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hrdv2.core.checks import PreparedImage, bands_of
from napari_hrdv2.core.features.base import Features, JoinedFeatures
from napari_hrdv2.core.features.compute import Run, Steps
from napari_hrdv2.core.features.memory import Plan, make_plans, parts_of, reach_of
from napari_hrdv2.core.features.resampled import PartAxis, ResampledFeatures
from napari_hrdv2.core.features.tiles import Tile, moved
from napari_hrdv2.core.postprocess.smoothing_blocks import BlockGuide

from .statistics import ImageLike, Prepared, Statistics, bands_in

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.features.transforms import TransformSet

    from .grid import BlockGrid, Key


@dataclass(frozen=True)
class BlockMaker:
    """What makes blocks of an image."""

    image: ImageLike
    channels: int
    backbone: Backbone | JoinedBackbone
    transforms: str | TransformSet
    options: FeatureOptions
    statistics: tuple[Statistics, ...]  # of each channel, or of all that there is
    paddings: tuple[tuple[int, int], ...]  # of the parts of the backbone, for each
    grid: BlockGrid
    before: BlockGrid | None = None  # that of the image before it was resized, if it is
    ends: tuple[Any, ...] = ()  # those of `BlockGuide`, where there are guides

    def plans(self, shape: tuple[int, int]) -> list[Plan]:
        """Return the plans of a window of that shape."""
        given = self.channels, self.backbone, self.transforms, self.options
        return make_plans(shape, *given)

    def tokens(self, key: Key, steps: Steps) -> list[Tensor]:
        """Return the tokens of a block, of each part of the backbone."""
        seen, window = self.grid.seen(key), self.grid.window(key)
        part, whole = np.asarray(self.image[tuple(seen)]), moved(seen, seen, -1)
        bands = bands_of(part, self.options.channel_names)
        channels = zip(self.statistics, bands, strict=True)
        pixels = [known.prepared(band, whole) for known, band in channels]
        ends = [s.stop == axis.length for s, axis in zip(seen, self.grid, strict=True)]
        runs = self._runs(pixels, moved(window, seen, -1), steps, ends)
        steps.total = sum(run.length for run in runs)
        steps.count(0)
        return [run.tokens() for run in runs]

    def features(
        self, window: Tile, tokens: Sequence[Tensor], steps: Steps
    ) -> Features:
        """Return the features of a window, from its tokens."""
        # They are not looked at any more.
        pixels = [np.empty((self.channels, 0, 0), np.float32)] * len(self.statistics)
        runs = self._runs(pixels, moved(window, window, -1), steps)
        made = [guide.in_bytes(window) for guide in self._guides(self.ends)]
        guides: Sequence[Any] = made or [None] * len(self.statistics)
        given = product(guides, parts_of(self.backbone))
        each = zip(runs, tokens, given, strict=True)
        parts = [run.features_of(of, guide) for run, of, (guide, _) in each]
        return parts[0] if len(parts) == 1 else JoinedFeatures(parts)

    def block(self, key: Key, tokens: Sequence[Tensor], steps: Steps) -> Features:
        """Return the features of a block's window, from its tokens."""
        seen = self.grid.window(key)
        found = self.features(seen, tokens, steps)
        if self.before is None:
            return found
        window = self.before.window(key)
        given = zip(window, self.before, seen, self.grid, strict=True)
        axes = [
            PartAxis(part.start, whole.length, there.start, resized.length)
            for part, whole, there, resized in given
        ]
        return ResampledFeatures(found, window.shape, axes)

    def with_guides(self, tick: Callable[[], None]) -> BlockMaker:
        """Return it with what guides the upsampling, for which the image is read."""
        whole = Tile(*(slice(0, axis.length) for axis in self.grid))
        cores = [self.grid.core(key) for key in self.grid.in_area(whole)]
        unknown = self._guides([None] * len(self.statistics))
        found = [guide.of(guide.image, guide.mask, cores, tick) for guide in unknown]
        return replace(self, ends=tuple(guide.ends for guide in found))

    def _guides(self, ends: Sequence[Any]) -> list[BlockGuide]:
        """Return the prepared image, or each of its channels, as guides."""
        bands = bands_in(self.image, self.options.channel_names)
        prepared = map(Prepared, bands, self.statistics)
        middle = np.zeros(3, np.float32)
        return [
            BlockGuide(one, lambda window: None, middle, each)
            for each, one in zip(ends, prepared, strict=False)
        ]

    def smallest(self) -> Features:
        """Return features of next to nothing, which have the channels of all."""
        side = max(part.patch_size for part in parts_of(self.backbone))
        tokens = [
            torch.zeros(len(plan.transforms.shifts()), *plan.grid, plan.channels)
            for plan in self.plans((side, side))
        ]
        window = Tile(slice(0, side), slice(0, side))
        return self.features(window, tokens, Steps(None, None))

    def _runs(
        self,
        seen: Sequence[NDArray[np.float32]],
        window: Tile,
        steps: Steps,
        ends: Sequence[bool] = (False, False),
    ) -> list[Run]:
        """Return the runs of all parts over a window of what is seen of each channel.

        `ends` says whether the image ends, below and at the right, where that does.
        """
        runs = []
        names = self.options.channel_names or ("",)
        channels = zip(seen, self.statistics, names, strict=True)
        given = product(channels, parts_of(self.backbone))
        parts = zip(given, self.plans(window.shape), self.paddings, strict=True)
        for ((pixels, known, name), part), plan, by in parts:
            place = window
            padding: tuple[int, int] | None = ends[0] * by[0], ends[1] * by[1]
            if reach_of(part) is None:  # its window is all that it sees
                pixels = pixels[:, window.rows, window.columns]
                place, padding = moved(window, window, -1), None
            levels = None if part.absolute_levels else known.levels.get(by)
            run = Run(
                PreparedImage(pixels, known.value_range),
                part,
                plan,
                self.options,
                steps,
                window=place,
                padding=padding,
                own_levels=levels,
                channel=name,
            )
            runs.append(run)
        return runs
