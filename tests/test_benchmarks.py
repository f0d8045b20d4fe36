"""Benchmarks compare with the same thing done naively, and run where they are small."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import blocks
import corrections
import doubt
import generated_series
import gpu
import trained
import unlike
from micrographs import make_sample
from napari_hrdv2 import HighResFeatures, load_backbone
from napari_hrdv2.files import write_labels
from small_networks import load_small

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
    assert (small["passes"], small["device_megabytes"]) == (4, None)
    assert small["share_of_peak"] > 0
    assert 0 < small["outside_network"] < 1
    assert found["spit"]["same_regions_twice"]
    assert found["spit"]["borders_as_on_the_cpu"] == 1
    crowded = found["a batch too large"]
    assert crowded["batches"] == [9, 4, 4, 1]
    assert crowded["largest_difference"] < 1e-3
    assert found["a pass too large"]["batches"][-9:] == [1] * 9
    text = (tmp_path / "gpu.md").read_text()
    assert text.count("| dinov2-small, 56 px, float32 | 4 |") == 1
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


def write_cases(folder, *kinds):
    """Write small cases, each with few and with some scribbles."""
    entries = []
    for kind in kinds:
        sample = make_sample(kind, (64, 80))
        few = np.where(np.arange(80) % 2, sample.scribbles, 0)
        planes = {"label": sample.labels, "lo": few, "a": sample.scribbles}
        files = {name: f"{kind} {name}.tif" for name in ("image", *planes)}
        tifffile.imwrite(folder / files["image"], sample.image)
        for name, labels in planes.items():
            write_labels(folder / files[name], labels)
        drawn = {name: files.pop(name) for name in ("lo", "a")}
        classes = [f"class {i}" for i in range(int(sample.labels.max()))]
        about = {"id": kind, "source": kind, "classes": classes, "scribbles": drawn}
        entries.append(about | files)
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path, "particles", "grains")


def test_the_scores_of_trained_weights_go_on_where_they_stopped(
    cases, monkeypatch, capsys
):
    loaded = []

    def load(name, weights):
        loaded.append(name)
        assert weights == Path("mine.safetensors")
        return load_small(name)

    monkeypatch.setattr(trained, "load_backbone", load)
    out = cases / "trained.csv"
    given = ["mine.safetensors", str(cases), str(out), "--only", "plain", "t3"]
    trained.main([*given, "--cases", "grains"])
    assert loaded == ["dinov2-small", "dinov2-small@t3"]
    lines = out.read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    out.write_text("\n".join(lines[:-1]) + "\n")  # stopped before the last
    trained.main(given)
    assert loaded[2:] == ["dinov2-small", "dinov2-small@t3", "dinov2-small@t3"]
    done = trained.read_lines(out)
    assert len(done) == len({line[:3] for line in done}) == 2 * 2 * 2
    mean = np.mean([x.miou for x in done if (x.row, x.scribbles) == ("plain", "lo")])
    assert f"| plain | 2 | {mean:.3f} |" in capsys.readouterr().out


def test_no_case_is_too_large(cases):
    assert trained.small_cases(cases, 64 * 80 / 1e6) == []
    assert len(trained.small_cases(cases, 0.5)) == 2


def test_parity_is_of_the_tokens_of_patches(tmp_path, monkeypatch):
    network = load_small("dinov2-small")
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = network.model(image).flatten(1, 2)
    tokens[0, 5] = -tokens[0, 5]
    with_class = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], 1)
    np.savez(tmp_path / "known.npz", image=image.numpy(), tokens=with_class.numpy())
    monkeypatch.setattr(trained, "load_backbone", lambda *_, **__: network)
    found = trained.parity("dinov2-small", None, tmp_path / "known.npz")
    mean, least = found["own rule"]
    assert (round(mean, 5), round(least, 5)) == (round(1 - 2 / 12, 5), -1)
    assert found["transformers' rule"][0] < mean - 1e-5


def test_passes_that_rows_have_in_common_are_made_once(cases, monkeypatch):
    monkeypatch.setattr(trained, "load_backbone", lambda name, _: load_small(name))
    variants = trained.small_cases(cases, 0.5)[0]
    passes = trained.Passes()

    def mious(name, passes):
        found = trained.scores(
            trained.ROWS[name], variants, "dinov2-small", None, passes
        )
        return [miou for _, miou, seconds in found if seconds > 0]

    first, second = mious("lattice:2", passes), mious("bicubic", passes)
    assert len(passes.made) == 4
    assert passes.seconds > 0
    assert (first, second) == (
        mious("lattice:2", trained.Passes()),
        mious("bicubic", trained.Passes()),
    )


def test_an_image_by_blocks_is_segmented_as_the_whole(tmp_path):
    threads = torch.get_num_threads()
    figures = blocks.measured("filters", 600, 256, corner=400)
    torch.set_num_threads(threads)
    assert figures["equal to the whole"] >= 0.9999
    assert figures["right"] > 0.9
    assert figures["of the rate in memory"] > 0
    image, truth = blocks.make_image(tmp_path / "image", 300, tile=128)
    phases = truth(slice(0, 300), slice(0, 300))
    levels = [image[:][phases == phase].mean() for phase in (1, 2, 3)]
    np.testing.assert_allclose(levels, [50, 100, 150], atol=5)


def test_doubt_of_real_and_generated_images_goes_on_where_it_stopped(tmp_path, capsys):
    cases = write_cases(tmp_path, "particles", "spinodal")
    about = cases / "manifest.json"
    told = about.read_text().replace('"source": "spinodal"', '"source": "particles"')
    about.write_text(told)
    out = cases / "doubt.csv"
    given = [str(cases), "--series", "1", "--size", "64", "--out", str(out)]
    doubt.main(given)
    first = doubt.read_lines(out)
    assert [line.group for line in first[:2]] == [doubt.OTHERS] * 2
    assert {line.series for line in first[2:]} == {"700"}
    assert all(0 <= line.miou <= 1 and 0 < line.doubt < 1 for line in first)
    text = out.read_text()
    out.write_text("".join(text.splitlines(keepends=True)[:-1]))  # before the last
    doubt.main(given)
    assert out.read_text() == text
    assert "| by the others of the source | 2 | " in capsys.readouterr().out


def test_generated_series_are_scored_on_what_is_not_labelled(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(generated_series, "PICTURES", 3)
    monkeypatch.setattr(generated_series, "LABELLED", (1, 2))
    out = tmp_path / "series.csv"
    given = ["--series", "1", "--size", "64", "--out", str(out), "--backbones"]
    generated_series.main([*given, "embedded"])
    first = doubt.read_lines(out)
    scored = [(line.group, line.image) for line in first]
    assert scored == [(f"embedded, {n}", str(i)) for n, i in ((1, 1), (1, 2), (2, 2))]
    assert all(0 <= line.miou <= 1 and 0 < line.doubt < 1 for line in first)
    generated_series.main([*given, "embedded", "filters"])  # goes on
    done = doubt.read_lines(out)
    assert done[:3] == first
    assert {line.group.split(",")[0] for line in done[3:]} == {"filters"}
    mean = np.mean([line.miou for line in first[:2]])
    assert f"| embedded, 1 labelled | 1 | {mean:.3f} |" in capsys.readouterr().out


def test_a_class_that_nobody_painted_is_scored_where_it_is_known():
    sample = make_sample("grains", (160, 170), seed=1)
    given = sample.image, sample.labels, sample.scribbles
    scores = unlike.scores(*given, load_backbone("filters"))
    area, hesitates, found, false, every = scores
    assert area > 0.6
    assert found > false
    assert np.isnan(hesitates) == (sample.labels.max() < 3)
    assert 0 <= every <= 1


def test_corrections_lie_in_the_largest_region_that_is_wrong():
    truth = np.zeros((6, 8), np.uint8)
    truth[:, 1:5], truth[:, 5:] = 1, 2
    found = truth.copy()
    found[:2, 2:4] = 2  # 4 pixels of class 1
    found[3:, 5:7] = 1  # 6 pixels of class 2
    found[:, 0] = 2  # where nothing is known
    wrong = corrections.largest_wrong(truth, found)
    assert (wrong == 2).sum() == (wrong > 0).sum() == 6
    assert not corrections.largest_wrong(truth, truth).any()
