"""The table of backbones says so where features are wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from napari_hrdv2 import HighResFeatures

FILE = Path(__file__).parents[1] / "benchmarks" / "backbones.py"
SPEC = importlib.util.spec_from_file_location("backbone_table", FILE)
table = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(table)


def features(shape=table.SHAPE):
    grid = tuple(-(-length // 14) for length in shape)
    tokens = np.random.default_rng(0).standard_normal((1, *grid, 3)).astype(np.float32)
    return HighResFeatures(tokens, "identity", shape, 14, 14)


def test_right_features_pass_and_wrong_ones_are_told():
    assert table.failure(features(), 3) == ""
    assert table.failure(features((50, 60)), 3) == "shape (3, 50, 60)"
    assert table.failure(features(), 4) == "shape (3, 217, 301)"
    broken = features()
    broken.tokens[0, 0, 0, 0] = np.nan
    assert table.failure(broken, 3) == "not finite"


def test_a_readout_that_is_not_that_of_the_map_is_told():
    class Wrong(HighResFeatures):
        def project(self, weight, bias):
            return super().project(weight, bias) * 1.001

    right = features()
    wrong = Wrong(right.tokens, "identity", table.SHAPE, 14, 14)
    assert table.failure(wrong, 3) == "identity only to 1e-03"


def test_a_network_that_is_not_run_is_still_asked_for_its_shape():
    row = table.row_without_a_run("dinov2-large", "too large, 304 M weights")
    assert row[2].startswith("not run here: too large, 304 M weights")
    assert row[2].endswith("the shape of its tokens is right")
