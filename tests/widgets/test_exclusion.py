import threading

import numpy as np
import pytest
from napari.layers import Shapes

from napari_hrdv2.core.postprocess.exclusion import outline_of


@pytest.fixture
def exclusion(bench):
    return bench.widget.result.exclusion


def exclude(bench, *rectangle):
    """Draw a rectangle as napari's tool does once the mouse is let go."""
    exclusion = bench.widget.result.exclusion
    exclusion.draw()
    exclusion.layer.add(outline_of(rectangle), shape_type="rectangle")
    exclusion.read()
    bench.settle()


def databar(shape, row):
    mask = np.zeros(shape, bool)
    mask[row:] = True
    return mask


def test_the_button_arms_the_rectangle_tool_on_a_layer_placed_like_the_image(
    bench, exclusion
):
    bench.widget.result.exclude.click()
    layer, image = (
        bench.viewer.layers[name] for name in ("Exclusion mask: Image", "Image")
    )
    assert bench.viewer.layers.selection.active == layer
    assert layer.mode == "add_rectangle"
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    assert layer.units == image.units
    assert bench.session.current.exclusion is None


def test_a_rectangle_is_left_out_of_training_result_and_fractions(bench):
    bench.segment()
    bench.paint((62,), (10, 20), 2)  # on the databar, where class 1 is
    bench.settle()
    exclude(bench, 60, -5, 99, 200)
    current = bench.session.current
    np.testing.assert_array_equal(current.exclusion, databar((64, 80), 60))
    assert not current.counted.labels[60:].any()
    shown = bench.viewer.layers["Segmentation: Image"].data
    assert not shown[60:].any()
    assert (shown[:60] > 0).all()
    assert bench.session.phase_fractions()[1] == np.mean(shown[:60] == 1)
    assert "6.2% of the image is excluded" in bench.widget.result.fractions.text()


def test_a_databar_is_found_and_excluded_by_a_button(bench):
    bench.segment()
    button = bench.widget.result.databar
    button.click()
    assert bench.session.current.exclusion is None
    assert bench.session.status.startswith("No databar was found")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 80), np.uint8)
    image[54:] = 0
    image[57:60, 10:40] = 255
    layer = bench.viewer.add_image(image, name="with a bar")
    bench.controller.link.select_image(layer)
    bench.settle()
    offer = "A databar was found at the bottom (rows 54–63)"
    assert offer in bench.widget.result.fractions.text()
    assert bench.session.current.exclusion is None  # it is only offered
    button.click()
    bench.settle()
    np.testing.assert_array_equal(
        bench.session.current.exclusion, databar((64, 80), 54)
    )
    assert offer not in bench.widget.result.fractions.text()
    bench.widget.result.take_back.click()
    bench.widget.result.exclusion.read()
    bench.settle()
    assert bench.session.current.exclusion is None


def test_after_a_rectangle_the_brush_is_back_in_the_hand(bench):
    exclude(bench, 60, 0, 64, 80)
    assert bench.viewer.layers.selection.active == bench.scribbles
    assert bench.scribbles.mode == "paint"


def test_moving_and_removing_rectangles_brings_pixels_back(bench, exclusion):
    bench.segment()
    former = bench.viewer.layers["Segmentation: Image"].data.copy()
    exclude(bench, 60, 0, 64, 80)
    exclude(bench, 0, 0, 4, 5)
    exclusion.layer.data = [outline_of((62, 0, 64, 80)), outline_of((0, 0, 4, 5))]
    bench.wait(lambda: exclusion.fraction == (2 * 80 + 20) / (64 * 80))
    bench.widget.result.take_back.click()
    bench.wait(lambda: exclusion.fraction == 2 / 64)
    bench.widget.result.take_back.click()
    bench.wait(lambda: exclusion.fraction == 0)
    bench.settle()
    np.testing.assert_array_equal(
        bench.viewer.layers["Segmentation: Image"].data, former
    )
    assert not bench.widget.result.take_back.isEnabled()


def test_removing_the_layer_leaves_nothing_out(bench, exclusion):
    bench.segment()
    exclude(bench, 60, 0, 64, 80)
    bench.viewer.layers.remove("Exclusion mask: Image")
    assert bench.session.current.exclusion is None
    assert exclusion.layer is None
    bench.settle()
    assert (bench.viewer.layers["Segmentation: Image"].data > 0).all()
    exclude(bench, 61, 0, 64, 80)
    np.testing.assert_array_equal(
        bench.session.current.exclusion, databar((64, 80), 61)
    )


def test_leaving_everything_out_is_refused_and_changes_nothing(bench, monkeypatch):
    told = []
    monkeypatch.setattr("napari_hrdv2.widgets.jobs.show_error", told.append)
    bench.segment()
    exclude(bench, -1, -1, 99, 99)
    assert told == ["exclusion: this would leave nothing of the image"]
    assert bench.session.current.exclusion is None
    assert bench.session.segmentation is not None


