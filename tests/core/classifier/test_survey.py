"""A survey is from all over, the same every time, and of material alone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.classifier.pixel_classifier import SampleCache
from napari_hrdv2.core.classifier.survey import BackgroundSample, background_pixels
from napari_hrdv2.core.errors import Cancelled
from synthetic import dots, halves


def test_it_is_read_once_a_few_pixels_at_a_time(monkeypatch):
    features = halves()
    asked, sample = [], features.sample
    monkeypatch.setattr(
        features, "sample", lambda r, c: asked.append(len(r)) or sample(r, c)
    )
    cache = SampleCache(features)
    classifier = PixelClassifier().fit(features, dots(), samples=cache)
    classifier.fit(features, dots(), samples=cache)
    assert asked == [40, *[50] * 40]
    assert cache.nbytes >= 2000 * 5 * 4


def test_it_covers_the_image_evenly_whatever_part_of_it_is_used():
    pixels = background_pixels((100, 200))
    assert len(np.unique(pixels)) == 2000
    assert np.array_equal(background_pixels((100, 200), 400), pixels[:400])
    for part in (pixels, pixels[:400]):
        counts = np.histogram(part, 4, (0, 20_000))[0]
        assert counts.min() > 0.8 * counts.max()


def test_rows_are_those_of_its_pixels_also_when_more_are_asked_for():
    features = halves()
    cache = SampleCache(features)
    few, many = cache.background(100).copy(), cache.background(700)
    assert np.array_equal(few, many[:100])
    pixels = background_pixels((40, 60), 700)
    assert np.array_equal(many, features.sample(*np.divmod(pixels, 60)))


def test_pixels_without_numbers_are_left_out():
    bad = [(r, c) for r in range(10, 20) for c in range(60)]
    features = halves(bad=bad)
    background = BackgroundSample.of([SampleCache(features)], [dots()])
    assert 1400 < len(background.rows) < 1600
    assert np.isfinite(background.rows).all()
    classifier = PixelClassifier().fit(features, dots())
    assert np.isfinite(classifier.weight).all()


def test_what_is_no_material_is_left_out():
    features, labels = halves(), dots()
    features.tokens[0, 35:, :, 1] = 1e3  # a scale bar
    exclusion = np.zeros((40, 60), bool)
    exclusion[35:] = True
    cache = SampleCache(features)
    assert (
        abs(BackgroundSample.of([cache], [labels], [exclusion]).rows[:, 1]).max() < 10
    )
    assert abs(BackgroundSample.of([cache], [labels]).rows[:, 1]).max() > 900
    truth = np.where(np.arange(60) < 30, 1, 2)
    found = PixelClassifier().fit(features, labels, exclusion=exclusion)
    assert (found.predict(features)[:35] == truth).mean() > 0.98


@pytest.mark.parametrize("left", [0, 3])
def test_where_next_to_nothing_is_left_strokes_serve(left):
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
    assert (
        800
        < BackgroundSample.of([SampleCache(features)], [labels]).is_free.sum()
        < 1100
    )


@pytest.mark.parametrize(("images", "each"), [(5, 400), (30, 100)])
def test_many_images_share_one_survey(images, each):
    caches = [SampleCache(halves((20, 30))) for _ in range(images)]
    background = BackgroundSample.of(caches, [np.zeros((20, 30), int)] * images)
    assert len(background.rows) == len(background.is_free) == images * min(each, 600)
    assert all(cache.nbytes == each * 5 * 4 for cache in caches)


def test_reading_it_can_be_stopped():
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        BackgroundSample.of(
            [SampleCache(halves())],
            [dots()],
            should_stop=lambda: next(answers),
        )
