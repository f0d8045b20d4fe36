"""What the pipeline takes and gives: snapshots of images, results, stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.measure import Fractions, PixelSize
    from napari_hrdv2.core.postprocess.refinement import Refinement

    from .planes import PlaneKey
    from .tasks.context import TaskContext

Window = tuple[slice, slice]
"""Rows and columns of an image."""


class Stage(IntEnum):
    """How far an image comes; its features are computed beforehand."""

    CLASSIFIER = 0
    SEGMENTATION = 1
    REFINEMENT = 2
    MEASUREMENT = 3


@dataclass(frozen=True, eq=False)
class Result:
    """A segmentation of an image.

    Attributes
    ----------
    labels : (H, W) int array
        Label ids as the classifier gave them; 0 where the image is excluded, and
        everywhere once the scribbles ceased to suffice.
    fractions : dict of int to float
        The phase fractions of what is shown.
    fingerprint : bytes
        Of the scribbles that it belongs to.
    refined : (H, W) int array or None
        The same after smoothing and cleaning, where that is wanted.
    refinement : Refinement or None
        What led from `labels` to `refined`; None where it is not known.
    classifier : PixelClassifier or None
        Which gave the labels; None where it is not known.
    """

    labels: NDArray[np.integer[Any]]
    fractions: dict[int, float]
    fingerprint: bytes
    refined: NDArray[np.integer[Any]] | None = None
    refinement: Refinement | None = None
    classifier: PixelClassifier | None = None

    @property
    def shown(self) -> NDArray[np.integer[Any]]:
        """The refined labels, or those of the classifier."""
        return self.labels if self.refined is None else self.refined

    def is_refined_by(self, refinement: Refinement) -> bool:
        """Whether what is shown is as this refinement would make it."""
        if self.refined is None:
            return refinement.is_off
        return self.refinement == refinement

    def unrefined(self, exclusion: NDArray[np.bool_] | None) -> Result:
        """Return the result as the classifier gave it."""
        fractions = label_fractions(self.labels, exclusion, self.classifier)
        return replace(self, refined=None, refinement=None, fractions=fractions)


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """What one image adds to the training; `labels` are its scribbles, 0 for none."""

    features: Any
    labels: NDArray[Any]
    exclusion: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class ImageSnapshot:
    """An image that is to be segmented, refined or measured.

    Attributes
    ----------
    key : PlaneKey
    name : str
    image : (H, W) or (H, W, 3|4) array, or Plane
    features : Features or None
        None to compute them on the way, and forget them.
    exclusion : (H, W) bool array or None
    pixel_size : tuple or None
    result : Result or None
        By the classifier in force, where that is known already.
    measured : Fractions or None
        Those of that result.
    is_final : bool
        Whether the result is measured as it is, whatever the refinement.
    """

    key: PlaneKey
    image: Any
    name: str = ""
    features: Any = None
    exclusion: NDArray[np.bool_] | None = None
    pixel_size: PixelSize | None = None
    result: Result | None = None
    measured: Fractions | None = None
    is_final: bool = False


@dataclass(frozen=True, eq=False)
class Preview:
    """Label ids of a window, ahead of those of the whole image."""

    key: PlaneKey
    window: Window
    labels: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class FeatureSource:
    """Computes features on the way, of images that have none."""

    options: FeatureOptions
    backbone: Backbone | JoinedBackbone

    @classmethod
    def load(cls, options: FeatureOptions, context: TaskContext) -> FeatureSource:
        """Load the backbone."""
        return cls(options, options.load(context.loading))

    def with_features(
        self, snapshot: ImageSnapshot, context: TaskContext
    ) -> ImageSnapshot:
        """Return an image with its features."""
        from napari_hrdv2.core.features.compute import compute_with

        image = np.asarray(snapshot.image)
        features = compute_with(
            self.options, image, self.backbone, should_stop=context.should_stop
        )
        return replace(snapshot, image=image, features=features)


def label_fractions(
    labels: NDArray[np.integer[Any]],
    exclusion: NDArray[np.bool_] | None = None,
    classifier: PixelClassifier | None = None,
) -> dict[int, float]:
    """Return the fraction of each class that occurs, of the pixels not excluded."""
    found = np.unique(labels) if classifier is None else classifier.classes
    total = labels.size - (0 if exclusion is None else int(exclusion.sum()))
    counts = {int(i): int(np.count_nonzero(labels == i)) for i in found if i}
    return {i: count / total for i, count in counts.items() if count}
