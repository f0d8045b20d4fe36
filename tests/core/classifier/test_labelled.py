"""The cache of the features of labelled pixels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest

from napari_hrdv2.core.classifier.sample_cache import SampleCache
from synthetic import SHAPE, striped_features

WIDTH = SHAPE[1]


def rows_of(features, pixels):
    return features.sample(*np.divmod(pixels, WIDTH))


def test_every_row_belongs_to_its_pixel_when_threads_ask_at_once(monkeypatch):
    features = striped_features()
    sample = features.sample
    cache = SampleCache(features)
    together = Barrier(2)

    def waits_for_the_other(rows, cols):
        try:
            together.wait(timeout=0.2)
        except BrokenBarrierError:  # the other waits for its turn, as it should
            together.reset()
        return sample(rows, cols)

    monkeypatch.setattr(features, "sample", waits_for_the_other)
    asked = [np.arange(0, 300), np.arange(100, 500)]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(cache.rows, asked))
    answers.append(cache.rows(np.arange(600)))
    for pixels, (rows, order) in zip([*asked, np.arange(600)], answers, strict=True):
        assert np.array_equal(np.sort(order), pixels)
        np.testing.assert_array_equal(rows, sample(*np.divmod(order, WIDTH)))


def test_an_answer_stays_as_it_was_when_the_cache_grows_or_shrinks(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.classifier.sample_cache.SPARE_ROWS", 10)
    features = striped_features()
    cache = SampleCache(features)
    rows, order = cache.rows(np.arange(50))
    for later in (np.arange(40, 90), np.arange(600), np.arange(500, 505), [7, 599]):
        cache.rows(np.asarray(later))
        assert np.array_equal(order, np.arange(50))
        np.testing.assert_array_equal(rows, rows_of(features, order))


def test_rows_that_are_no_longer_asked_for_are_let_go(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.classifier.sample_cache.SPARE_ROWS", 10)
    features = striped_features()
    cache = SampleCache(features)
    cache.rows(np.arange(600))
    most = cache.nbytes
    rows, order = cache.rows(np.array([3, 9, 555]))
    assert cache.nbytes < most / 20
    assert np.array_equal(np.sort(order), [3, 9, 555])
    np.testing.assert_array_equal(rows, rows_of(features, order))


def test_rows_of_a_stroke_that_was_undone_are_kept(monkeypatch):
    features = striped_features()
    cache = SampleCache(features)
    cache.rows(np.arange(600))
    cache.rows(np.arange(5))
    monkeypatch.setattr(features, "sample", None)  # not called again
    assert len(cache.rows(np.arange(600))[0]) == 600


def test_features_that_are_no_numbers_leave_the_cache_as_it_was():
    features = striped_features()
    features.tokens[0, 4, 5] = np.nan
    cache = SampleCache(features)
    cache.rows(np.arange(10))
    with pytest.raises(ValueError, match="features: . of 590"):
        cache.rows(np.arange(600))
    rows, order = cache.rows(np.arange(20))
    np.testing.assert_array_equal(rows, rows_of(features, order))
