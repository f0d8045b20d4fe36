"""Whether one classifier serves many images: each is predicted by all the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.errors import Stop, stop_if
from napari_hrdv2.core.measure.scores import iou_per_class

from .pixel_classifier import PixelClassifier
from .samples import MOST_PER_CLASS, labelled_images, labelled_pixels, subsampled

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

    Seen = tuple[Features, PixelClassifier]


@dataclass(frozen=True)
class HeldOut:
    """How well the scribbles of one image are predicted from those of all others."""

    index: int
    miou: float = float("nan")  # mean of `iou`; NaN if there is nothing to score
    accuracy: float = float("nan")  # fraction of the scored pixels that are right
    iou: dict[int, float] = field(default_factory=dict)  # of classes found elsewhere
    missing: tuple[int, ...] = ()  # classes that no other image teaches: not scored
    pixels: int = 0


def leave_one_image_out(
    features: Sequence[Features],
    labels: Sequence[ArrayLike],
    *,
    classifier: PixelClassifier | None = None,
    exclusion: Sequence[ArrayLike | None] | None = None,
    seen_by: Callable[[int, PixelClassifier], Seen] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Stop = None,
) -> list[HeldOut]:
    """Return how well each image's scribbles are predicted from the other images'.

    Without a score where nothing is painted, or where fewer than two classes are
    painted elsewhere.

    Parameters
    ----------
    features : sequence of Features
    labels : sequence of (H, W) arrays of int
        0 where a pixel is not labelled.
    classifier : PixelClassifier, optional
        Its options are used. It is left as it is.
    exclusion : sequence of (H, W) bool arrays or None, optional
        Where an image shows no material.
    seen_by : callable, optional
        Returns the features of the image of an index as the classifier of the others
        would be given them, and what that would become; both as they are by default.
    """
    images = labelled_images(list(features), labels, exclusion)
    classes = [np.unique(image.labels.ravel()[image.pixels]) for image in images]
    if (count := sum(len(each) > 0 for each in classes)) < 2:
        raise ValueError(
            "labels: scribbles in two images at least are needed to leave one out, "
            f"{count} have any"
        )
    # One model for all: every fit starts from the last, which differs little.
    model = (classifier or PixelClassifier()).untrained()
    results = []
    for index, image in enumerate(images):
        stop_if(should_stop, "leaving one image out")
        rest = [i for i in range(len(images)) if i != index and len(classes[i])]
        taught = np.unique(np.concatenate([classes[i] for i in rest]))
        missing = tuple(np.setdiff1d(classes[index], taught).tolist())
        scored = np.isin(image.labels, np.intersect1d(classes[index], taught))
        if len(taught) < 2 or not scored.any():
            results.append(HeldOut(index, missing=missing))
        else:
            model.fit(
                [images[i].features for i in rest],
                [images[i].labels for i in rest],
                exclusion=[images[i].exclusion for i in rest],
                should_stop=should_stop,
            )
            truth = np.where(scored, image.labels, 0)
            seen, used = seen_by(index, model) if seen_by else (image.features, model)
            results.append(_scored(index, used, seen, truth, missing))
        if progress is not None:
            progress(index + 1, len(images))
    return results


def _scored(
    index: int,
    model: PixelClassifier,
    features: Features,
    truth: NDArray[Any],
    missing: tuple[int, ...],
) -> HeldOut:
    """Score those pixels of scribbles that would train, each for all it stands for."""
    model.check_can_read(features)
    labelled = labelled_pixels(truth)
    pixels, counts = subsampled(truth, labelled, model.most_per_class)
    found, orders = [], []
    for start in range(0, len(pixels), MOST_PER_CLASS):  # not too much at once
        rows, order = features.samples.rows(pixels[start : start + MOST_PER_CLASS])
        logits = rows @ model.weight.T + model.bias
        found.append(model.classes[logits.argmax(axis=1)])
        orders.append(order)
    predicted, order = np.concatenate(found), np.concatenate(orders)
    true, weights = truth.ravel()[order], counts[np.searchsorted(pixels, order)]
    ids = np.unique(true).tolist()
    scores = iou_per_class(true, predicted, ids, weights)
    return HeldOut(
        index,
        miou=float(scores.mean()),
        accuracy=float(np.average(true == predicted, weights=weights)),
        iou=dict(zip(ids, scores.tolist(), strict=True)),
        missing=missing,
        pixels=len(labelled),
    )


def summary(
    results: Sequence[HeldOut],
    *,
    names: Sequence[str] | None = None,
    class_names: Mapping[int, str] | None = None,
) -> str:
    """Return in a few sentences whether the classifier transfers.

    `names` are those of the images; "image 1", "image 2" … otherwise.

    >>> summary([HeldOut(0, 0.9), HeldOut(1, 0.5), HeldOut(2)]).split("; ")[1]
    'the lowest is image 2 with 0.50. Not scored at all: image 3.'
    """
    named = list(names) if names is not None else []

    def name(index: int) -> str:
        return named[index] if index < len(named) else f"image {index + 1}"

    scored = [each for each in results if not np.isnan(each.miou)]
    sentences = ["No image could be scored"]
    if scored:
        mean = float(np.mean([each.miou for each in scored]))
        worst = min(scored, key=lambda each: each.miou)
        count = f"{len(scored)} images reach" if len(scored) > 1 else "1 image reaches"
        sentences = [
            f"Predicted from the other images, {count} a mean IoU of {mean:.2f} on "
            f"their scribbles; the lowest is {name(worst.index)} with {worst.miou:.2f}"
        ]
    for each in results:
        for class_id in each.missing:
            known = (class_names or {}).get(class_id, f"Class {class_id}")
            sentences.append(
                f"{known} is painted in {name(each.index)} only, so no other image "
                "teaches it and it is not scored"
            )
    unscored = [name(each.index) for each in results if np.isnan(each.miou)]
    if unscored and scored:
        sentences.append(f"Not scored at all: {', '.join(unscored)}")
    return ". ".join(sentences) + "."
