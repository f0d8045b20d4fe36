import csv

import numpy as np
import pytest
from qtpy.QtCore import Qt
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from napari_hrdv2.files import write_labels


@pytest.fixture
def truth() -> np.ndarray:
    """Class 1 on the left, class 2 from a little further right than it looks."""
    truth = np.ones((64, 80), np.uint8)
    truth[:, 43:] = 2
    return truth


@pytest.fixture
def panel(bench):
    """A segmented image, and the part of the window that compares."""
    bench.segment()
    bench.panel = bench.widget.compare
    bench.panel.show()
    bench.settle()
    return bench.panel


def scored(bench, truth):
    """Truth and result of the pixels that are not under scribbles."""
    free = np.asarray(bench.scribbles.data) == 0
    return truth[free], bench.session.segmentation[free]


def compare(bench, truth, name="Truth", **about):
    image = bench.viewer.layers["Image"]
    place = {"scale": image.scale, "translate": image.translate, "units": image.units}
    layer = bench.viewer.add_labels(truth, name=name, **place, **about)
    bench.wait(lambda: bench.panel.truth.findText(name) >= 0)
    bench.panel.truth.setCurrentText(name)
    bench.panel.compare.click()
    bench.settle()
    return layer


def cells(tree, row):
    item = tree.topLevelItem(row)
    return [item.text(column) for column in range(tree.columnCount())]


def test_scores_are_those_of_scikit_learn(bench, panel, truth):
    compare(bench, truth)
    pair = scored(bench, truth)
    expected = jaccard_score(*pair, average=None)
    assert 0.8 < expected.min() < 1
    shown = [cells(panel.rows, k)[1] for k in range(3)]
    means = [*expected, expected.mean()]
    assert shown == [f"{100 * iou:.1f} %" for iou in means]
    assert (
        f"{accuracy_score(*pair):.2%} of {len(pair[0]):,} pixels are as in Truth"
        in panel.note.text()
    )
    counts = confusion_matrix(*pair)
    shares = 100 * counts / counts.sum(1, keepdims=True)
    for k in range(2):
        row = cells(panel.confusion, k)
        assert row == ["Class " + str(k + 1), *(f"{share:.1f}" for share in shares[k])]
    assert f"{counts[1, 0]:,} pixels" in panel.confusion.topLevelItem(1).toolTip(1)


def test_a_table_of_many_classes_can_be_scrolled(bench, panel, truth):
    truth[:12, :12], truth[50:, 60:], truth[:12, 70:] = 3, 4, 5
    compare(bench, truth)
    assert panel.confusion.topLevelItemCount() == 5
    bar = panel.confusion.horizontalScrollBarPolicy()
    assert bar == Qt.ScrollBarPolicy.ScrollBarAlwaysOn
    assert cells(panel.rows, 3)[:2] == ["class 4", "0.0 %"]


def test_errors_are_a_layer_on_the_image_beneath_the_scribbles(bench, panel, truth):
    compare(bench, truth)
    layer, image = bench.viewer.layers["Errors: Image"], bench.viewer.layers["Image"]
    wrong = (bench.session.segmentation != truth) & (bench.scribbles.data == 0)
    assert wrong.any()
    np.testing.assert_array_equal(layer.data, np.where(wrong, truth, 0))
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    assert not layer.editable
    assert bench.names.index("Errors: Image") < bench.names.index("Scribbles: Image")


def test_scores_follow_the_result_until_the_errors_are_removed(bench, panel, truth):
    compare(bench, truth)
    before = panel.overlay.answer
    bench.paint((20, 40), (41, 42), 1)
    bench.wait(lambda: panel.overlay.answer is not before)
    bench.settle()
    assert panel.overlay.answer.source is bench.session.current.result.shown
    bench.viewer.layers.remove("Errors: Image")
    assert panel.overlay.answer is None
    assert panel._found.isHidden()
    bench.paint((22, 38), (41, 42), 1)
    bench.settle()
    assert "Errors: Image" not in bench.names


def test_pixels_under_scribbles_count_where_that_is_wanted(bench, panel, truth):
    truth[10, 10] = 2  # under a scribble of class 1
    compare(bench, truth)
    assert bench.viewer.layers["Errors: Image"].data[10, 10] == 0
    without = panel.overlay.answer.comparison.pixels
    panel.without_scribbles.click()
    panel.compare.click()
    bench.settle()
    assert bench.viewer.layers["Errors: Image"].data[10, 10] == 2
    assert panel.overlay.answer.comparison.pixels == truth.size > without