def test_scribbles_that_are_all_excluded_leave_no_result(bench):
    bench.segment()
    exclude(bench, 0, 40, 64, 80)
    assert not bench.viewer.layers["Segmentation: Image"].data.any()
    assert "Only Class 1" in bench.widget.status.text()


def test_a_turned_image_has_its_rectangles_in_its_own_pixels(bench, exclusion):
    image = bench.viewer.layers["Image"]
    image.rotate = 30
    exclude(bench, 60, 0, 64, 80)
    np.testing.assert_array_equal(
        bench.session.current.exclusion, databar((64, 80), 60)
    )
    np.testing.assert_allclose(
        exclusion.layer.data_to_world((60, 7)), image.data_to_world((60, 7))
    )
    image.translate = (50, 60)
    np.testing.assert_allclose(
        exclusion.layer.data_to_world((60, 7)), image.data_to_world((60, 7))
    )


def test_each_image_has_its_own_rectangles(bench, exclusion):
    exclude(bench, 60, 0, 64, 80)
    first = exclusion.layer
    other = bench.viewer.add_image(np.random.default_rng(0).random((50, 60)), name="B")
    bench.controller.link.select_image(other)
    bench.settle()
    assert exclusion.layer is None
    assert exclusion.fraction == 0
    exclude(bench, 0, 0, 5, 60)
    assert exclusion.fraction == 0.1
    bench.controller.link.select_image(bench.viewer.layers["Image"])
    bench.settle()
    assert exclusion.layer == first
    assert exclusion.fraction == 1 / 16


def test_what_a_project_left_out_is_shown_as_rectangles(bench, exclusion):
    mask = databar((64, 80), 58)
    mask[:3, :4] = True
    bench.session.set_exclusion(mask)
    assert isinstance(exclusion.layer, Shapes)
    assert exclusion.layer.nshapes == 2
    exclusion.read()
    np.testing.assert_array_equal(bench.session.current.exclusion, mask)


def test_a_databar_is_left_out_of_every_plane(make_viewer, make_bench):
    viewer = make_viewer()
    stack = np.random.default_rng(0).random((3, 40, 50))
    viewer.add_image(
        stack, name="Stack", axis_labels=("z", "y", "x"), scale=(5, 0.5, 0.5)
    )
    bench = make_bench(viewer)
    link = bench.controller.link
    bench.settle()
    exclude(bench, 36, 0, 40, 50)
    layer = bench.widget.result.exclusion.layer
    assert layer.ndim == 2
    np.testing.assert_allclose(
        layer.data_to_world((7, 9)), link.image.data_to_world((0, 7, 9))[1:]
    )
    former = bench.session.current
    viewer.dims.set_point(0, 10)
    bench.wait(lambda: bench.session.current is not former)
    for entry in bench.session.images.values():
        np.testing.assert_array_equal(entry.exclusion, databar((40, 50), 36))


def test_a_closed_dock_leaves_the_layer_alone(bench, exclusion):
    exclude(bench, 60, 0, 64, 80)
    layer = exclusion.layer
    bench.controller.close()
    layer.data = []
    bench.viewer.layers.remove(layer)
    assert bench.session.current.exclusion is not None


def test_a_rectangle_that_would_cover_everything_is_taken_back(bench, exclusion):
    exclude(bench, 60, 0, 64, 80)
    exclude(bench, -5, -5, 99, 99)
    assert exclusion.layer.nshapes == 1
    bench.wait(lambda: exclusion.fraction == 4 / 64)


def test_without_live_nothing_old_is_shown_though_something_else_is_worked_on(bench):
    bench.segment()
    bench.widget.paint.live.setChecked(False)
    is_over = threading.Event()
    bench.controller.side.submit("other", lambda context: is_over.wait(60), print)
    try:
        exclusion = bench.widget.result.exclusion
        exclusion.draw()
        exclusion.layer.add(outline_of((60, 0, 64, 80)), shape_type="rectangle")
        exclusion.read()
        assert bench.controller.side.is_busy
        assert bench.session.segmentation is None
        assert not bench.viewer.layers["Segmentation: Image"].data.any()
    finally:
        is_over.set()
    bench.settle()
    bench.widget.paint.train.click()
    bench.wait(lambda: bench.viewer.layers["Segmentation: Image"].data[:60].all())


def test_a_mask_over_all_of_a_class_ends_the_result_while_a_fit_runs(bench, exclusion):
    bench.segment()
    bench.paint((30, 34), (10, 20), 1)
    bench.controller.link.flush()
    assert bench.controller.live_jobs.request is not None
    exclusion.draw()
    exclusion.layer.add(outline_of((-1, 40, 99, 99)), shape_type="rectangle")
    exclusion.read()
    bench.settle()
    assert bench.session.segmentation is None
    assert not bench.viewer.layers["Segmentation: Image"].data.any()
