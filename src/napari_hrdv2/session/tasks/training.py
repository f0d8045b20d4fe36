"""From strokes to a classifier and a segmentation: request, work and answer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.context import TaskContext

Region = tuple[slice, slice]
"""Rows and columns of a picture."""

# A stroke is answered at once rather than to the last digit; about 99 % of pixels come
# out as after a full fit, where classes are hard to tell apart.
LIVE_TOLERANCE = 1e-4

_WORTH_TWO_STEPS = 2**21  # pixels; a smaller picture is there at once as a whole


@dataclass(frozen=True)
class Strokes:
    """What one picture adds to the training.

    Attributes
    ----------
    labels : (H, W) int array
        A snapshot of the scribbles; 0 is not labelled.
    exclusion : (H, W) bool array or None
        Where the picture is no material.
    """

    features: Any
    labels: NDArray[Any]
    exclusion: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class PartialResult:
    """Label ids of a region, ahead of those of the whole picture."""

    key: PlaneKey
    generation: int
    region: Region
    segmentation: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TrainResult:
    """The classifier, and by it the (H, W) label ids and the share of each class.

    Where the picture is excluded the label id is 0; the shares are of the rest.
    """

    key: PlaneKey
    generation: int
    fingerprint: bytes
    classifier: PixelClassifier
    segmentation: NDArray[np.integer[Any]]
    fractions: dict[int, float]


@dataclass(frozen=True)
class TrainRequest:
    """A segmentation of one picture, by a classifier of the strokes on one or more.

    Attributes
    ----------
    key : PlaneKey
        The picture to segment.
    digest : bytes
        Names the strokes that the answer belongs to.
    features : Features
        Of that picture.
    strokes : tuple of Strokes
        What to fit; empty to use `classifier` as it is.
    classifier : PixelClassifier or None
        The last fit, to start from. It is not changed.
    exclusion : (H, W) bool array or None
        Where the picture is no material.
    visible : tuple of two slices, optional
        What is on the screen, to be answered first.
    """

    key: PlaneKey
    generation: int
    fingerprint: bytes
    features: Any
    strokes: tuple[Strokes, ...]
    classifier: PixelClassifier | None
    exclusion: NDArray[np.bool_] | None = None
    visible: Region | None = None

    def answer(self, context: TaskContext) -> TrainResult:
        """Fit if there is something to fit, and segment."""
        from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier

        # A copy, so that the classifier in use never changes under its owner.
        classifier = copy.copy(self.classifier) or PixelClassifier(
            tolerance=LIVE_TOLERANCE
        )
        if self.strokes:
            classifier.fit(
                [one.features for one in self.strokes],
                [one.labels for one in self.strokes],
                exclusion=[one.exclusion for one in self.strokes],
                should_stop=context.should_stop,
            )
        if self.visible is not None and self._is_large:
            part = self._segment(classifier, self.visible, context)
            context.partial(
                PartialResult(self.key, self.generation, self.visible, part)
            )
        whole = self._segment(classifier, (slice(None), slice(None)), context)
        return TrainResult(
            self.key,
            self.generation,
            self.fingerprint,
            classifier,
            whole,
            shares(whole, classifier.classes.tolist(), self.exclusion),
        )

    @property
    def _is_large(self) -> bool:
        _, height, width = self.features.shape
        return bool(height * width > _WORTH_TWO_STEPS)

    def _segment(
        self, classifier: PixelClassifier, region: Region, context: TaskContext
    ) -> NDArray[np.integer[Any]]:
        labels = classifier.predict(
            self.features, region=region, should_stop=context.should_stop
        )
        if self.exclusion is not None:
            labels[self.exclusion[region]] = 0
        return labels


def shares(
    labels: NDArray[np.integer[Any]],
    classes: list[int],
    exclusion: NDArray[np.bool_] | None = None,
) -> dict[int, float]:
    """Return the share of each class that occurs, of the pixels not excluded."""
    total = labels.size - (0 if exclusion is None else int(exclusion.sum()))
    counts = {i: int(np.count_nonzero(labels == i)) for i in classes}
    return {i: count / total for i, count in counts.items() if count}
