"""Which layers belong together, and what happens when they change."""

import numpy as np
import pytest

from napari_hrdv2.session import ClassInfo
from napari_hrdv2.widgets import SegmentationWidget
from napari_hrdv2.widgets.viewer import layers
from napari_hrdv2.widgets.viewer.layers import METADATA_KEY

pytestmark = pytest.mark.usefixtures("make_napari_viewer_proxy")  # real windows


@pytest.fixture
def two_images(bench, image):
    """A second image of the same shape, chosen."""
    bench.segment()
    bench.viewer.add_image(255 - image, name="Other")
    bench.wait(lambda: bench.widget.features.image.count() == 2)
    bench.widget.features.image.activated.emit(1)
    bench.settle()
    return bench


def choose(bench, row):
    bench.widget.features.image.activated.emit(row)
    bench.settle()


def test_another_image_of_the_same_shape_gets_its_own_scribbles(two_images):
    assert two_images.controller.link.scribbles.name == "Scribbles: Other"
    assert not two_images.controller.link.scribbles.data.any()
    choose(two_images, 0)
    assert two_images.controller.link.scribbles == two_images.scribbles


def test_scribbles_whose_image_is_gone_are_not_taken(bench, image):
    bench.paint((10,), (10,), 1)
    bench.viewer.layers.remove("Image")
    bench.wait(lambda: bench.session.image is None)
    bench.viewer.add_image(image, name="Other")
    bench.wait(lambda: "Scribbles: Other" in bench.names)
    assert bench.controller.link.scribbles.name == "Scribbles: Other"


def test_a_duplicated_image_is_another_image(bench, image):
    original = bench.viewer.layers["Image"]
    bench.paint((10,), (10,), 1)
    bench.wait(lambda: not bench.session.is_idle)
    bench.viewer.add_image(image, name="Copy", metadata=dict(original.metadata))
    bench.wait(lambda: bench.widget.features.image.count() == 2)
    choose(bench, 1)
    assert bench.controller.link.scribbles != bench.scribbles
    ids = [bench.viewer.layers[n].metadata[METADATA_KEY]["id"] for n in bench.names[:1]]
    assert ids == [original.metadata[METADATA_KEY]["id"]]


def test_labels_of_the_user_are_left_alone(make_napari_viewer_proxy, make_bench, image):
    viewer = make_napari_viewer_proxy()
    viewer.add_image(image, name="Image")
    viewer.add_labels(np.ones_like(image), name="Mine")
    bench = make_bench(viewer)
    assert bench.names == ["Image", "Mine", "Scribbles: Image"]
    assert bench.controller.link.scribbles.name == "Scribbles: Image"


def test_scribbles_deleted_of_an_image_not_chosen_are_made_again(two_images):
    two_images.viewer.layers.remove("Scribbles: Image")
    two_images.qtbot.wait(50)
    choose(two_images, 0)
    made = two_images.viewer.layers["Scribbles: Image"]
    assert two_images.viewer.layers.selection.active == made
    assert not made.data.any()


def test_back_on_a_segmented_image_all_is_as_it_was(two_images):
    choose(two_images, 0)
    two_images.settle()
    assert two_images.session.features is not None
    assert two_images.viewer.layers["Segmentation: Image"].data.any()
    assert two_images.widget.status.text().startswith("Segmented.")
    assert two_images.names.count("Segmentation: Image [1]") == 0


def test_a_reopened_dock_finds_its_layers(bench):
    bench.segment()
    former = bench.viewer.layers["Segmentation: Image"].data.copy()
    bench.viewer.window.remove_dock_widget(bench.widget)
    bench.widget = SegmentationWidget(bench.viewer)
    bench.session, bench.controller = bench.widget.session, bench.widget.controller
    assert (bench.viewer.layers["Segmentation: Image"].data == former).all()
    bench.widget.features.compute.click()
    bench.wait(lambda: bench.session.segmentation is not None)
    assert bench.names == ["Image", "Segmentation: Image", "Scribbles: Image"]
    bench.controller.close()
    bench.widget.deleteLater()


