"""How well features tell where they are, as Markdown: what `debias` takes out.

The images show nothing but noise: even surfaces of a different grey each ("flat",
deviation 0.02) and grainy ones ("noise", deviation 0.1). A ridge regression is fitted
from the features at the token centres of some images to row, column and their squares;
R² is that on other images, so that chance gives 0 or less. The level of each image is
taken off before: it tells nothing about positions. "Variance" is that of the features
over the image, where 1 is without debias: near 0 is what an even surface should have.

Random weights have a random vector for each position, which no two positions share.
Trained ones vary smoothly over the image, as does what "smooth" puts in their place:
five smooth functions of the position along random directions, as strong.

Run with::

    python benchmarks/position.py [--only dinov2-small] [--side 322]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.model import VisionTransformer

Array = NDArray[np.float64]

BACKBONES = ("dinov2-small", "dino-small-16")
KINDS = {"flat": 0.02, "noise": 0.1}  # standard deviation of the grey levels
IMAGES, TESTED = 8, 2
RIDGE = 0.01  # per sample, on features of deviation 1
SETTINGS = (
    ("identity", "none"),
    ("identity", "mean"),
    ("identity", "project"),
    ("flip", "none"),
    ("flip", "mean"),
    ("flip", "project"),
    ("far shifts", "none"),
)


def smooth_positions(model: VisionTransformer) -> None:
    """Replace the position embedding of patches by ramps and bows."""
    table = model.pos_embed[0, 1:]  # (positions, C)
    side = round(len(table) ** 0.5)
    rows, columns = _row_and_column(side, side)
    basis = np.stack(
        [rows, columns, rows * columns, rows**2 - 1 / 3, columns**2 - 1 / 3]
    )
    basis /= basis.std(1, keepdims=True)
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(5, table.shape[1], generator=generator) / 5**0.5
    table.copy_(table.std() * torch.from_numpy(basis.T).float() @ directions)


def _row_and_column(height: int, width: int) -> tuple[Array, Array]:
    """Return the row and the column of each place of a grid, from -1 to 1."""
    rows, columns = np.meshgrid(
        np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"
    )
    return rows.ravel(), columns.ravel()


def surfaces(deviation: float, side: int) -> Iterator[NDArray[np.float32]]:
    """Yield the images of one kind, (side, side) in 0..1."""
    rng = np.random.default_rng(7)
    for level in rng.uniform(0.3, 0.7, IMAGES):
        noise = rng.standard_normal((side, side))
        yield (level + deviation * noise).clip(0, 1).astype(np.float32)


def features_of(
    image: NDArray[np.float32], backbone: ViTBackbone, transforms: str, debias: str
) -> Array:
    """Return the features at the token centres, level at 0, (N, C)."""
    features = hr.compute_features(
        image, backbone, transforms, value_range=(0, 1), debias=debias
    )
    centres = np.arange(backbone.patch_size // 2, len(image), backbone.patch_size)
    rows, columns = (grid.ravel() for grid in np.meshgrid(centres, centres))
    sampled = features.sample(columns, rows).astype(np.float64)  # row by row
    return sampled - sampled.mean(0)


def explained(maps: list[Array]) -> float:
    """Return R² of position, the mean over its four measures, on the last images."""
    side = round(len(maps[0]) ** 0.5)
    rows, columns = _row_and_column(side, side)
    truth = np.stack([rows, columns, rows**2, columns**2], 1)
    truth -= truth.mean(0)
    trained = np.concatenate(maps[:-TESTED])
    deviation = trained.std(0) + 1e-9
    trained = trained / deviation
    target = np.tile(truth, (IMAGES - TESTED, 1))
    penalty = RIDGE * len(trained) * np.eye(trained.shape[1])
    weight = np.linalg.solve(trained.T @ trained + penalty, trained.T @ target)
    residual = [tested / deviation @ weight - truth for tested in maps[-TESTED:]]
    return float((1 - np.mean(np.square(residual), (0, 1)) / truth.var(0)).mean())


def measure(name: str, positions: str, side: int) -> None:
    """Print the rows of one backbone."""
    backbone = hr.load_backbone(name, "random", "cpu", precision="float32")
    assert isinstance(backbone, ViTBackbone)
    side = side // backbone.patch_size * backbone.patch_size
    if positions == "smooth":
        smooth_positions(backbone.model)
        backbone.weights_hash += "-smooth"
    unchanged: dict[str, float] = {}
    for transforms, debias in SETTINGS:
        patches = side // backbone.patch_size
        steps = (patches // 4 * backbone.patch_size, patches // 2 * backbone.patch_size)
        spec = transforms.replace("far shifts", f"shift:{steps[0]},{steps[1]}:neumann")
        cells, start = [], time.perf_counter()
        for kind, deviation in KINDS.items():
            maps = [
                features_of(image, backbone, spec, debias)
                for image in surfaces(deviation, side)
            ]
            variance = float(np.mean([each.var(0).mean() for each in maps]))
            share = variance / unchanged.setdefault(kind, variance)
            cells += [f"{explained(maps):.2f}", f"{share:.2f}"]
        seconds = (time.perf_counter() - start) / IMAGES / len(KINDS)
        row = (f"{name}, {positions}", transforms, debias, *cells, f"{seconds:.2f}")
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=BACKBONES, metavar="BACKBONE")
    parser.add_argument("--side", type=int, default=322, help="Pixels; whole patches.")
    chosen = parser.parse_args()
    print("| weights, positions | transforms | debias ", end="")
    print("".join(f"| {kind}: R² | variance " for kind in KINDS) + "| s per image |")
    print("|---" * 8 + "|")
    for name in chosen.only:
        for positions in ("random", "smooth"):
            measure(name, positions, chosen.side)


if __name__ == "__main__":
    main()
