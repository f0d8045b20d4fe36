"""How well *Find alike* finds pixels of the class that was clicked.

Run with::

    python benchmarks/alike.py CASES_DIR [--backbone embedded]

For each class of a case the disc around some random pixels of it is the query, and
pixels from all over the image are ranked by their similarity to it; those that are of
the class are what is to be found. Average precision is averaged over queries, classes
and cases. "Ten places" is the share of the listed places that is of the class. Grey
level ranks by the difference to the mean grey level of the disc; chance is the share of
the class.

Nothing is fitted to the cases, but two choices were made on them, on other random
pixels: the radius of the disc, of 0, 2, 4 and 6 px (0.70, 0.72, 0.73, 0.73), and that
the listed places are in the order of the cosine (share of the ten best pixels that is
of the class 0.86) rather than of the scalar product (0.78).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import disk
from sklearn.metrics import average_precision_score

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.cli.cases import read_cases
from napari_hrdv2.core.guidance.alike import RADIUS, alike_places, similar_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.cli.cases import CaseArrays
    from napari_hrdv2.core.features.base import Features

QUERIES, RANKED = 10, 6000  # of each class, and of each image
NAMES = ("find alike", "grey level", "chance", "ten places")


def precisions(
    arrays: CaseArrays, features: Features, seed: int
) -> NDArray[np.float64]:
    """Return the mean average precision of a case, by each of the `NAMES`."""
    rng = np.random.default_rng(seed)
    image, truth = arrays.image, arrays.truth
    grey = image.astype(float) if image.ndim == 2 else image[..., :3].mean(-1)
    known = np.flatnonzero(truth)
    ranked = rng.choice(known, min(RANKED, len(known)), replace=False)
    rows, columns = np.divmod(ranked, truth.shape[1])
    found = []
    for class_id in arrays.class_ids:
        is_wanted = truth.flat[ranked] == class_id
        inside = np.flatnonzero(truth == class_id)
        if not is_wanted.any():
            continue
        each = []
        for pixel in rng.choice(inside, QUERIES):
            row, column = np.divmod(int(pixel), truth.shape[1])
            model = similar_to([features], row, column)
            dense = model.of(features)
            places = alike_places(model, [features], [dense], query=(0, row, column))
            hits = np.mean([truth[one.row, one.column] == class_id for one in places])
            similarity = dense[rows, columns]
            level = grey[disk((row, column), RADIUS + 0.5, shape=grey.shape)].mean()
            near = -abs(grey[rows, columns] - level)
            scores = [
                average_precision_score(is_wanted, one) for one in (similarity, near)
            ]
            each.append([*scores, is_wanted.mean(), hits])
        found.append(np.mean(each, 0))
    return np.mean(found, 0)


def print_means(
    title: str, names: Sequence[str], by_source: Mapping[str, Sequence[ArrayLike]]
) -> None:
    """Print the means of what was measured as a table: sources, and all cases."""
    print(f"| {title} | cases | {' | '.join(names)} |")
    print("|---" * (2 + len(names)) + "|")
    every = [one for found in by_source.values() for one in found]
    for name, found in [*by_source.items(), ("**all**", every)]:
        values = " | ".join(f"{value:.3f}" for value in np.mean(found, 0))
        print(f"| {name} | {len(found)} | {values} |")


def main() -> None:
    """Print a table: sources, and all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    backbone = load_backbone(options.backbone, weights=options.weights)
    by_source = defaultdict(list)
    for case in read_cases(options.folder, "a", needed=False):
        arrays = case.read()
        features = compute_features(arrays.image, backbone)
        by_source[case.source].append(precisions(arrays, features, options.seed))
    title = f"mean average precision, `{options.backbone}`"
    print_means(title, NAMES, by_source)


if __name__ == "__main__":
    main()
