"""Files that version 0.1.0 wrote still open, and still mean what they meant."""

from __future__ import annotations

import json
import runpy
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_hrdv2 as hr
from napari_hrdv2.files import read_image, read_labels
from napari_hrdv2.session import Session
from napari_hrdv2.session.project.snapshot import restore
from napari_hrdv2.session.project.store import load_project

FROZEN = Path(__file__).parent / "frozen"
CLASSIFIERS = json.loads((FROZEN / "classifiers.json").read_text())
SAME = 0.999  # of the pixels: processors differ in the last digit of a sum


def agreement(labels: np.ndarray, file: Path) -> float:
    return float((labels == tifffile.imread(file)).mean())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_file_gives_the_same_labels(name: str) -> None:
    made = CLASSIFIERS[name]
    weights = "random" if "dinov2" in name else None
    precision = "float32" if "dinov2" in name else "auto"
    classifier = hr.PixelClassifier.load(FROZEN / f"{name}.safetensors")
    own = "+".join(part.backbone for part in classifier.part_options)
    assert own.replace(":0.1", "") == made["backbone"]
    backbone = hr.load_backbone(own, weights, device="cpu", precision=precision)
    image = read_image(FROZEN / f"{made['image']}.tif").data
    features = hr.compute_features(image, backbone, made["transforms"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = classifier.predict(features)
    assert agreement(labels, FROZEN / f"{name}_labels.tif") >= SAME


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_training_again_gives_almost_the_same_labels(name: str) -> None:
    made = CLASSIFIERS[name]
    weights = "random" if "dinov2" in name else None
    classifier = hr.PixelClassifier.load(FROZEN / f"{name}.safetensors")
    own = "+".join(part.backbone for part in classifier.part_options)
    backbone = hr.load_backbone(own, weights, device="cpu")
    image = read_image(FROZEN / f"{made['image']}.tif").data
    features = hr.compute_features(image, backbone, made["transforms"])
    scribbles = read_labels(FROZEN / f"{made['image']}_scribbles.tif")
    labels = classifier.untrained().fit(features, scribbles).predict(features)
    assert agreement(labels, FROZEN / f"{name}_labels.tif") >= 0.98


def test_a_project_opens_with_all_that_was_made() -> None:
    project = load_project(FROZEN / "project.hrdv2")
    session = Session()
    assert restore(session, project) == ()
    assert [one.name for one in session.images.values()] == [
        "grains",
        "second",
        "stack Z=1",
    ]
    assert session.classes[1].name == "ferrite"
    assert session.refinement.settings.smoothing == "guided"
    first = session.images["a1b2c3"]
    assert first.exclusion is not None
    assert first.exclusion[-12:].all()
    assert not first.exclusion[:-12].any()
    painted = read_labels(FROZEN / "grains_scribbles.tif")
    assert first.scribbles is not None
    np.testing.assert_array_equal(first.scribbles.labels, painted)
    assert first.pixel_size == (0.5, "µm")


def test_a_project_gives_the_same_segmentation() -> None:
    session = Session()
    restore(session, load_project(FROZEN / "project.hrdv2"))
    before = np.load(FROZEN / "session_labels.npz")
    for key in list(session.images):
        session.set_image(session.images[key].image, key)
        session.compute_features()
    for key in list(session.images):
        session.set_image(session.images[key].image, key)
        session.train()
    result = session.images["f00d/1"].result  # the last that was trained then, too
    assert result is not None
    assert float((result.labels == before["f00d_1"]).mean()) >= 0.98


def test_an_autosave_opens() -> None:
    project = load_project(FROZEN / "autosave.hrdv2")
    assert sum(one.labelled_pixels for one in project.images) == 4486
    assert project.classifier is not None
    assert project.classifier.classes.tolist() == [1, 2, 3]


def test_a_classifier_and_a_project_ask_for_the_network_of_then() -> None:
    classifier = hr.PixelClassifier.load(FROZEN / "embedded.safetensors")
    image = read_image(FROZEN / "grains.tif").data
    features = hr.compute_features(image, hr.load_backbone("embedded", device="cpu"))
    with pytest.raises(ValueError, match=r"was trained on embedded:0\.1 and cannot"):
        classifier.predict(features)
    session = Session()
    restore(session, load_project(FROZEN / "project.hrdv2"))
    assert session.options.backbone == "embedded:0.1"
    session.compute_features()
    assert session.features.part_options[0].weights_hash == "06f29b4ad5077344"


def test_an_exported_script_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FROZEN / "exported", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    script = Path("segment.py")
    for change, least in (("embedded", 0.9), ("embedded:0.1", 0.98)):
        script.write_text(script.read_text().replace("'embedded'", f"'{change}'"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            runpy.run_path("segment.py")
        made = tifffile.imread("grains_segmentation.tif")
        assert agreement(made, tmp_path / "grains_labels.tif") >= least
        told = "the weights of the backbone are not those of then"
        assert (told in capsys.readouterr().out) == (change == "embedded")
