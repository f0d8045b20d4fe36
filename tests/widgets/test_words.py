"""What is read on the panel is what the field says, and true."""

import numpy as np
import pytest
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QMenu

from napari_hrdv2.core.backbones import backbone_names
from napari_hrdv2.widgets import backbone_texts
from napari_hrdv2.widgets.panels import controls as ui
from napari_hrdv2.widgets.panels import panel_specs


def shown(text):
    """Return what Qt shows of the text of a button or a menu."""
    return text.replace("&&", "\0").replace("&", "").replace("\0", "&")


def test_a_class_name_keeps_its_ampersand_in_menus(bench):
    bench.session.classes.rename(1, "Pores & cracks")
    table, menu = bench.widget.paint.classes, QMenu()
    table.choose(1)
    table.fill_menu(menu)
    titles = [shown(action.text()) for action in menu.actions()]
    assert "Merge Pores & cracks into" in titles
    assert "Delete Pores & cracks…" in titles
    table.choose(2)
    table.fill_menu(menu)
    (merge,) = [action.menu() for action in menu.actions() if action.menu()]
    assert [shown(action.text()) for action in merge.actions()] == ["Pores & cracks"]


def test_the_colour_of_a_selected_row_is_that_of_the_class(qtbot):
    icon = ui.swatch("#ee5500")
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        pixel = icon.pixmap(8, 8, mode).toImage().pixelColor(4, 4)
        assert pixel.name() == "#ee5500"


def test_backbones_are_listed_by_family_with_one_recommended(bench):
    box = bench.widget.features.backbone
    texts = [box.itemText(i) for i in range(box.count())]
    listed = [box.itemData(i) for i in range(box.count()) if box.itemData(i)]
    assert listed == backbone_names() or listed == list(backbone_names())
    titles = [i for i in range(box.count()) if box.itemData(i) is None]
    assert [texts[i] for i in titles][:2] == ["In the package", "DINOv2"]
    assert not any(box.model().item(i).isEnabled() for i in titles)
    assert [text for text in texts if "recommended" in text] == [
        "embedded (recommended)"
    ]


def test_what_does_not_fit_into_memory_is_not_recommended(monkeypatch):
    shape = (4000, 4000)
    embedded = backbone_texts.estimate_cost(
        shape, backbone_texts.FeatureOptions("embedded")
    )
    monkeypatch.setattr(
        "napari_hrdv2.core.devices.available_memory",
        lambda device: embedded.peak_bytes - 1,
    )
    assert backbone_texts.recommended(shape) == "filters"


def test_sections_are_called_as_the_status_calls_them(bench):
    titles = [spec.title for spec in panel_specs()]
    assert "Images and stacks" in titles
    assert any("articles" in title for title in titles)
    bench.viewer.add_image(np.zeros((4, 64, 80)), name="volume")
    bench.wait(lambda: bench.widget.features.image.count() == 2)
    bench.widget.features.image.activated.emit(1)
    assert "choose under Images and stacks what" in bench.widget.status.text()


@pytest.fixture
def mine(bench, image):
    """A labels layer that the user has brought with him."""
    labels = np.zeros(image.shape, np.uint8)
    labels[5:15, 5:30], labels[5:15, 50:70] = 1, 2
    layer = bench.viewer.add_labels(labels, name="Mine & yours")
    bench.wait(lambda: not bench.widget.paint.offer.isHidden())
    return layer


def test_labels_of_the_user_are_offered_as_scribbles(bench, mine):
    offer = bench.widget.paint.offer
    assert shown(offer.text()) == "Use Mine & yours as scribbles"
    offer.click()
    bench.settle()
    np.testing.assert_array_equal(bench.scribbles.data, mine.data)
    assert offer.isHidden()


def test_labels_that_cannot_be_scribbles_are_not_offered(bench, image):
    offer = bench.widget.paint.offer
    bench.viewer.add_labels(np.arange(image.size).reshape(image.shape), name="objects")
    bench.viewer.add_labels(np.zeros_like(image), name="empty")
    bench.viewer.add_labels(np.ones((5, 5), int), name="small")
    bench.settle()
    bench.qtbot.wait(50)
    assert offer.isHidden()
