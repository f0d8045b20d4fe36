import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_hrdv2.widgets.viewer import layers


@pytest.fixture
def panel(bench):
    bench.session.configure(backbone="filters")
    return bench.widget.looking


@pytest.fixture
def other(bench, panel, image):
    """Another image, the right way round; both have features."""
    bench.compute()
    bench.viewer.add_image(image[:50, ::-1], name="Other")
    bench.wait(lambda: bench.controller.link.image.name == "Other")
    bench.compute()
    bench.settle()
    first = bench.session.images[next(iter(bench.session.images))]
    bench.controller.link.show_image(first.key)
    bench.settle()


def named(bench, name):
    return next(one for one in bench.viewer.layers if one.name == name)


def press(bench, button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    bench.settle()


def click_image(bench, row, column):
    """Press and release on the canvas, where a pixel of the image is shown."""
    link = bench.controller.link
    window = bench.viewer.__wrapped__.window  # no plugin reaches the canvas
    canvas = window._qt_viewer.canvas.native
    scene = getattr(bench.viewer, "scene", bench.viewer)
    world = np.array(link.image.data_to_world((row, column)))
    y, x = np.round((world - scene.camera.center[1:]) * scene.camera.zoom).astype(int)
    place = canvas.rect().center() + QPoint(int(x), int(y))
    QTest.mouseMove(canvas, place)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=place)
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=place)
    bench.settle()


def test_the_buttons_open_with_the_features(bench, panel):
    for control in (panel.colors, panel.clusters, panel.alike):
        assert not control.isEnabled()
    bench.compute()
    bench.settle()
    for control in (panel.colors, panel.clusters, panel.alike):
        assert control.isEnabled()
    assert not panel.rows.isVisibleTo(panel)


def test_colours_lie_on_all_images_and_are_replaced(bench, panel, other):
    for _ in range(2):
        press(bench, panel.colors)
        colors = [one for one in bench.viewer.layers if one.name.startswith("Colours")]
        assert [one.name for one in colors] == ["Colours: Image", "Colours: Other"]
    first = named(bench, "Colours: Image")
    assert first.rgb
    assert first.data.shape == (64, 80, 3)
    np.testing.assert_allclose(first.scale, (0.5, 0.5))
    np.testing.assert_allclose(first.translate, (3, 4))
    left, right = (first.data[30, column].astype(int) for column in (10, 70))
    assert abs(left - right).max() > 50
    again = named(bench, "Colours: Other").data[30]
    assert abs(again[70].astype(int) - left).max() < 30  # the same axes and scaling
    assert not named(bench, "Colours: Other").visible


def test_clusters_follow_their_number_and_take_names(bench, panel, other):
    panel.count.setValue(2)
    press(bench, panel.clusters)
    layer, mirrored = named(bench, "Clusters: Image"), named(bench, "Clusters: Other")
    assert np.unique(layer.data).tolist() == [1, 2]
    assert layer.data[30, 10] == mirrored.data[30, 70] != layer.data[30, 70]
    panel.count.stepUp()
    bench.settle()
    assert named(bench, "Clusters: Image") == layer
    assert len(np.unique(layer.data)) == 3
    assert panel.rows.topLevelItemCount() == 3
    panel.count.setValue(2)
    bench.settle()

    left = int(layer.data[30, 10])
    panel.rows.topLevelItem(left - 1).setSelected(True)
    panel.name.setCurrentIndex(2)
    panel.name.activated.emit(2)
    assert panel.rows.topLevelItem(left - 1).text(2) == "Class 2"
    assert layers.class_names_of(layer)[left] == "Class 2"
    np.testing.assert_allclose(
        layer.colormap.color_dict[left],
        named(bench, "Scribbles: Image").colormap.color_dict[2],
    )
    panel.rows.clearSelection()
    panel.rows.topLevelItem(2 - left).setSelected(True)
    panel.name.activated.emit(3)  # a new class
    assert panel.rows.topLevelItem(2 - left).text(2) == "Class 3"
    assert panel.name.currentText() == "Class 3"
    panel.rows.setCurrentItem(panel.rows.topLevelItem(left - 1))
    assert panel.name.currentText() == "Class 2"
    panel.rows.setCurrentItem(panel.rows.topLevelItem(2 - left))
    assert list(bench.session.classes) == [1, 2, 3]
    bench.session.delete_class(3)
    assert panel.rows.topLevelItem(2 - left).text(2) == ""
    panel.name.activated.emit(0)
    assert bench.session.looking.clusters.classes == {left: 2}


