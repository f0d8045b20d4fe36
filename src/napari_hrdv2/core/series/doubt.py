"""How doubtful the segmentation of an image is that nobody painted on.

Two things tell, both on a background sample of the image: the mean IoU that the
classifier expects of itself, by its own probabilities; and how far it gives another
result once it was adapted to the image. An image like the labelled ones changes little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import checked_mask
from napari_hrdv2.core.classifier.background import read_background

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features


FLAGGED_FROM = 0.2  # four of five whose mean IoU is below 0.5 are above, see docs
# Of a logistic regression fitted to 288 generated and 51 real micrographs.
EXPECTED, CHANGED, CONSTANT = 2.39, 0.79, 4.67
LEAST = 0.01  # less of a mean IoU is nothing


def doubt_of(
    classifier: PixelClassifier,
    adapted: PixelClassifier,
    features: Features,
    *,
    exclusion: ArrayLike | None = None,
    should_stop: Stop = None,
) -> float | None:
    """Return how probable it is that the mean IoU of an image is below 0.5.

    `features` are of the image, and `adapted` is the classifier adapted to it. None for
    one that keeps nothing of what it was trained on, see `train_series`.

    Notes
    -----
    With the background sample of the image, the IoU that a classifier expects of a
    class k is (Σ p_k over its pixels + 1) / (their number + Σ p_k over all others + 1).
    With e the mean of what is missing of it, and d that of the IoU between the results
    before and after the adaptation, doubt is the logistic function of
    2.39 log(e + 0.01) + 0.79 log(d + 0.01) + 4.67.
    """
    if classifier.trained_on is None:
        return None
    mask = checked_mask(exclusion, features.shape[1:])
    _, rows = read_background(features, mask, should_stop=should_stop)
    if not len(rows):
        return None
    return _doubt(*(rows @ one.weight.T + one.bias for one in (classifier, adapted)))


def _doubt(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return it from (N, K) logits before and after the adaptation."""
    from scipy.special import expit, softmax

    odds = softmax(after.astype(np.float64), axis=1)
    ids = np.arange(odds.shape[1])
    now, then = (each.argmax(1)[:, None] == ids for each in (odds, before))
    inside = (odds * now).sum(0) + 1
    expected = inside / (now.sum(0) + (odds * ~now).sum(0) + 1)
    same = ((now & then).sum(0) + 1) / ((now | then).sum(0) + 1)
    missing, changed = (np.log(1 - each.mean() + LEAST) for each in (expected, same))
    return float(expit(EXPECTED * missing + CHANGED * changed + CONSTANT))
