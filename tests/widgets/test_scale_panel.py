"""The size of a pixel: from the file, typed, or from the scale bar."""

import numpy as np
import pytest
import tifffile

from napari_hrdv2.files import read_pixel_size, write_image
from napari_hrdv2.files.units import length_of
from napari_hrdv2.widgets.panels.scale_panel import PANELS
from widgets.desk import with_panel


@pytest.fixture
def desk(qtbot):
    yield from with_panel(qtbot, PANELS[0])


@pytest.fixture
def opened(desk, image, tmp_path):
    """An image that napari's own reader opened: without its pixel size."""
    path = tmp_path / "steel.tif"
    write_image(path, image, pixel_size=0.25, unit="µm")
    desk.layer = desk.viewer.add_image(tifffile.imread(path), name="steel")
    desk.layer._source = desk.layer.source.__class__(path=str(path))
    desk.layer.metadata = {}
    desk.viewer.layers.clear()
    desk.settle()
    desk.viewer.layers.append(desk.layer)
    desk.settle()
    return desk


def size_of(desk):
    return desk.session.current.pixel_size


def test_the_file_of_a_layer_tells_the_size_of_a_pixel(opened):
    assert size_of(opened) == (0.25, "µm")
    assert opened.panel.size.text() == "0.25 µm"
    np.testing.assert_array_equal(opened.layer.scale, (1, 1))


def test_a_size_that_was_typed_counts_more(opened):
    opened.panel.size.setText("12,5 nm")
    opened.panel.size.editingFinished.emit()
    assert size_of(opened) == (12.5, "nm")
    assert opened.panel.size.text() == "12.5 nm"
    opened.panel.size.clear()
    opened.panel.size.editingFinished.emit()
    assert size_of(opened) == (0.25, "µm")


def test_the_scale_of_the_viewer_counts_more_than_the_file(opened):
    opened.layer.scale, opened.layer.units = (2, 2), ("nm", "nm")
    opened.settle()
    assert size_of(opened) == (2.0, "nm")
    assert opened.panel.size.text() == "2 nm"


@pytest.mark.parametrize("text", ["5", "5 wobbles", "-1 nm", "0 nm", "nm", "1e999 m"])
def test_what_is_no_length_is_refused_and_changes_nothing(opened, text):
    assert not opened.panel.set_size(text)
    assert "such as 0.5 nm" in opened.session.status
    assert size_of(opened) == (0.25, "µm")
    assert opened.panel.size.text() == "0.25 µm"


def test_lengths_are_typed_as_people_type_them():
    assert length_of("10 um") == (10.0, "µm")
    assert length_of("1e-3 mm") == (0.001, "mm")
    assert length_of(" 500nm ") == (500.0, "nm")


def test_a_line_over_the_scale_bar_tells_the_size(desk, image):
    desk.viewer.add_image(image, name="one", scale=(3, 3), translate=(7, 8))
    desk.settle()
    asked = []
    desk.panel.ask = lambda pixels: asked.append(pixels) or "10 µm"
    desk.panel.draw.click()
    layer = desk.viewer.layers["Scale bar"]
    assert desk.viewer.layers.selection.active == layer
    assert layer.mode == "add_line"
    layer.add(np.array([(60, 10), (60, 60)]), shape_type="line")
    desk.wait(lambda: bool(asked))
    assert asked == [50.0]
    assert size_of(desk) == (0.2, "µm")
    assert desk.panel.size.text() == "0.2 µm"
    assert "Scale bar" not in desk.viewer.layers
    assert desk.viewer.layers.selection.active == desk.link.scribbles
    assert desk.link.scribbles.mode == "paint"


def test_a_click_is_no_scale_bar(desk, image):
    desk.viewer.add_image(image, name="one")
    desk.settle()
    desk.panel.ask = lambda pixels: pytest.fail("asked")
    desk.panel.draw.click()
    click = np.array([(5, 5), (5, 5.5)])
    desk.viewer.layers["Scale bar"].add(click, shape_type="line")
    desk.settle()
    assert "That was a click" in desk.session.status
    assert size_of(desk) is None


def test_a_file_that_tells_nothing_is_no_trouble(tmp_path):
    path = tmp_path / "broken.tif"
    path.write_bytes(b"II*\0 no tiff")
    assert read_pixel_size(path) is None
    assert read_pixel_size(tmp_path / "gone.tif") is None
