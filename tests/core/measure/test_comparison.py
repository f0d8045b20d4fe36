from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics

from napari_hrdv2.core.measure.comparison import (
    boundary_iou_per_class,
    compare,
    confusion_matrix,
    error_map,
)


def random_labels(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A blotchy truth with gaps, and a segmentation that is wrong here and there."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(classes, 41, 53)), (0, 3, 3))
    truth = 1 + noise.argmax(0)
    wrong = rng.random(truth.shape) < 0.2
    made = np.where(wrong, rng.integers(1, classes + 2, truth.shape), truth)
    truth[:5, :20] = 0
    return truth, made


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    truth, made = random_labels(seed)
    exclude = np.random.default_rng(seed).random(truth.shape) < 0.1
    found = compare(truth, made, exclude=exclude)
    scored = (truth != 0) & ~exclude
    pair = truth[scored], made[scored]
    labels = list(found.classes)
    assert labels == [1, 2, 3, 4, 5]
    expected = [
        [((pair[0] == a) & (pair[1] == b)).sum() for b in labels] for a in labels
    ]
    np.testing.assert_array_equal(found.confusion, expected)
    iou = metrics.jaccard_score(*pair, labels=labels, average=None)
    np.testing.assert_allclose(found.iou, iou, rtol=0, atol=1e-12)
    macro = metrics.jaccard_score(*pair, average="macro")
    assert found.mean_iou == pytest.approx(macro, abs=1e-12)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(*pair), abs=1e-12)
    assert found.pixels == scored.sum()


def test_pixels_of_other_classes_are_not_in_the_confusion_matrix() -> None:
    truth, made = random_labels(5)
    labels = [2, 4, 9]
    expected = [[((truth == a) & (made == b)).sum() for b in labels] for a in labels]
    np.testing.assert_array_equal(confusion_matrix(truth, made, labels), expected)
    assert not confusion_matrix(truth, made, [77, 78]).any()


def test_what_is_not_segmented_is_wrong() -> None:
    found = compare([[1, 1, 2, 2]], [[1, 0, 2, 2]])
    assert found.unsegmented.tolist() == [1, 0]
    assert (found.accuracy, found.iou.tolist()) == (0.75, [0.5, 1.0])


def authors_band(mask: np.ndarray, width: int) -> np.ndarray:
    """What Boundary IoU's authors make of a mask, who erode it step by step."""
    square = np.ones((3, 3), bool)
    return mask & ~ndimage.binary_erosion(mask, square, iterations=width)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_boundary_iou_is_that_of_its_authors(width: int) -> None:
    truth, made = random_labels(6)
    truth = np.maximum(truth, 1)
    for k, found in enumerate(
        boundary_iou_per_class(truth, made, [1, 2, 3], width=width), start=1
    ):
        bands = [authors_band(labels == k, width) for labels in (truth, made)]
        expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        assert found == pytest.approx(expected, abs=1e-12)


def test_boundary_iou_sees_what_a_large_object_hides() -> None:
    truth, made = np.ones((2, 90, 90), int)
    truth[20:70, 20:70] = made[20:70, 22:72] = 2
    found = compare(truth, made, boundary_width=3)
    assert found.iou[1] > 0.9
    assert found.boundary_iou[1] < 0.6


def test_the_edge_of_what_is_not_known_is_no_boundary() -> None:
    truth = np.ones((30, 30), int)
    truth[:, 15:] = 0
    made = np.ones((30, 30), int)
    assert compare(truth, made, boundary_width=2).boundary_iou.tolist() == [1.0]


def test_errors_show_the_true_class_where_it_is_scored() -> None:
    truth, made = np.array([[1, 1, 2, 0, 2]]), np.array([[1, 2, 0, 2, 1]])
    exclude = np.array([[0, 0, 0, 0, 1]], bool)
    assert error_map(truth, made).tolist() == [[0, 1, 2, 0, 2]]
    assert error_map(truth, made, exclude=exclude).tolist() == [[0, 1, 2, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (([[1, 2]], [[1], [2]]), r"segmentation: shape \(2, 1\) differs"),
        (([[0, 0]], [[1, 2]]), "truth: no pixel is left to score"),
        (([[1.5, 2]], [[1, 2]]), "truth: shape .* is not a label image"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: tuple, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        compare(*arguments)


@pytest.mark.parametrize("width", [0, -1, 1.5, True])
def test_a_width_that_is_none_is_refused(width: object) -> None:
    with pytest.raises(ValueError, match="boundary_width: .* is no width"):
        compare([[1, 2]], [[1, 2]], boundary_width=width)
