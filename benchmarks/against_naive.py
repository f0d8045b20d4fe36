"""Stroke to segmentation and features, against the naive way, in one run.

The naive way is what the definition says, and what the published code does: upsample,
un-shift and add up all C channels of every transform, keep the (C, H, W) map, fit
scikit-learn's logistic regression on the labelled pixels of it, and multiply the whole
map by the weights at each prediction.

Run with::

    python benchmarks/against_naive.py
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import interpolate

import measure
from napari_hrdv2.cli import bench

if TYPE_CHECKING:
    from napari_hrdv2.core.features.high_resolution import HighResFeatures

NAIVE_STROKES = 3


def naive_map(features: HighResFeatures) -> torch.Tensor:
    """Return the (C, H, W) float32 map, one transform after the other."""
    size = (features.rows.padded_length, features.columns.padded_length)
    total = torch.zeros(features.shape)
    for tokens, copy in zip(features.tokens, features.shifts.copies, strict=True):
        grid = tokens.permute(2, 0, 1)[None].float()
        upsampled = interpolate(grid, size=size, mode="bilinear")[0]
        down, right = copy.shift
        total += torch.roll(upsampled, (-down, -right), (1, 2))[
            :, : features.shape[1], : features.shape[2]
        ]
    return total / len(features.shifts)


def naive_stroke(dense: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """Return the segmentation after a fit from scratch, of three classes or more."""
    rows, columns = np.nonzero(labels)
    samples = dense[:, rows, columns].T.numpy()
    classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
    classifier.fit(samples, labels[rows, columns])
    weight = torch.from_numpy(classifier.coef_.astype(np.float32))
    bias = torch.from_numpy(classifier.intercept_.astype(np.float32))
    logits = torch.tensordot(weight, dense, 1) + bias[:, None, None]
    return classifier.classes_[logits.argmax(0).numpy()]


def main() -> None:
    """Print the table."""
    warnings.filterwarnings("ignore", category=UserWarning)
    machine = bench.machine()
    print(
        f"{machine['system']}, {machine['cores']} cores, torch {machine['torch']}; "
        f"{measure.SIZE}² px, ViT-S/14 (random weights), {measure.TRANSFORMS}"
    )
    rates = bench.matmul_rates()
    features, figures = measure.measure_features(rates)
    tokens = features.nbytes / 1e6

    truth = measure.separable_truth(features)
    ours = bench.scribble_milliseconds(features, truth)
    ours_peak = measure.peak_memory(
        lambda: bench.scribble_milliseconds(features, truth)
    )
    labels, rng = np.zeros(truth.shape, np.uint8), np.random.default_rng(0)
    while np.count_nonzero(labels) < bench.LABELLED:
        bench.paint(labels, truth, rng)
    building, seconds = 0.0, []

    def naive_way() -> None:
        nonlocal building
        begin = time.perf_counter()
        dense = naive_map(features)
        building = time.perf_counter() - begin
        for _ in range(NAIVE_STROKES):
            bench.paint(labels, truth, rng)
            begin = time.perf_counter()
            naive_stroke(dense, labels)
            seconds.append(time.perf_counter() - begin)

    naive_peak = measure.peak_memory(naive_way)
    naive = 1e3 * float(np.median(seconds))

    vit = figures["seconds"] * (1 - figures["overhead"])
    outside = figures["seconds"] * figures["overhead"]
    print(f"{'':34}{'ours':>10}{'naive':>10}{'ratio':>8}")
    for name, mine, theirs in (
        ("stroke to segmentation, ms", ours["total"], naive),
        ("memory on top of the tokens, MB", ours_peak / 1e6, naive_peak / 1e6),
        ("features without the ViT, s", outside, building),
        ("features in all, s", figures["seconds"], vit + building),
    ):
        ratio = theirs / mine if mine > 0 else float("inf")
        print(f"{name:34}{mine:10.1f}{theirs:10.1f}{ratio:8.1f}")
    print(
        f"of ours: gather {ours['gather']:.1f}, refit {ours['refit']:.1f}, predict "
        f"{ours['predict']:.1f} ms; tokens {tokens:.0f} MB; ViT "
        f"{figures['vit_gflops']:.0f} GFLOP/s, {figures['vit_share']:.0%} of the "
        f"matmul rate in {figures['precision']}; outside it {figures['overhead']:.1%}"
    )
    print(
        "matmul: " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in rates.items())
    )


if __name__ == "__main__":
    main()
