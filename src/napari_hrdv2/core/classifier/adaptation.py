"""What a classifier keeps in order to also know unlabelled pixels of new images.

Self-training lets an image's unlabelled pixels say where the structures that were
painted end. A new image of a series has none of the labels, but its pixels say the same
of it: a background sample of it, aligned with those of the labelled images, joins them,
in the coordinates and in the self-training, and the fit is done once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .alignment import Alignment
from .background import BackgroundSample, PCACoordinates, whitening

if TYPE_CHECKING:
    from napari_hrdv2.core.features.tiles import LinearModel

    from .samples import TrainingSamples


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """What a classifier was trained on.

    The (N, C) feature vectors of labelled pixels, the `index` of the class of each and
    its `weight`; the (M, C) `background` sample, and which of it `is_free` of labels;
    the (C,) weights of the channels, and the `whitening` of its coordinates, (1,).
    """

    rows: NDArray[np.float16]
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    background: NDArray[np.float16]
    is_free: NDArray[np.bool_]
    channel_weights: NDArray[np.float32]
    whitening: NDArray[np.float32]

    @classmethod
    def of(cls, training: TrainingSamples, sample: BackgroundSample) -> TrainedOn:
        """Return what is to be kept of the samples of a fit."""
        return cls(
            training.rows.astype(np.float16),
            training.index.astype(np.int64),
            training.weight,
            sample.rows.astype(np.float16),
            sample.is_free,
            sample.channel_weights.float().numpy(),
            np.array([whitening(training.places)], np.float32),
        )

    def check(self, channels: int) -> None:
        """Raise ValueError unless it fits itself, and features of so many channels."""
        count, others = len(self.rows), len(self.background)
        if not (
            self.rows.shape == (count, channels)
            and self.index.shape == self.weight.shape == (count,)
            and self.background.shape == (others, channels)
            and self.is_free.shape == (others,)
            and self.channel_weights.shape == (channels,)
            and self.whitening.shape == (1,)
        ):
            raise ValueError("training samples that do not fit each other")

    def aligned(
        self, new: NDArray[np.float32], model: LinearModel
    ) -> tuple[Tensor, Alignment]:
        """Return the (M, C) rows of an image's pixels, aligned, and how they were."""
        rows, background = map(torch.from_numpy, (new, self.background))
        alignment = Alignment.of(rows, background.float(), model)
        return alignment(rows), alignment

    def with_new(self, new: Tensor) -> tuple[Tensor, PCACoordinates, Tensor]:
        """Return what a fit with the (M, C) rows of an image's pixels needs.

        These are the labelled rows, (N, C); coordinates that were found with the
        image's rows too; and all rows that are not labelled, the image's included.
        """
        rows, background = (
            torch.from_numpy(each.astype(np.float32))
            for each in (self.rows, self.background)
        )
        both = torch.cat([background, new])
        weights, index = map(torch.from_numpy, (self.channel_weights, self.index))
        coordinates = PCACoordinates.of(both, weights).including(rows, index)
        is_free = np.append(self.is_free, np.ones(len(new), bool))
        return rows, coordinates, both[torch.from_numpy(is_free)]
