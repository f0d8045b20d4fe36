from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from napari_hrdv2.core.measure.comparison import compare
from napari_hrdv2.core.measure.numbering import match_labels

Encoder = Callable[[np.ndarray], np.ndarray]


def world(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and segmentation, 0 … K - 1, a tenth of the pixels drawn anew."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(classes, 60, 60)), (0, 3, 3))
    truth = noise.argmax(0)
    anew = rng.random(truth.shape) < 0.1
    return truth, np.where(anew, rng.integers(0, classes, truth.shape), truth)


def encoders(classes: int) -> dict[str, Encoder]:
    levels = np.round(np.linspace(0, 255, classes)).astype(int)
    return {
        "from 0": lambda ids: ids,
        "from 1": lambda ids: ids + 1,
        "grey levels": lambda ids: levels[ids],
    }


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("true_as", ["from 0", "from 1", "grey levels"])
@pytest.mark.parametrize("made_as", ["from 0", "from 1", "grey levels"])
def test_the_score_does_not_depend_on_how_classes_are_numbered(
    classes: int, made_as: str, true_as: str
) -> None:
    truth, made = world(classes)
    expected = compare(truth + 1, made + 1)
    as_ = encoders(classes)
    matched = match_labels(as_[made_as](made), as_[true_as](truth))
    found = compare(matched.truth, matched.segmentation)
    assert found.mean_iou == expected.mean_iou
    np.testing.assert_array_equal(found.confusion, expected.confusion)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("true_as", ["from 0", "from 1", "grey levels"])
@pytest.mark.parametrize("made_as", ["from 0", "from 1", "grey levels"])
def test_classes_in_another_order_are_refused(
    classes: int, made_as: str, true_as: str
) -> None:
    truth, made = world(classes)
    as_ = encoders(classes)
    with pytest.raises(ValueError, match="numbered otherwise .*0=1,255=2"):
        match_labels(as_[made_as](classes - 1 - made), as_[true_as](truth))


def test_what_is_not_labelled_is_told_from_a_class() -> None:
    truth, made = world(3)
    hole = np.zeros(truth.shape, bool)
    hole[:10] = True
    expected = compare(np.where(hole, 0, truth + 1), made + 1).mean_iou
    for open_truth in (np.where(hole, 0, truth + 1), np.where(hole, 255, truth)):
        for each in (made, made + 1):
            matched = match_labels(each, open_truth)
            found = compare(matched.truth, matched.segmentation)
            assert found.mean_iou == expected
            assert found.pixels == (~hole).sum()


def test_zero_is_no_class_of_a_file_that_lists_its_classes() -> None:
    truth, made = world(2)
    left_out = made + 1
    left_out[:10] = 0  # both would have 0, 1, 2 and 0, 1
    matched = match_labels(left_out, truth, segmentation_names={1: "", 2: ""})
    assert [c.truth_id for c in matched.classes] == [0, 1]
    assert (matched.segmentation[:10] == 0).all()


def test_names_decide_where_both_files_have_them() -> None:
    truth, made = world(2)
    matched = match_labels(
        np.where(made == 0, 2, 1),
        truth + 4,
        segmentation_names={1: "Particle", 2: "matrix"},
        truth_names={4: "matrix", 5: "particle", 6: "crack"},
    )
    found = compare(matched.truth, matched.segmentation)
    assert found.mean_iou == compare(truth + 1, made + 1).mean_iou
    named = {one.name: (one.segmentation_id, one.truth_id) for one in matched.classes}
    assert named == {"Particle": (1, 5), "matrix": (2, 4)}


def test_names_that_may_mean_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match="calls a class 'grain' and .* 'grains'"):
        match_labels(
            np.array([[1, 2]]),
            np.array([[1, 2]]),
            segmentation_names={1: "matrix", 2: "grains"},
            truth_names={1: "matrix", 2: "grain"},
        )


def test_a_class_that_one_of_them_lacks_is_scored() -> None:
    truth, made = world(3)
    matched = match_labels(np.minimum(made, 1) + 1, truth + 1)
    found = compare(matched.truth, matched.segmentation)
    assert found.classes == (1, 2, 3)
    assert found.iou[2] == 0
    assert matched.classes[2].segmentation_id is None


