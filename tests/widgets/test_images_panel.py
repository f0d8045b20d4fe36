"""The list of images that train together, and their score."""

import numpy as np
import pytest
from napari.layers import Image
from PIL import Image as PillowImage
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QComboBox, QTreeWidget, QWidget

from napari_hrdv2.widgets.panels import images_panel
from napari_hrdv2.widgets.panels.images_panel import PANELS
from napari_hrdv2.widgets.viewer import layers
from widgets.desk import stack_of, with_panel


@pytest.fixture
def desk(qtbot):
    yield from with_panel(qtbot, PANELS[0])


@pytest.fixture
def two(desk, image):
    """Two images with scribbles of two classes each, and their features."""
    for number, name in enumerate(("one", "two")):
        desk.viewer.add_image(image + number, name=name)
    desk.settle()
    for layer in desk.link.layers.images():
        desk.link.select_image(layer)
        desk.settle()
        desk.controller.compute_features()
        desk.settle()
        desk.paint_both()
    desk.panel.show_images()
    return desk


def rows(desk):
    items = map(
        desk.panel.list.topLevelItem, range(desk.panel.list.topLevelItemCount())
    )
    return [[item.text(column) for column in range(4)] for item in items]


def item_of(desk, name):
    (item,) = desk.panel.list.findItems(name, Qt.MatchFlag.MatchExactly)
    return item


def test_all_images_are_listed_whether_painted_or_not(desk, image):
    desk.viewer.add_image(image, name="one")
    desk.viewer.add_image(image, name="two")
    desk.settle()
    desk.wait(lambda: len(rows(desk)) == 2)
    assert [row[:2] for row in rows(desk)] == [["one", ""], ["two", ""]]


def test_painted_images_say_how_much_and_whether_features_are_there(two):
    count = int(np.count_nonzero(two.link.scribbles.data))
    assert rows(two) == [[name, str(count), "ready", ""] for name in ("one", "two")]
    assert item_of(two, "one").toolTip(1).startswith("Class 1: ")


def test_an_image_that_is_not_ticked_does_not_train(two):
    item_of(two, "one").setCheckState(0, Qt.CheckState.Unchecked)
    two.settle()
    assert [p.name for p in two.session.images.painted()] == ["two"]


def test_a_click_goes_to_the_image(two):
    two.panel.list.itemClicked.emit(item_of(two, "one"), 0)
    two.settle()
    assert two.link.image.name == "one"


def test_the_score_is_shown_for_each_image_and_in_words(two):
    two.panel.score.click()
    two.wait(lambda: two.panel.summary.text() != "")
    assert all(float(row[3]) > 0.9 for row in rows(two))
    assert "2 images reach a mean IoU of" in two.panel.summary.text()
    assert "one stack" not in two.panel.summary.text()
    assert two.panel.score.text() == "Score: leave one image out"


def test_a_score_of_former_scribbles_is_not_shown_any_more(two):
    two.panel.score.click()
    two.wait(lambda: two.panel.summary.text() != "")
    two.paint((30,), (10,), 1)
    two.wait(lambda: two.panel.summary.text() == "")
    assert [row[3] for row in rows(two)] == ["", ""]


def test_a_score_stays_while_another_image_is_looked_at(two, image):
    two.panel.score.click()
    two.wait(lambda: two.panel.summary.text() != "")
    two.viewer.add_image(image, name="three")
    two.settle()
    two.link.select_image(two.viewer.layers["three"])
    two.settle()
    two.panel.show_images()
    assert [bool(row[3]) for row in rows(two)] == [True, True, False]


def test_one_image_cannot_be_scored_and_the_status_says_why(desk, image):
    desk.viewer.add_image(image, name="one")
    desk.settle()
    desk.panel.score.click()
    assert "two at least are needed" in desk.session.status


