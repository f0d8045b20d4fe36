import dataclasses

import numpy as np
import pytest

from napari_hrdv2.core.postprocess.refinement import Refinement, clean, refine
from napari_hrdv2.session import Session, TaskContext, compute
from napari_hrdv2.session import pipeline as module
from napari_hrdv2.session.snapshots import label_fractions


@pytest.fixture
def specks(image: np.ndarray, labels: np.ndarray) -> Session:
    """A result in which four bright pixels lie in the dark half."""
    image = image.copy()
    image[30:32, 10:12] = 180
    session = Session()
    session.configure(transforms="identity")
    session.set_image(image)
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    assert (session.segmentation[30:32, 10:12] == 2).any()
    return session


def test_refinement_is_off_at_first(trained):
    assert trained.refinement.settings.is_off
    assert trained.refinement.request() is None
    assert trained.current.result.refined is None


def test_cleaning_shows_cleaned_labels_and_keeps_the_raw_ones(specks):
    raw = specks.segmentation.copy()
    specks.refinement.change(min_object=400)
    specks.refinement.refine()
    np.testing.assert_array_equal(specks.segmentation, clean(raw, min_object=400))
    assert (specks.segmentation != raw).any()
    np.testing.assert_array_equal(specks.current.result.labels, raw)


def test_the_fractions_are_those_of_what_is_shown(specks):
    specks.refinement.change(min_object=400)
    specks.refinement.refine()
    assert specks.phase_fractions() == label_fractions(specks.segmentation)
    specks.refinement.undo()
    specks.refinement.refine()
    assert specks.phase_fractions() == label_fractions(specks.current.result.labels)


@pytest.mark.parametrize("smoothing", ["guided", "crf"])
def test_smoothing_is_that_of_the_core(specks, smoothing):
    settings = Refinement(smoothing, radius=3, strength=1.0)
    specks.refinement.change(**dataclasses.asdict(settings))
    specks.refinement.refine()
    expected = refine(
        specks.classifier.predict_proba(specks.features),
        specks.image,
        specks.classifier.classes,
        settings,
    )
    np.testing.assert_array_equal(specks.segmentation, expected)


def test_switching_off_brings_exactly_the_raw_result_back_at_once(specks):
    raw = specks.segmentation.copy()
    specks.refinement.change(min_object=400)
    specks.refinement.refine()
    specks.refinement.change(min_object=0)
    assert specks.refinement.request() is None
    np.testing.assert_array_equal(specks.segmentation, raw)


def test_every_change_can_be_undone_and_made_again(session):
    refinement, heard = session.refinement, []
    refinement.changed.connect(lambda: heard.append(refinement.settings.min_object))
    refinement.change(min_object=20)
    refinement.change(min_object=50)
    refinement.change(min_object=50)  # none
    refinement.undo()
    refinement.undo()
    refinement.undo()  # there is nothing left
    assert not refinement.can_undo
    refinement.redo()
    assert heard == [20, 50, 20, 0, 20]
    refinement.change(min_object=7)
    assert not refinement.can_redo


def test_a_setting_that_cannot_be_used_changes_nothing(session):
    with pytest.raises(ValueError, match="strength: 2 is not a number in 0..1"):
        session.refinement.change(strength=2)
    assert session.refinement.settings == Refinement()
    assert not session.refinement.can_undo


def test_an_answer_to_a_former_result_is_dropped(specks, labels):
    specks.refinement.change(min_object=400)
    late = compute(specks.refinement.request())
    labels[30:34, 30:40] = 2
    specks.set_scribbles(labels)
    specks.train()
    assert not specks.accept(late)
    assert specks.current.result.refined is None


def test_an_answer_to_former_settings_is_dropped(specks):
    specks.refinement.change(min_object=400)
    late = compute(specks.refinement.request())
    specks.refinement.undo()
    assert not specks.accept(late)


def test_what_is_done_is_not_asked_for_again(specks):
    specks.refinement.change(min_object=400)
    specks.refinement.refine()
    assert not specks.refinement.is_pending
    assert specks.refinement.request() is None


