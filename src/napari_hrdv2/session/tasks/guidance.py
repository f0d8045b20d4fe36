"""Uncertainty, uncertain regions, label issues and validation: work in any thread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.cross_validation import HeldOut
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.guidance import LabelIssue, UncertainRegion
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.snapshots import ImageSnapshot, TrainingImage

    from .context import TaskContext


@dataclass(frozen=True)
class UncertaintyMap:
    """How sure the classifier is at every pixel of an image."""

    key: PlaneKey
    class_id: int | None  # whose probability it is; None for the uncertainty
    values: NDArray[np.uint8]  # in 255ths; 0 where the image is excluded


@dataclass(frozen=True)
class UncertainRegions:
    """Regions of an image where a scribble would help, the best first."""

    key: PlaneKey
    version: int
    regions: tuple[UncertainRegion, ...]


@dataclass(frozen=True)
class LabelIssues:
    """The scribbles of an image that all the others contradict, the surest first."""

    key: PlaneKey
    fingerprint: bytes  # of the scribbles that were judged
    label_issues: tuple[LabelIssue, ...]


@dataclass(frozen=True)
class ValidationResult:
    """How well each image is predicted from the scribbles on all others."""

    scores: dict[PlaneKey, HeldOut]
    mean: float  # IoU of those that could be scored; NaN if none could
    text: str


def uncertainty_map(
    context: TaskContext,
    *,
    image: ImageSnapshot,
    classifier: PixelClassifier,
    class_id: int | None = None,
) -> UncertaintyMap:
    """Return the uncertainty, or the probability of one class."""
    from napari_hrdv2.core.guidance import probability_of, uncertainty_of

    features, stop = image.features, context.should_stop
    if class_id is None:
        values = uncertainty_of(classifier, features, should_stop=stop)
    else:
        values = probability_of(classifier, features, class_id, should_stop=stop)
    if image.exclusion is not None:
        values[image.exclusion] = 0
    return UncertaintyMap(image.key, class_id, values)


def find_uncertain_regions(
    context: TaskContext,
    *,
    image: ImageSnapshot,
    classifier: PixelClassifier,
    labels: NDArray[Any] | None,
    version: int,
) -> UncertainRegions:
    """Return where the classifier is undecided, away from the scribbles so far."""
    from napari_hrdv2.core.guidance import explained_by, uncertain_regions

    found = uncertain_regions(
        uncertainty_map(context, image=image, classifier=classifier).values,
        scribbles=labels,
        explain=explained_by(classifier, image.features),
    )
    return UncertainRegions(image.key, version, tuple(found))


def find_label_issues(
    context: TaskContext,
    *,
    image: ImageSnapshot,
    classifier: PixelClassifier,
    labels: NDArray[Any],
    fingerprint: bytes,
) -> LabelIssues:
    """Return which scribbles of an image are likely of the wrong class."""
    from napari_hrdv2.core import guidance

    found = guidance.find_label_issues(
        image.features,
        labels,
        classifier=classifier,
        exclusion=image.exclusion,
        should_stop=context.should_stop,
    )
    return LabelIssues(image.key, fingerprint, tuple(found))


def validate(
    context: TaskContext,
    *,
    images: dict[PlaneKey, TrainingImage],
    names: dict[PlaneKey, str],
    classifier: PixelClassifier | None,
    class_names: dict[int, str],
) -> ValidationResult:
    """Predict each image from the scribbles on the others, and score it."""
    from napari_hrdv2.core.classifier.cross_validation import (
        leave_one_image_out,
        summary,
    )

    results = leave_one_image_out(
        [one.features for one in images.values()],
        [one.labels for one in images.values()],
        classifier=classifier,
        exclusion=[one.exclusion for one in images.values()],
        progress=partial(context.progress, "Leaving one image out"),
        should_stop=context.should_stop,
    )
    scored = [one.miou for one in results if not np.isnan(one.miou)]
    text = summary(results, names=tuple(names.values()), class_names=class_names)
    if len({key.image for key in images}) < len(images):
        text += (
            " Planes of one stack resemble each other: do not expect as much of "
            "another specimen."
        )
    mean = float(np.mean(scored)) if scored else float("nan")
    return ValidationResult(dict(zip(images, results, strict=True)), mean, text)
