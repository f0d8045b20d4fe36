"""What the benchmarks compare with is the same thing, done the naive way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from napari_hrdv2 import HighResFeatures

FILE = Path(__file__).parents[1] / "benchmarks" / "against_naive.py"
SPEC = importlib.util.spec_from_file_location("against_naive", FILE)
naive = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(naive)


def features():
    tokens = torch.randn(17, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return HighResFeatures(tokens, "shift:1,2", (40, 55), 14, 14)


def test_the_naive_map_is_the_map():
    np.testing.assert_allclose(
        naive.naive_map(features()), features().materialize(), atol=1e-5
    )


def test_the_naive_stroke_fits_what_lies_under_the_strokes():
    labels = np.zeros((40, 55), int)
    labels[5, 3:20], labels[30, 20:50], labels[18, 5:30] = 4, 9, 6
    dense = torch.from_numpy(features().materialize())
    segmentation = naive.naive_stroke(dense, labels)
    assert (segmentation == labels)[labels > 0].mean() > 0.9
