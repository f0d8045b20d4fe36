"""A new backbone is a module and one row: everything else knows it by that row."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_hrdv2 as hr
from estimates import estimate
from napari_hrdv2.cli import main
from napari_hrdv2.core.backbones import (
    backbone_info,
    backbone_names,
    backbone_state,
    register,
    registry,
)
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.session import FeatureOptions, Session
from napari_hrdv2.session.export import export_all
from napari_hrdv2.session.project.snapshot import project_of, restore
from napari_hrdv2.session.project.store import load_project, save_project

FILE = Path(__file__).with_name("gradient.py")
MODULE_SPEC = importlib.util.spec_from_file_location("gradient_backbone", FILE)
gradient = importlib.util.module_from_spec(MODULE_SPEC)
MODULE_SPEC.loader.exec_module(gradient)

IMAGE = np.zeros((24, 32), np.uint8)
IMAGE[:, 16:] = 200
IMAGE[::2] += 20
SCRIBBLES = np.zeros(IMAGE.shape, np.int32)
SCRIBBLES[4:8, 2:10], SCRIBBLES[4:8, 20:30] = 1, 2


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register the row, for one test."""
    monkeypatch.setattr(registry, "SPECS", dict(registry.SPECS))
    register(gradient.GRADIENT)


def test_it_has_a_name_a_state_and_channels():
    assert "gradient" in backbone_names()
    assert backbone_state("gradient") == backbone_state("gradient+filters") == "ready"
    assert backbone_info("gradient").channels_for(3) == 3
    with pytest.raises(ValueError, match="there is a backbone gradient already"):
        register(gradient.GRADIENT)
    with pytest.raises(ValueError, match="it has no blocks"):
        backbone_info("gradient@k1")


def test_it_loads_and_computes_features_alone_and_joined():
    features = hr.compute_features(IMAGE, hr.load_backbone("gradient", device="cpu"))
    assert features.shape == (3, *IMAGE.shape)
    grey = features.sample([1], [3])[0, 0]
    assert grey == pytest.approx(IMAGE[1, 3] / 255, abs=1e-3)
    joined = hr.load_backbone("gradient+filters", device="cpu")
    channels = hr.compute_features(IMAGE, joined).shape[0]
    assert channels == 3 + 2 * backbone_info("filters").channels


@pytest.mark.parametrize("shape", [IMAGE.shape, (*IMAGE.shape, 3)])
def test_its_cost_is_told_before_it_is_loaded(shape):
    told = estimate_cost(shape, FeatureOptions(backbone="gradient", device="cpu"))
    loaded = estimate(
        IMAGE.shape,
        hr.load_backbone("gradient", device="cpu"),
        image_channels=1 if len(shape) == 2 else 3,
    )
    assert (told.kept_bytes, told.peak_bytes) == (
        loaded.token_bytes,
        loaded.peak_bytes,
    )


def test_a_classifier_file_names_it(tmp_path):
    features = hr.compute_features(IMAGE, hr.load_backbone("gradient", device="cpu"))
    hr.PixelClassifier().fit(features, SCRIBBLES).save(tmp_path / "two.safetensors")
    classifier = hr.PixelClassifier.load(tmp_path / "two.safetensors")
    assert classifier.part_options[0].backbone == "gradient"
    labels = classifier.predict(features)
    assert (labels[:, :14] == 1).all()
    assert (labels[:, 18:] == 2).all()


def test_a_project_and_its_script_name_it(tmp_path):
    session = Session()
    session.configure(backbone="gradient", device="cpu")
    session.set_image(IMAGE)
    session.set_scribbles(SCRIBBLES)
    session.compute_features()
    session.train()
    save_project(project_of(session), tmp_path / "two.hrdv2")
    again = Session()
    restore(again, load_project(tmp_path / "two.hrdv2"))
    assert again.options.backbone == "gradient"
    export_all(session, tmp_path / "out", formats=["script"])
    assert "'name': 'gradient'" in (tmp_path / "out" / "segment.py").read_text()
    methods = (tmp_path / "out" / "methods.md").read_text()
    assert "gradient [1], following HR-Dv2 [2]" in methods
    assert "[1] I. Sobel" in methods


def run(capsys, *arguments: object) -> dict:
    """Run a command and return what it prints last."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    assert not ended.value.code
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_command_line_lists_it_and_segments_with_it(tmp_path, capsys):
    image, scribbles = tmp_path / "image.tif", tmp_path / "scribbles.tif"
    tifffile.imwrite(image, IMAGE)
    tifffile.imwrite(scribbles, SCRIBBLES.astype(np.uint8))
    rows = run(capsys, "backbones")["backbones"]
    (row,) = (row for row in rows if row["name"] == "gradient")
    assert (row["channels"], row["state"]) == (3, "ready")
    told = run(capsys, "segment", image, "--labels", scribbles, "-b", "gradient")
    assert set(told["phase_fractions"]) == {"1", "2"}


def test_the_window_offers_it():
    from napari_hrdv2.widgets import backbone_texts

    assert backbone_texts.forms("gradient") == ["gradient"]
    assert backbone_texts.item_text("gradient") == "gradient (ready)"
    assert backbone_texts.detail("gradient") == (
        "3 channels, grey level and its derivatives; no download"
    )
    assert not backbone_texts.takes_weights("gradient")
