"""``adapt``: a backbone of one's own, from the folder to other commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.core.adaptation.choice import ScribbleScores
from napari_hrdv2.core.backbones.registry import SPECS
from napari_hrdv2.core.backbones.vit.specs import ViTSpec
from small_networks import VIT

SHAPE = (64, 72)
AFTER = "napari_hrdv2.core.adaptation.choice.ScribbleScores.is_better_than"


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sort few similarities, which takes no time."""
    monkeypatch.setattr("napari_hrdv2.core.adaptation.views.POINTS", 4)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.REFERENCES", 16)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.CHECKED_PAIRS", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of two phases, with two scribbles of each class beside them."""
    place = tmp_path / "images of mine"
    place.mkdir()
    for seed in range(2):
        rng = np.random.default_rng(seed)
        phase = np.zeros(SHAPE, int)
        phase[10:50, 8 + seed : 40] = 1
        grey = np.clip(80 + 70 * phase + rng.normal(0, 12, SHAPE), 0, 255)
        tifffile.imwrite(place / f"im{seed}.tif", grey.astype(np.uint8))
        drawn = np.zeros(SHAPE, np.uint8)
        drawn[2:4, 5:30], drawn[58:60, 5:40] = 1, 1
        drawn[15:17, 15:35], drawn[40:42, 15:35] = 2, 2
        tifffile.imwrite(place / f"im{seed}_scribbles.tif", drawn)
    return place


@pytest.mark.slow
def test_an_adapted_backbone_goes_through_every_command(
    command, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(AFTER, lambda self, other: True)
    weights, kept = tmp_path / "mine.safetensors", tmp_path / "two.safetensors"
    outcome = command("adapt", folder, "--out", weights, "--steps", 10, "--json")
    assert outcome.code == 0, outcome.err
    assert "of memory needed" in outcome.err
    assert "step 10 of 10, loss " in outcome.err
    told = outcome.json
    assert told["images"] == 2
    assert told["outputs"] == [str(weights)]
    assert told["loss"]["best"] <= told["loss"]["first"]
    for scores in told["scores"].values():
        assert 0.5 < scores["own"] <= 1
        assert 0.5 < scores["others"] <= 1
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [weights.name]

    image, labels = folder / "im0.tif", folder / "im0_scribbles.tif"
    mine = ("--weights", weights)
    given = (image, "--labels", labels, "--out", tmp_path / "seg.tif")
    outcome = command("segment", *given, "--save-classifier", kept, *mine)
    assert outcome.code == 0, outcome.err
    outcome = command("apply", kept, image, "--out", tmp_path / "results", *mine)
    assert outcome.code == 0, outcome.err
    again = tifffile.imread(tmp_path / "results" / "im0_segmentation.tif")
    np.testing.assert_array_equal(again, tifffile.imread(tmp_path / "seg.tif"))
    outcome = command("apply", kept, image, "--out", tmp_path / "results")
    assert outcome.code == 1
    assert "weights" in outcome.err

    backbone = load_backbone("embedded", weights, "cpu")
    features = compute_features(tifffile.imread(image), backbone)
    loaded = PixelClassifier.load(kept)
    np.testing.assert_array_equal(loaded.predict(features), again)


def test_so_does_a_vision_transformer(
    command, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    spec = ViTSpec(name="tiny", config=VIT)
    monkeypatch.setitem(SPECS, "tiny", spec)
    weights, kept = tmp_path / "mine.safetensors", tmp_path / "two.safetensors"
    tiny = ("-b", "tiny", "-t", "identity", "--weights")
    arguments = ("--out", weights, "--steps", "1", "--keep", "adapted", "--json")
    outcome = command("adapt", folder, *arguments, *tiny, "random")
    assert outcome.code == 0, outcome.err
    image, labels = folder / "im0.tif", folder / "im0_scribbles.tif"
    given = (image, "--labels", labels, "--out", tmp_path / "seg.tif")
    outcome = command("segment", *given, "--save-classifier", kept, *tiny, weights)
    assert outcome.code == 0, outcome.err
    results = ("--out", tmp_path / "results", "--weights", weights)
    assert command("apply", kept, image, *results).code == 0
    again = tifffile.imread(tmp_path / "results" / "im0_segmentation.tif")
    np.testing.assert_array_equal(again, tifffile.imread(tmp_path / "seg.tif"))


@pytest.mark.slow
def test_by_default_what_is_no_better_is_not_written(
    command, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(AFTER, lambda self, other: False)
    weights = tmp_path / "mine.safetensors"
    state = tmp_path / "mine.state.safetensors"
    arguments = ("adapt", folder, "--out", weights, "--steps", "1", "--json")
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.json["outputs"] == []
    assert "is not written; --keep adapted writes it" in outcome.err
    assert not weights.exists()
    before = state.read_bytes()
    outcome = command(*arguments, "--keep", "adapted")  # nothing is trained again
    assert "goes on after step 1" in outcome.err
    assert outcome.json["outputs"] == [str(weights)]
    assert len(before) > len(weights.read_bytes()) > 0
    assert not state.exists()
    outcome = command(*arguments)
    assert outcome.code == 1
    assert "mine.safetensors is there already; name a new file" in outcome.err


def test_without_scribbles_it_says_that_nothing_was_compared(
    command, folder: Path, tmp_path: Path
) -> None:
    for path in folder.glob("*_scribbles.tif"):
        path.unlink()
    tifffile.imwrite(folder / "im0_label.tif", np.zeros(SHAPE, np.uint8))  # no image
    (folder / "._im0.tif").write_bytes(b"Mac OS X")
    weights = tmp_path / "mine.safetensors"
    outcome = command("adapt", folder, "-o", weights, "--steps", "1", "--json")
    assert outcome.code == 0, outcome.err
    assert "nothing could be compared" in outcome.err
    assert outcome.json["images"] == 2
    assert outcome.json["scores"] == {}
    assert weights.exists()


def test_images_and_scribbles_of_a_manifest_are_found(
    command, folder: Path, tmp_path: Path
) -> None:
    entry = {
        "id": "one",
        "source": "mine",
        "image": "im0.tif",
        "label": "im0_scribbles.tif",
        "classes": ["dark", "light"],
        "scribbles": {"a": "im0_scribbles.tif"},
    }
    (folder / "manifest.json").write_text(json.dumps([entry]))
    arguments = ("adapt", folder, "-o", tmp_path / "a.safetensors", "--json")
    found = command(*arguments, "--steps", "1").json
    assert found["images"] == 1
    assert found["scores"]["before"]["others"] is None  # there is no other image
    assert found["scores"]["before"]["own"] > 0.5


def test_bad_input_is_told_in_a_line(command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ((folder, "-o", tmp_path / "a.pth"), "a.pth is no such name; name a new file"),
        ((tmp_path / "empty", "-o", out), "there are no images in there"),
        ((tmp_path / "none", "-o", out), "there is no such folder"),
        ((folder, "-o", out, "--steps", "0"), "steps: "),
        ((folder, "-o", out, "--keep", "all"), "keep: "),
        ((folder, "-o", out, "-b", "filters"), "filters cannot be adapted"),
        ((folder, "-o", out, "-b", "embedded+filters"), "one at a time"),
        ((folder, "-o", tmp_path / "no" / "a.safetensors"), "there is no folder"),
    ):
        outcome = command("adapt", *arguments)
        assert outcome.code == 1
        assert told in outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.glob("*.safetensors")) == []


def test_scores_are_compared_by_the_mean_of_those_that_are_known() -> None:
    nan = float("nan")
    assert ScribbleScores(0.8, 0.7).mean == pytest.approx(0.75)
    assert ScribbleScores(nan, 0.7).is_better_than(ScribbleScores(nan, 0.6))
    assert not ScribbleScores(0.8, 0.6).is_better_than(ScribbleScores(0.8, 0.6))
    assert not ScribbleScores(0.8, 0.61).is_better_than(ScribbleScores(0.8, 0.6))
    assert not ScribbleScores(nan, nan).is_better_than(ScribbleScores(nan, nan))
