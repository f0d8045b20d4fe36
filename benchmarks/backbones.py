"""Whether the geometry of every backbone holds under transforms, as Markdown.

Weights are random, so this tells about geometry, time and memory and nothing about
what features are worth. A cell says seconds and, after the slash, MB that the features
keep. Before it is printed it is checked that the features are finite and of the shape
of the image, and that a readout is that of the map written out in full::

    max |project(W) - W materialize()| ≤ 1e-5 max |W materialize()|

Variants are run where `--only` names them. Backbones over `--limit` million weights,
and those that `--only` does not name, are not run, but the shape of a ViT's tokens is
checked without computing them.

Run with::

    python benchmarks/backbones.py [--only dinov2-small filters …] [--limit 100]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones import (
    Backbone,
    backbone_info,
    backbone_names,
    backbone_variants,
)
from napari_hrdv2.core.backbones.registry import SPECS
from napari_hrdv2.core.backbones.vit.model import VisionTransformer
from napari_hrdv2.core.backbones.vit.specs import ViTSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.features.base import Features

SHAPE = (217, 301)  # 301 wide, 217 high; no patch size divides either
TOLERANCE = 1e-5
SETTINGS = ("plain", "stride P/2", "shift:1,2", "lattice:2", "flip", "rotate")


def image(channels: int) -> NDArray[np.float32]:
    """Return a grey (H, W) or RGB (H, W, 3) image of noise in 0..1."""
    rng = np.random.default_rng(0)
    pixels = rng.random((*SHAPE, channels), np.float32)
    return pixels[..., 0] if channels == 1 else pixels


def failure(features: Features, channels: int) -> str:
    """Return what is wrong with features, or ""."""
    dense = features.materialize()
    if dense.shape != (channels, *SHAPE) or features.shape != dense.shape:
        return f"shape {dense.shape}"
    if not np.isfinite(dense).all():
        return "not finite"
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((3, channels)).astype(np.float32)
    expected = np.tensordot(weight.astype(np.float64), dense, 1)
    found = features.project(weight, np.zeros(3))
    error = np.abs(found - expected).max() / np.abs(expected).max()
    return "" if error <= TOLERANCE else f"identity only to {error:.0e}"


def cell(backbone: Backbone, setting: str, channels: int) -> str:
    """Return seconds and memory of one run, or what is wrong."""
    stride = max(backbone.patch_size // 2, 1) if setting == "stride P/2" else None
    transforms = "identity" if setting in SETTINGS[:2] else setting
    start = time.perf_counter()
    try:
        features = hr.compute_features(
            image(channels), backbone, transforms, stride, value_range=(0, 1)
        )
    except ValueError as error:
        return f"refused: {error}"
    seconds = time.perf_counter() - start
    own = backbone.channels_for(channels)
    wrong = failure(features, 2 * own if backbone.context_cell else own)
    return wrong or f"{seconds:.2f} s / {features.nbytes / 1e6:.1f}"


def rows(name: str) -> list[list[str]]:
    """Return the rows of a backbone: grey, and RGB."""
    weights = None if backbone_info(name).bundled else "random"
    backbone = hr.load_backbone(name, weights, "cpu", precision="float32")
    return [
        [name, kind, *(cell(backbone, setting, channels) for setting in SETTINGS)]
        for kind, channels in (("grey", 1), ("RGB", 3))
    ]


def row_without_a_run(name: str, reason: str) -> list[str]:
    """Return the row of a backbone, after a pass of a ViT without numbers."""
    entry = SPECS.get(name)
    told = f"not run here: {reason}"
    if isinstance(entry, ViTSpec):
        with torch.device("meta"):
            model = VisionTransformer(entry.config)
            grid = entry.config.image_size // entry.patch_size
            side = grid * entry.patch_size
            output = model(torch.empty(1, 3, side, side), stride=entry.patch_size)
        assert output.shape == (1, grid, grid, entry.channels)
        told += "; the shape of its tokens is right"
    return [name, "–", told, *[""] * (len(SETTINGS) - 1)]


def print_table(names: Sequence[str], limit: float) -> None:
    """Print one row after the other."""
    print("| backbone | image | " + " | ".join(SETTINGS) + " |")
    print("|---" * (len(SETTINGS) + 2) + "|")
    for name in dict.fromkeys((*backbone_names(), *names)):
        millions = backbone_info(name).download_bytes / 4e6  # float32
        if millions > limit:
            lines = [row_without_a_run(name, f"too large, {millions:.0f} M weights")]
        elif name not in names:
            lines = [row_without_a_run(name, "not asked for")]
        else:
            lines = rows(name)
        for line in lines:
            print(f"| {' | '.join(line)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = backbone_names()
    known = [*listed, *(v for name in listed for v in backbone_variants(name))]
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME")
    parser.add_argument("--limit", type=float, default=100, help="Million weights.")
    chosen = parser.parse_args()
    print(
        f"{SHAPE[1]} × {SHAPE[0]} px, float32, {torch.get_num_threads()} of "
        f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"napari-hrdv2 {hr.__version__}. Seconds / MB kept.\n"
    )
    print_table(chosen.only or backbone_names(), chosen.limit)


if __name__ == "__main__":
    main()
