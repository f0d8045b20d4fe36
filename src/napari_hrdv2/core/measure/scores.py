"""How good a segmentation is, and how much of each class it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .comparison import Comparison, known_mean

if TYPE_CHECKING:
    from .numbering import MatchedClass

Rows = list[list[object]]


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
    truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: Sequence[int]
) -> float:
    """Return the mean of `iou_per_class` over the classes that occur, NaN for none."""
    return known_mean(iou_per_class(truth, prediction, classes))


def phase_fractions(labels: NDArray[np.integer]) -> dict[int, float]:
    """Return the fraction of the labelled area that each label id takes, by id."""
    labels = np.asarray(labels)
    ids, counts = np.unique(labels[labels != 0], return_counts=True)
    return dict(zip(ids.tolist(), (counts / counts.sum()).tolist(), strict=True))


def score_table(
    comparison: Comparison, classes: Sequence[MatchedClass]
) -> tuple[list[str], Rows]:
    """Return headers and rows for `write_csv`; the last row is of all classes.

    The columns at the end are the confusion matrix: how many pixels of the row's true
    class the segmentation takes for each class, or for none.
    """
    known = {one.id: one for one in classes}
    shown = [known[i] for i in comparison.classes]
    headers = [
        *("class", "id in the segmentation", "id in the truth", "IoU"),
        f"boundary IoU ({comparison.boundary_width} px)",
        *("accuracy", "pixels in the truth", "pixels in the segmentation"),
        *(f"taken for {one.name}" for one in shown),
        "taken for no class",
    ]
    with np.errstate(invalid="ignore"):  # a class that the truth lacks has none
        recall = np.diagonal(comparison.confusion) / comparison.true_pixels
    rows: Rows = [
        [
            *(one.name, one.segmentation_id, one.truth_id, float(comparison.iou[k])),
            float(comparison.boundary_iou[k]),
            float(recall[k]),
            int(comparison.true_pixels[k]),
            int(comparison.found_pixels[k]),
            *comparison.confusion[k].tolist(),
            int(comparison.unsegmented[k]),
        ]
        for k, one in enumerate(shown)
    ]
    rows.append(
        [
            *("all classes", None, None, comparison.mean_iou),
            comparison.mean_boundary_iou,
            comparison.accuracy,
            comparison.pixels,
            int(comparison.found_pixels.sum()),
            *comparison.found_pixels.tolist(),
            int(comparison.unsegmented.sum()),
        ]
    )
    return headers, rows
