"""One classifier trained on some images of a series, and whose grey levels it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from napari_hrdv2.core.checks import check_choice, one_each
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import fingerprint
from napari_hrdv2.core.features.levels import windows_of
from napari_hrdv2.core.features.memory import parts_of
from napari_hrdv2.core.features.options import NORMALISATION_CHOICES
from napari_hrdv2.core.features.resampled import compute_resampled
from napari_hrdv2.core.features.volumes import any_features
from napari_hrdv2.core.fingerprints import image_fingerprint

from .labelled import LabelledSeries

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features

KINDS = ("matched", "shared", "image")
WINDOWS = 4  # along each side of an image in blocks, each with features of its own
# Of mean IoU, before another normalisation than the first is taken: for two and three
# labelled images, then for more. Few images, predicted by even fewer, tell little.
CLEAR_LEADS, CLEAR_LEAD = {2: 0.4, 3: 0.1}, 0.05


@dataclass(frozen=True)
class TrainedSeries:
    """A classifier of several images, and their features.

    `scores` are the mean IoU of each normalisation that was tried by leaving one image
    out, on its scribbles.
    """

    classifier: PixelClassifier
    features: tuple[Features, ...]
    scores: dict[str, float]


def train_series(
    images: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    backbone: Backbone | JoinedBackbone,
    *,
    normalisation: str = "auto",
    classifier: PixelClassifier | None = None,
    exclusion: Sequence[ArrayLike | None] | None = None,
    known: Sequence[Features | None] | None = None,
    fitted: PixelClassifier | None = None,
    pixel_ratios: Sequence[tuple[float, float] | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Stop = None,
    blocks: bool = False,
    **options: Any,
) -> TrainedSeries:
    """Return a classifier trained on some images, to be used on others like them.

    Parameters
    ----------
    images : sequence of (H, W) or (H, W, 3|4) arrays
    labels : sequence of (H, W) arrays of int
        0 where a pixel is not labelled. Each image has some labels.
    backbone : Backbone
    normalisation : {"auto", "image", "shared", "matched"}
        Whose grey levels a backbone that standardises images takes: each image's own,
        those of the labelled images, or those under which the image's grey levels are
        most likely as a mixture of what the classes have in the labelled images, see
        `Normalisation`. "auto" is "matched", unless the scribbles of each image are
        clearly better predicted from those of the others by another one.
    classifier : PixelClassifier, optional
        Its options are used. It is left as it is.
    exclusion : sequence of (H, W) bool arrays or None, optional
        Where an image shows no material.
    known : sequence of Features or None, optional
        The features of images that keep their own grey levels, where they are there.
    fitted : PixelClassifier, optional
        One that was trained on such features of all images: it is taken as it is if it
        was on these labels, and the images do keep their own.
    pixel_ratios : sequence of two float or None, optional
        How many times as high and wide the pixels of each image are as those that all
        are to be seen with; see `resampling_factors`.
    progress : callable, optional
        Called as ``progress(done, total)`` while features are computed.
    should_stop : callable, optional
        Ends it by returning True; `Cancelled` is raised.
    blocks : bool
        Whether features are those of `block_features`, of images that may stay in
        their files. "auto" is then "image", and others see windows from all over.
    options
        The other ones of :func:`~napari_hrdv2.compute_features`.

    Returns
    -------
    TrainedSeries
        Its classifier's `normalisation` says what was chosen and why.
    """
    check_choice("normalisation", normalisation, NORMALISATION_CHOICES)
    if not len(images) == len(labels) > 0:
        raise ValueError(
            f"labels: {len(labels)} label images for {len(images)} images; give as many"
        )
    masks = one_each("exclusion", exclusion, len(images))
    arrays = [np.asarray(each) for each in labels]
    for number, each in enumerate(arrays, start=1):
        if not each.any():
            raise ValueError(f"labels: nothing is labelled in image {number}")
    given: list[Any] = [image if blocks else np.asarray(image) for image in images]
    kinds, reason = _kinds(normalisation, backbone, len(images))
    if options.get("channels") and kinds != ("image",):
        check_choice("normalisation", normalisation, ("auto", "image"))
        kinds, reason = ("image",), "each channel has its own grey levels"
    elif blocks and normalisation == "auto" and kinds != ("image",):
        kinds, reason = ("image",), "images are read block by block"
    series = LabelledSeries(
        given,
        arrays,
        masks,
        backbone,
        classifier or PixelClassifier(),
        options,
        progress,
        len(images) * (len(kinds) + (len(kinds) > 1)),
        should_stop,
        one_each("known", known, len(images), "features"),
        one_each("pixel_ratios", pixel_ratios, len(images), "ratios"),
        any_features if blocks else compute_resampled,
        [windows_of(i.shape, WINDOWS if blocks else max(i.shape)) for i in given],
    )
    tried = {kind: series.features(kind) for kind in kinds}
    scores: dict[str, float] = {}
    if len(kinds) > 1:
        scores = {kind: series.score(kind, tried[kind]) for kind in kinds}
        kinds, reason = _best(scores, len(images))
    (kind,) = kinds
    features = tried[kind]
    levels = series.levels(kind)
    is_fitted = fitted is not None and fitted.labels_hash == fingerprint(arrays)
    if fitted is not None and is_fitted and not any(levels):
        model = fitted.light_copy()
    else:
        model = series.classifier.untrained()
        model.fit(features, arrays, exclusion=masks, should_stop=should_stop)
    made = series.normalisation(kind, range(len(images)), features, model)
    ours = tuple(zip(map(image_fingerprint, series.images), levels, strict=True))
    model.normalisation = replace(made, known=ours, reason=reason)
    model.keep_training(features, arrays, masks)
    return TrainedSeries(model, tuple(features), scores)


def _best(scores: dict[str, float], images: int) -> tuple[tuple[str, ...], str]:
    """Return the first kind, unless another is clearly better, and that in words."""
    first = next(iter(scores))
    known = {kind: score for kind, score in scores.items() if not np.isnan(score)}
    best = max(known, key=lambda kind: known[kind], default=first)
    lead = CLEAR_LEADS.get(images, CLEAR_LEAD)
    if best != first and known[best] < known.get(first, -1.0) + lead:
        best = first
    compared = ", ".join(f"{kind} {score:.2f}" for kind, score in scores.items())
    return (best,), f"images predict each other (mean IoU: {compared})"


def _kinds(
    normalisation: str, backbone: Backbone | JoinedBackbone, images: int
) -> tuple[tuple[str, ...], str]:
    """Return the normalisations to try, and the reason where there is only one."""
    if all(part.absolute_levels for part in parts_of(backbone)):
        return ("image",), f"{backbone.name} sees grey levels as they are"
    if normalisation != "auto":
        return (normalisation,), "chosen"
    if images == 1:
        return ("matched",), "only one image is labelled"
    return KINDS, ""
