"""Which labelled pixels train, and how much each counts."""

from __future__ import annotations

import mmap

import numpy as np
import psutil
import pytest

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.classifier.samples import (
    PLACE,
    TrainingSamples,
    blank_labels,
    evened_by_place,
    labelled_images,
    subsampled,
    training_pixels,
)
from synthetic import dots, halves


def painted(count=1000, others=30):
    """A large patch of class 2 and a few pixels of class 9, on odd sides."""
    labels = np.zeros((41, 53), np.uint8)
    labels.ravel()[100 : 100 + count] = 2
    labels.ravel()[:others] = 9
    return labels


def blocks_of(labels):
    """The pixels of each class in each block of 2 × 2, the slow obvious way."""
    blocks = {}
    for row, column in zip(*np.nonzero(labels), strict=True):
        key = int(labels[row, column]), int(row) // 2, int(column) // 2
        blocks.setdefault(key, []).append(int(row) * labels.shape[1] + int(column))
    return blocks


@pytest.fixture
def even_few(monkeypatch):
    """Classes are subsampled however few pixels they have."""
    monkeypatch.setattr("napari_hrdv2.core.classifier.samples.SUBSAMPLED_ABOVE", 0)


@pytest.fixture(params=[(41, 53), (1, 30), (30, 1), (8, 8)])
def scattered(request, even_few):
    """Pixels of three classes, in blocks of their own and in common ones."""
    rng = np.random.default_rng(4)
    return rng.choice([0, 0, 1, 3, 70], request.param).astype(np.uint8)


def test_one_pixel_of_each_class_in_a_block_trains_for_all_of_them(scattered):
    blocks = blocks_of(scattered)
    chosen, counts = subsampled(scattered, np.flatnonzero(scattered), 5000)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == len(blocks)
    found = dict(zip(chosen.tolist(), counts.tolist(), strict=True))
    for pixels in blocks.values():
        (one,) = set(pixels) & set(found)
        assert found[one] == len(pixels)


def test_without_a_limit_every_labelled_pixel_trains(scattered):
    chosen, counts = subsampled(scattered, np.flatnonzero(scattered), None)
    assert np.array_equal(chosen, np.flatnonzero(scattered))
    assert (counts == 1).all()


def test_of_a_class_with_few_pixels_all_train():
    labels = painted(count=1000, others=30)
    pixels = training_pixels(labels)
    ids = labels.ravel()[pixels]
    assert (ids == 9).sum() == 30
    assert 250 <= (ids == 2).sum() < 300
    assert (labels.ravel()[training_pixels(labels, 12)] == 9).sum() == 12


@pytest.mark.parametrize(("count", "expected"), [(500, 500), (501, 251)])
def test_more_than_five_hundred_pixels_of_a_class_are_subsampled(count, expected):
    labels = np.zeros((3, 600), np.uint8)
    labels[1, :count] = 4
    assert len(training_pixels(labels)) == expected


@pytest.mark.parametrize("most", [5000, 3, None])
def test_where_nothing_is_labelled_nothing_trains(most):
    assert training_pixels(np.zeros((3, 5), int), most).shape == (0,)


def test_of_a_class_with_more_blocks_only_so_many_train():
    labels = painted()
    pixels = training_pixels(labels, 100)
    ids = labels.ravel()[pixels]
    assert (ids == 2).sum() == 100
    assert (ids == 9).sum() == 30
    assert (np.diff(pixels) > 0).all()


