"""mIoU against the number of strokes a class: embedded, filters, forest on filters.

Run with::

    python benchmarks/strokes.py CASES_DIR [--plot docs/images/strokes.png]

Strokes are drawn from the ground truth as a person would, the same for every method.
The forest is what peers use: 100 trees on 20 multi-scale filters of scikit-image.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import napari_hrdv2 as hr
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_image, read_labels
from samples import draw_scribbles

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

COUNTS = (1, 2, 4, 8)
Array = NDArray[Any]
Method = Callable[[Array], Array]  # strokes -> segmentation


def linear(image: Array, backbone: Backbone) -> Method:
    """Return the package's way on an image."""
    features = hr.compute_features(image, backbone)
    return lambda strokes: hr.PixelClassifier().fit(features, strokes).predict(features)


def forest(image: Array) -> Method:
    """Return the peers' way on an image."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    planes = multiscale_basic_features(
        image,
        sigma_min=1,
        sigma_max=16,
        num_sigma=5,
        channel_axis=-1 if image.ndim == 3 else None,
    )

    def method(strokes: Array) -> Array:
        drawn = strokes > 0
        trees = RandomForestClassifier(100, n_jobs=-1, random_state=0)
        trees.fit(planes[drawn], strokes[drawn])
        found = trees.predict(planes.reshape(-1, planes.shape[-1]))
        return found.reshape(strokes.shape)

    return method


def main() -> None:
    """Print the table as Markdown and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--draws", type=int, default=2, help="sets of strokes a case")
    options = parser.parse_args()
    cases = json.loads((options.folder / "manifest.json").read_text())
    backbones = {name: hr.load_backbone(name) for name in ("embedded", "filters")}
    scores: dict[str, dict[int, list[float]]] = {}
    for case in cases:
        image = read_image(options.folder / case["image"]).data
        truth = read_labels(options.folder / case["label"]).astype(np.uint8) + 1
        classes = list(range(1, len(case["classes"]) + 1))
        methods = {f"linear, {n}": linear(image, b) for n, b in backbones.items()}
        methods["forest, 20 filters"] = forest(image)
        for count in COUNTS:
            for draw in range(options.draws):
                rng = np.random.default_rng([count, draw])
                strokes = draw_scribbles(rng, truth, count)
                unseen = strokes == 0
                for name, method in methods.items():
                    miou = mean_iou(truth[unseen], method(strokes)[unseen], classes)
                    scores.setdefault(name, {}).setdefault(count, []).append(miou)
    means = {
        name: [float(np.mean(by_count[count])) for count in COUNTS]
        for name, by_count in scores.items()
    }
    print(f"| strokes a class | {' | '.join(map(str, COUNTS))} |")
    print("|---" * (1 + len(COUNTS)) + "|")
    for name, values in means.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    if options.plot is not None:
        draw_plot(options.plot, means, len(cases))


def draw_plot(path: Path, means: dict[str, list[float]], cases: int) -> None:
    """Draw the curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in means.items():
        axes.plot(COUNTS, values, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.set_xlabel("strokes a class")
    axes.set_ylabel(f"mean mIoU of {cases} micrographs")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
