from __future__ import annotations

import ctypes

import numpy as np
import pytest

from napari_hrdv2.cli import measure


def test_a_device_without_a_target_of_its_own_is_held_to_the_cpu_s(monkeypatch) -> None:
    figures = {"device": "mps", "precision": "float32", "seconds": 1.0}
    figures |= {"vit_share": 0.5, "overhead": 0.01}
    steps = dict.fromkeys(("gather", "refit", "predict", "total"), 1.0)
    steps["peak_megabytes"] = 1.0
    monkeypatch.setattr(measure, "matmul_rates", dict)
    embedded = {"seconds": 1.0, "peak_megabytes": 1.0, "stroke_milliseconds": steps}
    monkeypatch.setattr(measure, "measure_embedded", lambda: embedded)
    monkeypatch.setattr(measure, "measure_features", lambda rates: (None, figures))
    monkeypatch.setattr(measure, "measure_strokes", lambda features: steps)
    said: list[str] = []
    measure.run(said.append)
    assert "  inside the ViT: 50% of the matmul rate (to reach: 60%)" in said


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_the_peak_is_forgotten_also_without_glibc(monkeypatch, error) -> None:
    def load(name: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert measure.reset_peak_memory() > 0


def test_memory_that_was_freed_does_not_count_as_in_use() -> None:
    before = measure.reset_peak_memory()
    # Small pieces: the C library keeps these for later when they are freed.
    pieces = [np.ones(10_000) for _ in range(2_000)]  # 160 MB
    last = np.ones(10)
    assert measure.peak_memory() - before > 100e6
    del pieces
    assert measure.reset_peak_memory() - before < 40e6
    assert last.sum() == 10


def test_the_rate_of_a_pass_is_held_against_products_of_its_own_format(
    monkeypatch,
) -> None:
    monkeypatch.setattr(measure, "SIZE", 56)
    monkeypatch.setattr(measure, "TRANSFORMS", "identity")
    rates = measure.matmul_rates(64)
    features, figures = measure.measure_features(rates)
    assert features.shape == (384, 56, 56)
    assert figures["precision"] in rates
    assert figures["vit_share"] > 0