@pytest.mark.parametrize("missed", [0.5, 0.9, 0.99])
def test_a_bad_segmentation_is_scored_and_not_refused(missed: float) -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(90 * 90).reshape(90, 90) % 30 == 0).astype(int)
    made = np.where(rng.random(truth.shape) < missed, 0, truth)
    made[0, 5] = 1
    expected = compare(truth + 1, made + 1).mean_iou
    matched = match_labels(made + 1, truth)
    assert compare(matched.truth, matched.segmentation).mean_iou == expected
    noise = rng.integers(1, 4, (2, 40, 40))  # no better than chance
    matched = match_labels(noise[0], noise[1] - 1)
    assert compare(matched.truth, matched.segmentation).accuracy < 0.4


@pytest.mark.parametrize(
    ("made", "true", "complaint"),
    [
        ([1, 2, 3], [0, 2, 2], "the ids 1, 2, 3 and the truth 0, 2: both .*, or the"),
        ([1, 2, 2], [4, 5, 5], "which are different classes"),
        ([1, 2, 2], [0, 0, 0], "which are different classes"),
        ([2, 5, 5], [0, 1, 1], "which are different classes"),
        ([1, 2, 2], [0, 128, 128], "which are different classes"),
    ],
)
def test_ids_that_tell_no_numbering_are_refused(
    made: list, true: list, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        match_labels(np.array([made]), np.array([true]))


def test_pixels_that_contradict_the_ids_are_refused() -> None:
    truth, made = world(3)
    made[truth == 0] = 0
    seen = truth > 0  # the class 0 of the truth is not in this image
    with pytest.raises(ValueError, match="by their pixels"):
        match_labels(made[seen][None] + 1, truth[seen][None])


def test_pairs_are_taken_as_they_are_given() -> None:
    truth, made = world(3)
    matched = match_labels(made * 7, truth + 3, match={3: 0, 5: 14})
    assert [c.segmentation_id for c in matched.classes] == [0, 7, 14]
    found = compare(matched.truth, matched.segmentation)
    assert found.pixels == (truth != 1).sum()
    assert found.confusion[0, 0] == ((truth == 0) & (made == 0)).sum()


@pytest.mark.parametrize("match", [{}, {-1: 2}, {9: 1}])
def test_pairs_that_are_none_are_refused(match: dict) -> None:
    with pytest.raises(ValueError, match="match: "):
        match_labels(np.array([[1, 2]]), np.array([[0, 1]]), match=match)


def test_objects_are_no_classes() -> None:
    objects = np.arange(70)[None]
    with pytest.raises(ValueError, match="truth: there are 69 ids from 1 to 69"):
        match_labels(np.minimum(objects, 1) + 1, objects)


def test_large_ids_are_ids_like_others() -> None:
    truth, made = world(2)
    big = np.array([3, 4_000_000_000])
    matched = match_labels(big[made], big[truth])
    found = compare(matched.truth, matched.segmentation)
    assert found.mean_iou == compare(truth + 1, made + 1).mean_iou


@pytest.mark.parametrize("match", [{1: 2, 9: 2}, {9: 2, 1: 2}])
def test_several_ids_of_the_truth_may_be_one_class(match: dict) -> None:
    made, truth = np.array([[1, 1, 3]]), np.array([[1, 1, 4]])
    matched = match_labels(made, truth, match={**match, 4: 3})
    assert [tuple(one) for one in matched.classes] == [
        (1, "class 1", 1, None),
        (2, "class 2", 2, 1),
        (3, "class 3", 3, 4),
    ]


def test_a_class_has_the_id_that_occurs_of_those_with_its_name() -> None:
    names = {0: "pore", 4: "pore"}
    matched = match_labels(
        np.array([[0, 1]]),
        np.array([[0, 0]]),
        segmentation_names={0: "pore", 1: "grain"},
        truth_names=names,
    )
    assert [tuple(one) for one in matched.classes] == [
        (1, "pore", 0, 0),
        (2, "grain", 1, None),
    ]
