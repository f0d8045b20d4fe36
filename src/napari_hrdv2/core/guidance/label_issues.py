"""Which strokes are likely of the wrong class: those that all the others contradict.

A classifier that was trained on a wrong stroke agrees with it, so each stroke is
judged by a fit without it. Such a fit starts from the one with all strokes, on rows of
features that are known already, and so takes a few steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_hrdv2.core.classifier.background import BackgroundSample
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import (
    check_classes,
    check_labels,
    labelled_pixels,
)
from napari_hrdv2.core.classifier.self_training import (
    SelfTrainingRounds,
    fit_with_self_training,
)
from napari_hrdv2.core.errors import Cancelled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from napari_hrdv2.core.classifier.background import LinearModel, PCACoordinates
    from napari_hrdv2.core.features.base import Features

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.int64]

LEAST_SHARE = 0.9  # of a stroke's pixels that the others give to another class
LEAST_MARGIN = 0.2  # of probability for it; a fit to few strokes is never sure
OTHER_STROKES = 2  # that a class must have for one of its strokes to be judged
PIXELS_A_STROKE = 400  # more tell nothing new
TOLERANCE = 1e-3  # of the fits without a stroke, which decide nothing by a hair
MOST_STROKES = 60


@dataclass(frozen=True)
class LabelIssue:
    """A stroke that the other strokes contradict.

    Attributes
    ----------
    class_id, predicted_id : int
        What it was painted as, and what the others say it is.
    share : float
        0..1, of its pixels that they give to another class than its own.
    margin : float
        -1..1, by how much `predicted_id` is more probable than `class_id` on average.
    row, column : int
        A pixel of it near its middle.
    pixels : (N,) int64 array
        Flat indices of all of it.
    reason : str
        Why it is suspected, for people.
    """

    class_id: int
    predicted_id: int
    share: float
    margin: float
    row: int
    column: int
    pixels: Pixels
    reason: str


@dataclass
class _Stroke:
    """A connected stroke: its class by index, all pixels, its rows of features."""

    index: int
    pixels: Pixels
    rows: NDArray[np.intp]
    loss: float = 0.0


def find_label_issues(
    features: Features,
    labels: ArrayLike,
    *,
    classifier: PixelClassifier | None = None,
    exclusion: ArrayLike | None = None,
    most: int = MOST_STROKES,
    should_stop: Callable[[], bool] | None = None,
) -> list[LabelIssue]:
    """Return the strokes that are likely of the wrong class, the surest first.

    A stroke is a connected patch of one class in the label image.

    Parameters
    ----------
    features : Features
    labels : (H, W) array of int
        0 where a pixel is not labelled.
    classifier : PixelClassifier, optional
        Its `C`, `balanced` and names are used, and its readout to start from if it
        was trained on the same classes. It is left as it is.
    exclusion : (H, W) bool array, optional
        Where the image shows no material.
    most : int
        How many strokes to judge at most, those that fit worst first.
    should_stop : callable, optional
        Asked before every stroke.

    Returns
    -------
    list of Suspect
        Empty for fewer than two classes. A class of fewer than three strokes is not
        judged: without one of them too little is known of it.

    Raises
    ------
    Cancelled
        If should_stop said so.
    TypeError, ValueError
        If the labels do not fit the features, or features are NaN.
    """
    judged = judge_strokes(
        features,
        labels,
        classifier=classifier,
        exclusion=exclusion,
        most=most,
        should_stop=should_stop,
    )
    label_issues = [
        label_issue
        for label_issue in judged
        if label_issue.share >= LEAST_SHARE and label_issue.margin >= LEAST_MARGIN
    ]
    return sorted(label_issues, key=lambda label_issue: -label_issue.margin)


def judge_strokes(
    features: Features,
    labels: ArrayLike,
    *,
    classifier: PixelClassifier | None = None,
    exclusion: ArrayLike | None = None,
    most: int = MOST_STROKES,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[LabelIssue]:
    """Yield what the other strokes say of each, suspected or not.

    For parameters see `find_label_issues`.
    """
    array = check_labels(labels, features.shape[1:])
    model = classifier or PixelClassifier()
    strokes = strokes_of(array)
    classes = np.unique([class_id for class_id, _ in strokes])
    if len(classes) < 2:
        return
    check_classes(classes)
    names = {
        int(each): model.class_names.get(int(each), f"Class {each}") for each in classes
    }
    problem = _Problem.of(features, array, exclusion, strokes, classes, model)
    for stroke in problem.worst_first()[:most]:
        if should_stop is not None and should_stop():
            raise Cancelled("stopped before all strokes were judged")
        label_issue = _judged(problem, stroke, classes, features.shape[2])
        reason = (
            f"Painted as {names[label_issue.class_id]}, but without this stroke "
            f"{label_issue.share:.0%} of its pixels are another class, mostly "
            f"{names[label_issue.predicted_id]}"
        )
        yield replace(label_issue, reason=reason)


def strokes_of(labels: NDArray[np.integer]) -> list[tuple[int, Pixels]]:
    """Return class and flat pixels of every connected patch of one class.

    Parameters
    ----------
    labels : (H, W) array of int

    Returns
    -------
    list of (int, (N,) int64 array)
        By class, then from the top; pixels that touch by a corner are connected.
    """
    from scipy.ndimage import label

    pixels = labelled_pixels(labels)
    if not len(pixels):
        return []
    rows, columns = np.divmod(pixels, labels.shape[1])
    top, left = int(rows.min()), int(columns.min())
    box = labels[top : rows.max() + 1, left : columns.max() + 1]
    strokes = []
    for class_id in np.unique(labels.ravel()[pixels]).tolist():
        patches, count = label(box == class_id, np.ones((3, 3)))
        numbers = patches[rows - top, columns - left]
        order = np.argsort(numbers, kind="stable")
        edges = np.searchsorted(numbers[order], np.arange(1, count + 2))
        strokes += [
            (class_id, pixels[order[start:stop]]) for start, stop in pairwise(edges)
        ]
    return strokes


@dataclass
class _Problem:
    """The labelled pixels, and the fit to all of them."""

    table: Floats
    index: NDArray[np.intp]
    strokes: list[_Stroke]
    model: PixelClassifier
    design: Tensor  # the table in the coordinates of the basis
    basis: PCACoordinates
    full: SelfTrainingRounds

    @classmethod
    def of(
        cls,
        features: Features,
        labels: NDArray[np.integer],
        exclusion: ArrayLike | None,
        strokes: list[tuple[int, Pixels]],
        classes: NDArray[np.integer],
        model: PixelClassifier,
    ) -> _Problem:
        """Read the features of some pixels of each stroke, and fit them all."""
        kept = [pixels[:: -(-len(pixels) // PIXELS_A_STROKE)] for _, pixels in strokes]
        rows, order = features.samples.rows(np.unique(np.concatenate(kept)))
        place = np.argsort(order)
        ascending = order[place]
        index = np.empty(len(order), np.intp)
        made = []
        for (class_id, pixels), some in zip(strokes, kept, strict=True):
            at = place[np.searchsorted(ascending, some)]
            index[at] = np.searchsorted(classes, class_id)
            made.append(_Stroke(int(index[at[0]]), pixels, at))
        start = None
        if np.array_equal(model.classes, classes):
            start = model._start(model.classes, rows.shape[1])
        background = BackgroundSample.of([features], [labels], [exclusion], rows)
        basis = background.including(rows, index).coordinates
        design = basis(torch.from_numpy(rows))
        full = _fit(design, index, np.ones(len(rows), bool), model, basis, start)
        return cls(rows, index, made, model, design, basis, full)

    def worst_first(self) -> list[_Stroke]:
        """Return the strokes that can be judged, by their loss in the full fit."""
        for stroke in self.strokes:
            rows = self.table[stroke.rows]
            own = _probabilities(rows, self.full.result)[:, stroke.index]
            stroke.loss = -float(np.log(own + 1e-9).mean())
        counts = np.bincount([stroke.index for stroke in self.strokes])
        able = [s for s in self.strokes if counts[s.index] > OTHER_STROKES]
        return sorted(able, key=lambda stroke: -stroke.loss)

    def without(self, stroke: _Stroke) -> LinearModel:
        """Return the fit to all other strokes."""
        used = np.ones(len(self.table), bool)
        used[stroke.rows] = False
        return _fit(
            self.design, self.index, used, self.model, self.basis, self.full
        ).result


def _fit(
    design: Tensor,
    index: NDArray[np.intp],
    used: NDArray[np.bool_],
    model: PixelClassifier,
    basis: PCACoordinates,
    start: SelfTrainingRounds | None,
) -> SelfTrainingRounds:
    """Fit to the rows in use, and to them alone: what is unlabelled would agree."""
    counts = np.bincount(index[used], minlength=int(index.max()) + 1)
    weight = used.astype(np.float32)
    if model.balanced:
        weight *= (used.sum() / (len(counts) * counts))[index].astype(np.float32)
    return fit_with_self_training(
        design,
        index,
        coordinates=basis,
        regularisation=model.C,
        sample_weight=weight,
        tolerance=max(TOLERANCE, model.tolerance),
        start=start,
    )


def _probabilities(rows: Floats, readout: LinearModel) -> Floats:
    """Return (N, K) probabilities of the classes."""
    logits = rows @ readout.weight.T + readout.bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def _judged(
    problem: _Problem, stroke: _Stroke, classes: NDArray[np.integer], width: int
) -> LabelIssue:
    """Return what the fit without a stroke says of it; the reason is left empty."""
    probability = _probabilities(problem.table[stroke.rows], problem.without(stroke))
    mean = probability.mean(axis=0)
    own = stroke.index
    predicted = int(np.where(np.arange(len(mean)) == own, -1, mean).argmax())
    rows, columns = np.divmod(stroke.pixels, width)
    middle = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
    return LabelIssue(
        class_id=int(classes[own]),
        predicted_id=int(classes[predicted]),
        share=float((probability.argmax(axis=1) != own).mean()),
        margin=float(mean[predicted] - mean[own]),
        row=int(rows[middle]),
        column=int(columns[middle]),
        pixels=stroke.pixels,
        reason="",
    )
