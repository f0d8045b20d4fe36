import numpy as np
import pytest
from qtpy.QtWidgets import QAbstractButton, QComboBox


@pytest.fixture
def segmented(bench):
    bench.segment()
    bench.layer = bench.viewer.layers["Segmentation: Image"]
    bench.former = bench.layer.data.copy()
    bench.fingerprint = bench.session.current.result.fingerprint
    return bench


def retrained(bench):
    """Wait until the scribbles are answered; return whether the result is another."""
    bench.settle()
    current = bench.session.current
    fingerprint, bench.fingerprint = bench.fingerprint, current.result.fingerprint
    np.testing.assert_array_equal(bench.layer.data, current.result.labels)
    return fingerprint != current.result.fingerprint


def test_a_polygon_trains(segmented):
    segmented.scribbles.paint_polygon([[20, 5], [20, 30], [40, 30], [40, 5]], 2)
    assert retrained(segmented)
    assert (segmented.layer.data != segmented.former).any()


def test_a_fill_trains(segmented):
    segmented.scribbles.fill((10, 10), 2)
    assert segmented.scribbles.data[10, 10] == 2
    assert retrained(segmented)


def test_an_erased_scribble_no_longer_trains(segmented):
    segmented.paint((30, 34), (10, 20, 30), 2)
    assert retrained(segmented)
    segmented.paint((30, 34), (10, 20, 30), 0)  # what the eraser does
    assert retrained(segmented)
    np.testing.assert_array_equal(segmented.layer.data, segmented.former)


def test_undo_and_redo_train(segmented):
    segmented.paint((30, 34), (10, 20, 30), 2)
    assert retrained(segmented)
    latter = segmented.layer.data.copy()
    classifier = segmented.session.classifier
    segmented.scribbles.undo()
    assert retrained(segmented)
    np.testing.assert_array_equal(segmented.layer.data, segmented.former)
    segmented.scribbles.redo()
    assert retrained(segmented)
    np.testing.assert_array_equal(segmented.layer.data, latter)
    np.testing.assert_array_equal(
        segmented.session.classifier.weight, classifier.weight
    )


def test_without_live_only_the_button_trains(segmented):
    panel = segmented.widget.paint
    panel.live.click()
    assert not segmented.controller.live
    segmented.paint((30, 34), (10, 20, 30), 2)
    assert not retrained(segmented)
    assert "Live is off" in segmented.session.status
    panel.train.click()
    assert retrained(segmented)
    segmented.controller.set_live(True)
    assert panel.live.isChecked()


def test_the_view_box_says_what_is_shown(segmented):
    panel = segmented.widget.paint
    panel.view.activated.emit(2)
    assert panel.views.shown == "uncertainty"
    segmented.wait(lambda: "Uncertainty: Image" in segmented.names)
    panel.views.show("result")
    assert panel.view.currentText() == "Result"


def test_a_view_that_cannot_be_shown_yet_says_why(bench):
    panel = bench.widget.paint
    panel.view.setCurrentIndex(1)
    panel.view.activated.emit(1)
    assert panel.view.currentText() == "Result"
    assert "There is no result yet" in bench.session.status


def test_paint_makes_the_layer_anew_with_the_class_in_hand(bench):
    bench.widget.paint.classes.choose(2)
    bench.viewer.layers.remove("Scribbles: Image")
    bench.settle()
    bench.widget.paint.paint.click()
    assert bench.scribbles.selected_label == 2
    assert bench.scribbles.mode == "paint"


def test_every_control_has_a_name_and_a_tooltip(bench):
    controls = [
        control
        for kind in (QAbstractButton, QComboBox)
        for control in bench.widget.paint.findChildren(kind)
    ]
    assert len(controls) >= 12
    assert [c for c in controls if not (c.objectName() and c.toolTip())] == []