def test_files_become_layers_and_bad_ones_are_told(desk, image, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    PillowImage.fromarray(image).save(good)
    bad.write_bytes(b"no image")
    said = []
    desk.session.status_changed.connect(said.append)
    desk.panel.add_files([str(good), str(bad)])
    desk.wait(lambda: any("is not an image" in text for text in said))
    desk.settle()
    (layer,) = desk.viewer.layers[:1]
    assert layer.name == "good"
    np.testing.assert_array_equal(layer.data, image)
    assert desk.session.current.source == str(good)


def test_what_is_to_be_minded_of_a_file_is_told(desk, image, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(images_panel, "show_warning", told.append)
    turned, tags = PillowImage.fromarray(image), PillowImage.Exif()
    tags[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=tags)
    desk.panel.add_files([str(tmp_path / "turned.png")])
    desk.wait(lambda: len(desk.viewer.layers) > 0)
    desk.settle()
    np.testing.assert_array_equal(desk.viewer.layers[0].data, image[::-1, ::-1])
    (note,) = told
    assert "turned by 180°, as its orientation tag asks" in note


def test_an_image_that_napari_did_not_turn_is_told(desk, image, tmp_path, monkeypatch):
    told, path, tags = [], tmp_path / "turned.png", PillowImage.Exif()
    monkeypatch.setattr(layers, "show_warning", told.append)
    tags[0x0112] = 3
    PillowImage.fromarray(image).save(path, exif=tags)
    layer = Image(image, name="turned")
    layer._source = layer.source.__class__(path=str(path))
    desk.viewer.layers.append(layer)
    desk.settle()
    (note,) = told
    assert note.startswith("turned is shown as it is stored")
    assert "turned by 180°" in note


def test_planes_that_were_painted_are_listed_and_gone_to(desk, image):
    desk.open_stack(stack_of(image, 5))
    desk.go(1)
    desk.paint_both()
    desk.go(4)
    desk.panel.show_images()
    assert [row[0] for row in rows(desk)] == ["stack, Z 1", "stack, Z 4"]
    desk.panel.list.itemClicked.emit(item_of(desk, "stack, Z 1"), 0)
    desk.settle()
    assert desk.session.current.plane == {"Z": 1}


def test_an_unnamed_axis_is_named_in_the_panel(desk, image):
    desk.open_stack(stack_of(image, 5), None)
    desk.panel.show_images()
    combo = desk.panel.findChild(QComboBox, "axis_0")
    combo.setCurrentText("T")
    combo.textActivated.emit("T")
    desk.settle()
    assert "T" in desk.session.current.plane
    desk.panel.show_images()
    assert desk.link.unnamed_axes() == []
    assert not desk.panel.findChild(QWidget, "stack_axes").isVisibleTo(desk.panel)


def test_layers_that_go_take_their_rows_along(two):
    two.viewer.layers.remove("one")
    two.wait(lambda: [row[0] for row in rows(two)] == ["two"])
    two.viewer.layers.clear()
    two.wait(lambda: rows(two) == [])
    assert two.errors == []


def test_every_control_has_a_name_and_a_tooltip(desk):
    kinds = (QAbstractButton, QTreeWidget)
    controls = [c for kind in kinds for c in desk.panel.findChildren(kind)]
    assert len(controls) >= 3
    named = [c for c in controls if c.objectName() and c.toolTip()]
    assert len(named) == len(controls)


def test_the_panel_fits_a_narrow_dock(two):
    two.panel.resize(300, 400)
    assert two.panel.minimumSizeHint().width() <= 300


def test_scribbles_on_an_image_of_the_other_kind_are_told_not_to_count(desk, image):
    colour = np.stack([image, image, 255 - image], axis=-1)
    for name, pixels in (("coloured", colour), ("grey", image)):
        layer = desk.viewer.add_image(pixels, name=name, rgb=pixels.ndim == 3)
        desk.settle()
        desk.link.select_image(layer)
        desk.controller.compute_features()
        desk.settle()
        desk.paint_both()
    assert "The scribbles on coloured do not count here" in desk.session.status
    desk.panel.show_images()
    states = {row[0]: row[2] for row in rows(desk)}
    assert states == {"coloured": "other kind", "grey": "ready"}
