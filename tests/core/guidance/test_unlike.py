"""Where an image is unlike anything that was painted."""

import numpy as np
import pytest

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.base import StoredPixels
from napari_hrdv2.core.guidance import scribbles_of, unlikeness_of
from napari_hrdv2.core.guidance.unlike import LIKE, NEIGHBOURS, QUANTILE

SHAPE = (131, 67)


def three_bands(seed=1, shift=0.0):
    """Features with three bands of columns, of an odd size."""
    rng = np.random.default_rng(seed)
    middles = np.array([[0, 0, 4], [4, 0, 0], [0, 9, 0]])
    band = np.minimum(np.arange(SHAPE[1]) // 23, 2)
    tokens = middles[band] + shift + rng.standard_normal((1, *SHAPE, 3)) * 0.3
    return HighResFeatures(tokens.astype(np.float32), "identity", SHAPE, 1, 1)


def painted(*columns):
    """Three scribbles in each of some bands, as the class of its number."""
    labels = np.zeros(SHAPE, np.uint8)
    for row in (10, 60, 110):
        for column in columns:
            labels[row : row + 3, column : column + 8] = 1 + column // 23
    return labels


def slow(features, labels):
    """Return d / (d + t) by loops; all painted pixels are points."""
    table = features.materialize().reshape(3, -1).T
    known = scribbles_of(labels)
    points = [table[some] for _, some in known]

    def fifth(row, given):
        away = np.linalg.norm((row - np.concatenate(given)) / scale @ axes, axis=1)
        return np.sort(away)[NEIGHBOURS - 1]

    rows = table[features.background_pixels()]
    scale = rows.std(0)
    axes = np.linalg.svd((rows - rows.mean(0)) / scale, full_matrices=False)[2].T
    held = [
        fifth(row, [table[other] for i, other in known if i == k and other is not own])
        for k, own in known
        for row in table[own]
    ]
    threshold = np.quantile(held, QUANTILE)
    away = np.array([fifth(row, points) for row in table]).reshape(SHAPE)
    return 255 * away / (away + threshold)


def test_the_map_is_that_of_a_slow_obvious_version():
    features, labels = three_bands(), painted(3)
    labels[12:, :] = 0
    labels[60, 3:12] = labels[60, 30:40] = 1
    fast = unlikeness_of(features, [features], [labels])
    assert fast.dtype == np.uint8
    assert np.abs(fast - slow(features, labels)).max() <= 0.6


def test_a_band_that_nobody_painted_is_unlike_and_the_others_are_not():
    features = three_bands()
    unlike = unlikeness_of(features, [features], [painted(3, 30)]) > LIKE
    assert unlike[:, 46:].all()
    assert unlike[:, :46].mean() < 0.15
    every = unlikeness_of(features, [features], [painted(3, 30, 53)]) > LIKE
    assert every.mean() < 0.15


def test_one_class_and_one_scribble_are_enough():
    features, labels = three_bands(), painted(3)
    labels[20:] = 0
    found = unlikeness_of(features, [features], [labels])
    assert (found[:, 46:] > LIKE).all()
    assert (found[:, :23] > LIKE).mean() < 0.4


def test_what_was_painted_on_another_image_counts_also_without_its_map():
    one, other = three_bands(), three_bands(2)
    nothing, labels = np.zeros(SHAPE, int), painted(3, 53)
    stored = StoredPixels(one, np.flatnonzero(labels))
    maps = [
        unlikeness_of(other, [first, other], [labels, nothing])
        for first in (one, stored)
    ]
    np.testing.assert_array_equal(*maps)
    assert (maps[0][:, 23:46] > LIKE).all()
    assert (maps[0][:, :23] > LIKE).mean() < 0.15


def test_a_region_is_that_part_of_the_whole_and_can_be_stopped():
    features = three_bands()
    given, region = (features, [features], [painted(3)]), np.s_[100:125, 5:31]
    part = unlikeness_of(*given, region=region)
    np.testing.assert_array_equal(part, unlikeness_of(*given)[region])
    with pytest.raises(Cancelled):
        unlikeness_of(*given, should_stop=lambda: True)


def test_nothing_of_a_constant_image_is_unlike():
    tokens = np.full((1, *SHAPE, 3), 7, np.float32)
    features = HighResFeatures(tokens, "identity", SHAPE, 1, 1)
    found = unlikeness_of(features, [features], [painted(3, 30)])
    assert not (found > LIKE).any()


def test_no_scribble_and_nan_are_refused_in_a_sentence():
    features = three_bands()
    with pytest.raises(ValueError, match="^labels: no pixel is labelled; paint"):
        unlikeness_of(features, [features], [np.zeros(SHAPE, int)])
    features.tokens[0, 3, 2] = float("nan")
    with pytest.raises(ValueError, match="^features: some are NaN or infinite"):
        unlikeness_of(features, [features], [painted(3)])
