"""The background sample: from all over, and coordinates that hide nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.classifier.background import (
    BackgroundSample,
    PCACoordinates,
    whitening,
)
from napari_hrdv2.core.classifier.samples import labelled_images
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.sample_cache import background_pixels
from synthetic import dots, halves


def table(count=500, channels=7, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((channels, channels))
    rows = (
        rng.standard_normal((count, channels)) @ mixing * np.logspace(-2, 3, channels)
    )
    return torch.from_numpy((rows + 4).astype(np.float32))


def test_coordinates_are_principal_components_and_know_their_variances():
    rows = table()
    coordinates = PCACoordinates.of(rows, kept=1)
    found = coordinates(rows)[:-1].double().T
    expected = np.linalg.eigvalsh(np.corrcoef(rows.double().T))[::-1]
    covariance = np.cov(found.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(expected), atol=2e-3)
    relative = expected / expected.mean()
    np.testing.assert_allclose(coordinates.variances, relative, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)


def test_more_places_make_fine_distinctions_easier():
    few, most = whitening(np.array([1, 4])), whitening(np.array([1000, 4000]))
    assert (few, most) == (0, 0.5)
    counts = [whitening(np.array([each] * 3)) for each in (5, 8, 13, 20)]
    assert counts == sorted(counts)
    assert whitening(np.array([4, 16])) == pytest.approx(whitening(np.array([8, 8])))


def test_weights_scale_the_channels_before_they_are_turned():
    rows, channel_weights = table(), torch.linspace(0.5, 2, 7)
    coordinates = PCACoordinates.of(rows, channel_weights, kept=1)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0) * channel_weights
    design = coordinates(rows[:40]).T
    distances = torch.cdist(design, design)
    torch.testing.assert_close(
        distances, torch.cdist(scaled[:40], scaled[:40]), atol=5e-3, rtol=1e-3
    )


def test_a_model_says_the_same_in_both_coordinates():
    rows = table()
    coordinates = PCACoordinates.of(rows, kept=1)
    rng = np.random.default_rng(1)
    solution = torch.from_numpy(rng.standard_normal((3, 8)).astype(np.float32))
    model = coordinates.model_of(solution)
    logits = rows @ model.weight.T + model.bias
    np.testing.assert_allclose(solution @ coordinates(rows), logits.T, atol=1e-2)
    torch.testing.assert_close(
        coordinates.solution_of(model), solution, atol=1e-3, rtol=1e-3
    )


def test_directions_of_next_to_no_variance_are_dropped():
    rows = table(channels=3)
    doubled = torch.cat([rows, rows + 1e-3 * table(channels=3, seed=1)], 1)
    assert len(PCACoordinates.of(doubled).variances) <= 3


def test_a_class_that_the_background_sample_missed_gets_a_direction():
    background = table(channels=3)
    background = torch.cat(
        [background, background[:, :1]], 1
    )  # the fourth adds nothing
    coordinates = PCACoordinates.of(background)
    rare = background[:4] + torch.tensor([0, 0, 0, 1e-1])
    samples, classes = torch.cat([background[:4], rare]), torch.arange(8) // 4
    known = coordinates.including(samples, classes)
    assert len(known.variances) == len(coordinates.variances) + 1
    apart = [
        (each(rare) - each(background[:4]))[:-1].norm() for each in (coordinates, known)
    ]
    whole = float(0.1 / coordinates.scale[3]) * 2  # four pixels
    assert apart[0] == pytest.approx(whole / 2**0.5, rel=0.02)
    assert apart[1] == pytest.approx(whole, rel=0.02)


def test_classes_that_the_background_sample_knows_change_nothing():
    rows = table()
    coordinates = PCACoordinates.of(rows)
    assert coordinates.including(rows, (rows[:, 2] > 4).long()) is coordinates


@pytest.mark.parametrize("value", [0.0, 1.0, -4e4])
def test_an_image_that_never_varies_has_coordinates(value):
    coordinates = PCACoordinates.of(torch.full((50, 4), value))
    design = coordinates(torch.full((3, 4), value))
    np.testing.assert_allclose(design[:-1], 0, atol=1e-2)
    assert torch.isfinite(coordinates.variances).all()


def test_a_channel_that_never_varies_is_dropped():
    rows = table()
    rows[:, 2] = 1e4
    rows[:, 4] = 1e-9 * rows[:, 0]  # rounding, which must not be blown up
    coordinates = PCACoordinates.of(rows, kept=1)
    weight = coordinates.model_of(torch.ones(1, len(coordinates.variances) + 1)).weight
    np.testing.assert_allclose(weight[:, [2, 4]], 0, atol=1e-3)


def test_one_pixel_gives_coordinates_too():
    coordinates = PCACoordinates.of(torch.ones(1, 4))
    assert torch.isfinite(coordinates(torch.zeros(2, 4))).all()


def test_coordinates_are_made_anew_only_for_another_background():
    features, labels = halves(), dots()
    first = sampled([features], [labels])
    again = sampled([features], [labels], former=first)
    assert again.coordinates is first.coordinates
    assert again.transformed.shape == (1 + len(first.coordinates.variances), 2000)
    changed = replace(first, rows=first.rows + 1)
    other = sampled([features], [labels], former=changed)
    assert other.coordinates is not first.coordinates


def sampled(features, labels, exclusion=None, **options):
    """The background sample with no labelled pixels to fall back to."""
    images = labelled_images(features, labels, exclusion)
    return BackgroundSample.of(images, np.zeros((0, 5), np.float32), **options)


def test_it_is_read_once_a_few_pixels_at_a_time(monkeypatch):
    features = halves()
    asked, sample = [], features.sample
    monkeypatch.setattr(
        features, "sample", lambda r, c: asked.append(len(r)) or sample(r, c)
    )
    PixelClassifier().fit(features, dots()).fit(features, dots())
    assert asked == [40, *[50] * 40]
    assert features.samples.nbytes >= 2000 * 5 * 4


def test_it_covers_the_image_evenly_whatever_part_of_it_is_used():
    pixels = background_pixels((100, 200))
    assert len(np.unique(pixels)) == 2000
    assert np.array_equal(background_pixels((100, 200), 400), pixels[:400])
    for part in (pixels, pixels[:400]):
        counts = np.histogram(part, 4, (0, 20_000))[0]
        assert counts.min() > 0.8 * counts.max()


def test_rows_are_those_of_its_pixels_also_when_more_are_asked_for():
    features = halves()
    cache = features.samples
    few, many = cache.background(100).copy(), cache.background(700)
    assert np.array_equal(few, many[:100])
    pixels = background_pixels((40, 60), 700)
    assert np.array_equal(many, features.sample(*np.divmod(pixels, 60)))


def test_pixels_without_numbers_are_dropped():
    bad = [(r, c) for r in range(10, 20) for c in range(60)]
    features = halves(bad=bad)
    background = sampled([features], [dots()])
    assert 1400 < len(background.rows) < 1600
    assert np.isfinite(background.rows).all()
    classifier = PixelClassifier().fit(features, dots())
    assert np.isfinite(classifier.weight).all()


def test_what_is_no_material_is_dropped():
    features, labels = halves(), dots()
    features.tokens[0, 35:, :, 1] = 1e3  # a scale bar
    exclusion = np.zeros((40, 60), bool)
    exclusion[35:] = True
    assert abs(sampled([features], [labels], [exclusion]).rows[:, 1]).max() < 10
    assert abs(sampled([features], [labels]).rows[:, 1]).max() > 900
    truth = np.where(np.arange(60) < 30, 1, 2)
    found = PixelClassifier().fit(features, labels, exclusion=exclusion)
    assert (found.predict(features)[:35] == truth).mean() > 0.98


@pytest.mark.parametrize("left", [0, 3])
def test_where_next_to_nothing_is_left_scribbles_serve(left):
    features, labels = halves(), dots()
    exclusion = np.ones((40, 60), bool)
    exclusion.ravel()[background_pixels((40, 60))[:left]] = False
    found = (
        PixelClassifier().fit(features, labels, exclusion=exclusion).predict(features)
    )
    assert (found == np.where(np.arange(60) < 30, 1, 2)).mean() > 0.9


def test_masks_that_do_not_fit_are_named():
    features, labels = halves(), dots()
    with pytest.raises(ValueError, match="exclusion: 2 masks for 1 images"):
        PixelClassifier().fit([features], [labels], exclusion=[None, None])
    with pytest.raises(ValueError, match=r"exclusion: shape \(60, 40\) does not fit"):
        PixelClassifier().fit(features, labels, exclusion=np.zeros((60, 40), bool))


def test_labelled_pixels_are_not_free():
    features, labels = halves(), dots()
    labels[:, :30] = 1
    assert 800 < sampled([features], [labels]).is_free.sum() < 1100


@pytest.mark.parametrize(("images", "each"), [(5, 400), (30, 100)])
def test_many_images_share_one_background_sample(images, each):
    many = [halves((20, 30)) for _ in range(images)]
    background = sampled(many, [np.zeros((20, 30), int)] * images)
    assert len(background.rows) == len(background.is_free) == images * min(each, 600)
    assert all(one.samples.nbytes == each * 5 * 4 for one in many)


def test_reading_it_can_be_stopped():
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        sampled([halves()], [dots()], should_stop=lambda: next(answers))
