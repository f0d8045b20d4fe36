"""The protocols of ``evaluate``: what trains, and what is scored.

`PROTOCOLS` has one row for each: a function from cases to scores, and what it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.measure.comparison import best_order, confusion_matrix
from napari_hrdv2.core.measure.numbering import CLEARLY_BETTER
from napari_hrdv2.core.measure.scores import iou_per_class, mean_iou
from napari_hrdv2.files import read_image

from .cases import DISAGREE, Case, CaseArrays

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.options import FeatureOptions

MOST_QUERIES = 20_000  # pixels of an image that neighbours are looked up for
MOST_MEMORY = 20_000  # pixels that they are looked up in
LINEAR_C = 1.0  # dense labels are not alike as those of a scribble are


@dataclass(frozen=True)
class Run:
    """What a protocol is given beside the cases."""

    backbone: Backbone | JoinedBackbone
    options: FeatureOptions  # how features are made
    progress: Callable[[int, int], None]
    seed: int = 0
    clusters: int = 50

    def features(self, image: NDArray[Any]) -> Features:
        """Return the features of an image."""
        from napari_hrdv2.core.features.compute import compute_features

        return compute_features(
            image, self.backbone, progress=self.progress, **self.options.choices
        )


@dataclass(frozen=True)
class CaseScore:
    """The score of one case; `others` are further mean IoUs, by what they are of.

    `note` says how it was come by, where cases of a protocol differ in that.
    """

    case: Case
    miou: float
    iou: list[float]
    seconds: float
    others: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Protocol:
    """A way to evaluate, and whether every case must have scribbles for it."""

    scores: Callable[[Sequence[Case], Run], Iterable[CaseScore]]
    needs_scribbles: bool = False


def from_scribbles(cases: Sequence[Case], run: Run) -> Iterator[CaseScore]:
    """Train on each case's scribbles alone and score all its other pixels."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier

    for case in cases:
        arrays = case.read()
        assert arrays.drawn is not None, "scribbles were asked for"
        start = time.perf_counter()
        features = run.features(arrays.image)
        made = PixelClassifier().fit(features, arrays.drawn).predict(features)
        score = _scored(arrays, made, arrays.drawn == 0, start)
        _check_order(arrays, made)
        yield score


def series(cases: Sequence[Case], run: Run) -> Iterator[CaseScore]:
    """Train on the scribbles of all other images of a source, score all pixels.

    Grey and colour images are sources of their own, as their features differ; those
    that are alone are left out.
    """
    from napari_hrdv2.core.series.left_out import predict_left_out

    groups: dict[tuple[str, int], list[CaseArrays]] = {}
    for arrays in (case.read() for case in cases):
        groups.setdefault((arrays.case.source, arrays.image.ndim), []).append(arrays)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    if not groups:
        raise ValueError(
            "--protocol series: no source has two images of one kind, grey or RGB; it "
            "leaves one of them out"
        )
    for group in groups.values():
        start = time.perf_counter()
        for left in predict_left_out(
            [arrays.image for arrays in group],
            [arrays.drawn for arrays in group if arrays.drawn is not None],
            run.backbone,
            normalisation=run.options.normalisation,
            **run.options.choices,
        ):
            arrays = group[left.index]
            score = _scored(arrays, left.segmentation, arrays.truth > 0, start)
            yield replace(score, note=left.classifier.normalisation.kind)
            start = time.perf_counter()


