"""Which scribbles are likely of the wrong class: those that all others contradict.

A classifier that was trained on a wrong scribble agrees with it, so each is judged by a
fit without it. Such a fit starts from the one with all scribbles, on rows of features
that are known already, and so takes a few steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_hrdv2.core.classifier.background import BackgroundSample
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import check_labels, labelled_pixels
from napari_hrdv2.core.classifier.self_training import (
    SelfTrainingRounds,
    fit_with_self_training,
)
from napari_hrdv2.core.errors import Cancelled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.classifier.background import LinearModel
    from napari_hrdv2.core.features.base import Features

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.int64]

LEAST_FRACTION = 0.9  # of a scribble's pixels that the others give to another class
LEAST_MARGIN = 0.2  # of probability for it; a fit to few scribbles is never sure
OTHER_STROKES = 2  # that a class must have for one of its scribbles to be judged
PIXELS_A_STROKE = 400  # more tell nothing new
TOLERANCE = 1e-3  # of the fits without a scribble, which decide nothing by a hair
MOST_STROKES = 60


@dataclass(frozen=True)
class LabelIssue:
    """A scribble that the other scribbles contradict.

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
        Why it is an issue, for people.
    """

    class_id: int
    predicted_id: int
    share: float
    margin: float
    row: int
    column: int
    pixels: Pixels
    reason: str


def find_label_issues(
    features: Features,
    labels: ArrayLike,
    *,
    classifier: PixelClassifier | None = None,
    exclusion: ArrayLike | None = None,
    most: int = MOST_STROKES,
    should_stop: Callable[[], bool] | None = None,
) -> list[LabelIssue]:
    """Return the scribbles that are likely of the wrong class, the surest first.

    A scribble is a connected patch of one class in the label image.

    Parameters
    ----------
    features : Features
    labels : (H, W) array of int
        0 where a pixel is not labelled.
    classifier : PixelClassifier, optional
        Its `C`, `balanced` and names are used, and its weights to start from if it
        was trained on the same classes. It is left as it is.
    exclusion : (H, W) bool array, optional
        Where the image shows no material.
    most : int
        How many scribbles to judge at most, those that fit worst first.
    should_stop : callable, optional
        Asked before every scribble.

    Returns
    -------
    list of LabelIssue
        Empty for fewer than two classes. A class of fewer than three scribbles is not
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
    issues = [
        one
        for one in judged
        if one.share >= LEAST_FRACTION and one.margin >= LEAST_MARGIN
    ]
    return sorted(issues, key=lambda issue: -issue.margin)


def judge_strokes(
    features: Features,
    labels: ArrayLike,
    *,
    classifier: PixelClassifier | None = None,
    exclusion: ArrayLike | None = None,
    most: int = MOST_STROKES,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[LabelIssue]:
    """Yield what the other scribbles say of each, an issue or not.

    For parameters see `find_label_issues`.
    """
    array = check_labels(labels, features.shape[1:])
    model = classifier or PixelClassifier()
    strokes = strokes_of(array)
    owners = np.array([class_id for class_id, _ in strokes])
    classes, own = np.unique(owners, return_inverse=True)
    if len(classes) < 2:
        return
    kept = [pixels[:: -(-len(pixels) // PIXELS_A_STROKE)] for _, pixels in strokes]
    rows, order = features.samples.rows(np.unique(np.concatenate(kept)))
    place = np.argsort(order)
    # Of each stroke, which rows are its pixels.
    parts = [place[np.searchsorted(order, some, sorter=place)] for some in kept]
    index = np.empty(len(order), np.intp)
    for part, class_index in zip(parts, own, strict=True):
        index[part] = class_index
    background = BackgroundSample.of([features], [array], [exclusion], rows)
    coordinates = background.including(rows, index).coordinates
    design = coordinates(torch.from_numpy(rows))

    def fit(
        used: NDArray[np.bool_], start: SelfTrainingRounds | None
    ) -> SelfTrainingRounds:
        """Fit to these rows alone: what is unlabelled would agree with the wrong."""
        weight = used.astype(np.float32)
        if model.balanced:
            counts = np.bincount(index[used], minlength=len(classes))
            weight *= (used.sum() / (len(classes) * counts))[index].astype(np.float32)
        return fit_with_self_training(
            design,
            index,
            coordinates=coordinates,
            regularisation=model.C,
            sample_weight=weight,
            tolerance=max(TOLERANCE, model.tolerance),
            start=start,
        )

    is_alike = np.array_equal(model.classes, classes)
    start = model._start(classes, rows.shape[1]) if is_alike else None
    full = fit(np.ones(len(rows), bool), start)
    odds = np.log(_probabilities(rows, full.result) + 1e-9)
    fits = [odds[part, i].mean() for part, i in zip(parts, own, strict=True)]
    able = np.bincount(own)[own] > OTHER_STROKES
    worst = [int(one) for one in np.argsort(fits, kind="stable") if able[one]]
    for number in worst[:most]:
        if should_stop is not None and should_stop():
            raise Cancelled("stopped before all scribbles were judged")
        part, pixels = parts[number], strokes[number][1]
        rest = np.ones(len(rows), bool)
        rest[part] = False
        probability = _probabilities(rows[part], fit(rest, full).result)
        yield _issue(
            probability, int(own[number]), pixels, array.shape[1], model, classes
        )


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


def _issue(
    probability: Floats,
    own: int,
    pixels: Pixels,
    width: int,
    model: PixelClassifier,
    classes: NDArray[np.integer],
) -> LabelIssue:
    """Return what the probabilities by all other scribbles say of one."""
    mean = probability.mean(axis=0)
    predicted = int(np.where(np.arange(len(mean)) == own, -1, mean).argmax())
    share = float((probability.argmax(axis=1) != own).mean())
    ids = int(classes[own]), int(classes[predicted])
    names = [model.class_names.get(each, f"Class {each}") for each in ids]
    rows, columns = np.divmod(pixels, width)
    middle = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
    return LabelIssue(
        *ids,
        share=share,
        margin=float(mean[predicted] - mean[own]),
        row=int(rows[middle]),
        column=int(columns[middle]),
        pixels=pixels,
        reason=(
            f"Painted as {names[0]}, but without this scribble {share:.0%} of its "
            f"pixels are another class, mostly {names[1]}"
        ),
    )


def _probabilities(rows: Floats, model: LinearModel) -> Floats:
    """Return (N, K) probabilities of the classes."""
    logits = torch.from_numpy(rows @ model.weight.T + model.bias)
    return np.asarray(logits.softmax(1).numpy(), np.float32)
