"""Proposed places against places at random: mIoU after each was named by the truth.

Run with::

    python benchmarks/places.py CASES_DIR [--whole]
    python benchmarks/places.py --made 40

Of the cases the central 512 px are taken, or with ``--whole`` all of an image. A place
is named by the true class of its pixel, and what the window paints there gets that
class, whether it is that or not: of a disc of radius 4 the pixels that are more like
its middle than like other places.
At random the whole disc is painted, as by a person; so are the proposed ones in the
column "whole discs". mIoU is over all pixels that were not painted. Classes that no
place was on count as missed. `--made` takes generated micrographs instead, which the
settings were chosen by.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import disk

import napari_hrdv2 as hr
from napari_hrdv2.core.guidance.places import RADIUS
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_image, read_labels
from samples import random_micrograph

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

COUNTS = (8, 16)
SIDE, MADE_SIDE = 512, 384
DRAWS = 2  # of places at random
FIRST_SEED = (1 << 62) + 500  # no training ever sees them
Array = NDArray[Any]
Case = tuple[str, Array, Array]


def cases(folder: Path, whole: bool) -> Iterator[Case]:
    """Yield name, image and truth, 1 … K, of the cases of a manifest."""
    for case in json.loads((folder / "manifest.json").read_text()):
        image = read_image(folder / case["image"]).data
        truth = read_labels(folder / case["label"]).astype(np.uint8) + 1
        if not whole:
            top, left = (max(0, (size - SIDE) // 2) for size in truth.shape)
            window = np.s_[top : top + SIDE, left : left + SIDE]
            image, truth = image[window], truth[window]
        yield case["id"], image, truth


def made(count: int) -> Iterator[Case]:
    """Yield generated micrographs."""
    for number in range(count):
        entry = random_micrograph(FIRST_SEED + number, MADE_SIDE)
        yield f"made {number}", entry.image, entry.labels


def whole_disc(row: int, column: int, shape: tuple[int, ...]) -> Array:
    """Return the flat indices of a disc around a pixel."""
    rows, columns = disk((row, column), RADIUS + 0.5, shape=shape)
    return np.asarray(rows * shape[1] + columns)


def score(
    features: Features, truth: Array, named: list[tuple[int, Array]]
) -> tuple[float, int]:
    """Return mIoU, and how many classes were missed, of middles and their pixels."""
    painted, classes = np.zeros(truth.shape, np.uint8), np.unique(truth[truth > 0])
    for middle, pixels in named:
        painted.flat[pixels] = truth.flat[middle]
    found = {int(truth.flat[middle]) for middle, _ in named} - {0}
    result = np.full(truth.shape, next(iter(found), 0))
    if len(found) > 1:
        result = hr.PixelClassifier().fit(features, painted).predict(features)
    unseen = painted == 0
    miou = mean_iou(truth[unseen], result[unseen], classes.tolist())
    return miou, len(set(classes.tolist()) - found)


def at_random(features: Features, truth: Array, count: int) -> float:
    """Return the mean mIoU of some sets of places at random."""
    scores = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([draw, 7])
        spots = rng.integers(truth.shape, size=(count, 2)).tolist()
        named = [
            (r * truth.shape[1] + c, whole_disc(r, c, truth.shape)) for r, c in spots
        ]
        scores.append(score(features, truth, named)[0])
    return float(np.mean(scores))


def main() -> None:
    """Print a line for each image, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--made", type=int, default=0)
    options = parser.parse_args()
    backbone, rows, seconds = hr.load_backbone("embedded"), [], []
    given = made(options.made) if options.made else cases(options.folder, options.whole)
    print("image | places, mIoU | classes missed | whole discs | random")
    for name, image, truth in given:
        features = hr.compute_features(image, backbone)
        for count in COUNTS:
            start = time.process_time()
            places = hr.propose_places(features, count)
            seconds.append((time.process_time() - start) / truth.size * 1e6)
            width = truth.shape[1]
            own = [(one.row * width + one.column, one.pixels) for one in places]
            full = [
                (middle, whole_disc(*divmod(middle, width), truth.shape))
                for middle, _ in own
            ]
            miou, missed = score(features, truth, own)
            discs, chance = (
                score(features, truth, full)[0],
                at_random(features, truth, count),
            )
            rows.append((count, miou, missed, discs, chance))
            print(
                f"{name}, {count} | {miou:.3f} | {missed} | {discs:.3f} | {chance:.3f}"
            )
    for count in COUNTS:
        table = np.array([row[1:] for row in rows if row[0] == count])
        means, better = table.mean(0), int((table[:, 0] > table[:, 3]).sum())
        print(
            f"{count} places of {len(table)} images: {means[0]:.4f}, whole discs "
            f"{means[2]:.4f}, at random {means[3]:.4f}; better than at random in "
            f"{better}, a class missed in {int((table[:, 1] > 0).sum())}"
        )
    print(f"processor time per megapixel, median: {np.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
