"""A classifier that also knows the unlabelled pixels of the image that it is used on.

Self-training lets an image's unlabelled pixels say where the structures that were
painted end. A new image of a series has none of the labels, but its pixels say the same
of it: a background sample of it joins those of the labelled images, in the coordinates
and in the self-training, and the fit is done once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.features.sample_cache import (
    BACKGROUND_PIXELS,
    finite_rows,
)

from .background import BackgroundSample, PCACoordinates, whitening
from .fitting import SelfTrainingRounds, fit_with_self_training
from .joining import trusted
from .samples import LabelledImage, TrainingSamples, labelled_images

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import LinearModel

PREFIX = "trained_on_"  # of the arrays in a classifier's file


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
    def of(
        cls,
        features: Sequence[Features],
        labels: Sequence[ArrayLike],
        exclusion: Sequence[ArrayLike | None] | None = None,
        *,
        most_per_class: int | None,
        balanced: bool,
        by_place: bool,
    ) -> Self:
        """Return what a classifier with these options is trained on."""
        images = labelled_images(list(features), labels, exclusion)
        training = TrainingSamples.read(
            images, most_per_class, balanced=balanced, by_place=by_place
        )
        weigh = partial(trusted, training) if by_place else None
        sample = BackgroundSample.of(images, training.rows, weigh=weigh)
        weights = sample.channel_weights
        ones = np.ones(features[0].shape[0], np.float32)
        return cls(
            training.rows.astype(np.float16),
            training.index.astype(np.int64),
            training.weight,
            sample.rows.astype(np.float16),
            sample.is_free,
            ones if weights is None else weights.float().numpy(),
            np.array([whitening(training.places)], np.float32),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Return what the arrays of a file hold; None if they hold nothing of it."""
        names = [field.name for field in fields(cls)]
        if not any(name.startswith(PREFIX) for name in arrays):
            return None
        found = cls(*(arrays[PREFIX + name] for name in names))
        channels = found.channel_weights.shape
        if not (
            found.rows.ndim == found.background.ndim == 2
            and found.rows.shape[1:] == found.background.shape[1:] == channels
            and found.index.shape == found.weight.shape == found.rows.shape[:1]
            and found.is_free.shape == found.background.shape[:1]
            and found.whitening.shape == (1,)
        ):
            raise ValueError("training samples that do not fit each other")
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by the names that they have in a file."""
        return {PREFIX + f.name: getattr(self, f.name) for f in fields(self)}

    def fitted_with(
        self,
        features: Features,
        exclusion: ArrayLike | None = None,
        *,
        C: float,
        tolerance: float,
        self_training: bool,
        start: SelfTrainingRounds,
        should_stop: Callable[[], bool] | None = None,
    ) -> LinearModel:
        """Return the fit to this and to the unlabelled pixels of a new image.

        The options are those of `PixelClassifier`, `start` is where the fit begins.
        """
        nothing = np.zeros(features.shape[1:], np.uint8)
        (image,) = labelled_images([features], [nothing], [exclusion])
        new = background_rows(image, should_stop)
        rows = torch.from_numpy(self.rows.astype(np.float32))
        background = torch.from_numpy(
            np.concatenate([self.background.astype(np.float32), new])
        )
        is_free = torch.from_numpy(np.append(self.is_free, np.ones(len(new), bool)))
        coordinates = PCACoordinates.of(
            background, torch.from_numpy(self.channel_weights)
        ).including(rows, torch.from_numpy(self.index))
        free = coordinates(background[is_free]) if self_training else None
        return fit_with_self_training(
            coordinates(rows),
            self.index,
            coordinates=coordinates,
            regularisation=C,
            whitening=float(self.whitening[0]),
            sample_weight=self.weight,
            tolerance=tolerance,
            unlabelled=free,
            start=start,
            should_stop=should_stop,
        ).result


def background_rows(
    image: LabelledImage, should_stop: Callable[[], bool] | None
) -> NDArray[np.float32]:
    """Return the vectors of pixels from all over an image, all of them numbers."""
    rows = image.features.samples.background(BACKGROUND_PIXELS, should_stop)
    keep = finite_rows(rows)
    if image.exclusion is not None:
        pixels = image.features.background_pixels(BACKGROUND_PIXELS)
        keep &= ~image.exclusion.ravel()[pixels]
    return rows[keep]
