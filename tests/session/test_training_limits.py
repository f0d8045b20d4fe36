"""Training stays small and can be stopped, whatever was painted."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.classifier.samples import training_pixels
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.base import StoredPixels
from napari_hrdv2.session import (
    ImageSnapshot,
    PipelineInput,
    TrainingImage,
    compute,
)
from napari_hrdv2.session.planes import PlaneKey
from synthetic import TRUTH, striped_features, strokes


@pytest.fixture(autouse=True)
def small_background_sample(monkeypatch):
    """Of less than the whole of these small images."""
    monkeypatch.setattr(
        "napari_hrdv2.core.features.sample_cache.BACKGROUND_PIXELS", 100
    )


def test_training_pixels_and_a_background_sample_are_all_that_must_be_kept():
    features = striped_features()
    kept = StoredPixels(features, training_pixels(TRUTH, 50))
    assert kept.nbytes <= (3 * 50 + 100) * 4 * 4
    found = [
        PixelClassifier(most_per_class=50).fit(each, TRUTH) for each in (features, kept)
    ]
    assert np.array_equal(found[0].weight, found[1].weight)
    assert found[0].labels_hash == found[1].labels_hash


def test_what_is_kept_is_there_once_and_for_good(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.features.sample_cache.SPARE_ROWS", 0)
    pixels = training_pixels(TRUTH, 50)
    kept = StoredPixels(striped_features(), pixels)
    before = kept.nbytes
    rows, order = kept.samples.rows(pixels)
    assert len(kept.samples.background(100)) == 100
    assert kept.nbytes == before
    kept.samples.rows(pixels[:3])  # an undo asks for all of them again
    assert np.array_equal(kept.samples.rows(pixels)[0], rows)
    assert np.array_equal(kept.sample(*np.divmod(order, TRUTH.shape[1])), rows)


def test_a_scribble_that_lets_other_pixels_train_is_not_known():
    labels = np.where(TRUTH == 3, 3, 0)
    kept = StoredPixels(striped_features(), training_pixels(labels, 50))
    assert kept.knows(training_pixels(labels, 50))
    labels[:10] = 0
    assert not kept.knows(training_pixels(labels, 50))


@pytest.mark.parametrize("asked_before", [0, 3])
def test_a_stopped_request_stops_in_the_fit(monkeypatch, asked_before):
    features = striped_features()
    part = TrainingImage(features, strokes(3, 70))
    target = ImageSnapshot(PlaneKey("a"), None, features=features)
    request = PipelineInput((target,), training=(part,))
    monkeypatch.setattr(PixelClassifier, "predict", None)  # not reached
    answers = iter([False] * asked_before)
    with pytest.raises(Cancelled, match="the fit was cancelled"):
        compute(request, should_stop=lambda: next(answers, True))
