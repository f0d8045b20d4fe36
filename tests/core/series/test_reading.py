"""An image of a series may show dark what is light in the labelled ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.core.series import reading as module
from napari_hrdv2.core.series.doubt import doubt_of
from napari_hrdv2.core.series.reading import levels_of, read_image, reading_of
from napari_hrdv2.core.series.training import train_series
from synthetic import dabs, discs

SHAPE = (96, 107)


def negative(image):
    return 255 - image


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("embedded", device="cpu")


@pytest.fixture(scope="module")
def trained(backbone):
    image, inside = discs(0.25, shape=SHAPE)
    return train_series([image], [dabs(inside, each=12)], backbone).classifier


def compute_with(backbone):
    """Return what computes features, and the levels that it was called with."""
    asked = []

    def compute(image, levels):
        asked.append(levels)
        return compute_features(image, backbone, levels=levels)

    return compute, asked


def score(read, inside):
    return mean_iou(inside + 1, read.predict(), [1, 2])


@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (0.8, 20)])
def test_a_negative_is_segmented_as_the_image_is(trained, backbone, gain, offset):
    image, inside = discs(0.15, 5, SHAPE, gain, offset)
    straight = reading_of(trained, image, backbone)
    exchanged = reading_of(trained, negative(image), backbone)
    assert (straight.is_inverted, exchanged.is_inverted) == (False, True)
    assert score(straight, inside) > 0.95
    assert score(exchanged, inside) > 0.95


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.4])
def test_an_image_of_other_fractions_is_no_negative(trained, backbone, fraction):
    image, inside = discs(fraction, 5, SHAPE)
    read = reading_of(trained, image, backbone)
    assert not read.is_inverted
    assert (read.predict() == 2).mean() == pytest.approx(inside.mean(), abs=0.015)


def test_what_may_be_wrong_adds_to_doubt(trained, backbone, monkeypatch):
    image, _ = discs(0.15, 5, SHAPE)
    monkeypatch.setattr(module, "MOST_LEAD", math.inf)
    compute, asked = compute_with(backbone)
    levels, wrong = levels_of(trained, image, compute)
    normalisation, odds = trained.normalisation, []
    straight = normalisation.match(image)
    inverted = normalisation.match(image, inverted=True)
    assert asked == [straight.levels, inverted.levels]
    assert levels == straight.levels
    for match in (straight, inverted):
        features = compute(image, match.levels)
        doubt = doubt_of(trained, trained.adapted_to(features), features)
        odds.append(math.log(doubt / (1 - doubt)))
    exponent = 0.41 * (straight.likelihood - inverted.likelihood)
    exponent += 1.65 * (odds[1] - odds[0])
    prior = (1 * 0 + 10 * 0.05) / 11
    expected = prior / (prior + (1 - prior) * math.exp(exponent))
    assert wrong == pytest.approx(expected, rel=1e-3)
    monkeypatch.setattr(module, "levels_of", lambda *_, **__: (levels, 0.3))
    own = 1 / (1 + math.exp(-odds[0]))
    read = read_image(trained, image, compute)
    assert read.doubt == pytest.approx(1 - (1 - own) * 0.7, rel=1e-3)


def test_features_of_a_small_image_are_computed_once_for_each_way(trained, backbone):
    image = negative(discs(0.15, 5, SHAPE)[0])
    compute, asked = compute_with(backbone)
    assert read_image(trained, image, compute).is_inverted
    assert len(asked) == len(set(asked)) == 2


def test_where_the_grey_levels_tell_no_features_are_computed(trained, backbone):
    image, _ = discs(0.25, 7, SHAPE)
    compute, asked = compute_with(backbone)
    normalisation = trained.normalisation
    lead = (
        normalisation.match(image).likelihood
        - normalisation.match(image, inverted=True).likelihood
    )
    assert lead > module.MOST_LEAD
    assert levels_of(trained, image, compute) == (normalisation.match(image).levels, 0)
    assert asked == []


def test_only_matched_levels_of_what_standardises_are_exchanged(trained, backbone):
    image, inside = discs(0.25, shape=SHAPE)
    other = negative(discs(0.15, 5, SHAPE)[0])
    compute, asked = compute_with(backbone)
    bare = trained.light_copy()
    bare.trained_on = None
    models = [bare]
    for kind in ("image", "shared"):
        about = {"normalisation": kind}
        models.append(
            train_series([image], [dabs(inside)], backbone, **about).classifier
        )
    models.append(
        PixelClassifier().fit(compute_features(image, backbone), dabs(inside))
    )
    for model in models:
        levels, wrong = levels_of(model, other, compute)
        assert wrong == 0
        assert levels is None or levels[1] > 0
    assert asked == []
    filters = load_backbone("filters")
    made = train_series([image], [dabs(inside)], filters, normalisation="auto")
    assert not reading_of(made.classifier, other, filters).is_inverted


@pytest.mark.parametrize("is_lost", ["", "excluded", "constant", "nan"])
def test_a_window_of_a_large_image_tells(trained, backbone, monkeypatch, is_lost):
    monkeypatch.setattr(module, "WINDOW", 48)
    monkeypatch.setattr(module, "MOST_LEAD", math.inf)
    image = negative(discs(0.15, 5, SHAPE)[0]).astype(np.float32)
    middle, mask = np.s_[20:74, 24:82], np.zeros(SHAPE, bool)
    if is_lost == "excluded":
        mask[middle] = True
    elif is_lost:
        image[middle] = 165 if is_lost == "constant" else np.nan  # as the matrix
    parts = []

    def compute(part, levels):
        parts.append(part)
        return compute_features(part, backbone, levels=levels, value_range=(0, 255))

    levels, wrong = levels_of(trained, image, compute, exclusion=mask)
    assert levels[1] < 0
    assert wrong < 0.5
    corner = {"": np.s_[24:72, 29:77]}.get(is_lost, np.s_[24:72, 0:48])
    expected = image[corner] if is_lost == "" else parts[0]
    assert [part.shape for part in parts] == [(48, 48)] * 2
    assert np.array_equal(parts[0], expected, equal_nan=True)


def test_where_no_window_tells_the_grey_levels_do(trained, backbone):
    compute, asked = compute_with(backbone)
    image, _ = discs(0.15, 5, SHAPE)
    mask = np.ones(SHAPE, bool)
    mask[:20] = False
    for each in (image, negative(image)):
        levels, wrong = levels_of(trained, each, compute, exclusion=mask)
        normalisation = trained.normalisation
        lead = (
            normalisation.match(each, mask).likelihood
            - normalisation.match(each, mask, inverted=True).likelihood
        )
        prior = 0.5 / 11
        odds = prior / (1 - prior) * math.exp(-0.41 * np.clip(lead, -6, 6))
        expected = 0 if lead > 6 else odds / (1 + odds)
        assert wrong == pytest.approx(expected, rel=1e-3)
        assert levels[1] > 0
    assert asked == []


def test_light_and_dark_stay_where_they_are_not_to_be_exchanged(trained, backbone):
    image = negative(discs(0.15, 5, SHAPE)[0])
    compute, _ = compute_with(backbone)
    assert read_image(trained, image, compute).is_inverted
    assert not read_image(trained, image, compute, exchanges=False).is_inverted


def test_constant_images_and_those_of_no_numbers_are_no_negatives(trained, backbone):
    for value in (7.0, np.nan):
        compute, asked = compute_with(backbone)
        levels, wrong = levels_of(trained, np.full(SHAPE, value), compute)
        assert (levels, wrong, asked) == (trained.normalisation.levels, 0, [])


def test_a_labelled_negative_serves_the_others_as_well(backbone):
    first, inside = discs(0.25, shape=SHAPE)
    second, there = discs(0.2, 3, SHAPE)
    labels = [dabs(inside), dabs(there)]
    made = train_series([first, negative(second)], labels, backbone)
    trained = made.classifier
    signs = [levels[1] > 0 for _, levels in trained.normalisation.known]
    assert (trained.normalisation.kind, signs) == ("matched", [True, False])
    read = reading_of(trained, negative(second), backbone)
    assert (read.is_inverted, read.doubt) == (True, None)
    assert score(read, there) > 0.95
    image, where = discs(0.15, 5, SHAPE)
    for each in (image, negative(image)):
        assert score(reading_of(trained, each, backbone), where) > 0.95


def test_the_file_of_a_classifier_keeps_a_labelled_negative(backbone, tmp_path):
    image, inside = discs(0.25, shape=SHAPE)
    images = [image, negative(image)]
    made = train_series(images, [dabs(inside)] * 2, backbone).classifier
    made.save(tmp_path / "c.safetensors")
    loaded = PixelClassifier.load(tmp_path / "c.safetensors").normalisation
    assert loaded == made.normalisation
    known = [loaded.known_levels(each) for each in images]
    assert [(found, levels[1] > 0) for found, levels in known] == [
        (True, True),
        (True, False),
    ]


def test_a_backbone_that_sees_grey_levels_in_part_exchanges_nothing():
    backbone = load_backbone("filters+embedded", device="cpu")
    image, inside = discs(0.25, shape=SHAPE)
    images = [image, negative(image)]
    about = {"normalisation": "matched"}
    made = train_series(images, [dabs(inside)] * 2, backbone, **about).classifier
    assert all(levels[1] > 0 for _, levels in made.normalisation.known)
    other = negative(discs(0.15, 5, SHAPE)[0])
    assert not reading_of(made, other, backbone).is_inverted


def test_a_labelled_negative_makes_others_more_probable(trained, backbone):
    image, inside = discs(0.25, shape=SHAPE)
    labels = [dabs(inside)] * 2
    mixed = train_series([image, negative(image)], labels, backbone)
    priors = [module._prior(one.normalisation) for one in (trained, mixed.classifier)]
    assert priors == pytest.approx([0.5 / 11, 1.5 / 12])


def test_looking_at_an_image_can_be_stopped(trained, backbone):
    image, _ = discs(0.15, 5, SHAPE)
    compute, _ = compute_with(backbone)
    with pytest.raises(Cancelled):
        read_image(trained, negative(image), compute, should_stop=lambda: True)
