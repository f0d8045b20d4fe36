"""One run from scribbles to fractions, and what the session says of it."""

import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.measure import phase_fractions_with_error
from napari_hrdv2.core.postprocess.refinement import Refinement, clean
from napari_hrdv2.session import (
    ImageSnapshot,
    Stage,
    TaskContext,
    compute,
    process_image,
)
from napari_hrdv2.session.measurement import Scope
from napari_hrdv2.session.planes import PlaneKey


@pytest.fixture
def painted(session, labels):
    session.configure(transforms="identity")
    session.set_scribbles(labels)
    session.compute_features()
    session.refinement.change(min_object=50)
    return session


def test_one_run_hands_over_each_stage_of_the_shown_image(painted):
    request, parts = painted.train_request(until=Stage.MEASUREMENT), []
    assert request.stages == tuple(Stage)
    answer = compute(request, partial=parts.append)
    assert [part.stage for part in parts] == [Stage.SEGMENTATION, Stage.REFINEMENT]
    assert all(painted.accept(part) for part in parts)
    result = painted.current.result
    np.testing.assert_array_equal(result.refined, clean(result.labels, 50))
    assert painted.accept(answer)
    expected = phase_fractions_with_error(result.refined, [1, 2])
    assert painted.measurement.measured.together == expected


def test_the_session_says_which_stage_is_computed(painted):
    stages, parts = [], []
    painted.live.stage_changed.connect(stages.append)
    request = painted.train_request(until=Stage.REFINEMENT)
    painted.live.begin(request)
    compute(request, partial=parts.append)
    for part in parts:
        painted.accept(part)
    assert stages == [Stage.CLASSIFIER, Stage.REFINEMENT, None]


def test_a_run_that_is_cancelled_keeps_what_was_handed_over(painted):
    stopped = []

    def accept(part):
        painted.accept(part)
        stopped.append(part)

    request = painted.train_request(until=Stage.MEASUREMENT)
    with pytest.raises(Cancelled):
        compute(request, partial=accept, should_stop=lambda: bool(stopped))
    assert painted.segmentation is not None
    assert painted.refinement.is_pending


def test_what_is_left_to_do_is_refined_and_measured(painted):
    painted.train()
    painted.measurement.set_scope(Scope.CURRENT)
    request = painted.live.result_request()
    assert request.stages == (Stage.REFINEMENT, Stage.MEASUREMENT)
    assert painted.accept(compute(request))
    assert painted.live.result_request() is None
    assert painted.measurement.measured is not None


def test_a_result_that_is_not_to_be_refined_is_measured_as_it_is(painted):
    painted.train()
    painted.measurement.set_scope(Scope.CURRENT)
    request = painted.live.result_request(refines=False)
    assert request.stages == (Stage.MEASUREMENT,)
    assert painted.accept(compute(request))
    assert painted.refinement.is_pending


def test_an_image_of_no_session_is_processed_in_the_same_way(painted):
    painted.train()
    painted.refinement.refine()
    exclusion = np.zeros((40, 48), bool)
    exclusion[30:] = True
    snapshot = ImageSnapshot(
        PlaneKey("a"), painted.image, features=painted.features, exclusion=exclusion
    )
    result = process_image(snapshot, painted.classifier, Refinement(min_object=50))
    expected = painted.current.result.labels.copy()
    expected[exclusion] = 0
    np.testing.assert_array_equal(result.labels, expected)
    np.testing.assert_array_equal(
        result.refined, clean(expected, 50, exclusion=exclusion)
    )
    with pytest.raises(Cancelled):
        process_image(
            snapshot,
            painted.classifier,
            context=TaskContext(should_stop=lambda: True),
        )
