"""Pixels are read once, whoever asks, and go with the features."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest

from synthetic import SHAPE, striped_features

WIDTH = SHAPE[1]


def rows_of(features, pixels):
    return features.sample(*np.divmod(pixels, WIDTH))


def test_every_row_belongs_to_its_pixel_when_threads_ask_at_once(monkeypatch):
    features = striped_features()
    sample = features.sample
    cache = features.samples
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
    monkeypatch.setattr("napari_hrdv2.core.features.sample_cache.SPARE_ROWS", 10)
    features = striped_features()
    cache = features.samples
    rows, order = cache.rows(np.arange(50))
    for later in (np.arange(40, 90), np.arange(600), np.arange(500, 505), [7, 599]):
        cache.rows(np.asarray(later))
        assert np.array_equal(order, np.arange(50))
        np.testing.assert_array_equal(rows, rows_of(features, order))


def test_rows_that_are_no_longer_asked_for_are_let_go(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.features.sample_cache.SPARE_ROWS", 10)
    features = striped_features()
    cache = features.samples
    cache.rows(np.arange(600))
    most = cache.nbytes
    rows, order = cache.rows(np.array([3, 9, 555]))
    assert cache.nbytes < most / 20
    assert np.array_equal(np.sort(order), [3, 9, 555])
    np.testing.assert_array_equal(rows, rows_of(features, order))


def test_rows_of_a_scribble_that_was_undone_are_kept(monkeypatch):
    features = striped_features()
    cache = features.samples
    cache.rows(np.arange(600))
    cache.rows(np.arange(5))
    monkeypatch.setattr(features, "sample", None)  # not called again
    assert len(cache.rows(np.arange(600))[0]) == 600


def test_features_that_are_no_numbers_leave_the_cache_as_it_was():
    features = striped_features()
    features.tokens[0, 4, 5] = np.nan
    cache = features.samples
    cache.rows(np.arange(10))
    with pytest.raises(ValueError, match="features: . of 590"):
        cache.rows(np.arange(600))
    rows, order = cache.rows(np.arange(20))
    np.testing.assert_array_equal(rows, rows_of(features, order))


def test_every_pixel_is_read_once(monkeypatch):
    features = striped_features()
    asked, sample = [], features.sample
    monkeypatch.setattr(
        features, "sample", lambda r, c: asked.append(len(r)) or sample(r, c)
    )
    for pixels in ([5, 9], [5, 7, 9, 599], [7], [5, 9]):
        rows, order = features.samples.rows(np.array(pixels))
        assert sorted(order) == pixels
        np.testing.assert_array_equal(rows, sample(*np.divmod(order, WIDTH)))
    assert asked == [2, 2]


class Doubled:
    """A transform that counts what it is given."""

    def __init__(self):
        self.given = []

    def __call__(self, table):
        self.given.append(len(table))
        return 2 * table.T


def test_every_pixel_is_transformed_once():
    features, made = striped_features(), []
    cache = features.samples
    for transform in (Doubled(), Doubled()):
        for pixels in ([5, 9], [5, 7, 9, 599], [7], [5, 9]):
            rows, order = cache.rows(np.array(pixels))
            found = cache.transformed(order, transform)
            np.testing.assert_array_equal(found.numpy(), 2 * rows.T)
        made.append([count for count in transform.given if count])
    assert made == [[2, 2], [4]]


def test_pixels_that_another_thread_let_go_are_read_again(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.features.sample_cache.SPARE_ROWS", 0)
    features, transform = striped_features(), Doubled()
    cache = features.samples
    rows, order = cache.rows(np.arange(50))
    cache.transformed(order, transform)
    cache.rows(np.array([7]))  # lets the others go
    few, one = cache.rows(np.array([7, 3]))
    for asked, expected in ((order, rows), (one, few)):
        found = cache.transformed(asked, transform)
        np.testing.assert_array_equal(found.numpy(), 2 * expected.T)


def test_its_memory_is_that_of_the_features_and_goes_with_them():
    features = striped_features()
    before = features.nbytes
    features.samples.rows(np.arange(100))
    assert features.nbytes >= before + 100 * 4 * 4
    assert copy.copy(features).nbytes == before
    gone = weakref.ref(features)
    gc.disable()
    try:
        del features
        assert gone() is None
    finally:
        gc.enable()


def test_threads_share_one_cache():
    features, together = striped_features(), Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(lambda _: (together.wait(), features.samples)[1], range(8))
        )
    assert all(one is features.samples for one in found)
