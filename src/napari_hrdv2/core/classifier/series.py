"""One classifier for a series of images: whose grey levels, and how well it carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import check_choice, one_each
from napari_hrdv2.core.errors import Stop, stop_if
from napari_hrdv2.core.features.levels import (
    Levels,
    aligned_levels,
    image_levels,
    mosaic,
    painted,
    windows_of,
)
from napari_hrdv2.core.features.memory import parts_of
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.features.options import NORMALISATION_CHOICES
from napari_hrdv2.core.features.resampled import compute_resampled
from napari_hrdv2.core.features.volumes import any_features
from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.core.measure.comparison import known_mean

from .cross_validation import leave_one_image_out
from .pixel_classifier import PixelClassifier
from .reading import Reading, levels_of, read_image

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.base import Features

PARTS = 100  # of the progress of a feature map
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


@dataclass(frozen=True)
class LeftOut:
    """An image segmented by a classifier that was trained on all others."""

    index: int
    segmentation: NDArray[Any]
    classifier: PixelClassifier


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
        One that was trained on the labels and such features of all images: it is taken
        as it is if the images do keep their own.
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
    series = _Series(
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
    if fitted is not None and not any(levels):
        model = fitted.light_copy()
    else:
        model = series.classifier.untrained()
        model.fit(features, arrays, exclusion=masks, should_stop=should_stop)
    made = series.normalisation(kind, range(len(images)), features, model)
    ours = tuple(zip(map(image_fingerprint, series.images), levels, strict=True))
    model.normalisation = replace(made, known=ours, reason=reason)
    model.keep_training(features, arrays, masks)
    return TrainedSeries(model, tuple(features), scores)


def reading_of(
    classifier: PixelClassifier,
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    *,
    exclusion: ArrayLike | None = None,
    pixel_ratio: tuple[float, float] | None = None,
    **options: Any,
) -> Reading:
    """Return an image as a classifier of a series sees it, and how doubtful that is.

    Its features, and the classifier adapted to it, unless it was trained on it or its
    images keep their own grey levels. The others are those of `compute_resampled`.
    """
    whole, stop = np.asarray(image), options.get("should_stop")

    def compute(part: NDArray[Any], levels: Levels | None) -> Features:
        about = options if part is whole else {**options, "progress": None}
        return compute_resampled(part, backbone, pixel_ratio, levels=levels, **about)

    about: dict[str, Any] = {"exclusion": exclusion, "should_stop": stop}
    return read_image(classifier, whole, compute, **about)


def predict_left_out(
    images: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    backbone: Backbone | JoinedBackbone,
    *,
    should_stop: Stop = None,
    normalisation: str = "auto",
    exclusion: Sequence[ArrayLike | None] | None = None,
    pixel_ratios: Sequence[tuple[float, float] | None] | None = None,
    **options: Any,
) -> Iterator[LeftOut]:
    """Yield each image segmented by a classifier that saw only the others' labels.

    Parameters are as for `train_series`, and `options` for `compute_features`. Two
    images at least are needed.
    """
    if len(images) < 2:
        raise ValueError("images: two at least are needed to leave one out")
    masks = one_each("exclusion", exclusion, len(images))
    ratios = one_each("pixel_ratios", pixel_ratios, len(images), "ratios")
    options["should_stop"] = should_stop
    for index, image in enumerate(images):
        others = [n for n in range(len(images)) if n != index]
        classifier = train_series(
            [images[n] for n in others],
            [labels[n] for n in others],
            backbone,
            normalisation=normalisation,
            exclusion=[masks[n] for n in others],
            pixel_ratios=[ratios[n] for n in others],
            **options,
        ).classifier
        read = reading_of(
            classifier,
            image,
            backbone,
            exclusion=masks[index],
            pixel_ratio=ratios[index],
            **options,
        )
        yield LeftOut(index, read.predict(should_stop=should_stop), read.classifier)


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


@dataclass
class _Series:
    """Labelled images, and what is made of them."""

    images: list[Any]
    labels: list[NDArray[Any]]
    masks: list[ArrayLike | None]
    backbone: Backbone | JoinedBackbone
    classifier: PixelClassifier
    options: dict[str, Any]
    progress: Callable[[int, int], None] | None
    maps: int  # that are to be computed
    should_stop: Stop
    known: list[Features | None]
    ratios: list[tuple[float, float] | None]
    compute: Callable[..., Features]
    windows: list[list[tuple[slice, slice]]]  # that are looked at of each image
    done: int = 0  # of the maps

    def levels(self, kind: str) -> list[Levels | None]:
        """Return the levels of each image; None for its own."""
        if kind == "image" or len(self.images) == 1:
            return [None] * len(self.images)
        seen, masks = self._seen(range(len(self.images)))
        if kind == "shared":
            return [image_levels(seen, masks)] * len(seen)
        pixels, drawn = zip(*map(painted, self.images, self.labels), strict=True)
        own = [image_levels([each]) for each in seen]
        mixed = any(part.absolute_levels for part in parts_of(self.backbone))
        return list(aligned_levels(pixels, drawn, own, exchanges=not mixed))

    def features(self, kind: str) -> list[Features]:
        """Return the features of all images."""
        given = zip(self.known, self.levels(kind), strict=True)
        return [
            known if known and not levels else self._computed(index, levels)
            for index, (known, levels) in enumerate(given)
        ]

    def score(self, kind: str, features: list[Features]) -> float:
        """Return the mean IoU of each image predicted by the others; NaN for none."""

        def seen(
            index: int, model: PixelClassifier
        ) -> tuple[Features, PixelClassifier]:
            rest = [i for i in range(len(self.images)) if i != index]
            given: Any = features, self.labels, self.masks
            known, labels, masks = ([each[i] for i in rest] for each in given)
            new, mask = features[index], self.masks[index]
            fitted, model = model, model.light_copy()
            model.keep_training(known, labels, masks)
            about: Any = {"exclusion": mask, "should_stop": self.should_stop}
            if kind == "matched":
                model.normalisation = self.normalisation(kind, rest, known, fitted)
                windows = self.windows[index]
                given = model, self.images[index], self._features_of(index)
                levels, _ = levels_of(*given, windows=windows, **about)
                new = self._computed(index, levels)
            return new, model.adapted_to(new, **about)

        results = leave_one_image_out(
            features,
            self.labels,
            classifier=self.classifier,
            exclusion=self.masks,
            seen_by=seen if kind != "image" else None,
            should_stop=self.should_stop,
        )
        return known_mean(each.miou for each in results)

    def normalisation(
        self,
        kind: str,
        chosen: Sequence[int],
        features: Sequence[Features],
        model: PixelClassifier,
    ) -> Normalisation:
        """Return what brings new images to some of these, which a model has learnt."""
        if kind == "image":
            return Normalisation()
        seen, masks = self._seen(chosen)
        if kind == "shared":
            return Normalisation("shared", image_levels(seen, masks))
        every = self.levels(kind)
        own = [image_levels([i], [mask]) for i, mask in zip(seen, masks, strict=True)]
        levels = [every[i] or known for i, known in zip(chosen, own, strict=True)]
        found = []
        for i, made in zip(chosen, features, strict=True):
            read = partial(model.predict, made, should_stop=self.should_stop)
            found.append(np.concatenate([read(region=one) for one in self.windows[i]]))
        return Normalisation.matched(seen, levels, found, exclusion=masks)

    def _seen(self, chosen: Sequence[int]) -> tuple[list[Any], list[Any]]:
        """Return what is looked at of images, and of their masks."""
        of = self.images, self.masks
        seen, masks = ([mosaic(e[i], self.windows[i]) for i in chosen] for e in of)
        return seen, masks

    def _computed(self, index: int, levels: Levels | None) -> Features:
        stop_if(self.should_stop, "training on a series")
        compute = self._features_of(index, progress=self._report)
        features = compute(self.images[index], levels)
        self.done += 1
        return features

    def _features_of(
        self, index: int, **about: Any
    ) -> Callable[[Any, Levels | None], Features]:
        """Return what computes the features of an image, or of a part of it."""

        def compute(image: Any, levels: Levels | None) -> Features:
            return self.compute(
                image,
                self.backbone,
                self.ratios[index],
                levels=levels,
                should_stop=self.should_stop,
                **about,
                **self.options,
            )

        return compute

    def _report(self, done: int, total: int) -> None:
        """Report the progress of one of several feature maps."""
        if self.progress is not None:
            part = PARTS * done // total if total else 0
            before = min(self.done, self.maps - 1)  # slices are computed later, too
            self.progress(before * PARTS + part, self.maps * PARTS)
