"""What smoothing does to mIoU, to the worst class, and how long it takes.

Run with::

    python benchmarks/refine.py CASES_DIR [--backbone embedded] [--scribbles a]

Probabilities come from a classifier that was trained on each case's strokes alone;
pixels without a stroke are scored. `worst case` and `worst class` are the largest
losses of mIoU and of a class's IoU in any case. Seconds are processor time for
1024 × 1024 px and 3 classes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import napari_hrdv2 as hr
from napari_hrdv2.core.measure.scores import iou_per_class
from napari_hrdv2.core.postprocess.refinement import Refinement, refine
from napari_hrdv2.files import read_image, read_labels
from samples import make_sample

SETTINGS = [
    Refinement(),
    *(
        Refinement(smoothing, radius, strength)
        for smoothing in ("guided", "crf")
        for radius, strength in ((4, 0.5), (8, 0.25), (8, 0.5), (8, 1.0), (16, 0.5))
    ),
    Refinement(min_object=20, fill_holes=20),
    Refinement("guided", min_object=20, fill_holes=20),
    Refinement("crf", min_object=20, fill_holes=20),
]


@dataclass
class Case:
    """One image with what the classifier says, and the truth."""

    image: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    truth: np.ndarray
    unseen: np.ndarray

    def iou(self, refinement: Refinement) -> np.ndarray:
        """Return the IoU of each class on the pixels without a stroke."""
        labels = refine(self.probabilities, self.image, self.classes, refinement)
        seen = self.unseen
        return iou_per_class(self.truth[seen], labels[seen], self.classes.tolist())


def read_cases(folder: Path, backbone_name: str, scribbles: str) -> list[Case]:
    """Train on each case's strokes and return what the classifiers say."""
    backbone = hr.load_backbone(backbone_name)
    cases = []
    for entry in json.loads((folder / "manifest.json").read_text(encoding="utf-8")):
        image = read_image(folder / entry["image"]).data
        strokes = read_labels(folder / entry["scribbles"][scribbles])
        truth = read_labels(folder / entry["label"]).astype(int) + 1
        features = hr.compute_features(image, backbone)
        classifier = hr.PixelClassifier().fit(features, strokes)
        probabilities = classifier.predict_proba(features)
        cases.append(
            Case(image, probabilities, classifier.classes, truth, strokes == 0)
        )
    return cases


def seconds(refinement: Refinement) -> float:
    """Return the least processor time of three for 1024 × 1024 px and 3 classes."""
    sample = make_sample("particles", (1024, 1024))
    image, classes = sample.image, np.arange(1, 4)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 1, (3, *image.shape[:2]))
    planes = np.exp(2 * (sample.labels == classes) + noise).astype(np.float32)
    planes /= planes.sum(0)
    times = []
    for _ in range(3):
        start = time.process_time()
        refine(planes, image, [1, 2, 3], refinement)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--scribbles", default="a")
    options = parser.parse_args()
    cases = read_cases(options.folder, options.backbone, options.scribbles)
    raw = [case.iou(Refinement()) for case in cases]
    means = np.array([np.nanmean(iou) for iou in raw])
    print(
        "| smoothing | radius | strength | objects, holes | mean mIoU | better in | "
        "worst case | worst class | seconds |"
    )
    print("|---" * 9 + "|")
    for setting in SETTINGS:
        ious = [case.iou(setting) for case in cases]
        change = np.array([np.nanmean(iou) for iou in ious]) - means
        classes = np.concatenate(ious) - np.concatenate(raw)
        shown = (setting.radius, setting.strength) if setting.smooths else ("", "")
        print(
            f"| {setting.smoothing} | {shown[0]} | {shown[1]} | "
            f"{setting.min_object} px | {means.mean() + change.mean():.4f} | "
            f"{np.sum(change > 0)} of {len(cases)} | {min(0, change.min()):+.3f} | "
            f"{min(0, np.nanmin(classes)):+.3f} | {seconds(setting):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
