"""A simulated user: one scribble a class, then corrections of the largest wrong region.

Run with::

    python benchmarks/corrections.py CASES_DIR [--backbones embedded] [--draws 2]

Every correction is right, and lies within the largest region that is wrong. Prints the
mean IoU on all pixels after each, and how many corrections cost more than 0.02 of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import napari_hrdv2 as hr
from napari_hrdv2.cli.cases import read_cases
from napari_hrdv2.core.measure.scores import mean_iou
from samples import draw_scribbles

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

Array = NDArray[Any]
CORRECTIONS, COSTLY = 10, 0.02
MOST_PIXELS = 500_000  # of a case
TOLD = 0, 3, 5, 10


def largest_wrong(truth: Array, found: Array) -> Array:
    """Return the true classes of the largest region that is wrong, and 0 elsewhere."""
    largest, size = np.zeros_like(truth), 0
    for label in np.unique(truth[truth > 0]).tolist():
        regions, _ = ndimage.label((truth == label) & (found != label))
        sizes = np.bincount(regions.ravel())[1:]
        if sizes.size and sizes.max() > size:
            size = int(sizes.max())
            largest = np.where(regions == 1 + sizes.argmax(), label, 0)
    return largest.astype(np.uint8)


def curve(features: Features, truth: Array, draw: int) -> list[float]:
    """Return the mean IoU after the first scribbles and after each correction."""
    rng = np.random.default_rng(draw)
    classes = np.unique(truth[truth > 0]).tolist()
    drawn = draw_scribbles(rng, truth, 1)
    scores, classifier = [], hr.PixelClassifier()
    for _ in range(CORRECTIONS + 1):
        found = classifier.fit(features, drawn).predict(features)
        scores.append(mean_iou(truth, found, classes))
        wrong = largest_wrong(truth, found)
        if wrong.any():
            more = draw_scribbles(rng, wrong, 1)
            drawn = np.where(more > 0, more, drawn)
    return scores


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["embedded"])
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    cases = [case.read() for case in read_cases(options.folder, "a", needed=False)]
    cases = [case for case in cases if case.truth.size < MOST_PIXELS]
    print("| | " + " | ".join(f"after {n}" for n in TOLD) + " | mean | costly |")
    print("|---" * (len(TOLD) + 3) + "|")
    for name in options.backbones:
        backbone = hr.load_backbone(name)
        curves = []
        for case in cases:
            features = hr.compute_features(case.image, backbone)
            truth = case.truth.astype(np.uint8)
            curves += [curve(features, truth, draw) for draw in range(options.draws)]
        table = np.array(curves)
        costly = (np.diff(table, axis=1) < -COSTLY).mean()
        told = " | ".join(f"{table[:, n].mean():.3f}" for n in TOLD)
        print(f"| {name} | {told} | {table.mean():.3f} | {costly:.1%} |", flush=True)


if __name__ == "__main__":
    main()
