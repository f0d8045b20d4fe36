"""Smoothing and cleaning a segmentation: the work, its request and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.postprocess.refinement import Refinement, clean, refine
from napari_hrdv2.session.tasks.training import PartialResult, Region, shares

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.image_entry import Result
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.context import ShouldStop, TaskContext

_WORTH_TWO_STEPS = 2**22  # pixels; a smaller picture is there soon as a whole


def refined(
    labels: NDArray[np.integer[Any]],
    classifier: PixelClassifier | None,
    features: Any,
    image: ArrayLike,
    refinement: Refinement,
    exclusion: NDArray[np.bool_] | None = None,
    *,
    region: Region | None = None,
    should_stop: ShouldStop | None = None,
) -> NDArray[np.integer[Any]]:
    """Return a segmentation smoothed and cleaned.

    Parameters
    ----------
    labels : (H, W) int array
        What the classifier gave on the features.
    classifier, features
        What gave the labels; used, and needed, for smoothing only.
    image : (H, W) or (H, W, 3|4) array
    refinement : Refinement
    exclusion : (H, W) bool array, optional
        Where the image is no material.
    region : tuple of two slices, optional
        The part to return, as if there was nothing beside it; by default the whole.
    should_stop : callable, optional
    """
    height, width = labels.shape
    region = region or (slice(0, height), slice(0, width))
    exclusion = None if exclusion is None else exclusion[region]
    if not refinement.smooths:
        return clean(
            labels[region],
            refinement.min_object,
            refinement.fill_holes,
            exclusion=exclusion,
            should_stop=should_stop,
        )
    assert classifier is not None
    return refine(
        classifier.predict_proba(features, region=region, should_stop=should_stop),
        np.asarray(image)[region],
        classifier.classes,
        refinement,
        exclusion=exclusion,
        should_stop=should_stop,
    )


@dataclass(frozen=True)
class Refined:
    """The answer to a `RefineRequest`.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    result : Result
        The one that was refined.
    refinement : Refinement
    labels : (H, W) int array
    fractions : dict of int to float
        The share of each class in these labels.
    """

    key: PlaneKey
    result: Result
    refinement: Refinement
    labels: NDArray[np.integer[Any]]
    fractions: dict[int, float]


@dataclass(frozen=True)
class RefineRequest:
    """The refinement of a segmentation, which itself stays as it is.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    result : Result
        What to refine.
    refinement : Refinement
    image : (H, W) or (H, W, 3|4) array
    features, classifier
        What gave the result; used, and needed, for smoothing only.
    exclusion : (H, W) bool array or None
    visible : tuple of two slices, optional
        What is on the screen, to be smoothed first in a large picture.
    """

    key: PlaneKey
    result: Result
    refinement: Refinement
    image: ArrayLike
    features: Any
    classifier: PixelClassifier | None
    exclusion: NDArray[np.bool_] | None = None
    visible: Region | None = None

    def answer(self, context: TaskContext) -> Refined:
        """Smooth and clean."""
        is_large = self.result.labels.size > _WORTH_TWO_STEPS
        if self.visible is not None and is_large and self.refinement.smooths:
            context.progress("Refining what is seen", 0, 2)
            context.partial(self._preview(self.visible, context))
        context.progress("Refining", 1, 2)
        labels = self._refined(None, self.refinement, context)
        fractions = shares(labels, self._classes(), self.exclusion)
        return Refined(self.key, self.result, self.refinement, labels, fractions)

    def _classes(self) -> list[int]:
        """Return the classes that can occur: smoothing may bring new ones."""
        if self.refinement.smooths and self.classifier is not None:
            return [int(i) for i in self.classifier.classes]
        return list(self.result.fractions)

    def _refined(
        self, region: Region | None, refinement: Refinement, context: TaskContext
    ) -> NDArray[np.integer[Any]]:
        return refined(
            self.result.labels,
            self.classifier,
            self.features,
            self.image,
            refinement,
            self.exclusion,
            region=region,
            should_stop=context.should_stop,
        )

    def _preview(self, visible: Region, context: TaskContext) -> PartialResult:
        """Smooth what is on the screen; objects may be cut off, so none are removed."""
        margin = 2 * self.refinement.radius  # beyond it, hardly anything has a say
        rows, columns = (
            slice(max(part.start - margin, 0), min(part.stop + margin, size))
            for part, size in zip(visible, self.result.labels.shape, strict=True)
        )
        alone = replace(self.refinement, min_object=0, fill_holes=0)
        labels = self._refined((rows, columns), alone, context)
        inner = tuple(
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(visible, (rows, columns), strict=True)
        )
        return PartialResult(self.key, 0, visible, labels[inner])
