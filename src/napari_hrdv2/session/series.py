"""The classifier for other images of a series: trained on demand, not while painting.

While one paints, each image keeps its own grey levels: the fit follows the brush only
as long as no features are computed anew. What leaves the window, into files or onto
many images, is trained as `segment` on the command line trains it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from napari_hrdv2.core.checks import filled, grey_if_equal
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.resampled import resampling_factors, resized_shape
from napari_hrdv2.core.series.training import train_series
from napari_hrdv2.files.units import common_size, pixel_ratio

from .blocks.maps import points_of
from .classifier import ClassifierState, seen_size
from .features import FeatureSource, FeatureStore
from .images import ImageEntry, Images
from .tasks import Task, TaskContext


@dataclass(frozen=True, eq=False)
class SeriesRequest:
    """The labelled images are to train a classifier for others.

    `known` are features that images have already, `fitted` the classifier of the
    session; the answer is as good without names and colours of the classes.
    """

    images: tuple[Any, ...]
    labels: tuple[Any, ...]
    exclusion: tuple[Any, ...]
    known: tuple[Any, ...]
    fitted: PixelClassifier
    options: FeatureOptions
    fingerprint: bytes
    pixel_ratios: tuple[tuple[float, float] | None, ...]  # to the size of all

    @property
    def text(self) -> str:
        """What it is going to take, in words."""
        count = len(self.images)
        factors = map(resampling_factors, self.pixel_ratios)
        shapes = [i.shape for i in self.images]
        largest = max(map(resized_shape, shapes, factors), key=math.prod)
        cost = estimate_cost(largest, self.options)
        if not cost.fits:
            raise ValueError(cost.refusal())
        each = f"features of {count} images" if count > 1 else "the features there are"
        return f"Training for the series on {each} ({cost.text()})."

    def __call__(
        self, context: TaskContext, source: FeatureSource | None = None
    ) -> PixelClassifier:
        """Return the classifier; see `train_series`."""
        source = source or FeatureSource.load(self.options, context)
        seen = np.asarray if self.options.channels else grey_if_equal
        start, ratios = self.fitted.untrained(), self.pixel_ratios
        start.tolerance = PixelClassifier().tolerance  # nobody waits at the brush
        return train_series(
            [seen(filled(np.asarray(image))) for image in self.images],
            self.labels,
            source.backbone,
            normalisation=self.options.normalisation,
            classifier=start,
            exclusion=self.exclusion,
            known=self.known,
            fitted=None if any(map(resampling_factors, ratios)) else self.fitted,
            pixel_ratios=ratios,
            progress=partial(context.progress, "Training for the series"),
            should_stop=context.should_stop,
            **self.options.choices,
        ).classifier


class Series:
    """The classifier that is used on other images than those of the session."""

    def __init__(
        self, images: Images, features: FeatureStore, classifier: ClassifierState
    ) -> None:
        self._images, self._features, self._state = images, features, classifier
        self._trained: tuple[bytes, PixelClassifier] | None = None

    @property
    def classifier(self) -> PixelClassifier | None:
        """That of the scribbles as they are now; the session's own where it serves.

        None until a `request` was answered that is needed.
        """
        if self._trained is not None and self._trained[0] == self._fingerprint():
            return self._trained[1]
        return None if self.request() else self._state.classifier

    def request(self) -> SeriesRequest | None:
        """Return what trains it; None where there is nothing to be trained.

        A loaded classifier is used as it is, and so is one whose images cannot be
        computed again, because they have regions from elsewhere or are in blocks.
        """
        state, entries = self._state, self.labelled()
        common = common_size([seen_size(one) for one in entries])
        fingerprint, classifier = self._fingerprint(), state.classifier
        is_there = self._trained is not None and self._trained[0] == fingerprint
        if classifier is None or state.is_loaded or is_there or not entries:
            return None
        if any(one.partition is not None or one.is_in_blocks for one in entries):
            return None
        ratios = tuple(pixel_ratio(one.pixel_size, common) for one in entries)
        # Features that were seen with the pixels that all are to have are taken.
        remaining = (pixel_ratio(seen_size(one), common) for one in entries)
        used = state.options or self._features.options_in_use
        options = FeatureOptions.of(classifier.part_options, used.device, used.weights)
        return SeriesRequest(
            tuple(one.image for one in entries),
            tuple(one.training_image().labels for one in entries),
            tuple(one.left_out for one in entries),
            tuple(
                None if resampling_factors(ratio) else one.features
                for one, ratio in zip(entries, remaining, strict=True)
            ),
            classifier,
            replace(options, normalisation=self._features.options.normalisation),
            fingerprint,
            ratios,
        )

    def accept(self, request: SeriesRequest, classifier: PixelClassifier) -> None:
        """Keep the answer to a request, for as long as the scribbles are those."""
        self._trained = request.fingerprint, classifier

    def with_painted(self, given: PixelClassifier | SeriesRequest) -> Task:
        """Return the request for a classifier that knows what was painted for it."""
        images = self._state.trained_by(self.labelled())

        def know(context: TaskContext) -> PixelClassifier:
            made = given(context) if isinstance(given, SeriesRequest) else given
            is_read = not any(made.mismatch(one.features) for one in images)
            if images and is_read and made.painted is None:
                made = copy.copy(made)
                made.painted = points_of(images)
            return made

        return know

    def labelled(self) -> list[ImageEntry]:
        """Return the images that train, whatever is known of the one on the screen."""
        made, classifier = self._state.options, self._state.classifier
        return [
            one
            for one in self._images.painted()
            if made is not None
            and classifier is not None
            and one.is_made_by(made)
            and one.training_features is not None
            and one.training_features.shape[0] == classifier.weight.shape[1]
        ]

    def _fingerprint(self) -> bytes:
        sizes = [seen_size(one) for one in self.labelled()]
        chosen = f"{self._features.options.normalisation}|{sizes}|"
        return chosen.encode() + self._state.fingerprint
