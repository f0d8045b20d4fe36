"""Benchmarks compare with the same thing done naively, and run where they are small."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gpu
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


@pytest.mark.slow
def test_the_day_on_a_gpu_is_rehearsed_on_the_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "BACKBONES", ("embedded", "dinov2-small"))
    monkeypatch.setitem(gpu.TINY, "sizes", (56,))
    gpu.main([str(tmp_path), "--device", "cpu", "--tiny"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [name for name, part in found.items() if "failed" in part]
    small = found["features dinov2-small 56"]
    assert (small["passes"], small["device_megabytes"]) == (17, None)
    assert small["share_of_peak"] > 0
    assert 0 < small["outside_network"] < 1
    assert found["spit"]["same_regions_twice"]
    assert found["spit"]["borders_as_on_the_cpu"] == 1
    crowded = found["a batch too large"]
    assert crowded["batches"] == [9, 4, 4, 1]
    assert crowded["largest_difference"] < 1e-3
    assert found["a pass too large"]["batches"][-9:] == [1] * 9
    text = (tmp_path / "gpu.md").read_text()
    assert text.count("| dinov2-small, 56 px, float32 | 17 |") == 1
    assert text in capsys.readouterr().out


def test_what_fails_or_has_no_time_left_is_noted(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no device")

    monkeypatch.setattr(gpu, "parts", lambda *_: [("spit", refuse), ("odd", dict)])
    plan = gpu.Plan("cpu", **gpu.TINY)
    assert gpu.run(plan, tmp_path, 1)["spit"] == {"failed": "RuntimeError: no device"}
    assert gpu.run(plan, tmp_path, 1)["odd"] == {}
    assert gpu.run(plan, tmp_path, 0)["odd"] == {"failed": "there was no time left"}
    assert "- spit: failed, there was no time" in (tmp_path / "gpu.md").read_text()
