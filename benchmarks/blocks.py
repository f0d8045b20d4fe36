"""Block by block against in memory: time a pixel, equal labels, peak memory.

Run with::

    python benchmarks/blocks.py [--backbone embedded] [--side 4096] [--most 6]

An image of three phases is made tile by tile in a file, and segmented from there by a
classifier that was trained on a megapixel of it. Times are processor time in one
thread. The whole image is computed in memory too, up to ``--whole`` pixels a side. Peak
memory is that of this process, so one process measures one configuration.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from napari_hrdv2 import (
    PixelClassifier,
    block_features,
    compute_features,
    load_backbone,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone

MEGAPIXEL = 1024
WAVES, LEAST_WAVE, MOST_WAVE = 40, 40.0, 400.0  # px
STROKES, STROKE = 30, 40


class FileArray:
    """An (H, W) uint8 array in a file, of which no page stays in memory."""

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, side: int) -> None:
        self.path, self.shape = path, (side, side)
        np.memmap(path, np.uint8, "w+", shape=self.shape)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        return np.array(np.memmap(self.path, np.uint8, "r", shape=self.shape)[key])

    def __setitem__(self, key: Any, values: NDArray[Any]) -> None:
        np.memmap(self.path, np.uint8, "r+", shape=self.shape)[key] = values


def make_image(
    path: Path, side: int, tile: int = MEGAPIXEL
) -> tuple[FileArray, Callable[[slice, slice], NDArray[np.uint8]]]:
    """Return an image in a new file, and what tells the phase of pixels, 1 to 3."""
    rng = np.random.default_rng(0)
    length = np.exp(rng.uniform(np.log(LEAST_WAVE), np.log(MOST_WAVE), WAVES))
    angle, phase = rng.uniform(0, 2 * np.pi, (2, WAVES))
    along = 2 * np.pi * np.array([np.sin(angle), np.cos(angle)]) / length

    def truth(rows: slice, columns: slice) -> NDArray[np.uint8]:
        down, across = (np.arange(s.start, s.stop) for s in (rows, columns))
        # cos(a + b) of a wave is a product, summed over the waves by two matrices
        a, b = np.outer(down, along[0]) + phase, np.outer(across, along[1])
        field = np.cos(a) @ np.cos(b).T - np.sin(a) @ np.sin(b).T
        edges = np.sqrt(WAVES) * np.array([-0.3, 0.4])
        return (1 + np.digitize(field, edges)).astype(np.uint8)

    image = FileArray(path, side)
    for row in range(0, side, tile):
        for column in range(0, side, tile):
            part = (
                slice(row, min(row + tile, side)),
                slice(column, min(column + tile, side)),
            )
            levels = 50.0 * truth(*part) + rng.normal(0, 28, truth(*part).shape)
            image[part] = np.clip(levels, 0, 255)
    return image, truth


def trained(
    image: NDArray[Any], labels: NDArray[np.uint8], backbone: Backbone
) -> PixelClassifier:
    """Return a classifier that was trained on strokes on the upper left corner."""
    rng, drawn = np.random.default_rng(1), np.zeros_like(labels)
    length = min(STROKE, labels.shape[1] - 1)
    for _ in range(STROKES):
        row = rng.integers(labels.shape[0])
        column = rng.integers(labels.shape[1] - length)
        stroke = row, slice(column, column + length)
        drawn[stroke] = labels[stroke]
    return PixelClassifier().fit(compute_features(image, backbone), drawn)


def processor_time(function: Callable[[], Any], repeats: int = 1) -> float:
    """Return the median of some runs, in seconds."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def measured(
    name: str,
    side: int,
    block: int | None,
    *,
    whole: int = 2048,
    corner: int = MEGAPIXEL,
    most: int = 1000,
) -> dict[str, Any]:
    """Return the figures of one backbone and one side of an image.

    Of `most` blocks, evenly spread, if there are more; the whole image is read.
    """
    torch.set_num_threads(1)
    backbone = load_backbone(name, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        image, truth = make_image(Path(folder) / "image", side)
        output = FileArray(Path(folder) / "labels", side)
        corner = min(corner, side)
        part = image[:corner, :corner]
        strokes = truth(slice(0, corner), slice(0, corner))
        classifier = trained(part, strokes, backbone)
        before = psutil.Process().memory_info().rss

        read, right, sides = [], [], []

        def by_blocks() -> None:
            features = block_features(image, backbone, block=block)
            sides.append(features.block)
            regions = list(features.blocks())
            for region in regions[:: -(-len(regions) // most)]:
                output[region] = classifier.predict(features, region=region)
                read.append(region)

        seconds = processor_time(by_blocks)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        in_memory = processor_time(
            lambda: classifier.predict(compute_features(part, backbone)), repeats=3
        )
        for rows, columns in read:
            line = slice(rows.start, rows.start + 1)
            right.append((output[line, columns] == truth(line, columns)).mean())
        pixels = sum(output[region].size for region in read)
        figures = {
            "backbone": name,
            "side": side,
            "block": sides[0],
            "blocks": len(read),
            "microseconds a pixel": seconds / pixels * 1e6,
            "of the rate in memory": seconds / pixels / (in_memory / corner**2),
            "peak MB": peak / 1e6,
            "MB before": before / 1e6,
            "right": float(np.mean(right)),
        }
        if side <= whole and pixels == side**2:
            labels = classifier.predict(compute_features(image[:], backbone))
            figures["equal to the whole"] = float((labels == output[:]).mean())
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--block", type=int, help="Chosen by memory by default.")
    parser.add_argument("--whole", type=int, default=2048)
    parser.add_argument("--most", type=int, default=1000)
    options = parser.parse_args()
    figures = measured(
        options.backbone,
        options.side,
        options.block,
        whole=options.whole,
        most=options.most,
    )
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
