"""A segmentation against a truth: confusion, IoU, accuracy, boundary IoU, errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import checked_labels, checked_mask

BOUNDARY_WIDTH = 3  # pixels


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a segmentation and a truth agree, on the pixels that were scored."""

    classes: tuple[int, ...]  # the K ids that occur in either, ascending
    confusion: NDArray[np.int64]  # (K, K) pixels, by true class (rows) and found one
    unsegmented: NDArray[np.int64]  # (K,) pixels, of no class found: they are wrong
    boundary_iou: NDArray[np.float64]  # (K,), see `boundary_iou_per_class`
    boundary_width: int = BOUNDARY_WIDTH  # in pixels

    @property
    def true_pixels(self) -> NDArray[np.int64]:
        """How many of the scored pixels the truth has of each class."""
        return np.asarray(self.confusion.sum(1) + self.unsegmented)

    @property
    def found_pixels(self) -> NDArray[np.int64]:
        """How many of the scored pixels the segmentation has of each class."""
        return np.asarray(self.confusion.sum(0))

    @property
    def pixels(self) -> int:
        """How many pixels were scored."""
        return int(self.true_pixels.sum())

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class."""
        return iou_of_confusion(self.confusion, self.unsegmented)

    @property
    def mean_iou(self) -> float:
        """The mean of `iou`, every class alike."""
        return known_mean(self.iou)

    @property
    def mean_boundary_iou(self) -> float:
        """The mean of `boundary_iou` over the classes that have a boundary."""
        return known_mean(self.boundary_iou)

    @property
    def accuracy(self) -> float:
        """The fraction of the scored pixels whose class is right."""
        return float(np.trace(self.confusion) / self.pixels)


def compare(
    truth: ArrayLike,
    segmentation: ArrayLike,
    *,
    exclude: ArrayLike | None = None,
    boundary_width: int = BOUNDARY_WIDTH,
) -> Comparison:
    """Return how a segmentation and a truth agree.

    Parameters
    ----------
    truth, segmentation : (H, W) arrays of int
        Class ids of one numbering, see `match_labels`. Where `truth` is 0 nothing is
        known and nothing is scored; where `segmentation` is 0 it is wrong.
    exclude : (H, W) bool array, optional
        Other pixels that are not scored, such as those under scribbles.
    boundary_width : int
        How many pixels from its boundary a class is scored for `boundary_iou`.

    Raises
    ------
    ValueError
        For arrays that do not fit each other, or if nothing is left to score.

    Examples
    --------
    >>> found = compare([[1, 1, 2, 2]], [[1, 2, 2, 0]])
    >>> found.confusion.tolist(), found.unsegmented.tolist(), found.accuracy
    ([[1, 1], [0, 1]], [0, 1], 0.5)
    >>> found.iou.round(3).tolist()
    [0.5, 0.333]
    """
    true, made = checked_pair(truth, segmentation)
    scored = scored_pixels(true, exclude)
    if not scored.any():
        raise ValueError(
            "truth: no pixel is left to score; one with a class that is not left out "
            "is needed"
        )
    ids = np.union1d(true[scored], made[scored])
    classes = tuple(ids[ids > 0].tolist())
    confusion = confusion_matrix(true[scored], made[scored], [0, *classes])
    boundary = boundary_iou_per_class(
        true, made, classes, scored=scored, width=boundary_width
    )
    return Comparison(
        classes=classes,
        confusion=confusion[1:, 1:],
        unsegmented=confusion[1:, 0],
        boundary_iou=boundary,
        boundary_width=boundary_width,
    )


def scored_pixels(truth: ArrayLike, exclude: ArrayLike | None) -> NDArray[np.bool_]:
    """Return where a truth is known and nothing is left out, (H, W)."""
    scored: NDArray[np.bool_] = np.asarray(truth) != 0
    mask = checked_mask(exclude, scored.shape)
    return scored if mask is None else scored & ~mask


def confusion_matrix(
    truth: ArrayLike, segmentation: ArrayLike, classes: Sequence[int]
) -> NDArray[np.int64]:
    """Return how many pixels of each true class (rows) were given each class.

    Pixels of which either class is not one of `classes` do not count.
    """
    from sklearn import metrics

    true, made = (np.asarray(each).ravel() for each in (truth, segmentation))
    if not np.isin(true, classes).any():
        return np.zeros((len(classes), len(classes)), np.int64)
    counts = metrics.confusion_matrix(true, made, labels=list(classes))
    return np.asarray(counts, np.int64)


def iou_of_confusion(
    confusion: NDArray[Any], unsegmented: NDArray[Any] | int = 0
) -> NDArray[np.float64]:
    """Return intersection over union of each class, NaN for one that never occurs."""
    both = np.diagonal(confusion)
    either = confusion.sum(1) + confusion.sum(0) + unsegmented - both
    with np.errstate(invalid="ignore"):
        iou: NDArray[np.float64] = both / either
    return iou


def mean_agreement(
    confusion: NDArray[Any], unsegmented: NDArray[Any] | int = 0
) -> float:
    """Return the mean IoU, 0 for a class that is only where the truth is not known.

    Else a numbering under which little is known would look good.
    """
    iou = np.nan_to_num(iou_of_confusion(confusion, unsegmented))
    return float(iou.mean()) if iou.size else 0.0


def best_order(confusion: NDArray[Any], unsegmented: NDArray[Any] | int = 0) -> float:
    """Return the mean IoU if the classes of the segmentation were exchanged at best.

    >>> best_order(np.array([[0, 3], [5, 0]]))
    1.0
    """
    from scipy.optimize import linear_sum_assignment

    order = linear_sum_assignment(-confusion)[1]
    return mean_agreement(confusion[:, order], unsegmented)


def boundary_iou_per_class(
    truth: ArrayLike,
    segmentation: ArrayLike,
    classes: Sequence[int],
    *,
    scored: NDArray[np.bool_] | None = None,
    width: int = BOUNDARY_WIDTH,
) -> NDArray[np.float64]:
    """Return the IoU of what each class has near its boundary, NaN if it has nothing.

    Of the pixels of a class in either image only those are compared that are at most
    `width` pixels from its boundary: large objects do not hide how well their outlines
    are met. A pixel is so near if a square of ``2 * width + 1`` pixels about it leaves
    the class. `scored` are the pixels to count, (H, W) bool, all by default.

    Notes
    -----
    Equation 2 of [1]_, whose authors take 2 % of the image's diagonal for the width;
    here it is in pixels, so that it means the same in images of any size. As in their
    code the frame of the image is a boundary. What the truth leaves open (0) is none.

    References
    ----------
    .. [1] B. Cheng, R. Girshick, P. Dollár, A. C. Berg, A. Kirillov, "Boundary IoU:
       Improving Object-Centric Image Segmentation Evaluation", CVPR 2021,
       arXiv:2103.16562.
    """
    from scipy.ndimage import minimum_filter

    if isinstance(width, bool) or not isinstance(width, (int, np.integer)) or width < 1:
        raise ValueError(
            f"boundary_width: {width!r} is no width; a whole number of pixels from 1 "
            "is needed"
        )
    true, made = np.asarray(truth), np.asarray(segmentation)
    scored = np.ones(true.shape, bool) if scored is None else scored
    scores = np.full(len(classes), np.nan)
    for place, one in enumerate(classes):
        bands = []
        for labels, is_open in ((true, true == 0), (made, False)):
            mask = labels == one
            filled = (mask | is_open).view(np.uint8)
            inner = minimum_filter(filled, 2 * width + 1, mode="constant", cval=0)
            bands.append(mask & (inner == 0) & scored)
        if either := np.count_nonzero(bands[0] | bands[1]):
            scores[place] = np.count_nonzero(bands[0] & bands[1]) / either
    return scores


def error_map(
    truth: ArrayLike, segmentation: ArrayLike, *, exclude: ArrayLike | None = None
) -> NDArray[Any]:
    """Return the true class of each pixel that is wrong, 0 elsewhere, (H, W).

    Parameters are those of `compare`.

    >>> error_map([[1, 1, 2, 0]], [[1, 2, 0, 2]]).tolist()
    [[0, 1, 2, 0]]
    """
    true, made = checked_pair(truth, segmentation)
    return np.where(scored_pixels(true, exclude) & (true != made), true, 0)


def checked_pair(
    truth: ArrayLike, segmentation: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both as arrays, or raise ValueError if they do not fit each other."""
    true = checked_labels(truth, "truth")
    made = checked_labels(segmentation, "segmentation")
    if true.shape != made.shape:
        raise ValueError(
            f"segmentation: shape {made.shape} differs from the truth's {true.shape}"
        )
    return true, made


def known_mean(scores: Iterable[float]) -> float:
    """Return the mean of the numbers among some scores, NaN where there is none."""
    known = np.array([score for score in scores if not np.isnan(score)])
    return float(known.mean()) if known.size else float("nan")
