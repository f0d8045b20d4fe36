"""The walk over proposed places, by the keys of a real window."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

RING = "Place: Image"


@pytest.fixture
def bench(make_napari_viewer, make_bench):
    """A window with a micrograph of three materials and one without."""
    rows, columns = np.mgrid[:96, :120]
    image = 60 + 60 * (columns >= 40) + 60 * (columns >= 80) + rows * 7 % 5
    viewer = make_napari_viewer()
    viewer.add_image(image.astype(np.uint8), name="Image")
    bench = make_bench(viewer)
    bench.truth = 1 + columns // 40
    return bench


@pytest.fixture
def places(bench):
    return bench.widget.paint.places


@pytest.fixture
def press(bench):
    """Return a function that presses a key in the viewer's window."""
    handler = bench.viewer.window._qt_viewer._key_map_handler

    def press_key(key):
        return handler.press_key(key)

    return press_key


def start(bench, places, count=8):
    bench.compute()
    places.count.setValue(count)
    places.propose.click()
    bench.settle()
    assert places.walk.shown is not None


def truth_here(bench, places):
    place = places.walk.shown
    return int(bench.truth[place.row, place.column])


def test_places_need_features_and_no_scribbles(bench, places):
    assert not places.propose.isEnabled()
    bench.compute()
    assert places.propose.isEnabled()
    places.count.setValue(8)
    assert places.propose.text() == "Propose 8 places"


def test_digits_name_all_places_and_the_image_is_segmented(bench, places, press):
    start(bench, places)
    total, seen = len(places.walk._proposed.places), []
    while places.walk.shown is not None:
        seen.append(places.walk.shown)
        assert places.note.text().startswith(f"Place {len(seen)} of {total}")
        press(str(truth_here(bench, places)))
    bench.settle()
    for place in seen:
        own = bench.scribbles.data.flat[place.pixels]
        assert (own == bench.truth[place.row, place.column]).all()
    assert set(np.unique(bench.scribbles.data)) == {0, 1, 2, 3}
    assert (bench.session.segmentation == bench.truth).mean() > 0.97
    assert RING not in bench.names
    assert places.note.isHidden()


def test_the_second_class_brings_a_segmentation_during_the_walk(bench, places, press):
    start(bench, places)
    named = set()
    while len(named) < 2:
        assert bench.session.segmentation is None
        named.add(truth_here(bench, places))
        press(str(truth_here(bench, places)))
        bench.settle()
    assert places.walk.shown is not None
    assert set(np.unique(bench.session.segmentation)) == named


def test_the_view_and_the_ring_are_at_the_place(bench, places):
    start(bench, places)
    place, ring = places.walk.shown, bench.viewer.layers[RING]
    np.testing.assert_allclose(ring.data[0].mean(0), (place.row, place.column))
    camera = getattr(bench.viewer, "scene", bench.viewer).camera
    np.testing.assert_allclose(camera.center[-2:], (place.row, place.column))
    assert bench.viewer.layers.selection.active == bench.scribbles


def test_a_key_after_the_click_reaches_the_place(bench, places, qtbot):
    bench.viewer.show()
    start(bench, places)
    first = places.walk.shown
    qtbot.keyClick(bench.widget.window().centralWidget(), Qt.Key.Key_2)
    assert places.walk.shown is not first
    assert (bench.scribbles.data.flat[first.pixels] == 2).all()


def test_a_digit_beyond_the_rows_adds_classes(bench, places, press):
    start(bench, places)
    first = places.walk.shown
    press("4")
    assert list(bench.session.classes) == [1, 2, 3, 4]
    assert (bench.scribbles.data.flat[first.pixels] == 4).all()


def test_zero_skips_and_undo_goes_back_over_names_and_skips(bench, places, press):
    start(bench, places)
    first = places.walk.shown
    press("1")
    second = places.walk.shown
    press("0")
    third = places.walk.shown
    press("2")
    assert len({id(one) for one in (first, second, third)}) == 3
    for place in (third, second, first):
        press("Ctrl+Z")
        assert places.walk.shown is place
    assert not bench.scribbles.data.any()
    press("Ctrl+Z")
    assert places.walk.shown is first
    press("3")
    assert (bench.scribbles.data.flat[first.pixels] == 3).all()


def test_undo_takes_a_stroke_of_the_brush_back_before_the_name(bench, places, press):
    start(bench, places)
    first = places.walk.shown
    press("1")
    second = places.walk.shown
    with bench.scribbles.block_history():
        bench.scribbles.paint((second.row, second.column), 2)
    bench.settle()
    press("Ctrl+Z")
    assert places.walk.shown is second
    assert set(np.unique(bench.scribbles.data)) == {0, 1}
    press("Ctrl+Z")
    assert places.walk.shown is first
    assert not bench.scribbles.data.any()


def test_escape_ends_and_the_keys_are_those_of_before(bench, places, press):
    start(bench, places)
    assert "R" in bench.widget.paint.shortcuts.active
    press("2")
    painted = bench.scribbles.data.copy()
    press("Escape")
    assert RING not in bench.names
    assert len(bench.scribbles.keymap) == 14
    assert "0" not in bench.widget.paint.shortcuts.active
    press("1")
    assert bench.scribbles.selected_label == 1
    np.testing.assert_array_equal(bench.scribbles.data, painted)


def test_keys_of_the_walk_work_though_the_others_are_off(bench, places, press):
    bench.widget.paint.use_keys.click()
    start(bench, places)
    press("1")
    assert bench.scribbles.data.any()
    press("Escape")
    assert bench.scribbles.keymap == {}


def test_scribbles_are_never_painted_over(bench, places, press):
    bench.compute()
    bench.paint((10, 50), (10, 20), 2)
    bench.settle()
    painted = bench.scribbles.data.copy()
    start(bench, places)
    while places.walk.shown is not None:
        press("1")
    where = painted != 0
    np.testing.assert_array_equal(bench.scribbles.data[where], painted[where])


def test_places_come_from_all_images_and_the_walk_goes_there(bench, places, press):
    bench.compute()
    link = bench.controller.link
    first = link.image
    image = 255 - np.asarray(first.data)
    other = bench.viewer.add_image(image, name="other")
    link.select_image(other)
    start(bench, places, 6)
    visited = set()
    while places.walk.shown is not None:
        visited.add(link.image.name)
        place, layer = places.walk.shown, link.scribbles
        press("1" if link.image == other else "2")
        painted = 1 if layer.name.endswith("other") else 2
        assert (layer.data.flat[place.pixels] == painted).all()
    assert visited == {"Image", "other"}


def test_an_image_that_is_closed_ends_the_walk(bench, places):
    start(bench, places)
    bench.viewer.layers.remove("Image")
    bench.wait(lambda: places.walk.shown is None)
    assert places.note.isHidden()


def test_a_search_can_be_cancelled(bench, places):
    bench.compute()
    places.propose.click()
    assert places.propose.text() == "Cancel"
    places.propose.click()
    bench.settle()
    assert places.walk.shown is None
    assert places.propose.text() == "Propose 16 places"


def test_check_scribbles_and_a_project_know_what_was_named(bench, places, press):
    start(bench, places)
    while places.walk.shown is not None:
        press(str(truth_here(bench, places)))
    bench.settle()
    assert bench.session.guidance.check_scribbles() == ()
    assert bench.session.current.class_ids == (1, 2, 3)
