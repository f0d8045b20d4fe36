"""Each image of a series, segmented by the labels of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import one_each

from .reading import reading_of
from .training import train_series

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.errors import Stop


@dataclass(frozen=True)
class LeftOut:
    """An image segmented by a classifier that was trained on all others."""

    index: int
    segmentation: NDArray[Any]
    classifier: PixelClassifier


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
