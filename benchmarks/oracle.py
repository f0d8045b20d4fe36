"""How much each interpolation resolves, were the backbone ideal, as Markdown.

The evidence at a token is the share of each class in its patch, from the ground truth;
it is upsampled and the largest wins. "Noisy" evidence is blurred by 7 px before and has
noise of 0.1 added. So this tells about the upsampling and nothing about a backbone.
Means are over sources of images, of the means over their images.

Run with::

    python benchmarks/oracle.py CASES_DIR
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.features.transforms import parse_transforms
from napari_hrdv2.core.features.upsampling.separable import padded_length
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_image, read_labels

Score = tuple[float, float, float, float]

PATCH = 14
SIDE = 512  # pixels of an image that are used
BLUR, NOISE = 7.0, 0.1
NEAR_BORDER = 3  # pixels
PLAIN = ("nearest", "bilinear", "bicubic")
SHARP = ("bilinear+1", "bilinear+2", "bicubic+1", "bilateral", "bilateral+1")
INTERPOLATIONS = (*PLAIN, *SHARP, "bilateral+2")
BY_SOURCE = ("bilinear", "bilinear+2", "bilateral+2")
SETTINGS = {
    ("identity", 14): INTERPOLATIONS,
    ("identity", 7): INTERPOLATIONS,
    ("shift:1,2", 14): ("bilinear", "bilinear+2", "bilateral", "bilateral+2"),
    ("lattice:2", 14): (
        "bilinear",
        "bilinear+2",
        "interleaved",
        "interleaved+1",
        "interleaved+2",
        "bilateral+2",
    ),
}


def tokens_of(
    truth: NDArray[np.int64], classes: int, transforms: str, stride: int, *, noisy: bool
) -> torch.Tensor:
    """Return the evidence for each class, (T, h, w, classes)."""
    shares = torch.nn.functional.one_hot(torch.from_numpy(truth).long(), classes)
    planes = shares.movedim(2, 0).float()
    if noisy:
        planes = blurred(planes, BLUR)
    extra = [padded_length(n, PATCH, stride) - n for n in truth.shape]
    planes = torch.nn.functional.pad(planes, (0, extra[1], 0, extra[0]), "reflect")
    grids = []
    for copy in parse_transforms(transforms, stride).copies:
        moved = copy.transform.apply(planes)[None]
        means = torch.nn.functional.avg_pool2d(moved, PATCH, stride)
        grids.append(means[0].movedim(0, 2))
    tokens = torch.stack(grids)
    if noisy:
        generator = torch.Generator().manual_seed(0)
        tokens = tokens + NOISE * torch.randn(tokens.shape, generator=generator)
    return tokens


def blurred(planes: torch.Tensor, deviation: float) -> torch.Tensor:
    """Return (C, H, W) planes smoothed by a Gaussian."""
    reach = int(3 * deviation)
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    planes = torch.nn.functional.pad(planes[:, None], (reach,) * 4, "replicate")
    planes = torch.nn.functional.conv2d(planes, kernel[None, None, :, None])
    return torch.nn.functional.conv2d(planes, kernel[None, None, None, :])[:, 0]


def near_borders(truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pixels are at most `NEAR_BORDER` away from another class."""
    size = 2 * NEAR_BORDER + 1
    planes = torch.from_numpy(truth)[None, None].float()
    largest = torch.nn.functional.max_pool2d(planes, size, 1, NEAR_BORDER)
    smallest = -torch.nn.functional.max_pool2d(-planes, size, 1, NEAR_BORDER)
    return (largest != smallest)[0, 0].numpy()


