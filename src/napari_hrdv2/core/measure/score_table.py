"""A comparison with a truth as a table, a line for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .comparison import Comparison
    from .numbering import MatchedClass

Rows = list[list[object]]


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