def test_the_pixels_that_train_are_spread_over_the_whole_patch():
    labels = np.ones((64, 64), np.uint8)
    rows, columns = np.divmod(training_pixels(labels, 512), 64)
    parts = np.zeros((4, 4), int)
    np.add.at(parts, (rows // 16, columns // 16), 1)  # 32 each on average
    assert parts.min() >= 16
    assert parts.max() <= 48
    for phase in (rows % 8, columns % 8):  # no grid that a texture could keep time with
        assert np.bincount(phase, minlength=8).min() > 45


def test_no_place_in_a_block_is_preferred():
    rows, columns = np.divmod(training_pixels(np.ones((64, 64), np.uint8)), 64)
    assert np.bincount(2 * (rows % 2) + columns % 2).min() > 220  # of 1024


def test_a_scribble_replaces_few_of_the_pixels_that_train():
    for most, replaced in ((5000, 5), (100, 12)):
        before = training_pixels(painted(1000), most)
        after = training_pixels(painted(1020), most)
        assert np.isin(before, after).sum() >= len(before) - replaced


def test_those_that_train_count_as_much_as_all_that_are_labelled(even_few):
    labels = painted()
    for most in (None, 5000, 100, 7, 1):
        chosen, counts = subsampled(labels, np.flatnonzero(labels), most)
        totals = np.bincount(labels.ravel()[chosen], counts)
        np.testing.assert_allclose(totals[[2, 9]], [1000, 30])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_the_type_of_the_labels_does_not_matter(dtype):
    expected = training_pixels(painted(), 100)
    assert np.array_equal(training_pixels(painted().astype(dtype), 100), expected)


def test_places_weigh_alike_as_a_loop_over_them_says():
    rng = np.random.default_rng(2)
    weight, index = rng.uniform(1, 4, 200), rng.integers(0, 3, 200)
    place = 3 * rng.integers(0, 9, 200) + index
    found, places = evened_by_place(weight, index, place)
    for one in range(3):
        own = np.unique(place[index == one])
        assert places[one] == len(own)
        for each in own:
            there = place == each
            share = weight[index == one].sum() / len(own)
            expected = weight[there] / weight[there].sum() * share
            np.testing.assert_allclose(found[there], expected)


def test_places_are_squares_of_each_image():
    features, labels = halves(), dots()
    images = labelled_images([features, features], [labels, labels], None)
    read = TrainingSamples.read(images, None, balanced=False, by_place=True)
    for number, class_id in enumerate(read.classes):
        rows, columns = np.nonzero(labels == class_id)
        squares = set(zip(rows // PLACE, columns // PLACE, strict=True))
        assert read.places[number] == 2 * len(squares)


def test_a_thicker_brush_in_one_place_weighs_no_more():
    labels = np.zeros((64, 64), np.uint8)
    labels[:2, :2], labels[:16, 48:], labels[40, 40] = 1, 1, 2
    images = labelled_images([halves((64, 64))], [labels], None)
    even, plain = (
        TrainingSamples.read(images, None, balanced=True, by_place=by_place)
        for by_place in (True, False)
    )
    own = even.orders[0] % 64 < 32
    first = even.index == 0
    assert even.weight[own & first].sum() == pytest.approx(even.weight[first].sum() / 2)
    assert plain.weight[own & first].sum() < plain.weight[first].sum() / 50
    for each in (even, plain):
        assert each.weight[first].sum() == pytest.approx(each.weight[~first].sum())


def test_one_scribble_a_class_is_enough():
    features = halves()
    found = PixelClassifier().fit(features, dots()).predict(features)
    assert (found == np.repeat([1, 2], 30)).mean() > 0.95


def test_blank_labels_are_zeros_that_can_be_painted():
    for shape, dtype in (((3, 5), np.uint8), ((2, 1500, 1501), np.uint16)):
        labels = blank_labels(shape, dtype)
        assert (labels.shape, labels.dtype) == (shape, dtype)
        assert not labels.any()
        labels[..., -1, -1] = 7
        assert np.count_nonzero(labels == 7) == labels[..., 0, 0].size
    with pytest.raises(MemoryError):
        blank_labels((2**30, 2**30))


@pytest.mark.skipif(not hasattr(mmap, "MADV_NOHUGEPAGE"), reason="of Linux")
def test_strokes_on_large_labels_take_memory_where_they_are():
    labels, process = blank_labels((20_000, 20_000)), psutil.Process()
    before = process.memory_info().rss
    for row, column in np.random.default_rng(0).integers(0, 19_900, (200, 2)):
        labels[row : row + 3, column : column + 60] = 1
    assert len(training_pixels(labels)) > 0  # which looks at all of them
    assert process.memory_info().rss - before < 20e6
