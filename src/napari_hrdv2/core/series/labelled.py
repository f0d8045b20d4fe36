"""The labelled images of a series: their grey levels, and features made with these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.classifier.cross_validation import leave_one_image_out
from napari_hrdv2.core.errors import Stop, stop_if
from napari_hrdv2.core.features.levels import (
    Levels,
    aligned_levels,
    image_levels,
    mosaic,
    painted,
)
from napari_hrdv2.core.features.memory import parts_of
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.measure.comparison import known_mean

from .reading import levels_of

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.base import Features

PARTS = 100  # of the progress of a feature map


@dataclass
class LabelledSeries:
    """Labelled images of a series, and what is made of them.

    `known` are features of images that keep their own grey levels, where they are
    there; `ratios` as `pixel_ratios` of `train_series`.
    """

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
