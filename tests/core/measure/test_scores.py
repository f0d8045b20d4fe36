from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2.core.measure.scores import (
    iou_per_class,
    mean_iou,
    phase_fractions,
)

TRUTH = np.array([[1, 1, 1], [7, 7, 0]])
PREDICTION = np.array([[1, 1, 7], [7, 3, 1]])


def test_iou_is_intersection_over_union() -> None:
    assert iou_per_class(TRUTH, PREDICTION, classes=[1, 7]).tolist() == [2 / 3, 1 / 3]


def test_a_prediction_of_no_class_lowers_the_iou() -> None:
    truth = np.array([1, 1, 2, 2])
    perfect = mean_iou(truth, truth, classes=[1, 2])
    assert perfect == 1.0
    assert mean_iou(truth, np.array([1, 0, 2, 9]), classes=[1, 2]) == 0.5


def test_a_class_that_never_occurs_does_not_count_in_the_mean() -> None:
    scores = iou_per_class(TRUTH, TRUTH, classes=[1, 7, 9])
    assert np.isnan(scores[2])
    assert mean_iou(TRUTH, TRUTH, classes=[1, 7, 9]) == 1.0


def test_iou_equals_the_obvious_way_on_random_labels() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(1, 5, size=(2, 13, 17))
    obvious = [
        np.sum((truth == k) & (prediction == k))
        / np.sum((truth == k) | (prediction == k))
        for k in (4, 1, 3, 2)
    ]
    assert np.allclose(iou_per_class(truth, prediction, [4, 1, 3, 2]), obvious)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"prediction: shape \(2,\) differs"):
        mean_iou(TRUTH, np.array([1, 2]), classes=[1])


def test_phase_fractions_are_of_the_labelled_area() -> None:
    labels = np.array([[1, 1, 1, 300], [0, 0, 0, 0]])
    assert phase_fractions(labels) == {1: 0.75, 300: 0.25}
    assert phase_fractions(np.zeros((2, 2), int)) == {}


def test_a_pixel_counts_as_many_as_it_stands_for():
    rng = np.random.default_rng(3)
    truth, prediction = rng.integers(0, 3, (2, 50))
    weights = rng.integers(1, 5, 50)
    repeated = [np.repeat(each, weights) for each in (truth, prediction)]
    found = iou_per_class(truth, prediction, [0, 1, 2], weights)
    np.testing.assert_allclose(found, iou_per_class(*repeated, [0, 1, 2]))