def test_replaced_pixels_give_the_features_up_and_keep_the_scribbles(bench, image):
    bench.segment()
    bench.viewer.layers["Image"].data = 255 - image
    assert bench.session.features is None
    np.testing.assert_array_equal(bench.session.image, 255 - image)
    assert not bench.viewer.layers["Segmentation: Image"].data.any()
    bench.settle()
    assert bench.session.scribbles.class_ids == (1, 2)


def test_pixels_replaced_in_place_give_the_features_up_too(bench, image):
    bench.compute()
    layer, former = bench.viewer.layers["Image"], bench.session.current
    layer.data[:] = 255 - image
    layer.data = layer.data
    assert bench.session.current is not former
    assert bench.session.features is None


def test_pixels_of_another_shape_get_another_scribble_layer(bench, image):
    bench.viewer.layers["Image"].data = image[:40]
    assert bench.viewer.layers["Scribbles: Image [1]"].data.shape == (40, 80)
    bench.settle()
    assert bench.session.scribbles.labels.shape == (40, 80)


def test_layers_move_with_the_image(bench):
    bench.segment()
    image = bench.viewer.layers["Image"]
    image.scale, image.translate = (2, 2), (7, 9)
    image.units = ("um", "um")
    image.rotate = 30
    for name in ("Scribbles: Image", "Segmentation: Image"):
        layer = bench.viewer.layers[name]
        np.testing.assert_allclose(layer.scale, (2, 2))
        np.testing.assert_allclose(layer.translate, (7, 9))
        np.testing.assert_allclose(layer.rotate, image.rotate)
        assert layer.units == image.units
    assert bench.session.current.pixel_size == (2.0, "µm")


def test_a_scale_set_in_napari_tells_that_features_are_out_of_date(bench, tmp_path):
    image = bench.viewer.layers["Image"]
    image.units = ("um", "um")
    bench.segment()
    bench.session.save_classifier(tmp_path / "c.safetensors")
    bench.controller.load_classifier(tmp_path / "c.safetensors")
    bench.settle()
    assert "press Compute features" not in bench.session.status
    image.scale = (2, 2)
    told = "from its own pixels; press Compute features to use pixels of 0.5 µm."
    assert told in bench.session.status


def test_an_image_has_both_sides_of_its_pixels(bench):
    image = bench.viewer.layers["Image"]
    image.units, image.scale = ("um", "um"), (2, 0.5)
    assert bench.session.current.pixel_size == ((2.0, 0.5), "µm")
    added = layers.add_image(
        bench.viewer, np.eye(5), "a.tif", pixel_size=(2.0, 0.5), unit="µm"
    )
    np.testing.assert_allclose(added.scale, (2, 0.5))


def test_a_unit_that_napari_does_not_know_costs_no_image(bench):
    with pytest.warns(UserWarning, match="a.tif has the unit 'wobble'"):
        added = layers.add_image(
            bench.viewer, np.eye(5), "a.tif", pixel_size=2.0, unit="wobble"
        )
    assert layers.pixel_size_of(added) is None


def test_negative_labels_are_refused_in_one_sentence(bench):
    bench.compute()
    bench.scribbles.data = np.full((64, 80), -2, np.int16)
    bench.wait(lambda: "-2 is negative" in bench.widget.status.text())


def test_a_stack_whose_axis_has_no_name_asks_for_it(
    make_napari_viewer_proxy, make_bench
):
    viewer = make_napari_viewer_proxy()
    viewer.add_image(np.zeros((4, 60, 60)), name="stack")
    bench = make_bench(viewer)
    bench.qtbot.wait(20)
    assert bench.widget.status.text() == (
        "stack is a stack: choose under Images and stacks what axis 0 (4) is, Z, T or "
        "channel."
    )


def test_the_paint_button_keeps_the_brush(bench):
    bench.scribbles.brush_size = 17
    bench.widget.paint.paint.click()
    assert bench.scribbles.brush_size == 17


