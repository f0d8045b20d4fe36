"""How good a segmentation is, and how much of each class it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def iou_per_class(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Sequence[int],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Return intersection over union of each class, NaN for one that is in neither.

    Pixels whose true id is not one of `classes` do not count; `weights` say how many
    pixels each of these stands for, one by default.
    """
    from sklearn.metrics import jaccard_score

    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"prediction: shape {prediction.shape} differs from the truth's "
            f"{truth.shape}"
        )
    known = np.isin(truth, classes)
    truth, prediction = truth[known], prediction[known]
    present = np.isin(classes, np.union1d(truth, prediction))
    scores = np.full(len(classes), np.nan)
    if present.any():
        scores[present] = jaccard_score(
            truth,
            prediction,
            labels=np.asarray(classes)[present],
            average=None,
            sample_weight=None if weights is None else np.asarray(weights)[known],
            zero_division=0,
        )
    return scores


def mean_iou(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Sequence[int],
) -> float:
    """Return the mean of `iou_per_class` over the classes that occur, NaN for none."""
    scores = iou_per_class(truth, prediction, classes)
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def phase_fractions(labels: NDArray[np.integer]) -> dict[int, float]:
    """Return the fraction of the labelled area that each label id takes, by id."""
    ids, counts = np.unique(np.asarray(labels), return_counts=True)
    labelled = ids != 0
    ids, counts = ids[labelled], counts[labelled]
    total = counts.sum()
    return {int(i): float(n / total) for i, n in zip(ids, counts, strict=True)}
