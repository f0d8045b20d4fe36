"""Whether features of an adapted backbone segment one's own images better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.cross_validation import leave_one_image_out
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.guidance.label_issues import scribbles_of
from napari_hrdv2.core.measure.comparison import known_mean
from napari_hrdv2.core.measure.scores import mean_iou

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

LEAST_GAIN = 0.01  # of mean IoU; scribbles tell no smaller differences


@dataclass(frozen=True)
class ScribbleScores:
    """Mean IoU of scribbles that were left out; NaN where nothing could be scored."""

    own: float  # half of an image's scribbles, predicted from the other half
    others: float  # an image's scribbles, predicted from those of all other images

    @property
    def mean(self) -> float:
        """The mean of those that are known."""
        return known_mean((self.own, self.others))

    def __str__(self) -> str:
        kinds = (self.own, "the image's others"), (self.others, "other images'")
        known = [f"{x:.3f} by {of}" for x, of in kinds if not math.isnan(x)]
        return ", ".join(known) or "too few to be compared"

    def is_better_than(self, other: ScribbleScores) -> bool:
        """Return whether it is clearly the higher one."""
        return self.mean >= other.mean + LEAST_GAIN


def score_on_scribbles(
    features: Sequence[Features], labels: Sequence[NDArray[Any]]
) -> ScribbleScores:
    """Return how well the features of images carry from scribbles to scribbles.

    `labels` are (H, W) arrays of int, 0 where a pixel is not labelled.
    """
    own, others = list(map(_own_score, features, labels)), []
    if len({made.shape[0] for made in features}) == 1 < len(features):
        others = leave_one_image_out(features, labels)
    return ScribbleScores(known_mean(own), known_mean(one.miou for one in others))


def _own_score(features: Features, drawn: NDArray[Any]) -> float:
    """Return the mean IoU of every second scribble of each class, both ways round."""
    halves = np.zeros((2, drawn.size), drawn.dtype)
    count: Counter[int] = Counter()
    for class_id, pixels in scribbles_of(drawn):
        count[class_id] += 1
        halves[count[class_id] % 2][pixels] = class_id
    scored = {class_id for class_id, number in count.items() if number > 1}
    for class_id in set(count) - scored:  # those of one scribble train each time
        halves[:, drawn.ravel() == class_id] = class_id
    if len(count) < 2 or not scored:
        return math.nan
    scores = []
    for training, truth in (halves, halves[::-1]):
        model = PixelClassifier().fit(features, training.reshape(drawn.shape))
        where = np.isin(truth, list(scored))
        made = model.predict(features).ravel()[where]
        scores.append(mean_iou(truth[where], made, sorted(scored)))
    return known_mean(scores)
