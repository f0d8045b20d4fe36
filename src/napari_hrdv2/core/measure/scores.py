"""How good a segmentation is, and how much of each class it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Sequence[int],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[np.int64] | NDArray[np.float64]:
    """Count the pixels of each true class that got each predicted class.

    Parameters
    ----------
    truth, prediction : (...) integer arrays
        Class ids, of the same shape. Pixels whose true id is not one of ``classes``
        are left out.
    classes : sequence of K ints
        The ids, in the order of the rows and columns.
    weights : (...) array, optional
        How many pixels each of these stands for; one by default.

    Returns
    -------
    (K, K + 1) int64 array, or float64 with weights
        Rows are true classes, columns predicted ones; the last column counts
        predictions that are none of ``classes``.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"prediction: shape {prediction.shape} differs from the truth's "
            f"{truth.shape}"
        )
    rows = _positions(truth, classes)
    columns = _positions(prediction, classes)
    count = len(classes)
    known = rows < count
    pairs = rows[known] * (count + 1) + columns[known]
    shares = None if weights is None else np.asarray(weights)[known]
    counts = np.bincount(pairs, shares, minlength=count * (count + 1))
    return counts.reshape(count, count + 1)


def iou_per_class(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Sequence[int],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Return intersection over union of each class.

    Parameters
    ----------
    truth, prediction : (...) integer arrays
        Class ids, of the same shape.
    classes : sequence of K ints
        The ids, in the order of the result.
    weights : (...) array, optional
        As for `confusion_matrix`.

    Returns
    -------
    (K,) float64 array
        In 0..1; NaN for a class that is in neither array.
    """
    counts = confusion_matrix(truth, prediction, classes, weights)
    hits = np.diagonal(counts).astype(np.float64)
    union = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) - hits
    scores = np.full(hits.shape, np.nan)
    np.divide(hits, union, out=scores, where=union > 0)
    return scores


def mean_iou(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Sequence[int],
) -> float:
    """Return the mean of `iou_per_class` over the classes that occur.

    Parameters
    ----------
    truth, prediction : (...) integer arrays
        Class ids, of the same shape.
    classes : sequence of K ints
        The ids to score.

    Returns
    -------
    float
        In 0..1; NaN if none of ``classes`` occurs.
    """
    scores = iou_per_class(truth, prediction, classes)
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def phase_fractions(labels: NDArray[np.integer]) -> dict[int, float]:
    """Return the share of the area that each label id takes, by ascending id.

    Parameters
    ----------
    labels : (...) integer array
        Label ids; 0 means no label and does not count.

    Returns
    -------
    dict of int to float
        The fractions of the labelled area; they add up to 1. Empty if nothing is
        labelled.
    """
    ids, counts = np.unique(np.asarray(labels), return_counts=True)
    labelled = ids != 0
    ids, counts = ids[labelled], counts[labelled]
    total = counts.sum()
    return {int(i): float(n / total) for i, n in zip(ids, counts, strict=True)}


def _positions(values: NDArray[np.integer], classes: Sequence[int]) -> NDArray[np.intp]:
    """Index of each value in `classes`; len(classes) where it is none of them."""
    order = np.argsort(classes)
    ascending = np.asarray(classes)[order]
    found = np.clip(np.searchsorted(ascending, values), 0, len(classes) - 1)
    return np.where(ascending[found] == values, order[found], len(classes))