def test_clusters_become_scribbles_that_can_be_undone(bench, panel, other):
    panel.count.setValue(2)
    press(bench, panel.clusters)
    layer = named(bench, "Clusters: Image")
    for position, class_id in enumerate((1, 2)):
        panel.rows.clearSelection()
        panel.rows.topLevelItem(position).setSelected(True)
        panel.name.activated.emit(class_id)
    bench.paint((30,), range(5, 9), 2)
    bench.settle()
    scribbles = bench.scribbles
    before = scribbles.data.copy()
    press(bench, panel.use)
    np.testing.assert_array_equal(scribbles.data[before > 0], before[before > 0])
    new = (scribbles.data > 0) & (before == 0)
    assert new.sum() > 100
    np.testing.assert_array_equal(scribbles.data[new], layer.data[new])
    assert len(bench.session.images.painted()) == 2
    assert bench.session.segmentation is not None
    scribbles.undo()
    np.testing.assert_array_equal(scribbles.data, before)


@pytest.mark.usefixtures("make_napari_viewer_proxy")
def test_one_click_finds_what_is_alike_and_paints_nothing(bench, panel, other):
    bench.viewer.window.show()
    QTest.mouseClick(panel.alike, Qt.MouseButton.LeftButton)
    assert panel.alike.isChecked()
    click_image(bench, 30, 70)
    assert not bench.scribbles.data.any()
    first, second = (named(bench, f"Similarity: {name}") for name in ("Image", "Other"))
    assert first.data.shape == (64, 80)
    assert first.data[30, 70] > 0.5 > first.data[30, 10]
    assert second.data[30, 10] > 0.5 > second.data[30, 70]
    assert 1 < panel.places.count() <= 10
    elsewhere = next(
        i for i in range(panel.places.count()) if "Other" in panel.places.item(i).text()
    )
    item = panel.places.item(elsewhere)
    place = panel.places.visualItemRect(item).center()
    QTest.mouseClick(panel.places.viewport(), Qt.MouseButton.LeftButton, pos=place)
    bench.settle()
    link = bench.controller.link
    assert link.image.name == "Other"
    assert bench.viewer.layers.selection.active == link.image  # no brush
    row, column = map(int, item.text().split(", ")[-2:])
    scene = getattr(bench.viewer, "scene", bench.viewer)
    np.testing.assert_allclose(
        scene.camera.center[1:], link.image.data_to_world((row, column)), atol=1
    )
    QTest.mouseClick(panel.alike, Qt.MouseButton.LeftButton)
    assert bench.viewer.layers.selection.active == link.scribbles
    click_image(bench, row, column)  # which paints now
    assert link.scribbles.data.any()


def test_foreground_and_saliency_lie_on_all_images(bench, panel, other):
    press(bench, panel.foreground)
    press(bench, panel.saliency)
    for name in ("Image", "Other"):
        mask = named(bench, f"Foreground: {name}")
        assert isinstance(mask, Labels)
        assert np.unique(mask.data).tolist() == [0, 1]
        assert not (mask.data == mask.data[30, 10]).all()
        assert named(bench, f"Saliency: {name}").data.max() == 1
    first = named(bench, "Saliency: Image").data.copy()
    panel.method.setCurrentIndex(1)
    press(bench, panel.saliency)
    assert not np.array_equal(named(bench, "Saliency: Image").data, first)
    assert bench.names.count("Saliency: Image") == 1