def test_a_file_of_another_numbering_is_understood(bench, panel, truth, tmp_path):
    compare(bench, truth)
    expected = panel.overlay.answer.comparison.confusion
    path = tmp_path / "mask.tif"
    write_labels(path, (truth - 1) * 255)
    panel.take_file(str(path))
    bench.settle()
    np.testing.assert_array_equal(panel.overlay.answer.comparison.confusion, expected)
    assert panel.truth.currentText() == "mask.tif"
    assert "The truth is numbered from 0" in panel.note.text()


def test_what_cannot_be_told_is_asked_for(bench, panel, truth):
    assert panel.match.isHidden()
    compare(bench, np.where(truth == 1, 7, 4))
    assert "which are different classes" in panel.note.text()
    assert "Errors: Image" not in bench.names
    assert not panel.match.isHidden()
    panel.match.setText("7=1, 4=2")
    panel.compare.click()
    bench.settle()
    expected = confusion_matrix(*scored(bench, truth))
    np.testing.assert_array_equal(panel.overlay.answer.comparison.confusion, expected)


@pytest.mark.parametrize("content", ["of another size", "none"])
def test_a_file_that_cannot_be_the_truth_is_told(
    bench, panel, truth, tmp_path, content
):
    path = tmp_path / "truth.tif"
    if content != "none":
        write_labels(path, truth[:30])
    panel.take_file(str(path))
    bench.settle()
    assert "truth.tif" in panel.note.text()
    assert "Errors: Image" not in bench.names


def test_a_boundary_of_another_width_is_another_score(bench, panel, truth):
    compare(bench, truth)
    narrow = panel.overlay.answer.comparison
    panel.width.setValue(9)
    panel.compare.click()
    bench.settle()
    wide = panel.overlay.answer.comparison
    assert wide.boundary_width == 9
    assert wide.mean_boundary_iou > narrow.mean_boundary_iou
    assert cells(panel.rows, 2)[2] == f"{100 * wide.mean_boundary_iou:.1f} %"


def test_the_table_can_be_saved(bench, panel, truth, tmp_path):
    compare(bench, truth)
    assert panel.save_to(str(tmp_path / "scores.csv"))
    text = (tmp_path / "scores.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["class"] for row in rows] == ["Class 1", "Class 2", "all classes"]
    counts = panel.overlay.answer.comparison.confusion
    assert int(rows[0]["taken for Class 2"]) == counts[0, 1]


def test_without_a_result_it_is_said_what_to_do(bench, truth):
    bench.panel = bench.widget.compare
    bench.panel.show()
    compare(bench, truth)
    assert "no result to compare yet" in bench.panel.note.text()
    assert "Errors: Image" not in bench.names


def test_neither_scribbles_nor_result_are_offered_as_the_truth(bench, panel, truth):
    assert panel.truth.count() == 0
    assert not panel.compare.isEnabled()
    compare(bench, truth)
    listed = [panel.truth.itemText(k) for k in range(panel.truth.count())]
    assert listed == ["Truth"]


def test_an_excluded_part_is_not_scored(bench, panel, truth):
    mask = np.zeros(truth.shape, bool)
    mask[50:] = True
    bench.session.set_exclusion(mask)
    bench.controller.train_anew()
    bench.settle()
    compare(bench, truth)
    assert not bench.viewer.layers["Errors: Image"].data[50:].any()
    assert panel.overlay.answer.comparison.unsegmented.sum() == 0


def test_a_table_of_fewer_classes_has_fewer_columns(bench, panel, truth):
    many = truth.copy()
    many[:12, :12], many[50:, 60:], many[:12, 70:] = 3, 4, 5
    compare(bench, many)
    compare(bench, truth, name="Simple")
    assert panel.confusion.columnCount() == 3
    bar = panel.confusion.horizontalScrollBarPolicy()
    assert bar == Qt.ScrollBarPolicy.ScrollBarAlwaysOff


def test_scores_that_cannot_follow_the_result_are_not_left_standing(
    bench, panel, truth
):
    compare(bench, truth)
    assert "Errors: Image" in bench.names
    compare(bench, np.where(truth == 1, 7, 4), name="Other")
    assert "which are different classes" in panel.note.text()
    assert panel.overlay.answer is None
    assert panel._found.isHidden()
    assert "Errors: Image" not in bench.names
