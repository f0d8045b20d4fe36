"""Which scribbles are likely of the wrong class: those that all others contradict.

A classifier that was trained on a wrong scribble agrees with it, so each is judged by a
fit without it. Such a fit starts from the one with all scribbles, on rows of features
that are known already, and so takes a few steps only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.classifier.background import BackgroundSample, whitening
from napari_hrdv2.core.classifier.fitting import (
    SelfTrainingRounds,
    fit_with_self_training,
)
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import (
    LabelledImage,
    cells_of,
    labelled_images,
    labelled_pixels,
    weighed,
)
from napari_hrdv2.core.errors import Stop, stop_if

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import LinearModel

Floats = NDArray[np.float32]
Pixels = NDArray[np.int64]

LEAST_FRACTION = 0.9  # of a scribble's pixels that the others give to another class
LEAST_MARGIN = 0.2  # of probability for it; a fit to few scribbles is never sure
OTHER_SCRIBBLES = 2  # that a class must have for one of its scribbles to be judged
PIXELS_PER_SCRIBBLE = 400  # more tell nothing new
TOLERANCE = 1e-3  # of the fits without a scribble, which decide nothing by a hair
MOST_SCRIBBLES = 60


@dataclass(frozen=True)
class LabelIssue:
    """A scribble that the other scribbles contradict."""

    class_id: int  # what it was painted as
    predicted_id: int  # what the others say it is
    fraction: float  # 0..1, of its pixels that they give to another class
    margin: float  # -1..1, by how much that is more probable on average
    row: int  # of a pixel near its middle
    column: int
    pixels: Pixels  # flat indices of all of it
    reason: str


def find_label_issues(
    features: Features,
    labels: ArrayLike,
    *,
    classifier: PixelClassifier | None = None,
    exclusion: ArrayLike | None = None,
    most: int = MOST_SCRIBBLES,
    least_fraction: float = LEAST_FRACTION,
    least_margin: float = LEAST_MARGIN,
    should_stop: Stop = None,
) -> list[LabelIssue]:
    """Return the scribbles that are likely of the wrong class, the surest first.

    A scribble is a connected patch of one class. A class of fewer than three is not
    judged: without one of them too little is known of it.

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
    least_fraction, least_margin : float
        Of a `LabelIssue`; less is none.
    """
    (image,) = labelled_images(features, labels, exclusion)
    model = classifier or PixelClassifier()
    found = [
        one
        for one in _judged(image, model, most, should_stop)
        if one.fraction >= least_fraction and one.margin >= least_margin
    ]
    return sorted(found, key=lambda issue: -issue.margin)


def _judged(
    image: LabelledImage, model: PixelClassifier, most: int, should_stop: Stop
) -> Iterator[LabelIssue]:
    """Yield what the other scribbles say of each, those that fit worst first."""
    scribbles = scribbles_of(image.labels)
    owners = np.array([class_id for class_id, _ in scribbles])
    classes, own = np.unique(owners, return_inverse=True)
    if len(classes) < 2:
        return
    kept = [some[:: -(-len(some) // PIXELS_PER_SCRIBBLE)] for _, some in scribbles]
    rows, order = image.features.samples.rows(np.unique(np.concatenate(kept)))
    sorter = np.argsort(order)
    # Of each scribble, which rows are its pixels.
    parts = [sorter[np.searchsorted(order, some, sorter=sorter)] for some in kept]
    index = np.searchsorted(classes, image.labels.ravel()[order])
    coordinates = BackgroundSample.of([image], rows).including(rows, index).coordinates
    place = cells_of(order, image.labels.shape)[0] * len(classes) + index
    design = coordinates(torch.from_numpy(rows))

    def fit(
        used: NDArray[np.bool_], start: SelfTrainingRounds | None
    ) -> SelfTrainingRounds:
        """Fit to these rows alone: what is unlabelled would agree with the wrong."""
        weight = used.astype(np.float32)
        weight[used], places = weighed(
            np.ones(used.sum()),
            index[used],
            place[used] if model.by_place else None,
            balanced=model.balanced,
        )
        return fit_with_self_training(
            design,
            index,
            coordinates=coordinates,
            regularisation=model.C,
            whitening=whitening(places),
            sample_weight=weight,
            tolerance=max(TOLERANCE, model.tolerance),
            start=start,
        )

    is_alike = np.array_equal(model.classes, classes)
    start = model.warm_start(classes, rows.shape[1]) if is_alike else None
    full = fit(np.ones(len(rows), bool), start)
    odds = np.log(_probabilities(rows, full.result) + 1e-9)
    fits = [odds[part, i].mean() for part, i in zip(parts, own, strict=True)]
    able = np.bincount(own)[own] > OTHER_SCRIBBLES
    worst = [int(one) for one in np.argsort(fits, kind="stable") if able[one]]
    for number in worst[:most]:
        stop_if(should_stop, "judging the scribbles")
        rest = np.ones(len(rows), bool)
        rest[parts[number]] = False
        probability = _probabilities(rows[parts[number]], fit(rest, full).result)
        mean, mine = probability.mean(axis=0), int(own[number])
        predicted = int(np.where(np.arange(len(mean)) == mine, -1, mean).argmax())
        fraction = float((probability.argmax(axis=1) != mine).mean())
        ids = int(classes[mine]), int(classes[predicted])
        names = [model.class_names.get(each, f"Class {each}") for each in ids]
        pixels = scribbles[number][1]
        at = np.divmod(pixels, image.labels.shape[1])
        middle = np.hypot(*(each - each.mean() for each in at)).argmin()
        yield LabelIssue(
            *ids,
            fraction=fraction,
            margin=float(mean[predicted] - mean[mine]),
            row=int(at[0][middle]),
            column=int(at[1][middle]),
            pixels=pixels,
            reason=(
                f"Painted as {names[0]}, but without this scribble {fraction:.0%} of "
                f"its pixels are another class, mostly {names[1]}"
            ),
        )


def scribbles_of(labels: NDArray[np.integer]) -> list[tuple[int, Pixels]]:
    """Return class and flat pixels of every connected patch of one class.

    By class, then from the top; pixels that touch by a corner are connected.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pixels = labelled_pixels(labels)
    ids, places = labels.ravel()[pixels], np.divmod(pixels, labels.shape[1])
    pairs = []
    for step in (1, *(labels.shape[1] + side for side in (-1, 0, 1))):
        at = np.searchsorted(pixels, pixels + step) % max(len(pixels), 1)
        is_next = (pixels[at] == pixels + step) & (ids[at] == ids)
        for each in places:  # else it is beyond the border
            is_next &= abs(each[at] - each) <= 1
        pairs.append(np.stack([np.flatnonzero(is_next), at[is_next]]))
    edges = np.concatenate(pairs, 1)
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), (len(pixels),) * 2)
    numbers = connected_components(graph, directed=False)[1]
    order = np.lexsort((pixels, numbers))
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    found = [(int(ids[part[0]]), pixels[part]) for part in parts if len(part)]
    return sorted(found, key=lambda each: (each[0], each[1][0]))


def _probabilities(rows: Floats, model: LinearModel) -> Floats:
    """Return (N, K) probabilities of the classes."""
    logits = torch.from_numpy(rows) @ model.weight.T + model.bias
    return np.asarray(logits.softmax(1).numpy(), np.float32)
