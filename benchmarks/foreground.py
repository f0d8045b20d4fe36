"""How well *Foreground* marks one of the classes of a micrograph.

Run with::

    python benchmarks/foreground.py CASES_DIR [--backbone NAME --transforms SET]

The IoU of the foreground of the first principal component with the class of the truth
that it fits best. Beside it the best class of either half, which leaves the choice of
the half out; the same of the grey levels above and below Otsu's threshold; and the
largest class when the whole image is taken. Nothing was chosen on the cases.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from skimage.filters import threshold_otsu

from alike import print_means
from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.cli.cases import read_cases
from napari_hrdv2.core.guidance.foreground import principal_foreground

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.cli.cases import CaseArrays

NAMES = ("foreground", "either half", "either side of Otsu's threshold", "all of it")


def best_iou(mask: NDArray[np.bool_], truth: NDArray[np.int64]) -> float:
    """Return the IoU of a mask with the class that it fits best, where one is known."""
    inside = mask[truth > 0]
    known = truth[truth > 0]
    classes = [known == i for i in np.unique(known)]
    return max((inside & one).sum() / (inside | one).sum() for one in classes)


def scores(arrays: CaseArrays, mask: NDArray[np.bool_]) -> list[float]:
    """Return the IoU by each of the `NAMES`."""
    image, truth = arrays.image, arrays.truth
    grey = image.astype(float) if image.ndim == 2 else image[..., :3].mean(-1)
    bright = grey > threshold_otsu(grey)
    return [
        best_iou(mask, truth),
        max(best_iou(mask, truth), best_iou(~mask, truth)),
        max(best_iou(bright, truth), best_iou(~bright, truth)),
        best_iou(np.ones_like(mask), truth),
    ]


def main() -> None:
    """Print a table: sources, and all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--transforms", default="auto")
    parser.add_argument("--weights")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # on grey levels of which only few are used
    backbone = load_backbone(options.backbone, weights=options.weights)
    by_source = defaultdict(list)
    for case in read_cases(options.folder, "a", needed=False):
        arrays = case.read()
        features = compute_features(arrays.image, backbone, options.transforms)
        found = principal_foreground([features], [arrays.image])
        mask = found.predict(features).astype(bool)
        by_source[case.source].append(scores(arrays, mask))
    print_means(f"IoU, `{options.backbone}`", NAMES, by_source)


if __name__ == "__main__":
    main()
