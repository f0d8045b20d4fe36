"""The benchmark of a ViT measures time and memory of what it says."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import measure
from napari_hrdv2.cli.bench import matmul_rates
from napari_hrdv2.core.backbones.vit.model import VisionTransformer, ViTConfig


def test_a_device_without_a_target_of_its_own_is_held_to_the_cpu_s(
    monkeypatch, capsys
) -> None:
    figures = {"device": "mps", "precision": "float32", "seconds": 1.0}
    figures |= {"vit_share": 0.5, "overhead": 0.01}
    monkeypatch.setattr(measure, "matmul_rates", dict)
    monkeypatch.setattr(measure, "measure_features", lambda rates: (None, figures))
    monkeypatch.setattr(measure, "separable_truth", lambda features: None)
    monkeypatch.setattr(measure, "scribble_milliseconds", lambda *_: {"total": 1.0})
    measure.main()
    said = capsys.readouterr().out.splitlines()
    assert "  inside the ViT: 50% of the matmul rate (to reach: 60%)" in said


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_the_peak_is_measured_also_without_glibc(monkeypatch, error) -> None:
    def load(name: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert measure.peak_memory(lambda: None) >= 0


def test_memory_that_was_freed_does_not_count_as_in_use() -> None:
    # Small pieces: the C library keeps these for later when they are freed.
    def allocate() -> None:
        pieces = [np.ones(10_000) for _ in range(2_000)]  # 160 MB
        pieces.append(np.ones(10))

    assert measure.peak_memory(allocate) > 100e6
    assert measure.peak_memory(allocate) > 100e6


def test_the_rate_of_a_pass_is_held_against_products_of_its_own_format(
    monkeypatch,
) -> None:
    monkeypatch.setattr(measure, "SIZE", 56)
    monkeypatch.setattr(measure, "TRANSFORMS", "identity")
    rates = matmul_rates(64)
    features, figures = measure.measure_features(rates)
    assert features.shape == (384, 56, 56)
    assert figures["precision"] in rates
    assert figures["vit_share"] > 0


def test_flop_counts_what_torch_counts() -> None:
    plain = ViTConfig(embed_dim=32, depth=2, heads=2)
    for config in (plain, replace(plain, registers=4, feed_forward="swiglu")):
        # The fused kernel of the CPU is not known to torch's counter.
        unfused = sdpa_kernel(SDPBackend.MATH)
        with unfused, FlopCounterMode(display=False) as counter:
            VisionTransformer(config)(torch.zeros(1, 3, 56, 70))
        assert measure.flop(config, 4 * 5) == counter.get_total_flops()