def linear(cases: Sequence[Case], run: Run) -> Iterator[CaseScore]:
    """Train on the dense labels of half of a source's images, score the others."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.classifier.samples import training_pixels
    from napari_hrdv2.core.features.base import StoredPixels

    for training, validation in _splits(cases, run.seed):
        start = time.perf_counter()
        stored, labels = [], []
        for arrays, part in training:
            truth = np.where(part, arrays.truth, 0)
            pixels = training_pixels(truth)
            stored.append(StoredPixels(run.features(arrays.image), pixels))
            labels.append(truth)
        probe = PixelClassifier(
            C=LINEAR_C, balanced=False, self_training=False, by_place=False
        )
        probe.fit(stored, labels)
        for arrays, part in validation:
            made = probe.predict(run.features(arrays.image))
            yield _scored(arrays, made, part, start)
            start = time.perf_counter()


def clusters(cases: Sequence[Case], run: Run) -> Iterator[CaseScore]:
    """Divide each image without labels, name the clusters by its truth, score all."""
    from napari_hrdv2.core.classifier.clusters import (
        find_clusters,
        hungarian_names,
        majority_names,
    )

    for case in cases:
        arrays = case.read()
        start = time.perf_counter()
        features = run.features(arrays.image)
        found = []
        for count, names_of in (
            (len(case.classes), hungarian_names),
            (run.clusters, majority_names),
        ):
            divided = find_clusters(features, count, seed=run.seed).predict(features)
            divided = divided.astype(np.int64) + 1
            size = max(int(divided.max()), len(case.classes))
            counts = confusion_matrix(arrays.truth, divided, range(1, size + 1)).T
            names = 1 + names_of(counts[: int(divided.max()), : len(case.classes)])
            found.append(names[divided - 1])
        score = _scored(arrays, found[0], arrays.truth > 0, start)
        many = mean_iou(arrays.truth, found[1], arrays.class_ids)
        score.others[f"{run.clusters} clusters"] = many
        yield score


def neighbours(cases: Sequence[Case], run: Run) -> Iterator[CaseScore]:
    """Give pixels the classes of the most similar labelled ones.

    Those under the scribbles of the same image, where there are scribbles; else those
    of half of the source's images.
    """
    own = [case for case in cases if case.scribbles is not None]
    for case in own:
        arrays = case.read()
        assert arrays.drawn is not None, "it has scribbles"
        start = time.perf_counter()
        features = run.features(arrays.image)
        memory = _memory([(features, arrays.drawn)], run.seed)
        yield _retrieved(arrays, features, memory, arrays.drawn == 0, run.seed, start)
    for training, validation in _splits([c for c in cases if c not in own], run.seed):
        start = time.perf_counter()
        labelled = (
            (run.features(arrays.image), np.where(part, arrays.truth, 0))
            for arrays, part in training
        )
        memory = _memory(labelled, run.seed, len(training))
        for arrays, part in validation:
            features = run.features(arrays.image)
            yield _retrieved(arrays, features, memory, part, run.seed, start)
            start = time.perf_counter()


PROTOCOLS: dict[str, Protocol] = {
    "scribbles": Protocol(from_scribbles, needs_scribbles=True),
    "series": Protocol(series, needs_scribbles=True),
    "linear": Protocol(linear),
    "clusters": Protocol(clusters),
    "neighbours": Protocol(neighbours),
}


def _scored(
    arrays: CaseArrays, made: NDArray[Any], where: NDArray[np.bool_], start: float
) -> CaseScore:
    """Return the score of a segmentation on some of the pixels."""
    seconds = time.perf_counter() - start
    pair = arrays.truth[where], made[where], arrays.class_ids
    return CaseScore(
        arrays.case, mean_iou(*pair), iou_per_class(*pair).tolist(), seconds
    )


def _check_order(arrays: CaseArrays, made: NDArray[Any]) -> None:
    """Raise ValueError if scribbles and truth have their classes in other orders.

    Both the pixels under the scribbles and all others must say so: a bad segmentation,
    or a truth that is wrong where one painted, is no reason.
    """
    truth, drawn, ids = arrays.truth, arrays.drawn, arrays.class_ids
    assert drawn is not None, "it was trained on them"
    painted = (drawn > 0) & (truth > 0)
    if not painted.any() or (truth[painted] == drawn[painted]).mean() >= DISAGREE:
        return
    unseen = drawn == 0
    score = mean_iou(truth[unseen], made[unseen], ids)
    best = best_order(confusion_matrix(truth[unseen], made[unseen], ids))
    if best > score + CLEARLY_BETTER:
        raise ValueError(
            f"{arrays.case.id}: {arrays.case.scribbles} and {arrays.case.label} number "
            f"the classes otherwise (mean IoU {score:.2f}, in another order "
            f"{best:.2f}); number both alike"
        )


Part = tuple[CaseArrays, "NDArray[np.bool_]"]  # an image, and which of its pixels


def _splits(
    cases: Sequence[Case], seed: int
) -> Iterator[tuple[list[Part], Iterator[Part]]]:
    """Yield for each source what trains and what is scored: half of its images each.

    A single image is divided into a left half that trains and a right one. Grey and
    colour images are sources of their own, as their features differ.
    """
    groups: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        kind = case.source, read_image(case.image).data.ndim
        groups.setdefault(kind, []).append(case)
    for group in groups.values():
        if len(group) == 1:
            arrays = group[0].read()
            left = np.zeros(arrays.truth.shape, bool)
            left[:, : arrays.truth.shape[1] // 2] = True
            for side, part in (("left", left), ("right", ~left)):
                if not arrays.truth[part].any():
                    raise ValueError(
                        f"{group[0].id}: its {side} half has no pixel of a known "
                        "class; a second image of this kind is needed"
                    )
            yield [(arrays, left)], iter([(arrays, ~left & (arrays.truth > 0))])
            continue
        order = np.random.default_rng(seed).permutation(len(group))
        half = len(group) // 2
        training, rest = sorted(order[:half]), sorted(order[half:])
        read = ((c, c.truth > 0) for c in (group[i].read() for i in rest))
        chosen = [group[i].read() for i in training]
        yield [(arrays, arrays.truth > 0) for arrays in chosen], read


Memory = tuple["NDArray[np.float32]", "NDArray[Any]"]


def _memory(
    labelled: Iterable[tuple[Features, NDArray[Any]]], seed: int, images: int = 1
) -> Memory:
    """Return feature vectors and classes of the labelled pixels that are kept."""
    from napari_hrdv2.core.classifier.samples import training_pixels

    rng, vectors, classes = np.random.default_rng(seed), [], []
    for features, labels in labelled:
        pixels = training_pixels(labels)
        pixels = _some(pixels, MOST_MEMORY // images, rng)
        vectors.append(features.sample(*np.divmod(pixels, labels.shape[1])))
        classes.append(labels.ravel()[pixels])
    return np.concatenate(vectors), np.concatenate(classes)


def _retrieved(
    arrays: CaseArrays,
    features: Features,
    memory: Memory,
    where: NDArray[np.bool_],
    seed: int,
    start: float,
) -> CaseScore:
    """Return the score of retrieval on some pixels drawn from all over an image."""
    from napari_hrdv2.core.classifier.neighbours import neighbour_classes

    rng = np.random.default_rng(seed)
    known = np.flatnonzero((where & (arrays.truth > 0)).ravel())
    pixels = _some(known, MOST_QUERIES, rng)
    queries = features.sample(*np.divmod(pixels, arrays.truth.shape[1]))
    made = np.zeros(arrays.truth.shape, np.int64)
    made.ravel()[pixels] = neighbour_classes(*memory, queries)
    return _scored(arrays, made, made > 0, start)


def _some(pixels: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    if len(pixels) <= most:
        return pixels
    return np.sort(rng.choice(pixels, most, replace=False))