def test_after_another_scribble_the_new_result_is_to_be_refined(specks, labels):
    specks.refinement.change(min_object=400)
    specks.refinement.refine()
    labels[30:34, 30:40] = 2
    specks.set_scribbles(labels)
    specks.train()
    assert specks.refinement.is_pending
    specks.refinement.refine()
    assert specks.current.result.refined is not None


def test_nothing_is_refined_without_a_result(session):
    session.refinement.change(min_object=20)
    assert session.refinement.request() is None


def test_excluded_pixels_stay_without_a_class(specks):
    mask = np.zeros((40, 48), bool)
    mask[35:] = True
    specks.set_exclusion(mask)
    specks.train()
    specks.refinement.change(smoothing="guided", radius=3, min_object=30)
    specks.refinement.refine()
    assert not specks.segmentation[35:].any()
    assert (specks.segmentation[:35] > 0).all()
    assert sum(specks.phase_fractions().values()) == pytest.approx(1)


def test_a_result_is_smoothed_by_the_classifier_that_made_it(specks, labels):
    first, image = specks.classifier, specks.image
    specks.set_image(image.copy(), "other")
    specks.set_scribbles(labels[:, ::-1] * 1)
    specks.compute_features()
    specks.train()
    assert specks.classifier is not first
    specks.set_image(image, "image")
    specks.refinement.change(smoothing="guided")
    assert specks.refinement.request().classifier is first


def test_of_a_large_image_the_visible_part_comes_first(specks, monkeypatch):
    monkeypatch.setattr(module, "_REFINED_IN_TWO_STEPS", 100)
    specks.refinement.change(smoothing="guided", radius=2, strength=1.0)
    region, parts = (slice(20, 36), slice(4, 20)), []
    request = specks.refinement.request(visible=region)
    answer = request(TaskContext(partial=parts.append))
    part, _ = parts
    assert str(part.key) == "image"
    assert part.window == region
    assert part.labels.shape == (16, 16)
    inner, whole = (slice(2, -2), slice(2, -2)), answer.images[0].result.refined
    assert np.mean(part.labels[inner] == whole[region][inner]) > 0.95


def test_a_class_that_smoothing_brings_back_has_a_share(specks):
    specks.refinement.change(smoothing="guided", radius=3)
    request = specks.refinement.request()
    (target,) = request.targets
    alone = dataclasses.replace(target.result, fractions={1: 1.0})  # no 2 in the raw
    target = dataclasses.replace(target, result=alone)
    (done,) = compute(dataclasses.replace(request, targets=(target,))).images
    assert done.result.fractions == label_fractions(done.result.refined)
    assert sum(done.result.fractions.values()) == pytest.approx(1)


@pytest.mark.parametrize("smoothing", ["none", "guided"])
def test_a_region_is_refined_as_if_it_were_alone(specks, smoothing):
    raw, region = specks.segmentation, (slice(20, 36), slice(4, 20))
    settings = Refinement(smoothing, radius=2, min_object=3)
    current = specks.current
    found = module.refine_labels(
        current.result, current.snapshot(), settings, TaskContext(), window=region
    )
    planes = specks.classifier.predict_proba(specks.features)[:, *region]
    expected = (
        clean(raw[region], 3)
        if smoothing == "none"
        else refine(planes, specks.image[region], specks.classifier.classes, settings)
    )
    np.testing.assert_array_equal(found, expected)


def test_settings_survive_a_project(session):
    session.refinement.change(smoothing="crf", strength=0.25, fill_holes=9)
    other = Session()
    other.refinement.change(min_object=3)
    other.refinement.from_dict(session.refinement.to_dict())
    assert other.refinement.settings == session.refinement.settings
    assert not other.refinement.can_undo


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": 1}, "refinement: colour is no setting; there are smoothing"),
        ({"radius": 0}, "radius: 0 is not a whole number"),
        ({"strength": "much"}, "refinement: .*much"),
    ],
)
def test_saved_settings_that_cannot_be_used_are_refused(session, settings, message):
    session.refinement.change(min_object=3)
    with pytest.raises(ValueError, match=message):
        session.refinement.from_dict(settings)
    assert session.refinement.settings.min_object == 3
