from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.session import (
    ImageSnapshot,
    PipelineInput,
    ProcessedImage,
    TaskContext,
    compute,
)
from napari_hrdv2.session import pipeline as module
from napari_hrdv2.session.planes import Plane, PlaneKey
from session.stack_planes import planes_of


@pytest.fixture
def reads():
    """What was read of the planes, in order."""
    return []


@pytest.fixture
def request_of(trained, image, reads):
    """Return a function that asks for two planes of a stack."""

    def make(refinement=None, image=image):
        def read(number):
            reads.append(number)
            return image

        return PipelineInput(
            planes_of(read, image, 2),
            refinement,
            classifier=trained.classifier,
            fingerprint=trained.classifier_fingerprint,
            options=FeatureOptions.of(trained.classifier.part_options),
        )

    return make


def test_the_pixels_of_a_plane_are_forgotten_when_it_is_done(request_of, reads):
    request = request_of()
    compute(request)
    assert reads == [0, 1]
    for one in request.targets:
        np.asarray(one.image)
    assert reads == [0, 1, 0, 1]


def test_the_pixels_of_a_plane_that_fails_are_forgotten_too(request_of, reads, image):
    request = request_of()
    first = replace(
        request.targets[0], image=Plane(lambda: reads.append(0) or image, (9, 9), "u1")
    )
    done = compute(replace(request, targets=(first, request.targets[1]))).images
    assert [bool(one.error) for one in done] == [True, False]
    with pytest.raises(ValueError, match="plane has shape"):
        np.asarray(first.image)
    assert reads == [0, 1, 0]


def test_labels_are_told_plane_by_plane_and_not_kept(request_of):
    labels = []

    def hear(done):
        labels.append(weakref.ref(done.result.labels))

    results = compute(request_of(), partial=hear).images
    gc.collect()
    assert [str(one.key) for one in results] == ["s/0", "s/1"]
    assert [one.result for one in results] == [None, None]
    assert [label() is None for label in labels] == [True, True]


def test_smoothing_a_plane_can_be_stopped(request_of, monkeypatch):
    asked = []

    def refine(*_, should_stop, **__):
        asked.append(should_stop())
        raise Cancelled

    monkeypatch.setattr(module, "refine", refine)
    context = TaskContext(should_stop=lambda: False)
    with pytest.raises(Cancelled):
        request_of(Refinement("guided"))(context)
    assert asked == [False]


def test_a_plane_says_what_it_was_made_with(request_of, trained):
    parts = []
    refinement = Refinement(min_object=9)
    compute(request_of(refinement), partial=parts.append)
    assert parts[0].result.fingerprint == trained.classifier_fingerprint
    assert parts[0].snapshot.exclusion is None
    assert parts[0].result.refinement == refinement


def made(session, fingerprint=None, **changes):
    """Return a result for the current picture."""
    parts = []
    entry = session.current
    plane = ImageSnapshot(entry.key, entry.image, "a", exclusion=entry.exclusion)
    request = PipelineInput(
        (replace(plane, **changes),),
        classifier=session.classifier,
        fingerprint=fingerprint or session.classifier_fingerprint,
        options=FeatureOptions.of(session.classifier.part_options),
    )
    compute(request, partial=parts.append)
    return parts[0]


def test_a_result_is_taken_over(trained):
    done, heard = made(trained), []
    trained.segmentation_changed.connect(lambda: heard.append(1))
    assert trained.accept(done)
    assert trained.current.result is done.result
    assert heard == [1]
    assert trained.current.result.is_refined_by(Refinement())


def test_a_result_of_a_former_classifier_is_dropped(trained):
    former = trained.current.result
    assert not trained.accept(made(trained, fingerprint=b"former"))
    assert trained.current.result is former


def test_a_result_with_another_mask_is_dropped(trained):
    done = made(trained)
    trained.current.set_exclusion(np.eye(40, 48, dtype=bool))
    assert not trained.accept(done)


def test_a_failure_and_a_image_that_is_gone_change_nothing(trained):
    former = trained.current.result
    assert not trained.accept(
        ProcessedImage(ImageSnapshot(PlaneKey("image"), None), error="no memory")
    )
    assert not trained.accept(made(trained, key=PlaneKey("gone")))
    assert trained.current.result is former


def test_a_download_can_be_cancelled(request_of, monkeypatch):
    def load_backbone(*_, progress, **__):
        progress(1, 2)
        raise AssertionError("it went on")

    monkeypatch.setattr("napari_hrdv2.core.backbones.load_backbone", load_backbone)
    with pytest.raises(Cancelled):
        compute(request_of(), should_stop=lambda: True)


def test_planes_are_read_with_the_grey_levels_of_the_training(
    session, labels, image, request_of
):
    session.configure(backbone="filters", value_range=(0.0, 1000.0))
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    done = []
    classifier = session.classifier
    request = replace(
        request_of(),
        classifier=classifier,
        options=FeatureOptions.of(classifier.part_options),
    )
    compute(request, partial=done.append)
    for one in done:
        np.testing.assert_array_equal(one.result.labels, session.segmentation)
