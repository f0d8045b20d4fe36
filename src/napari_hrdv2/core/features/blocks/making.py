"""One block of features, from a part of an image and what is known of all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.checks import PreparedImage
from napari_hrdv2.core.features.base import Features, JoinedFeatures
from napari_hrdv2.core.features.compute import Run, Steps
from napari_hrdv2.core.features.memory import Plan, make_plans, parts_of, reach_of
from napari_hrdv2.core.features.tiles import Tile, moved, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.features.transforms import TransformSet

    from .cache import Key
    from .grid import BlockAxis
    from .statistics import ImageLike, Statistics


@dataclass(frozen=True)
class BlockMaker:
    """What makes blocks of an image."""

    image: ImageLike
    channels: int
    backbone: Backbone | JoinedBackbone
    transforms: str | TransformSet
    options: FeatureOptions
    statistics: Statistics
    paddings: tuple[tuple[int, int], ...]  # of the parts of the backbone
    axes: tuple[BlockAxis, BlockAxis]

    def plans(self, shape: tuple[int, int]) -> list[Plan]:
        """Return the plans of a window of that shape."""
        return make_plans(
            shape, self.channels, self.backbone, self.transforms, self.options
        )

    def runs(
        self,
        seen: NDArray[np.float32],
        window: Tile,
        steps: Steps,
        ends: tuple[bool, bool] = (False, False),
    ) -> list[Run]:
        """Return the runs of all parts over a window of what is seen.

        `ends` says whether the image ends, below and at the right, where that does.
        """
        runs = []
        plans = self.plans(window.shape)
        parts = zip(parts_of(self.backbone), plans, self.paddings, strict=True)
        for part, plan, by in parts:
            pixels, place = seen, window
            extra: tuple[int, int] | None = ends[0] * by[0], ends[1] * by[1]
            if reach_of(part) is None:  # its window is all that it sees
                pixels = seen[:, window.rows, window.columns]
                place, extra = moved(window, window, -1), None
            prepared = PreparedImage(pixels, self.statistics.value_range)
            levels = self.statistics.levels.get(by)
            runs.append(
                Run(
                    prepared,
                    part,
                    plan,
                    self.options,
                    steps,
                    window=place,
                    padding=extra,
                    own_levels=None if part.absolute_levels else levels,
                )
            )
        return runs

    def block(
        self,
        key: Key,
        steps: Steps,
        tokens: Sequence[Tensor] | None = None,
    ) -> tuple[Features, list[Tensor]]:
        """Return the features of a block, and its tokens, which may be known."""
        pairs = list(zip(self.axes, key, strict=True))
        seen = Tile(*(axis.seen(number) for axis, number in pairs))
        window = Tile(*(within(axis.window(n), axis.seen(n)) for axis, n in pairs))
        if tokens is None:
            pixels = self.statistics.prepared(self.image, seen)
        else:
            pixels = np.empty((self.channels, 0, 0), np.float32)
        ends = (
            seen.rows.stop == self.axes[0].length,
            seen[1].stop == self.axes[1].length,
        )
        runs = self.runs(pixels, window, steps, ends)
        if tokens is None:
            steps.total = sum(run.length for run in runs)
            steps.count(0)
        found = list(tokens or (run.tokens() for run in runs))
        return _joined(
            [r.features_of(t) for r, t in zip(runs, found, strict=True)]
        ), found

    def smallest(self) -> Features:
        """Return features of next to nothing, which have the channels of all."""
        side = max(part.patch_size for part in parts_of(self.backbone))
        window = Tile(slice(0, side), slice(0, side))
        runs = self.runs(
            np.empty((self.channels, 0, 0), np.float32), window, Steps(None, None)
        )
        return _joined(
            [
                run.features_of(
                    torch.zeros(
                        len(run.plan.transforms.shifts()),
                        *run.plan.grid,
                        run.plan.channels,
                    )
                )
                for run in runs
            ]
        )


def _joined(parts: list[Features]) -> Features:
    return parts[0] if len(parts) == 1 else JoinedFeatures(parts)
