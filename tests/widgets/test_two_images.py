"""Two open images: what is painted is what is seen."""

import numpy as np
import pytest

from napari_hrdv2.widgets.viewer import layer_sync
from napari_hrdv2.widgets.viewer.chosen_view import REMOVED
from widgets.desk import Desk


@pytest.fixture
def small(image):
    return 255 - image[:50, :40]


@pytest.fixture
def two(qtbot, image, small):
    """A large and a small image, with scribbles on both; the small one is chosen."""
    desk = Desk(qtbot)
    desk.large = desk.viewer.add_image(image, name="large")
    desk.settle()
    desk.paint((10, 50), (10, 20), 1)
    desk.small = desk.viewer.add_image(small, name="small")
    desk.settle()
    desk.paint((5, 45), (5, 30), 2)
    yield desk
    desk.controller.close()


def seen(desk):
    return [layer.name for layer in desk.viewer.layers if layer.visible]


def test_what_is_opened_is_chosen_and_the_work_on_the_other_is_kept(two):
    assert two.link.image == two.small
    assert seen(two) == ["small", "Scribbles: small"]
    two.link.select_image(two.large)
    two.settle()
    assert two.session.scribbles.class_ids == (1,)


def test_after_five_switches_what_is_painted_is_what_is_seen(two):
    for number in range(5):
        chosen = (two.large, two.small)[number % 2]
        two.link.select_image(chosen)
        two.settle()
        assert seen(two) == [chosen.name, f"Scribbles: {chosen.name}"]
        assert two.viewer.layers.selection.active == two.link.scribbles
        former = two.link.scribbles.data.copy()
        two.paint((30,), (20 + number,), 1)
        assert (two.link.scribbles.data != former).sum() > 0
        assert two.session.current.name == chosen.name


def test_a_click_in_the_layer_list_chooses_the_image(two):
    two.viewer.layers.selection.active = two.large
    two.settle()
    assert two.link.image == two.large
    assert two.viewer.layers.selection.active == two.link.scribbles
    assert seen(two) == ["large", "Scribbles: large"]
    two.viewer.layers.selection.active = two.large  # for its contrast
    two.settle()
    assert two.viewer.layers.selection.active == two.large


def test_that_a_layer_goes_chooses_no_other_image(two):
    two.viewer.layers.selection.active = two.link.scribbles
    two.viewer.layers.remove_selected()
    two.settle()
    assert two.link.image == two.small


def test_layers_come_back_as_the_user_left_them(two):
    two.link.scribbles.visible = False
    two.link.select_image(two.large)
    two.settle()
    two.link.select_image(two.small)
    two.settle()
    assert seen(two) == ["small"]
    two.viewer.layers["large"].visible = True  # to compare
    two.paint((30,), (20,), 1)
    assert seen(two) == ["large", "small"]


def test_an_image_that_was_hidden_is_seen_when_it_is_chosen(two):
    two.link.select_image(two.large)
    two.small.visible = False
    two.link.select_image(two.small)
    assert "small" in seen(two)


def test_layers_of_no_image_are_left_alone(two, image):
    two.viewer.add_points([[3, 3]], name="marks")
    two.link.select_image(two.large)
    two.settle()
    assert "marks" in seen(two)


def test_each_image_is_looked_at_as_it_was_left(two):
    camera = getattr(two.viewer, "scene", two.viewer).camera
    np.testing.assert_allclose(camera.center[-2:], (24.5, 19.5))
    camera.center, camera.zoom = (0, 20, 15), 7.0
    two.link.select_image(two.large)
    assert camera.zoom != 7.0
    np.testing.assert_allclose(camera.center[-2:], (31.5, 39.5))
    two.link.select_image(two.small)
    assert camera.zoom == 7.0
    assert tuple(camera.center) == (0, 20, 15)


def test_serial_sections_are_looked_at_in_one_place(two, image):
    two.link.select_image(two.large)
    camera = getattr(two.viewer, "scene", two.viewer).camera
    camera.center, camera.zoom = (0, 20, 15), 7.0
    next_section = two.viewer.add_image(image, name="next")
    two.settle()
    assert two.link.image == next_section
    assert camera.zoom == 7.0


def test_layers_follow_the_name_of_their_image(two):
    two.small.name = "tempered"
    two.settle()
    assert two.link.scribbles.name == "Scribbles: tempered"
    two.link.scribbles.name = "my strokes"
    two.small.name = "quenched"
    two.settle()
    assert two.link.scribbles.name == "my strokes"


def test_what_was_painted_outlasts_its_image(two, monkeypatch):
    notes = []
    monkeypatch.setattr(layer_sync, "show_info", notes.append)
    painted = two.link.scribbles.data.copy()
    two.viewer.layers.remove(two.small)
    two.settle()
    kept = two.viewer.layers[f"Scribbles: small {REMOVED}"]
    np.testing.assert_array_equal(kept.data, painted)
    assert not kept.visible
    assert notes == ["Kept, hidden: Scribbles: small"]
    assert seen(two) == ["large", "Scribbles: large"]
    two.viewer.layers.append(two.small)
    two.settle()
    assert two.link.image == two.small
    assert two.link.scribbles == kept
    assert seen(two) == ["small", "Scribbles: small"]
    assert two.session.scribbles.class_ids == (2,)


def test_nothing_else_is_left_of_an_image_that_was_removed(two):
    two.controller.compute_features()
    two.paint((5, 45), (10, 20), 1)
    two.wait(lambda: two.link.segmentation is not None)
    two.settle()
    two.link.scribbles.data = np.zeros_like(two.link.scribbles.data)
    two.settle()
    two.viewer.layers.remove(two.small)
    two.settle()
    names = [layer.name for layer in two.viewer.layers]
    assert names == ["large", "Scribbles: large"]


def test_everything_is_seen_again_when_the_dock_is_closed(two):
    two.controller.close()
    assert len(seen(two)) == len(two.viewer.layers)


def test_the_last_image_that_goes_is_told_of_once(two, monkeypatch):
    notes = []
    monkeypatch.setattr(layer_sync, "show_info", notes.append)
    two.viewer.layers.remove(two.small)
    two.viewer.layers.remove(two.large)
    for _ in range(5):
        two.settle()
    assert len(notes) == 1
    kept = {f"Scribbles: {name} {REMOVED}" for name in ("large", "small")}
    assert {layer.name for layer in two.viewer.layers} == kept


def test_the_brush_is_in_the_hand_when_an_image_returns(two):
    two.link.scribbles.mode = "erase"
    two.link.select_image(two.large)
    two.link.select_image(two.small)
    two.settle()
    assert two.link.scribbles.mode == "paint"
