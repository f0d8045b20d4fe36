"""Uncertainty, label issues, validation, attention and regions: work in any thread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.cross_validation import HeldOut
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.guidance import LabelIssue, UncertainRegion
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.snapshots import TrainingImage

    from .context import TaskContext


@dataclass(frozen=True)
class UncertaintyMap:
    """How sure the classifier is at every pixel of an image."""

    key: PlaneKey
    class_id: int | None
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class UncertainRegions:
    """Regions of an image where a scribble would help, the best first."""

    key: PlaneKey
    version: int
    regions: tuple[UncertainRegion, ...]


@dataclass(frozen=True)
class LabelIssues:
    """The scribbles of an image that all the others contradict, the surest first.

    `fingerprint` is of the scribbles that were judged.
    """

    key: PlaneKey
    fingerprint: bytes
    label_issues: tuple[LabelIssue, ...]


@dataclass(frozen=True)
class ValidationResult:
    """How well each image is predicted from the scribbles on all others."""

    scores: dict[PlaneKey, HeldOut]
    mean: float
    text: str


@dataclass(frozen=True)
class Attention:
    """How much the class token looks at each pixel.

    `maps` is a (heads, H, W) float32 array; of a network of regions there is one, the
    attention flow.
    """

    key: PlaneKey
    backbone: str
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class Regions:
    """The regions that the features of an image stand for."""

    key: PlaneKey
    labels: NDArray[np.int32]
    borders: NDArray[np.bool_]
    count: int


def uncertainty_map(
    context: TaskContext,
    *,
    key: PlaneKey,
    classifier: PixelClassifier,
    features: Any,
    exclusion: NDArray[np.bool_] | None,
    class_id: int | None = None,
) -> UncertaintyMap:
    """Return the uncertainty, or the probability of one class."""
    from napari_hrdv2.core.guidance import probability_of, uncertainty_of

    stop = context.should_stop
    if class_id is None:
        values = uncertainty_of(classifier, features, should_stop=stop)
    else:
        values = probability_of(classifier, features, class_id, should_stop=stop)
    if exclusion is not None:
        values[exclusion] = 0
    return UncertaintyMap(key, class_id, values)


def find_uncertain_regions(
    context: TaskContext,
    *,
    key: PlaneKey,
    version: int,
    classifier: PixelClassifier,
    features: Any,
    exclusion: NDArray[np.bool_] | None,
    labels: NDArray[Any] | None,
) -> UncertainRegions:
    """Return where the classifier is undecided, away from the scribbles so far."""
    from napari_hrdv2.core.guidance import explained_by, uncertain_regions

    uncertainty = uncertainty_map(
        context,
        key=key,
        classifier=classifier,
        features=features,
        exclusion=exclusion,
    )
    found = uncertain_regions(
        uncertainty.values,
        labelled=labels,
        explain=explained_by(classifier, features),
    )
    return UncertainRegions(key, version, tuple(found))


def find_label_issues(
    context: TaskContext,
    *,
    key: PlaneKey,
    fingerprint: bytes,
    classifier: PixelClassifier,
    features: Any,
    labels: NDArray[Any],
    exclusion: NDArray[np.bool_] | None,
) -> LabelIssues:
    """Return which scribbles of an image are likely of the wrong class."""
    from napari_hrdv2.core import guidance

    found = guidance.find_label_issues(
        features,
        labels,
        classifier=classifier,
        exclusion=exclusion,
        should_stop=context.should_stop,
    )
    return LabelIssues(key, fingerprint, tuple(found))


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


def find_attention(
    context: TaskContext,
    *,
    key: PlaneKey,
    image: ArrayLike,
    options: FeatureOptions,
    backbone: Backbone | JoinedBackbone,
    partition: NDArray[Any] | None,
) -> Attention:
    """Run the backbone once more, for its attention, with the chosen transforms."""
    from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
    from napari_hrdv2.core.guidance.attention import attention_flow_map, attention_maps

    context.progress("Attention", 0, 0)
    if isinstance(backbone, SpitBackbone):
        flow = attention_flow_map(
            image, backbone, partition=partition, value_range=options.value_range
        )
        return Attention(key, options.backbone, flow[None])
    maps = attention_maps(
        image,
        backbone,
        options.transforms,
        options.stride,
        partial(context.progress, "Attention"),
        context.should_stop,
        interpolation=options.interpolation,
        value_range=options.value_range,
    )
    return Attention(key, options.backbone, maps)


def find_regions(context: TaskContext, *, key: PlaneKey, features: Any) -> Regions:
    """Read the regions off features that have any."""
    from napari_hrdv2.core.backbones.superpixels import borders
    from napari_hrdv2.core.guidance.attention import region_labels

    context.progress("Regions", 0, 0)
    labels = region_labels(features)
    return Regions(key, labels, borders(labels), int(labels.max()))
