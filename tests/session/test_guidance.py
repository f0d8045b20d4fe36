from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.guidance import probability_of, uncertainty_of
from napari_hrdv2.session import Session, compute
from napari_hrdv2.session.guidance import LabelIssues


@pytest.fixture
def mislabelled(session: Session) -> Session:
    """Four strokes of each class, and one more of class 2 where class 1 belongs."""
    labels = np.zeros((40, 48), np.uint8)
    for row in (2, 12, 22, 32):
        labels[row : row + 4, 2:6], labels[row : row + 4, 40:44] = 1, 2
    labels[18:20, 12:18] = 2
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    return session


def test_the_maps_are_those_of_the_core(trained):
    guidance, classifier = trained.guidance, trained.classifier
    np.testing.assert_array_equal(
        guidance.uncertainty(), uncertainty_of(classifier, trained.features)
    )
    np.testing.assert_array_equal(
        guidance.probability(2), probability_of(classifier, trained.features, 2)
    )


def test_what_is_excluded_is_neither_probable_nor_uncertain(trained):
    mask = np.zeros((40, 48), bool)
    mask[30:] = True
    trained.set_exclusion(mask)
    trained.train(force=True)
    assert not trained.guidance.probability(1)[30:].any()
    assert not trained.guidance.uncertainty()[30:].any()
    assert trained.guidance.probability(1)[:30].any()


def test_without_a_result_every_question_is_refused_in_a_sentence(session):
    guidance = session.guidance
    for ask in (
        guidance.uncertainty_request,
        guidance.uncertain_regions_request,
        guidance.check_scribbles,
    ):
        with pytest.raises(ValueError, match="There is no result yet: compute"):
            ask()


def test_the_probability_of_a_class_without_scribbles_is_refused(trained):
    trained.classes.ensure((3,), names={3: "pore"})
    with pytest.raises(ValueError, match="pore has no scribbles yet"):
        trained.guidance.probability(3)
    with pytest.raises(ValueError, match="has no scribbles yet"):
        trained.guidance.probability(0)  # which napari's brush can be set to


def test_places_go_round_the_best_first(trained):
    places = trained.guidance.find_uncertain_regions()
    assert len(places) > 1
    assert np.all(np.diff([place.score for place in places]) < 1e-9)
    walked = [trained.guidance.next_uncertain_region() for _ in range(len(places) + 1)]
    assert walked == [*places, places[0]]


def test_places_near_scribbles_count_for_less(trained):
    best = trained.guidance.find_uncertain_regions()[0]
    labels = trained.scribbles.labels.copy()
    labels[best.row, best.column] = 1
    trained.set_scribbles(labels)
    assert trained.guidance.find_uncertain_regions()[0] != best


def test_places_are_explained_by_the_names_of_today(trained):
    trained.classes.rename(1, "matrix")
    reason = trained.guidance.find_uncertain_regions()[0].reason
    assert "matrix" in reason
    assert "Class 1" not in reason


def test_a_new_scribble_makes_places_old(trained, labels):
    trained.guidance.find_uncertain_regions()
    late = trained.guidance.uncertain_regions_request()
    labels[30:34, 4:12] = 1
    trained.set_scribbles(labels)
    trained.train()
    assert not trained.guidance.has_uncertain_regions
    assert trained.guidance.next_uncertain_region() is None
    assert not trained.guidance.accept(compute(late))


def test_no_place_is_proposed_where_the_image_is_excluded(trained):
    mask = np.ones((40, 48), bool)
    mask[:26] = False
    trained.set_exclusion(mask)
    trained.train(force=True)
    assert len(trained.guidance.find_uncertain_regions()) > 0
    assert max(place.row for place in trained.guidance.uncertain_regions) < 27


def test_a_scribble_of_the_wrong_class_is_found_with_its_reason(mislabelled):
    (label_issue,) = mislabelled.guidance.check_scribbles()
    assert (label_issue.class_id, label_issue.predicted_id) == (2, 1)
    assert label_issue.row in (18, 19)
    assert 12 <= label_issue.column < 18
    assert "Painted as Class 2" in label_issue.reason


def test_relabelling_a_label_issue_changes_that_scribble_alone(mislabelled):
    (label_issue,) = mislabelled.guidance.check_scribbles()
    expected = mislabelled.scribbles.labels.copy()
    expected[18:20, 12:18] = 1
    heard = []
    mislabelled.relabelled.connect(heard.append)
    mislabelled.guidance.relabel(label_issue, 1)
    np.testing.assert_array_equal(mislabelled.scribbles.labels, expected)
    assert heard == [mislabelled.current.key]
    assert mislabelled.guidance.label_issues == ()


def test_erasing_a_label_issue_leaves_what_was_painted_over_it(mislabelled):
    (label_issue,) = mislabelled.guidance.check_scribbles()
    labels = mislabelled.scribbles.labels.copy()
    labels[18, 12:18] = 1
    mislabelled.set_scribbles(labels)
    mislabelled.guidance.erase(label_issue)
    assert (mislabelled.scribbles.labels[18, 12:18] == 1).all()
    assert not mislabelled.scribbles.labels[19, 12:18].any()


def test_other_scribbles_take_the_suspicion_back(mislabelled):
    (label_issue,) = mislabelled.guidance.check_scribbles()
    late = mislabelled.guidance.label_issues_request()
    mislabelled.set_scribbles(mislabelled.scribbles.labels.copy())
    assert mislabelled.guidance.label_issues == (label_issue,)
    labels = mislabelled.scribbles.labels.copy()
    labels[0, 0] = 1
    mislabelled.set_scribbles(labels)
    assert mislabelled.guidance.label_issues == ()
    assert not mislabelled.guidance.has_checked
    assert not mislabelled.guidance.accept(compute(late))


def test_putting_one_label_issue_right_keeps_the_others(mislabelled):
    (label_issue,) = mislabelled.guidance.check_scribbles()
    entry = mislabelled.current
    other = replace(label_issue, pixels=np.flatnonzero(entry.counted.labels == 2)[:1])
    found = LabelIssues(entry.key, entry.scribbles_fingerprint, (label_issue, other))
    assert other.pixels[0] not in label_issue.pixels
    mislabelled.guidance.accept(found)
    mislabelled.guidance.relabel(label_issue, 1)
    assert mislabelled.guidance.label_issues == (other,)


def test_label_issues_can_be_dropped(mislabelled):
    mislabelled.guidance.check_scribbles()
    mislabelled.guidance.drop_label_issues()
    assert mislabelled.guidance.label_issues == ()
    assert not mislabelled.guidance.has_checked


def test_label_issues_of_another_image_are_forgotten(mislabelled, image):
    mislabelled.guidance.check_scribbles()
    late = mislabelled.guidance.label_issues_request()
    mislabelled.set_image(image.copy(), "other")
    assert mislabelled.guidance.label_issues == ()
    assert not mislabelled.guidance.has_checked
    assert not mislabelled.guidance.accept(compute(late))


def test_an_image_without_scribbles_has_none_to_check(trained, image):
    trained.set_image(image.copy(), "other")
    trained.compute_features()
    trained.train()
    with pytest.raises(ValueError, match="no scribbles to check on this image"):
        trained.guidance.check_scribbles()