def read_cases(
    folder: Path,
) -> Iterator[tuple[dict[str, Any], NDArray[Any], NDArray[np.int64]]]:
    """Yield each case of the manifest with its image and truth, cut to the middle.

    Crops of one class only are left out.
    """
    for case in json.loads((folder / "manifest.json").read_text()):
        image = read_image(folder / case["image"]).data
        truth = read_labels(folder / case["label"]).astype(np.int64)
        crop = tuple(slice(max(0, n - SIDE) // 2, (n + SIDE) // 2) for n in truth.shape)
        image, truth = image[crop].astype(np.float32), truth[crop]
        if near_borders(truth).any():
            guide = np.moveaxis(image, 2, 0) if image.ndim == 3 else image[None]
            yield case, guide, truth


def score(
    tokens: torch.Tensor,
    guide: NDArray[Any],
    truth: NDArray[np.int64],
    transforms: str,
    stride: int,
    interpolation: str,
) -> Score:
    """Return mIoU, that near borders, and milliseconds to prepare and to segment."""
    classes = tokens.shape[-1]
    known = truth < classes
    border = known & near_borders(truth)
    weight, bias = np.eye(classes), np.zeros(classes)
    start = time.perf_counter()
    features = HighResFeatures(
        tokens, transforms, truth.shape, PATCH, stride, interpolation, guide=guide
    )
    features.argmax(weight, bias)
    between = time.perf_counter()
    labels = features.argmax(weight, bias).astype(np.int64)
    stop = time.perf_counter()
    return (
        mean_iou(truth[known], labels[known], range(classes)),
        mean_iou(truth[border], labels[border], range(classes)),
        1000 * (between - start),
        1000 * (stop - between),
    )


Results = dict[str, dict[str, list[Score]]]  # interpolation, source, its cases


def print_table(title: str, clean: Results, noisy: Results) -> None:
    """Print the means over sources, of the means over their cases."""
    print(f"\n| {title} | mIoU | near borders | noisy | near borders | ms once | ms |")
    print("|---" * 7 + "|")
    for name in clean:
        cells = []
        for results in (clean, noisy):
            means = [np.mean(scores, 0) for scores in results[name].values()]
            miou, border, once, again = np.mean(means, 0)
            wins, count = count_wins(results, name)
            cells += [f"{miou:.3f} ({wins}/{count})", f"{border:.3f}"]
        print(f"| `{name}` | {' | '.join(cells)} | {once:.0f} | {again:.0f} |")


def count_wins(results: Results, name: str) -> tuple[int, int]:
    """Return how many cases are better than with bilinear, and how many there are."""
    ours, plain = (
        [score[0] for scores in results[which].values() for score in scores]
        for which in (name, "bilinear")
    )
    return sum(a > b for a, b in zip(ours, plain, strict=True)), len(ours)


def print_sources(title: str, clean: Results, noisy: Results) -> None:
    """Print the mIoU of each source, clean and noisy."""
    columns = [(results, name) for results in (clean, noisy) for name in BY_SOURCE]
    titles = [f"`{name}`" for name in BY_SOURCE]
    titles += [f"noisy: {name}" for name in titles]
    print(f"\n| {title} | {' | '.join(titles)} |")
    print("|---" * (1 + len(columns)) + "|")
    for source in clean["bilinear"]:
        means = [np.mean(results[name][source], 0)[0] for results, name in columns]
        print(f"| {source} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


def main() -> None:
    """Print a table for each transform set and stride."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    cases = list(read_cases(options.folder))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for (transforms, stride), names in SETTINGS.items():
        clean, noisy = (
            {name: defaultdict[str, list[Score]](list) for name in names}
            for _ in range(2)
        )
        for (case, guide, truth), results in itertools.product(cases, (clean, noisy)):
            count = len(case["classes"])
            is_noisy = results is noisy
            tokens = tokens_of(truth, count, transforms, stride, noisy=is_noisy)
            for name in names:
                results[name][case["source"]].append(
                    score(tokens, guide, truth, transforms, stride, name)
                )
        title = f"{transforms}, stride {stride}"
        print_table(title, clean, noisy)
        if (transforms, stride) == ("identity", 14):
            print_sources(title, clean, noisy)


if __name__ == "__main__":
    main()
