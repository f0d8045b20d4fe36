"""Whether features of an adapted backbone segment one's own images better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.classifier.cross_validation import leave_one_image_out
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.compute import compute_features
from napari_hrdv2.core.guidance.label_issues import scribbles_of
from napari_hrdv2.core.measure.scores import mean_iou

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.features.base import Features

NAN = float("nan")
LEAST_GAIN = 0.01  # of mean IoU; scribbles tell no smaller differences


@dataclass(frozen=True)
class ScribbleScores:
    """Mean IoU of scribbles that were left out; NaN where nothing could be scored."""

    own: float  # half of an image's scribbles, predicted from the other half
    others: float  # an image's scribbles, predicted from those of all other images

    @property
    def mean(self) -> float:
        """The mean of those that are known."""
        known = [score for score in (self.own, self.others) if score == score]
        return float(np.mean(known)) if known else NAN

    def is_better_than(self, other: ScribbleScores) -> bool:
        """Return whether it is clearly the higher one."""
        return self.mean >= other.mean + LEAST_GAIN


def score_on_scribbles(
    images: Sequence[ArrayLike],
    labels: Sequence[NDArray[Any]],
    backbone: Any,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> ScribbleScores:
    """Return how well a backbone's features carry from scribbles to scribbles.

    Parameters
    ----------
    images : sequence of (H, W) or (H, W, 3|4) arrays
    labels : sequence of (H, W) arrays of int
        0 where a pixel is not labelled.
    backbone : Backbone
    progress : callable, optional
        Called with the number of images that are done, and of all.
    options
        Those of :func:`~napari_hrdv2.compute_features`.
    """
    features, own = [], []
    for number, (image, drawn) in enumerate(zip(images, labels, strict=True), start=1):
        features.append(compute_features(image, backbone, **options))
        own.append(_own_score(features[-1], drawn))
        if progress is not None:
            progress(number, len(images))
    others = [NAN]
    if len({made.shape[0] for made in features}) == 1 < len(features):
        others = [one.miou for one in leave_one_image_out(features, labels)]
    return ScribbleScores(_mean(own), _mean(others))


def _own_score(features: Features, drawn: NDArray[Any]) -> float:
    """Return the mean IoU of every second scribble of each class, both ways round.

    A class of one scribble trains each time, and is not scored.
    """
    halves = np.zeros((2, drawn.size), drawn.dtype)
    scored: set[int] = set()
    count: dict[int, int] = {}
    for class_id, pixels in scribbles_of(drawn):
        number = count[class_id] = count.get(class_id, 0) + 1
        halves[number % 2][pixels] = class_id
        if number > 1:
            scored.add(class_id)
    for class_id in set(count) - scored:
        halves[:, drawn.ravel() == class_id] = class_id
    if len(count) < 2 or not scored:
        return NAN
    scores = []
    for training, truth in (halves, halves[::-1]):
        model = PixelClassifier().fit(features, training.reshape(drawn.shape))
        where = np.isin(truth, list(scored))
        made = model.predict(features).ravel()[where]
        scores.append(mean_iou(truth[where], made, sorted(scored)))
    return _mean(scores)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else NAN
