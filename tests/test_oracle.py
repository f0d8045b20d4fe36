"""The oracle benchmark takes the evidence from the truth, and what is sharp is seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from micrographs import make_sample

FILE = Path(__file__).parents[1] / "benchmarks" / "oracle.py"
SPEC = importlib.util.spec_from_file_location("oracle", FILE)
oracle = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(oracle)


def test_evidence_is_the_share_of_each_class_in_a_patch():
    truth = np.zeros((28, 30), np.int64)
    truth[:, 7:] = 1
    tokens = oracle.tokens_of(truth, 2, "identity", 14, noisy=False)
    assert tokens.shape == (1, 2, 3, 2)
    assert tokens[0, 1].tolist() == [[0.5, 0.5], [0, 1], [0, 1]]
    noisy = oracle.tokens_of(truth, 2, "identity", 14, noisy=True)
    assert 0.01 < (noisy - tokens).abs().mean() < 0.5


def test_borders_are_seen_from_both_sides():
    truth = np.zeros((9, 20), np.int64)
    truth[:, 10:] = 1
    assert np.flatnonzero(oracle.near_borders(truth)[4]).tolist() == [*range(7, 13)]


@pytest.mark.parametrize("noisy", [False, True])
def test_each_way_is_sharper_than_the_one_before(noisy):
    sample = make_sample("particles", (154, 154))
    truth = sample.labels.astype(np.int64) - 1
    tokens = oracle.tokens_of(truth, 2, "identity", 14, noisy=noisy)
    plain, sharp, guided = (
        oracle.score(tokens, sample.image[None], truth, "identity", 14, name)[0]
        for name in ("bilinear", "bilinear+2", "bilateral+2")
    )
    assert plain + 0.01 < sharp < guided - 0.01
