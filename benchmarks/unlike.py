"""Whether *Unlike painted* finds a class that nobody painted.

Run with::

    python benchmarks/unlike.py CASES_DIR [--scribbles a] [--backbone embedded]
    python benchmarks/unlike.py --made 30

The scribbles of one class are left out, of each in turn. AUROC is that of the map for
the pixels of this class against all others that have no scribble: 0.5 is chance. The
uncertainty is there where two classes are left. *Found* is the share of the class
beyond the threshold, *false* that of the other classes; *all* is the share of the whole
image when every class is painted.

Directions, points and neighbours were chosen on every second one of 60 generated
micrographs (seeds from 2^62 + 900, AUROC 0.90 to 0.93), not on the cases.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import napari_hrdv2 as hr
from napari_hrdv2.cli.cases import read_cases
from napari_hrdv2.core.guidance import uncertainty_of, unlikeness_of
from napari_hrdv2.core.guidance.unlike import LIKE
from samples import draw_scribbles, random_micrograph

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

FIRST_SEED, SIDE = (1 << 62) + 1900, 320  # no training and no tuning sees them
NAMES = ("unlike painted", "uncertainty", "found", "false", "all")
Array = NDArray[Any]


def cases(folder: Path, scribbles: str) -> Iterator[tuple[str, Array, Array, Array]]:
    """Yield source, image, truth 1 … K and scribbles."""
    for case in read_cases(folder, scribbles, needed=True):
        arrays = case.read()
        yield case.source, arrays.image, arrays.truth, np.asarray(arrays.drawn)


def made(count: int) -> Iterator[tuple[str, Array, Array, Array]]:
    """Yield generated micrographs with two to six strokes a class."""
    for number in range(count):
        entry = random_micrograph(FIRST_SEED + number, SIDE)
        rng = np.random.default_rng([number, 5])
        drawn = draw_scribbles(rng, entry.labels, int(rng.integers(2, 7)))
        yield "generated", entry.image, entry.labels, drawn


def scores(image: Array, truth: Array, drawn: Array, backbone: Backbone) -> Array:
    """Return the means over classes left out, as `NAMES`; NaN where there is none."""
    features = hr.compute_features(image, backbone)
    seen = (truth > 0) & (drawn == 0)
    every = unlikeness_of(features, [features], [drawn])[seen]
    rows = []
    for class_id in np.unique(drawn[drawn > 0]):
        rest, own = np.where(drawn == class_id, 0, drawn), truth[seen] == class_id
        if not rest.any() or not 0 < own.sum() < len(own):
            continue
        unlike = unlikeness_of(features, [features], [rest])[seen]
        hesitates = np.nan
        if len(np.unique(rest[rest > 0])) > 1:
            model = hr.PixelClassifier().fit(features, rest)
            hesitates = roc_auc_score(own, uncertainty_of(model, features)[seen])
        flagged = unlike > LIKE
        shares = flagged[own].mean(), flagged[~own].mean(), (every > LIKE).mean()
        rows.append([roc_auc_score(own, unlike), hesitates, *shares])
    return np.nanmean(np.reshape(rows, (-1, 5)), 0)


def main() -> None:
    """Print a table: sources, and all images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--scribbles", default="a")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--made", type=int, default=0)
    options = parser.parse_args()
    backbone, by_source = hr.load_backbone(options.backbone), defaultdict(list)
    is_made = options.made > 0
    given = made(options.made) if is_made else cases(options.folder, options.scribbles)
    for source, *arrays in given:
        by_source[source].append(scores(*arrays, backbone))
    every = [one for found in by_source.values() for one in found]
    both = [one for one in every if not np.isnan(one[1])]
    groups = {**by_source, "three classes or more": both, "**all**": every}
    print(f"| {options.backbone} | images | {' | '.join(NAMES)} |")
    print("|---" * (2 + len(NAMES)) + "|")
    for name, found in groups.items():
        means = np.nanmean(found, 0) if found else []
        values = " | ".join("" if np.isnan(v) else f"{v:.3f}" for v in means)
        print(f"| {name} | {len(found)} | {values} |")


if __name__ == "__main__":
    main()