def test_correspondences_are_marked_and_listed_on_both_images(
    bench, panel, other, monkeypatch
):
    told = []
    monkeypatch.setattr("napari_hrdv2.widgets.jobs.show_error", told.append)
    press(bench, panel.pairs)
    discs = (
        named(bench, "Correspondences: Image"),
        named(bench, "Correspondences: Other"),
    )
    count = panel.places.count()
    assert count >= 4
    assert [np.unique(one.data)[-1] for one in discs] == [count // 2] * 2
    texts = [panel.places.item(i).text() for i in range(2)]
    assert "Image" in texts[0]
    assert "Other" in texts[1]
    place = panel.places.visualItemRect(panel.places.item(1)).center()
    QTest.mouseClick(panel.places.viewport(), Qt.MouseButton.LeftButton, pos=place)
    bench.settle()
    assert bench.controller.link.image.name == "Other"
    bench.viewer.layers.remove(named(bench, "Image"))
    bench.wait(lambda: len(bench.session.images) == 1)
    panel.pairs.click()
    assert "open a second image" in bench.session.status + str(told)


def test_strokes_that_come_while_scribbles_are_made_stay(bench, panel, other):
    panel.count.setValue(2)
    press(bench, panel.clusters)
    bench.session.looking.clusters.classes.update({1: 1, 2: 2})
    bench.paint((1,), (1,), 1)
    QTest.mouseClick(panel.use, Qt.MouseButton.LeftButton)
    bench.scribbles.data[20:40, 2:38] = 2  # not told of yet
    bench.scribbles.events.paint(value=[])
    before = bench.scribbles.data.copy()
    bench.settle()
    data = bench.scribbles.data
    np.testing.assert_array_equal(data[before > 0], before[before > 0])
    assert (data > 0).sum() > (before > 0).sum()


@pytest.mark.usefixtures("make_napari_viewer_proxy")
def test_find_alike_leaves_a_chosen_layer_and_can_be_broken_off(bench, panel):
    bench.compute()
    bench.settle()
    panel.alike.click()
    bench.viewer.window.show()
    panel._look_alike(3, 4)
    chosen = bench.viewer.layers[-1]
    bench.viewer.layers.selection.active = chosen
    assert panel._side.has("similarity")
    panel.alike.click()
    bench.settle()
    assert not any(name.startswith("Similarity") for name in bench.names)
    assert bench.viewer.layers.selection.active == chosen


def test_what_needs_more_memory_than_is_free_is_refused(bench, panel, monkeypatch):
    bench.compute()
    bench.settle()
    free = "napari_hrdv2.core.devices.available_memory"
    monkeypatch.setattr(free, lambda device: 64 * 80 * 6 - 1)
    panel.colors.click()
    assert not panel.colors.is_running
    assert "of memory needed" in bench.session.status
    monkeypatch.setattr(free, lambda device: 64 * 80 * 6)
    panel.colors.click()
    assert panel.colors.is_running


def test_other_pixels_take_layers_and_list_of_the_former_away(bench, panel, image):
    bench.compute()
    bench.settle()
    press(bench, panel.clusters)
    assert panel.rows.isVisibleTo(panel)
    bench.controller.link.image.data = image[::-1].copy()
    bench.settle()
    assert not any(name.startswith("Clusters") for name in bench.names)
    assert not panel.rows.isVisibleTo(panel)
    assert panel.clusters.toolTip() == "Compute features first."


def test_layers_go_with_their_image_and_are_no_images(bench, panel, other):
    press(bench, panel.colors)
    press(bench, panel.clusters)
    assert [one.name for one in bench.controller.link.layers.images()] == [
        "Image",
        "Other",
    ]
    bench.viewer.layers.remove(named(bench, "Other"))
    bench.wait(lambda: not any(name.endswith(": Other") for name in bench.names))
    press(bench, panel.clusters)  # of the image that is left
    assert isinstance(named(bench, "Clusters: Image"), Labels)


def test_clusters_can_be_cancelled(bench, panel):
    bench.compute()
    bench.settle()
    panel.clusters.click()
    assert panel.clusters.text() == "Cancel"
    panel.clusters.click()
    bench.settle()
    assert panel.clusters.text() == "Clusters"
    assert not any(one.name.startswith("Clusters") for one in bench.viewer.layers)


def test_planes_of_a_stack_are_looked_at_one_by_one(bench, panel, image):
    stack = np.stack([image, image[:, ::-1], image])
    bench.viewer.add_image(stack, name="stack", axis_labels=("Z", "y", "x"))
    bench.wait(lambda: bench.controller.link.image.name == "stack")
    bench.settle()
    bench.compute()
    bench.settle()
    press(bench, panel.colors)
    layer = named(bench, "Colours: stack")
    assert isinstance(layer, Image)
    assert layer.data.shape == (1, 64, 80, 3)