def test_the_status_knows_whether_there_is_a_layer_to_paint_on(bench):
    status = bench.widget.status
    bench.wait(lambda: status.text().endswith("you can paint meanwhile."))
    bench.viewer.layers.remove("Scribbles: Image")
    bench.wait(lambda: "Press Paint to make a scribble layer" in status.text())
    bench.widget.paint.paint.click()
    bench.wait(lambda: status.text().endswith("you can paint meanwhile."))


def test_layers_of_an_image_left_behind_do_not_move_with_it(two_images):
    two_images.viewer.layers["Image"].scale = (9, 9)
    assert two_images.controller.link.scribbles.scale[0] != 9


def test_a_scribble_just_before_another_image_is_chosen_counts(two_images):
    choose(two_images, 0)
    two_images.paint((30,), (30,), 3)
    two_images.widget.features.image.activated.emit(1)
    painted = [entry.class_ids for entry in two_images.session.images.painted()]
    assert painted == [(1, 2, 3)]


def test_coming_back_to_an_image_shows_what_later_scribbles_made_of_it(two_images):
    two_images.compute()
    two_images.controller.link.scribbles.data[30, 10:20] = 3
    two_images.controller.link.scribbles.refresh()
    two_images.settle()
    assert two_images.session.classifier.classes.tolist() == [1, 2, 3]
    choose(two_images, 0)
    result = two_images.session.current.result
    assert result.fingerprint == two_images.session.classifier_fingerprint


def test_layers_of_an_image_left_behind_move_with_their_own_image(two_images):
    two_images.viewer.layers["Image"].scale = (9, 9)
    np.testing.assert_allclose(two_images.scribbles.scale, (9, 9))


def test_planes_of_a_stack_train_together_in_the_window(
    make_napari_viewer_proxy, make_bench, image
):
    viewer = make_napari_viewer_proxy()
    viewer.add_image(
        np.stack([image, image + 1, image + 2]), axis_labels=("Z", "y", "x"), name="all"
    )
    bench = make_bench(viewer)
    bench.session.configure(backbone="filters")
    for plane, label, columns in ((0, 1, (10, 20)), (2, 2, (60, 70))):
        viewer.dims.set_current_step(0, plane)
        bench.settle()
        for column in columns:
            bench.scribbles.paint((plane, 10, column), label)
    bench.wait(lambda: "Segmentation: all" in bench.names)
    bench.settle()
    assert bench.session.classifier.classes.tolist() == [1, 2]
    assert np.mean(viewer.layers["Segmentation: all"].data[2][:, 60:] == 2) > 0.9
    painted = bench.session.images.painted()
    (key,) = (entry.key for entry in painted if entry.plane == {"Z": 0})
    bench.controller.link.show_image(key)
    bench.settle()
    assert viewer.dims.current_step[0] == 0
    viewer.layers.remove("all")
    bench.wait(lambda: len(bench.session.images) == 0)


def test_classes_keep_names_and_colours_when_the_dock_is_opened_again(
    bench, make_bench
):
    bench.session.classes.rename(1, "ferrite")
    bench.session.classes.recolor(1, "#112233")
    bench.session.classes.add("pore")
    bench.settle()
    bench.viewer.window.remove_dock_widget(bench.widget)
    again = make_bench(bench.viewer)
    again.settle()
    classes = again.session.classes
    assert classes[1] == ClassInfo("ferrite", "#112233")
    assert [info.name for info in classes.values()] == ["ferrite", "Class 2", "pore"]


def test_a_name_given_here_outlasts_the_layer_of_another_image(bench, image):
    link, former = bench.controller.link, bench.viewer.layers["Image"]
    other = bench.viewer.add_image(image[::-1].copy(), name="other")
    link.select_image(other)
    bench.settle()
    bench.session.classes.rename(1, "ferrite")
    link.select_image(former)
    bench.settle()
    assert bench.session.classes[1].name == "ferrite"
    assert "ferrite" in list(link.scribbles.features["class"])
