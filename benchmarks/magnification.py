"""What a classifier is worth on images of another magnification.

Run with::

    python benchmarks/magnification.py CASES_DIR [--backbone embedded] [--every 2]
    python benchmarks/magnification.py CASES_DIR --two

CASES_DIR is as for `evaluate`. Of the central 512 × 512 px of each case, a classifier
is trained on the `a` scribbles, and segments the same pixels resized by some factors:
by their own pixel size unknown (as is), or known, so that they are resampled to that of
the training. Beside these, one that is trained on the resized scribbles. All is scored
on the resized truth. With `--two`, one classifier is trained on the left half of the
central 384 × 384 px and on the right half resized to half of it, as they are or brought
to the pixels of one of them, and scored on both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from skimage.transform import resize

from napari_hrdv2 import PixelClassifier, load_backbone
from napari_hrdv2.cli.cases import read_cases
from napari_hrdv2.core.features.compute import compute_features
from napari_hrdv2.core.features.resampled import (
    ResampledFeatures,
    compute_resampled,
    resized,
)
from napari_hrdv2.core.measure.scores import mean_iou

SIDE = 512
FACTORS = (0.5, 0.7, 1.4, 2.0)
WAYS = ("own", "as is", "resampled")
TWO = 384
SEEN_AS = {
    "as they are": (None, None),
    "with the finer pixels": (None, (2.0, 2.0)),
    "with the coarser pixels": ((0.5, 0.5), None),
}


def scores_of(case, backbone) -> list[float] | None:
    """Return the mean IoU at the case's own pixels, then of each factor and way.

    None where the crop has scribbles of one class.
    """
    height, width = case.image.shape[:2]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    window = slice(top, top + SIDE), slice(left, left + SIDE)
    image, truth, drawn = case.image[window], case.truth[window], case.drawn[window]

    if len(np.unique(drawn[drawn > 0])) < 2:
        return None

    def score(known, predicted) -> float:
        return mean_iou(known, np.where(known > 0, predicted, 0), case.class_ids)

    features = compute_features(image, backbone)
    classifier = PixelClassifier().fit(features, drawn)
    found = [score(truth, classifier.predict(features))]
    for factor in FACTORS:
        seen = resized(image, (factor, factor))
        shape = seen.shape[:2]
        known, scribbles = (nearest(labels, shape) for labels in (truth, drawn))
        there = compute_features(seen, backbone)
        back = compute_features(resized(seen, (1 / factor, 1 / factor)), backbone)
        own = PixelClassifier().fit(there, scribbles).predict(there)
        moved = classifier.predict(ResampledFeatures(back, shape))
        for labels in (own, classifier.predict(there), moved):
            found.append(score(known, labels))
    return found


def scores_of_two(case, backbone) -> list[float] | None:
    """Return the mean IoU of both halves, of each way to see them together."""
    height, width = case.image.shape[:2]
    top, left = max(0, (height - TWO) // 2), max(0, (width - TWO) // 2)
    window = slice(top, top + TWO), slice(left, left + TWO)
    parts = [part[window] for part in (case.image, case.truth, case.drawn)]
    half = parts[0].shape[1] // 2
    fine, (image, *labels) = ([p[:, at] for p in parts] for at in np.s_[:half, half:])
    image = resized(image, (0.5, 0.5))
    coarse = [image, *(nearest(each, image.shape[:2]) for each in labels)]
    there = [set(np.unique(part[2])) - {0} for part in (fine, coarse)]
    if not all(there) or len(set.union(*there)) < 2:
        return None
    found = []
    for ratios in SEEN_AS.values():
        pairs = zip((fine, coarse), ratios, strict=True)
        features = [compute_resampled(part[0], backbone, by) for part, by in pairs]
        classifier = PixelClassifier().fit(features, [fine[2], coarse[2]])
        for made, (_, truth, _) in zip(features, (fine, coarse), strict=True):
            labels = np.where(truth > 0, classifier.predict(made), 0)
            found.append(mean_iou(truth, labels, case.class_ids))
    return found


def nearest(labels, shape):
    """Return labels with other numbers of rows and columns."""
    return resize(labels, shape, order=0, preserve_range=True, anti_aliasing=False)


def main() -> None:
    """Print a table of means over the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--every", type=int, default=1, help="take every Nth case")
    parser.add_argument("--two", action="store_true", help="two pixel sizes together")
    given = parser.parse_args()
    backbone, rows = load_backbone(given.backbone), []
    score = scores_of_two if given.two else scores_of
    for case in read_cases(given.cases, "a", needed=True)[:: given.every]:
        found = score(case.read(), backbone)
        if found is None:
            print(case.id, "has too few scribbles there: left out", flush=True)
            continue
        rows.append(found)
        print(case.id, *(f"{each:.3f}" for each in rows[-1]), flush=True)
    if given.two:
        print(
            f"\n{len(rows)} cases\n\n| seen | fine half | coarse half |\n|---|---|---|"
        )
        for how, pair in zip(SEEN_AS, np.mean(rows, 0).reshape(-1, 2), strict=True):
            print(f"| {how} | {pair[0]:.3f} | {pair[1]:.3f} |")
        return
    first, *means = np.mean(rows, 0)
    print(f"\n{len(rows)} cases, at the magnification of the training {first:.3f}\n")
    print("| factor |", " | ".join(WAYS), "|\n|---" * 4, "|", sep="")
    for number, factor in enumerate(FACTORS):
        told = means[3 * number : 3 * number + 3]
        print(f"| {factor} |", " | ".join(f"{each:.3f}" for each in told), "|")


if __name__ == "__main__":
    main()
