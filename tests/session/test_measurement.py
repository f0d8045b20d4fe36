import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.measure import particle_table, phase_fractions_with_error
from napari_hrdv2.core.postprocess.instances import instances
from napari_hrdv2.session import Result, Session, Stage, TaskContext, compute
from napari_hrdv2.session.measurement import Scope
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.snapshots import label_fractions

A, B = PlaneKey("a"), PlaneKey("b")


def add_result(session, key, labels, **about):
    """Make an image entry that has been segmented."""
    entry = session.images.add(np.zeros(labels.shape), key, **about)
    fingerprint = session.classifier_fingerprint
    entry.result = Result(labels, label_fractions(labels), fingerprint)
    return entry


def blocks():
    labels = np.ones((30, 40), np.uint8)
    labels[2:8, 2:8] = labels[12:20, 20:33] = 2
    return labels


def test_fractions_of_the_current_image_are_those_of_the_core(trained):
    measured = trained.measurement.measure()
    expected = phase_fractions_with_error(trained.segmentation, [1, 2])
    assert measured.images == {PlaneKey("image"): expected}
    assert measured.together == expected
    assert trained.measurement.measured is measured


def test_without_a_result_measuring_is_refused_in_a_sentence(session):
    for ask in (session.measurement.measure, lambda: session.measurement.split(1)):
        with pytest.raises(ValueError, match="There is no result to measure yet"):
            ask()
    with pytest.raises(ValueError, match="There is no result to measure yet"):
        session.measurement.measure(every=True)


def test_a_new_result_makes_what_was_measured_old(trained, labels):
    trained.measurement.measure()
    late = compute(trained.measurement.fractions_request())
    trained.measurement.split(2)
    labels[30:34, 30:40] = 2
    trained.set_scribbles(labels)
    trained.train()
    assert trained.measurement.measured is None
    assert trained.measurement.is_stale
    assert not trained.accept(late)


def test_all_images_with_a_result_are_measured_together(trained):
    add_result(trained, "b", blocks(), name="alloy")
    trained.images.add(np.zeros((5, 5)), "c")
    measured = trained.measurement.measure(every=True)
    assert list(measured.images) == [PlaneKey("image"), B]
    assert measured.names[B] == "alloy"
    assert measured.together.images == 2
    assert measured.together.pixels == 40 * 48 + 30 * 40
    assert measured.note == ""


def test_images_with_pixel_sizes_count_by_their_area(trained):
    trained.current.pixel_size = (2.0, "µm")
    add_result(trained, "b", blocks(), pixel_size=(1.0, "µm"))
    measured = trained.measurement.measure(every=True)
    a, b = (one.phases[1].fraction for one in measured.images.values())
    areas = 40 * 48 * 4, 30 * 40
    expected = (a * areas[0] + b * areas[1]) / sum(areas)
    assert measured.together.phases[1].fraction == pytest.approx(expected)


def test_images_in_different_units_count_by_pixels_and_it_is_said(trained):
    trained.current.pixel_size = (2.0, "nm")
    add_result(trained, "b", blocks(), pixel_size=(1.0, "µm"))
    measured = trained.measurement.measure(every=True)
    a, b = (one.phases[1].fraction for one in measured.images.values())
    expected = (a * 40 * 48 + b * 30 * 40) / (40 * 48 + 30 * 40)
    assert measured.together.phases[1].fraction == pytest.approx(expected)
    assert "count by their pixels" in measured.note


def test_planes_of_one_stack_come_with_a_warning(trained):
    add_result(trained, "s/0", blocks(), plane={"Z": 0})
    add_result(trained, "s/1", blocks(), plane={"Z": 1})
    assert "Planes of one stack" in trained.measurement.measure(every=True).note


def test_two_images_of_one_name_are_told_apart(trained):
    add_result(trained, "b", blocks(), name="alloy")
    add_result(trained, "c", blocks(), name="alloy")
    names = trained.measurement.measure(every=True).names
    assert [names[B], names[PlaneKey("c")]] == ["alloy", "alloy (2)"]


def test_only_images_whose_result_changed_are_measured_again(trained):
    add_result(trained, "b", blocks())
    first = trained.measurement.measure(every=True)
    trained.current.result = Result(*_flipped(trained.current.result))
    trained.segmentation_changed.emit()
    request = trained.measurement.fractions_request(every=True)
    assert [one.measured for one in request.targets] == [None, first.images[B]]


