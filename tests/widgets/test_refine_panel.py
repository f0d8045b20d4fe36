import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut

from napari_hrdv2.core.postprocess.refinement import clean
from napari_hrdv2.session import Stage


@pytest.fixture
def image() -> np.ndarray:
    """Dark on the left with a bright speck, bright on the right."""
    rows, columns = np.mgrid[:64, :80]
    image = (np.where(columns < 40, 60, 180) + rows * 7 % 5).astype(np.uint8)
    image[30:33, 15:18] = 180
    return image


@pytest.fixture
def refined(bench):
    bench.session.configure(transforms="identity")
    bench.segment()
    bench.panel = bench.widget.refine
    bench.layer = bench.viewer.layers["Segmentation: Image"]
    bench.raw = bench.layer.data.copy()
    assert (bench.raw[30:33, 15:18] == 2).any()
    return bench


def set_min_object(bench, pixels):
    bench.panel.numbers["min_object"].setValue(pixels)
    bench.wait(lambda: bench.session.refinement.settings.min_object == pixels)
    bench.settle()


def test_a_minimum_size_is_previewed_at_once(refined):
    set_min_object(refined, 100)
    np.testing.assert_array_equal(refined.layer.data, clean(refined.raw, 100))
    assert (refined.layer.data[30:33, 15:18] == 1).all()
    np.testing.assert_array_equal(refined.session.current.result.labels, refined.raw)


def test_undo_and_redo_are_seen_in_the_layer(refined):
    set_min_object(refined, 100)
    cleaned = refined.layer.data.copy()
    refined.panel.undo.click()
    refined.settle()
    np.testing.assert_array_equal(refined.layer.data, refined.raw)
    assert refined.panel.numbers["min_object"].value() == 0
    assert not refined.panel.undo.isEnabled()
    refined.panel.redo.click()
    refined.settle()
    np.testing.assert_array_equal(refined.layer.data, cleaned)


def test_undo_and_redo_have_keys_within_the_panel_alone(refined):
    keys = {one.key().toString(): one for one in refined.panel.findChildren(QShortcut)}
    set_min_object(refined, 100)
    keys["Ctrl+Z"].activated.emit()
    assert refined.session.refinement.settings.min_object == 0
    keys["Ctrl+Shift+Z"].activated.emit()
    assert refined.session.refinement.settings.min_object == 100
    within = Qt.ShortcutContext.WidgetWithChildrenShortcut
    assert {one.context() for one in keys.values()} == {within}


def test_values_passed_on_the_way_are_one_change(refined):
    for pixels in (10, 40, 100):
        refined.panel.numbers["min_object"].setValue(pixels)
    refined.wait(lambda: refined.session.refinement.can_undo)
    refined.panel.undo.click()
    assert refined.session.refinement.settings.is_off


def test_show_raw_switches_all_off_and_can_be_undone(refined):
    set_min_object(refined, 100)
    refined.panel.off.click()
    np.testing.assert_array_equal(refined.layer.data, refined.raw)
    assert not refined.panel.off.isEnabled()
    refined.panel.undo.click()
    refined.settle()
    assert (refined.layer.data != refined.raw).any()


@pytest.mark.parametrize("position", [1, 2])
def test_smoothing_refines_and_shows_its_settings(refined, position):
    panel = refined.panel
    assert panel.numbers["radius"].isHidden()
    panel.smoothing.setCurrentIndex(position)
    panel.smoothing.activated.emit(position)
    assert not panel.numbers["radius"].isHidden()
    refined.settle()
    result = refined.session.current.result
    np.testing.assert_array_equal(refined.layer.data, result.refined)


def test_a_scribble_is_refined_too(refined):
    set_min_object(refined, 100)
    refined.paint((20,), (30, 34), 1)
    refined.settle()
    result = refined.session.current.result
    assert result.refined is not None
    np.testing.assert_array_equal(refined.layer.data, clean(result.labels, 100))


def test_cancelling_keeps_the_raw_result(refined):
    panel = refined.panel
    panel.smoothing.setCurrentIndex(1)
    panel.smoothing.activated.emit(1)
    assert refined.session.live.stage is Stage.REFINEMENT
    assert not panel.cancel.isHidden()
    panel.cancel.click()
    refined.settle()
    np.testing.assert_array_equal(refined.layer.data, refined.raw)
    assert "Not refined yet" in panel.state.text()
    assert panel.cancel.isHidden()


def test_a_closed_dock_hears_of_no_settings(refined):
    refined.controller.close()
    refined.session.refinement.change(min_object=5)
    assert refined.panel.numbers["min_object"].value() == 0
