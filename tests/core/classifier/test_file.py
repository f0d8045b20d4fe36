"""A saved classifier predicts as before, and other files are refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.guidance import painted_points, unlikeness_of, unlikeness_to
from napari_hrdv2.core.guidance.unlike import POINTS
from synthetic import striped_features, strokes


@pytest.fixture
def trained():
    classifier = PixelClassifier().fit(striped_features(), strokes(3, 70))
    classifier.class_names = {3: "matrix", 70: "γ′ phase"}
    classifier.class_colors = {3: "#1f77b4", 70: "#ff7f0e"}
    classifier.pixel_size = (0.25, "µm")
    return classifier


def test_a_saved_classifier_predicts_to_the_bit_as_before(trained, tmp_path):
    trained.save(tmp_path / "alloy.safetensors")
    loaded = PixelClassifier.load(tmp_path / "alloy.safetensors")
    features = striped_features(7)
    assert np.array_equal(
        loaded.predict_proba(features), trained.predict_proba(features)
    )
    for name in (
        "part_options",
        "class_names",
        "class_colors",
        "pixel_size",
        "labels_hash",
    ):
        assert getattr(loaded, name) == getattr(trained, name)


def test_a_loaded_classifier_can_be_trained_on(trained, tmp_path):
    trained.save(tmp_path / "alloy.safetensors")
    loaded = PixelClassifier.load(tmp_path / "alloy.safetensors")
    loaded.fit(striped_features(), strokes(3, 70, 7000))
    assert loaded.classes.tolist() == [3, 70, 7000]


def test_saving_changes_nothing(trained, tmp_path):
    before = dict(vars(trained))
    trained.save(tmp_path / "alloy.safetensors")
    assert all(vars(trained)[name] is value for name, value in before.items())


def test_a_classifier_that_was_not_trained_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="call fit before save"):
        PixelClassifier().save(tmp_path / "alloy.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_failed_save_keeps_the_former_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "alloy.safetensors"
    trained.save(path)
    before = path.read_bytes()
    trained.class_names = {}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match="alloy.safetensors could not be written: No space"
    ):
        trained.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["alloy.safetensors"]


def rewrite(path, change):
    """Save a classifier file again after changing its description."""
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    described = json.loads(metadata["description"])
    change(described)
    metadata["description"] = json.dumps(described)
    save_file(load_file(path), path, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=99), "has format 99; this version .* up to 3"),
        (lambda d: d.pop("part_options"), "its content is damaged"),
        (lambda d: d["part_options"][0].update(extra=1), "its content is damaged"),
        (lambda d: d.update(class_names=3), "its content is damaged"),
        (lambda d: d.update(colour="red"), "its content is damaged"),
        (lambda d: d.update(C=-1), "its content is damaged"),
    ],
)
def test_a_newer_or_damaged_file_is_refused(trained, tmp_path, change, message):
    path = tmp_path / "alloy.safetensors"
    trained.save(path)
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        PixelClassifier.load(path)


@pytest.mark.parametrize(
    "classes", [[2.5, 1.5], [-3, 0], [70, 3], [3, 3], np.array([3, 70], np.int32)]
)
def test_label_ids_that_are_none_are_refused(trained, tmp_path, classes):
    path = tmp_path / "alloy.safetensors"
    trained.save(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    save_file({**load_file(path), "classes": np.asarray(classes)}, path, metadata)
    with pytest.raises(ValueError, match="its content is damaged"):
        PixelClassifier.load(path)


def test_files_of_something_else_are_refused(trained, tmp_path):
    path = tmp_path / "alloy.safetensors"
    with pytest.raises(FileNotFoundError, match="classifier: there is no file"):
        PixelClassifier.load(path)
    trained.save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="no safetensors file, or it is cut off"):
        PixelClassifier.load(path)
    path.write_text("a letter")
    with pytest.raises(ValueError, match="is not a classifier of napari-hrdv2"):
        PixelClassifier.load(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="safetensors file of something else"):
        PixelClassifier.load(path)


def test_a_file_of_the_first_version_is_read_with_what_held_then(trained, tmp_path):
    path = tmp_path / "former.safetensors"
    trained.save(path)

    def as_before(described):
        described["version"] = 1
        described["recipes"] = described.pop("part_options")
        for name in ("self_training", "most_per_class", "by_place"):
            del described[name]
        for part in described["recipes"]:
            del part["debias"], part["partition"]

    rewrite(path, as_before)
    found = PixelClassifier.load(path)
    assert found.part_options == trained.part_options
    assert (found.self_training, found.most_per_class) == (False, 5000)
    assert trained.by_place
    assert not found.by_place


def test_both_sides_of_pixels_that_are_not_square_are_kept(trained, tmp_path):
    trained.pixel_size = ((0.5, 0.25), "µm")
    trained.save(tmp_path / "alloy.safetensors")
    loaded = PixelClassifier.load(tmp_path / "alloy.safetensors")
    assert loaded.pixel_size == ((0.5, 0.25), "µm")


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_seen(trained, tmp_path, seed):
    """By the digest: what is computed with has no checksum of its own."""
    trained.save(tmp_path / "alloy.safetensors")
    content = (tmp_path / "alloy.safetensors").read_bytes()
    random = np.random.default_rng(seed)
    for bit in random.integers(8 * 8, 8 * len(content), 25):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped.safetensors").write_bytes(flipped)
        try:
            loaded = PixelClassifier.load(tmp_path / "flipped.safetensors")
        except ValueError:
            continue
        assert np.array_equal(loaded.weight, trained.weight)  # only the digest's name
        assert loaded.class_names == trained.class_names


def test_a_file_without_a_digest_is_read(trained, tmp_path):
    trained.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "numpy") as file:
        metadata = dict(file.metadata())
    assert len(metadata.pop("digest")) == 64
    tensors = load_file(tmp_path / "new.safetensors")
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    loaded = PixelClassifier.load(tmp_path / "old.safetensors")
    assert np.array_equal(loaded.weight, trained.weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"part_options": [{"backbone": 5}]},
        {"part_options": 5},
        {"class_names": {"x": "y"}},
        {"pixel_size": ["x", 1]},
        {"C": 1e999},
        {"version": [1]},
    ],
)
def test_a_description_of_other_types_is_refused(trained, tmp_path, changes):
    trained.save(tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", "numpy") as file:
        metadata = dict(file.metadata())
    del metadata["digest"]
    described = {**json.loads(metadata["description"]), **changes}
    metadata["description"] = json.dumps(described)
    save_file(
        load_file(tmp_path / "c.safetensors"), tmp_path / "d.safetensors", metadata
    )
    with pytest.raises(ValueError, match="d.safetensors is not a classifier"):
        PixelClassifier.load(tmp_path / "d.safetensors")


def test_a_description_that_is_nested_too_deep_is_refused(trained, tmp_path):
    trained.save(tmp_path / "c.safetensors")
    metadata = {"format": "napari-hrdv2 classifier", "description": "[" * 100_000}
    save_file(
        load_file(tmp_path / "c.safetensors"), tmp_path / "d.safetensors", metadata
    )
    with pytest.raises(ValueError, match="its content is damaged"):
        PixelClassifier.load(tmp_path / "d.safetensors")


def test_a_file_that_knows_no_normalisation_leaves_images_their_own(trained, tmp_path):
    path = tmp_path / "alloy.safetensors"
    trained.save(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    described = json.loads(metadata["description"])
    described["version"] = 2
    del described["normalisation"]
    for part in described["part_options"]:
        del part["levels"]
    about = {"format": metadata["format"], "description": json.dumps(described)}
    save_file(load_file(path), path, about)
    loaded = PixelClassifier.load(path)
    assert loaded.normalisation.match(np.eye(30)).levels is None
    assert loaded.part_options == trained.part_options


def test_what_was_painted_is_kept_and_is_optional(trained, tmp_path):
    features, labels = striped_features(), strokes(3, 70)
    path = tmp_path / "alloy.safetensors"
    trained.save(path)
    assert PixelClassifier.load(path).painted is None
    trained.painted = painted_points([features], [labels])
    trained.save(path)
    found = unlikeness_to(PixelClassifier.load(path).painted, features)
    assert np.array_equal(found, unlikeness_of(features, [features], [labels]))
    assert len(trained.painted.points) <= 2 * POINTS
    trained.fit(features, strokes(3, 70, 7000))
    assert trained.painted is None  # of other scribbles


@pytest.mark.parametrize("name", ["directions", "offsets", "points", "threshold"])
def test_painted_points_that_do_not_fit_are_refused(trained, tmp_path, name):
    painted = painted_points([striped_features()], [strokes(3, 70)])
    wrong = getattr(painted, name)[..., :0]
    trained.painted = painted._replace(**{name: wrong})
    trained.save(tmp_path / "alloy.safetensors")
    with pytest.raises(ValueError, match="its content is damaged"):
        PixelClassifier.load(tmp_path / "alloy.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [("points", np.nan), ("offsets", np.inf), ("threshold", 0), ("threshold", -1)],
)
def test_painted_points_that_are_no_numbers_are_refused(trained, tmp_path, name, value):
    trained.painted = painted_points([striped_features()], [strokes(3, 70)])
    getattr(trained.painted, name).flat[-1] = value
    trained.save(tmp_path / "alloy.safetensors")
    with pytest.raises(ValueError, match="its content is damaged"):
        PixelClassifier.load(tmp_path / "alloy.safetensors")
