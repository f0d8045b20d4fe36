"""Show the cases that come out worst: image, truth and segmentation side by side.

Run with::

    python benchmarks/worst.py CASES_DIR worst.png [--backbone embedded] [--count 5]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import napari_hrdv2 as hr
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_image, read_labels

HEIGHT, GAP = 320, 8
COLORS = np.array(
    [[0, 0, 0], [68, 119, 170], [238, 102, 119], [34, 136, 51], [204, 187, 68]],
    np.uint8,
)


def main() -> None:
    """Print each case's mIoU, the worst first, and draw the worst."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--scribbles", default="a")
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    backbone = hr.load_backbone(options.backbone)
    results = []
    for case in json.loads((options.folder / "manifest.json").read_text()):
        image = read_image(options.folder / case["image"]).data
        truth = read_labels(options.folder / case["label"]).astype(np.uint8) + 1
        strokes = read_labels(options.folder / case["scribbles"][options.scribbles])
        features = hr.compute_features(image, backbone)
        found = hr.PixelClassifier().fit(features, strokes).predict(features)
        unseen = strokes == 0
        classes = range(1, len(case["classes"]) + 1)
        miou = mean_iou(truth[unseen], found[unseen], list(classes))
        results.append((miou, case["id"], row(image, truth, strokes, found)))
    results.sort(key=lambda result: result[0])
    for miou, name, _ in results:
        print(f"{miou:.3f}  {name}")
    rows = [entry for _, _, entry in results[: options.count]]
    sheet = Image.new(
        "RGB",
        (max(r.width for r in rows), len(rows) * (HEIGHT + GAP) - GAP),
        "white",
    )
    for number, entry in enumerate(rows):
        sheet.paste(entry, (0, number * (HEIGHT + GAP)))
    sheet.save(options.entry)


def row(*panels: NDArray[Any]) -> Image.Image:
    """Return image, truth, strokes and segmentation beside one another."""
    image, *labels = panels
    arrays = [image, *(COLORS[array] for array in labels)]
    width = round(HEIGHT * image.shape[1] / image.shape[0])
    strip = Image.new("RGB", (len(arrays) * (width + GAP) - GAP, HEIGHT), "white")
    for number, array in enumerate(arrays):
        panel = Image.fromarray(array).convert("RGB").resize((width, HEIGHT))
        strip.paste(panel, (number * (width + GAP), 0))
    return strip


if __name__ == "__main__":
    main()