def _flipped(result):
    return result.labels[:, ::-1].copy(), result.fractions, result.fingerprint


def test_images_of_a_former_classifier_are_segmented_anew_first(two, labels):
    entry = two.images["a"]
    former = entry.result.labels
    before = (np.indices(former.shape).sum(0) % 2 + 1).astype(former.dtype)  # chequered
    entry.result = replace(entry.result, labels=before)
    stroke(two, labels)
    measured = two.measurement.measure(every=True)
    now = two.images["a"].result
    assert now.fingerprint == two.classifier_fingerprint
    expected = two.classifier.predict(two.images["a"].features)
    np.testing.assert_array_equal(now.labels, expected)
    assert (now.labels != before).any()
    assert measured.images[A] == phase_fractions_with_error(expected, [1, 2])
    assert measured.together.images == 2
    assert two.measurement.measured.images == measured.images


def test_all_images_are_refined_alike_before_they_are_measured(two):
    two.refinement.change(smoothing="guided", radius=3, min_object=30)
    two.refinement.refine()
    measured = two.measurement.measure(every=True)
    other = two.images["a"]
    assert other.result.refined is not None
    assert measured.images[A] == phase_fractions_with_error(other.result.shown, [1, 2])
    assert other.result.is_refined_by(two.refinement.settings)
    request = two.measurement.fractions_request(every=True)
    assert request.stages == (Stage.MEASUREMENT,)


def test_what_is_excluded_stays_excluded_of_what_is_made_anew(two, labels):
    mask = np.zeros((40, 48), bool)
    mask[30:] = True
    two.set_exclusion(mask, "a")
    stroke(two, labels)
    two.measurement.measure(every=True)
    assert not two.images["a"].result.labels[mask].any()


def test_a_image_without_features_of_a_former_classifier_is_named(two, labels):
    two.images["a"].evict()
    stroke(two, labels)
    measured = two.measurement.measure(every=True)
    assert list(measured.images) == [B]
    assert measured.together.images == 1
    assert "older classifier or refined otherwise: first;" in measured.note


def test_the_current_image_is_measured_though_not_with_the_others(two, labels):
    stroke(two, labels)
    entry = two.images["a"]
    entry.evict()
    two.set_image(entry.image, "a")
    measured = two.measurement.measure(every=True)
    assert list(measured.images) == [A, B]
    assert measured.together == measured.images[B]
    assert "first" in measured.note


def test_a_image_that_cannot_be_made_anew_costs_the_others_nothing(
    two, labels, monkeypatch
):
    stroke(two, labels)
    request = two.measurement.fractions_request(every=True)
    bad = two.images["a"].features
    predict = type(two.classifier).predict

    def fail(self, features, **options):
        if features is bad:
            raise MemoryError
        return predict(self, features, **options)

    monkeypatch.setattr(type(two.classifier), "predict", fail)
    measured = compute(request).measured
    assert measured.together.images == 1
    assert "first: there is not enough memory" in measured.note


def test_a_class_that_left_the_list_stays_in_the_table(trained):
    add_result(trained, "b", np.full((9, 9), 5, np.uint8))
    trained.images["b"].result = Result(
        np.full((9, 9), 5, np.uint8), {5: 1.0}, trained.classifier_fingerprint
    )
    trained.classes.remove(2)
    every = trained.measurement.measure(every=True)
    assert [phase.class_id for phase in every.together.phases] == [1, 2, 5]
    measured = trained.measurement.measure()
    assert [phase.class_id for phase in measured.together.phases] == [1, 2]
    assert sum(p.fraction for p in measured.together.phases) == pytest.approx(1)


@pytest.fixture
def two(image, labels):
    """Two pictures of one classifier; the second one is current."""
    session = Session()
    session.configure(transforms="identity")
    pixels = np.clip(np.hypot(*np.mgrid[-20:20, -24:24]) * 8, 0, 255).astype(np.uint8)
    session.set_image(pixels, "a", name="first")
    session.compute_features()
    session.set_image(image, "b", name="second")
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    session.set_image(pixels, "a", name="first")
    session.train()
    session.set_image(image, "b", name="second")
    return session


def stroke(session, labels):
    """Paint more on the current picture, and train."""
    more = labels.copy()
    more[:, 14:20] = 2
    session.set_scribbles(more)
    session.train()


