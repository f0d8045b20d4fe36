import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt


@pytest.fixture
def press(bench):
    """Return a function that presses a key in the viewer's window."""
    handler = bench.viewer.window._qt_viewer._key_map_handler

    def press_key(key):
        return handler.press_key(key)

    return press_key


@pytest.fixture
def bench(make_napari_viewer, make_bench, image):
    viewer = make_napari_viewer()
    viewer.add_image(image, name="Image")
    return make_bench(viewer)


def test_digits_choose_the_class_of_a_row(bench, press):
    bench.session.classes.add()
    press("3")
    assert bench.scribbles.selected_label == 3
    bench.session.classes.move(3, 0)
    press("1")
    press("2")
    assert bench.scribbles.selected_label == 1
    assert bench.scribbles.mode == "paint"


def test_a_digit_without_a_class_says_so_and_changes_nothing(bench, press):
    press("5")
    assert bench.scribbles.selected_label == 1
    assert "only 2 classes" in bench.session.status


def test_a_key_pressed_in_the_table_goes_on_to_the_viewer(bench, qtbot):
    bench.viewer.show()
    rows = bench.widget.paint.classes.rows
    qtbot.keyClick(rows, "2")
    assert bench.scribbles.selected_label == 2
    qtbot.keyClick(rows, Qt.Key.Key_Up)
    assert bench.scribbles.selected_label == 1


def test_letters_of_napari_still_choose_its_tools(bench, press):
    for key, mode in (("E", "erase"), ("F", "fill"), ("L", "pick"), ("P", "paint")):
        press(key)
        assert bench.scribbles.mode == mode
    press("G")  # which napari has on 3 alone
    assert bench.scribbles.mode == "polygon"


def test_keys_turn_the_views_and_hide_them(bench, press):
    bench.segment()
    layer = bench.viewer.layers["Segmentation: Image"]
    press("R")
    assert not layer.visible
    press("R")
    assert layer.visible
    press("C")
    assert bench.widget.paint.views.shown == "probability"


def test_a_key_trains_by_hand_while_live_is_off(bench, press):
    bench.segment()
    bench.controller.set_live(False)
    former = bench.session.current.result.fingerprint
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    assert bench.session.current.result.fingerprint == former
    press("T")
    bench.settle()
    assert bench.session.current.result.fingerprint != former


def test_other_layers_keep_the_keys_of_napari(bench, press):
    other = bench.viewer.add_labels(np.zeros((64, 80), np.uint8), name="mine")
    bench.viewer.layers.selection.active = other
    press("1")
    assert other.mode == "erase"
    assert other.keymap == {}
    assert not press("N")
    assert "1" in {str(key) for key in Labels.class_keymap}


def test_keys_move_on_to_the_layer_of_another_image(bench, image):
    first, count = bench.scribbles, len(bench.scribbles.keymap)
    assert count == 14
    bench.compute()
    other = bench.viewer.add_image(image.copy(), name="other")
    bench.controller.link.select_image(other)
    second = bench.controller.link.scribbles
    assert second is not first
    assert (len(first.keymap), len(second.keymap)) == (0, count)


def test_a_key_that_the_user_has_bound_is_left_to_him(bench, press):
    shortcuts, pressed = bench.widget.paint.shortcuts, []
    shortcuts.set_on(False)
    bench.viewer.bind_key("N", lambda viewer: pressed.append("viewer"))
    bench.scribbles.bind_key("2", lambda layer: pressed.append("layer"))
    shortcuts.set_on(True)
    assert "N" not in shortcuts.active
    assert "2" not in shortcuts.active
    assert "<s><b>N</b>" in bench.widget.paint.keys.text()
    assert bench.widget.paint.guidance.next.text() == "Next uncertain region"
    press("N")
    press("2")
    assert pressed == ["viewer", "layer"]
    bench.controller.close()
    assert [str(key) for key in bench.scribbles.keymap] == ["2"]


def test_keys_can_be_switched_off(bench, press):
    bench.widget.paint.use_keys.click()
    assert bench.scribbles.keymap == {}
    press("1")
    assert bench.scribbles.mode == "erase"
    bench.widget.paint.use_keys.click()
    press("1")
    assert bench.scribbles.mode == "paint"


def test_closing_unbinds_every_key(bench):
    layer = bench.scribbles
    bench.controller.close()
    assert layer.keymap == {}


def test_a_training_by_hand_is_done_though_the_refinement_changes_meanwhile(
    bench, press
):
    bench.segment()
    bench.controller.set_live(False)
    before = bench.session.classifier
    press("T")
    bench.session.refinement.change(min_object=5)
    bench.settle()
    assert bench.session.classifier is not before


def test_hints_of_napari_name_only_keys_that_it_still_has(bench):
    for mode in ("paint", "erase", "paint"):
        bench.scribbles.mode = mode
        taken = [f"<{key}>" for key in bench.widget.paint.shortcuts.active]
        assert not [key for key in taken if key in bench.viewer.help]
    assert "use <E> for activate the label eraser" in bench.viewer.help
    assert "polygon" not in bench.viewer.help  # which napari has on 3 alone
    bench.widget.paint.use_keys.click()
    assert "use <1> for activate the label eraser" in bench.viewer.help


def test_keys_work_after_a_choice_by_keyboard(bench, qtbot):
    bench.viewer.show()
    view = bench.widget.paint.view
    view.setFocus()
    view.showPopup()
    qtbot.keyClick(view.view(), Qt.Key.Key_Return)
    bench.wait(lambda: not view.view().isVisible())
    assert not view.hasFocus()
    central = bench.widget.window().centralWidget()
    qtbot.keyClick(central, "2")
    assert bench.scribbles.selected_label == 2
    qtbot.keyClick(view, "1")  # walked to by Tab
    assert bench.scribbles.selected_label == 1
