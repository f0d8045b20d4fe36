import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QMenu, QMessageBox

from napari_hrdv2.widgets.panels.class_table import (
    COLOR,
    FRACTION,
    NAME,
    PAINTED,
    SEEN,
)
from napari_hrdv2.widgets.panels.controls import short_count


@pytest.fixture
def table(bench):
    return bench.widget.paint.classes


def cell(table, class_id, column):
    return table.rows.items()[class_id].text(column)


@pytest.fixture
def answer(monkeypatch):
    """Questions are answered as told, and counted."""
    asked = []

    def give(button):
        monkeypatch.setattr(
            QMessageBox, "question", lambda *texts: (asked.append(texts[-1]), button)[1]
        )
        return asked

    return give


def test_a_row_has_key_name_pixels_and_fraction(bench, table):
    bench.session.classes.rename(2, "Pore")
    bench.segment()
    painted = np.count_nonzero(bench.scribbles.data == 2)
    assert painted > 0
    assert cell(table, 2, COLOR) == "2"
    assert cell(table, 2, NAME) == "Pore"
    assert cell(table, 2, PAINTED) == str(painted)
    assert cell(table, 2, FRACTION) == f"{bench.session.phase_fractions()[2]:.1%}"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (12_345, "12.3k"), (250_000, "250k"), (1_234_567, "1.2M")],
)
def test_counts_stay_short(count, text):
    assert short_count(count) == text


def test_rows_and_the_brush_follow_each_other(bench, table):
    bench.scribbles.mode = "erase"
    table.rows.setCurrentItem(table.rows.items()[2])
    assert bench.scribbles.selected_label == 2
    assert bench.scribbles.mode == "paint"
    bench.scribbles.selected_label = 1
    assert table.rows.currentItem() is table.rows.items()[1]
    bench.scribbles.selected_label = 7  # which has no row
    assert table.rows.selectedItems() == []
    assert not table.more.isEnabled()


def test_a_class_in_hand_keeps_the_polygon_tool(bench, table):
    bench.scribbles.mode = "polygon"
    table.choose(2)
    assert bench.scribbles.mode == "polygon"


def test_a_new_class_is_in_the_brush(bench, table):
    table.add.click()
    assert list(bench.session.classes) == [1, 2, 3]
    assert bench.scribbles.selected_label == 3


def test_a_name_is_edited_in_place_and_goes_to_the_layers(bench, table):
    table.rows.items()[1].setText(NAME, "  Matrix ")
    assert bench.session.classes[1].name == "Matrix"
    assert cell(table, 1, NAME) == "Matrix"
    assert list(bench.scribbles.features["class"]) == ["", "Matrix", "Class 2"]


@pytest.mark.parametrize(
    ("name", "reason"), [("", "empty"), ("Class 2", "is the name")]
)
def test_a_refused_name_says_why_and_the_old_one_stays(bench, table, name, reason):
    table.rows.items()[1].setText(NAME, name)
    assert reason in bench.session.status
    assert cell(table, 1, NAME) == "Class 1"


def test_another_colour_reaches_every_layer(bench, table, monkeypatch):
    bench.segment()
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#102030"))
    table.rows.itemDoubleClicked.emit(table.rows.items()[2], COLOR)
    assert bench.session.classes[2].color == "#102030"
    for layer in (bench.scribbles, bench.viewer.layers["Segmentation: Image"]):
        color = layer.colormap.map(np.array([2], np.uint8))[0]
        np.testing.assert_allclose(color * 255, (16, 32, 48, 255), atol=0.5)


def test_a_cancelled_colour_dialog_changes_nothing(bench, table, monkeypatch):
    former = bench.session.classes[1].color
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor())
    table.recolor()
    assert bench.session.classes[1].color == former


