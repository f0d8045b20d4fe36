"""How doubtful the segmentation of an image is that nobody painted on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier, load_backbone
from napari_hrdv2.core.series import doubt as module
from napari_hrdv2.core.series.doubt import FLAGGED_FROM, doubt_of
from napari_hrdv2.core.series.reading import reading_of
from napari_hrdv2.core.series.training import train_series
from synthetic import dabs, discs


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("embedded", device="cpu")


@pytest.fixture(scope="module")
def trained(backbone):
    image, inside = discs(0.25)
    return train_series([image], [dabs(inside)], backbone).classifier


def doubt(trained, backbone, image, **about):
    read = reading_of(trained, image, backbone)
    return doubt_of(trained, read.classifier, read.features, **about)


def obvious(before, after):
    """The same in loops."""
    odds = np.exp(after) / np.exp(after).sum(1, keepdims=True)
    missing, changed = [], []
    for k in range(odds.shape[1]):
        inside = number = outside = both = either = 0.0
        for p, old in zip(odds, before, strict=True):
            now, then = p.argmax() == k, old.argmax() == k
            inside += p[k] if now else 0
            outside += 0 if now else p[k]
            number += now
            both += now and then
            either += now or then
        missing.append(1 - (inside + 1) / (number + outside + 1))
        changed.append(1 - (both + 1) / (either + 1))
    value = 2.39 * np.log(np.mean(missing) + 0.01)
    value += 0.79 * np.log(np.mean(changed) + 0.01) + 4.67
    return 1 / (1 + np.exp(-value))


@pytest.mark.parametrize(("pixels", "classes"), [(1, 2), (37, 3), (200, 5)])
def test_it_is_what_its_formula_says(pixels, classes):
    rng = np.random.default_rng(pixels)
    before, after = rng.normal(0, 2, (2, pixels, classes))
    assert module._doubt(before, after) == pytest.approx(obvious(before, after))


def test_an_image_like_the_labelled_one_is_hardly_doubtful(trained, backbone):
    image, _ = discs(0.1, 5)
    assert doubt(trained, backbone, image) < FLAGGED_FROM / 2


def test_an_image_of_noise_is_flagged(trained, backbone):
    noise = np.random.default_rng(0).normal(100, 20, (61, 75))
    assert doubt(trained, backbone, noise) > FLAGGED_FROM


def test_an_image_of_nearly_one_grey_and_one_mostly_excluded_have_one(
    trained, backbone
):
    image, _ = discs(0.25, 3)
    mask = np.ones(image.shape, bool)
    mask[:9, :7] = False
    flat = np.full((33, 47), 9.0)
    flat[3, 4] = 10
    for value in (
        doubt(trained, backbone, flat),
        doubt(trained, backbone, image, exclusion=mask),
    ):
        assert 0 < value < 1


def test_it_is_the_same_by_a_file_and_unknown_where_nothing_was_kept(
    trained, backbone, tmp_path
):
    image, _ = discs(0.1, 5)
    trained.save(tmp_path / "discs.safetensors")
    loaded = PixelClassifier.load(tmp_path / "discs.safetensors")
    assert doubt(loaded, backbone, image) == doubt(trained, backbone, image)
    loaded.trained_on = None
    assert doubt(loaded, backbone, image) is None


def test_images_that_keep_their_own_levels_have_one_and_are_not_adapted_to(backbone):
    image, inside = discs(0.25)
    options = {"normalisation": "image"}
    trained = train_series([image], [dabs(inside)], backbone, **options).classifier
    other, _ = discs(0.2, 7)
    read = reading_of(trained, other, backbone)
    assert read.classifier is trained
    adapted = trained.adapted_to(read.features)
    assert 0 < read.doubt < 1
    assert read.doubt == pytest.approx(doubt_of(trained, adapted, read.features))


def test_a_classifier_that_is_there_is_taken_as_it_is(trained, backbone):
    image, inside = discs(0.25)
    labels = dabs(inside)
    first = train_series([image], [labels], backbone)
    fitted = PixelClassifier(tolerance=1e-2).fit(first.features[0], labels)
    again = train_series(
        [image], [labels], backbone, known=first.features, fitted=fitted
    )
    assert again.features[0] is first.features[0]
    assert np.array_equal(again.classifier.weight, fitted.weight)
    assert again.classifier.normalisation.kind == "matched"
    assert fitted.normalisation.kind == "image"