def test_measuring_many_images_can_be_stopped(trained):
    request = trained.measurement.fractions_request()
    with pytest.raises(Cancelled):
        request(TaskContext(should_stop=lambda: True))


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_objects_and_their_table_are_those_of_the_core(session, method):
    session.set_image(np.arange(1200.0).reshape(30, 40), "b", pixel_size=(0.5, "µm"))
    session.current.result = Result(blocks(), {1: 0.8, 2: 0.2}, b"x")
    found = session.measurement.split(2, method, 4)
    expected = instances(blocks(), 2, method=method, min_distance=4)
    np.testing.assert_array_equal(found.labels, expected)
    table = particle_table(expected, pixel_size=(0.5, "µm"), image=session.image)
    for name, values in table.columns.items():
        np.testing.assert_array_equal(found.table.columns[name], values)
    assert found.table.header("area") == "area (µm²)"
    assert session.measurement.objects is found


def test_objects_of_what_is_shown_are_split_not_of_the_raw_result(session):
    session.set_image(np.zeros((30, 40)), "b")
    refined = np.ones((30, 40), np.uint8)
    session.current.result = Result(blocks(), {1: 0.8, 2: 0.2}, b"x", refined)
    assert session.measurement.split(2).labels.max() == 0
    assert len(session.measurement.split(1).table) == 1


def test_a_colour_image_has_no_mean_intensity(session):
    session.set_image(np.zeros((30, 40, 3)), "b")
    session.current.result = Result(blocks(), {1: 0.8, 2: 0.2}, b"x")
    assert "mean intensity" not in session.measurement.split(2).table.columns


def test_objects_of_another_image_are_forgotten(session):
    session.set_image(np.zeros((30, 40)), "b")
    session.current.result = Result(blocks(), {1: 0.8, 2: 0.2}, b"x")
    session.measurement.split(2)
    session.set_image(np.zeros((9, 9)), "c")
    assert session.measurement.objects is None


def test_all_images_are_measured_once_though_the_current_one_shows_nothing(two):
    blank = np.zeros_like(two.current.result.labels)
    two.current.result, two.current.features = Result(blank, {}, b""), None
    two.measurement.set_scope(Scope.EVERY)
    request = two.live.result_request()
    assert [one.key for one in request.targets] == [A]
    assert two.accept(compute(request))
    assert not two.measurement.is_owed
    assert two.live.result_request() is None


def test_what_is_not_refined_after_all_is_measured_with_all_images(two):
    two.measurement.set_scope(Scope.EVERY)
    two.refinement.change(min_object=30)
    raw = two.current.result
    request = two.live.result_request(refines=False)
    assert {one.key: one.is_final for one in request.targets} == {A: False, B: True}
    assert two.accept(compute(request))
    assert two.current.result is raw
    assert two.refinement.is_pending
    assert two.live.result_request(refines=False) is None


def test_what_is_not_refined_after_all_is_named_and_not_counted_with_the_others(two):
    two.refinement.change(min_object=30)
    answer = compute(two.measurement.fractions_request(every=True, refines=False))
    assert list(answer.measured.images) == [B, A]
    assert answer.measured.together == answer.measured.images[A]
    assert answer.measured.note == "Not included, because it is not refined: second."


def test_results_that_were_replaced_are_not_kept_for_their_fractions(two):
    two.measurement.measure(every=True)
    former = [weakref.ref(one.result) for one in two.images.values()]
    two.measurement.measured = None
    for entry in two.images.values():
        entry.result = replace(entry.result)
    gc.collect()
    assert [one() for one in former] == [None, None]


def test_an_answer_for_all_images_is_not_shown_once_only_one_is_wanted(two):
    two.measurement.set_scope(Scope.EVERY)
    answer = compute(two.live.result_request())
    two.measurement.set_scope(Scope.CURRENT)
    two.accept(answer)
    assert two.measurement.measured is None
    two.accept(compute(two.live.result_request()))
    assert list(two.measurement.measured.images) == [B]
    assert two.live.result_request() is None


def test_side_work_on_the_current_image_does_not_tell_the_stage(two, labels):
    more = labels.copy()
    more[:, 14:20] = 2
    two.set_scribbles(more)
    begun = two.train_request()
    two.live.begin(begun)
    assert two.live.stage is Stage.CLASSIFIER
    target = two.current.snapshot()
    side = replace(begun, targets=(target,), training=(), version=0)
    for done in compute(side).images:
        two.accept(done)
    assert two.live.stage is Stage.CLASSIFIER
    two.accept(compute(begun))
    assert two.live.stage is None