def test_moving_a_class_changes_its_key_and_not_its_label(bench, table):
    table.choose(2)
    table.up.click()
    assert list(bench.session.classes) == [2, 1]
    assert cell(table, 2, COLOR) == "1"
    assert table.selected == 2
    assert not table.up.isEnabled()
    table.down.click()
    assert list(bench.session.classes) == [1, 2]


def test_a_hidden_class_is_transparent_in_the_segmentation_alone(bench, table):
    bench.segment()
    segmentation = bench.viewer.layers["Segmentation: Image"]
    label = np.array([2], np.uint8)
    table.rows.items()[2].setCheckState(SEEN, Qt.CheckState.Unchecked)
    assert segmentation.colormap.map(label)[0, 3] == 0
    assert bench.scribbles.colormap.map(label)[0, 3] == 1
    bench.session.classes.rename(1, "Matrix")  # the link sets all colours anew
    assert segmentation.colormap.map(label)[0, 3] == 0
    table.rows.items()[2].setCheckState(SEEN, Qt.CheckState.Checked)
    assert segmentation.colormap.map(label)[0, 3] == 1


def test_merging_makes_the_scribbles_those_of_the_other_class(bench, table):
    table.add.click()
    bench.segment()
    bench.paint((30,), (10, 20), 3)
    bench.settle()
    count = np.count_nonzero(bench.scribbles.data)
    table.choose(3)
    table.merge(1)
    assert list(bench.session.classes) == [1, 2]
    assert not (bench.scribbles.data == 3).any()
    assert np.count_nonzero(bench.scribbles.data) == count
    assert table.selected == bench.scribbles.selected_label == 1
    bench.scribbles.undo()
    assert bench.scribbles.data[30, 10] == 3


def test_the_menu_offers_the_other_classes_to_merge_into(bench, table):
    table.add.click()
    menu = QMenu()
    table.fill_menu(menu)
    (into,) = (a.menu() for a in menu.actions() if a.menu() is not None)
    assert [action.text() for action in into.actions()] == ["Class 1", "Class 2"]
    into.actions()[1].trigger()
    assert list(bench.session.classes) == [1, 2]
    assert table.selected == 2


def test_deleting_asks_before_scribbles_are_erased(bench, table, answer):
    bench.segment()
    former = bench.scribbles.data.copy()
    table.choose(2)
    asked = answer(QMessageBox.StandardButton.No)
    table.delete()
    assert len(asked) == 1
    assert "Class 2 has" in asked[0]
    np.testing.assert_array_equal(bench.scribbles.data, former)
    answer(QMessageBox.StandardButton.Yes)
    table.delete()
    assert list(bench.session.classes) == [1]
    assert not (bench.scribbles.data == 2).any()
    bench.scribbles.undo()
    np.testing.assert_array_equal(bench.scribbles.data, former)
    bench.settle()
    assert list(bench.session.classes) == [1, 2]


def test_an_empty_class_is_deleted_without_asking(bench, table, answer):
    asked = answer(QMessageBox.StandardButton.No)
    table.add.click()
    table.delete()
    assert asked == []
    assert list(bench.session.classes) == [1, 2]
    assert table.selected == 1


def test_scribbles_of_all_images_are_counted_before_a_class_goes(bench, table, answer):
    bench.segment()
    bench.session.images.add(np.ones((8, 8)), "other")
    labels = np.zeros((8, 8), np.uint8)
    labels[0, :5] = 3
    bench.session.set_scribbles(labels, "other")
    assert cell(table, 3, PAINTED) == "0"
    assert "5 on all" in table.rows.items()[3].toolTip(PAINTED)
    asked = answer(QMessageBox.StandardButton.No)
    table.choose(3)
    table.delete()
    assert "5 painted pixels" in asked[0]


def test_many_classes_scroll(bench, table):
    table.add.click()
    few = table.rows.height()
    for _ in range(20):
        table.add.click()
    row = table.rows.sizeHintForRow(0)
    assert table.rows.maximumHeight() < 8 * row
    assert table.rows.maximumHeight() >= few
