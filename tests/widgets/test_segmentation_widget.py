import numpy as np
import pytest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QProgressBar

pytestmark = pytest.mark.usefixtures("make_napari_viewer_proxy")  # real windows


def same_place(layer, image):
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    return layer.units == image.units and layer.axis_labels == image.axis_labels


def test_opening_makes_a_layer_to_paint_on(bench):
    layer = bench.scribbles
    assert same_place(layer, bench.viewer.layers[0])
    assert bench.viewer.layers.selection.active == layer
    assert layer.mode == "paint"
    assert layer.selected_label == 1
    assert layer.brush_size == 3


def test_opening_without_an_image_says_to_open_one(
    make_napari_viewer_proxy, make_bench
):
    bench = make_bench(make_napari_viewer_proxy())
    assert bench.widget.status.text() == "Open an image to begin."
    assert not bench.widget.features.compute.isEnabled()
    bench.viewer.add_image(np.eye(60))
    bench.wait(lambda: "Scribbles: Image" in bench.names)
    assert bench.widget.features.compute.isEnabled()


def test_painting_two_classes_makes_a_segmentation_layer(bench):
    bench.segment()
    result = bench.viewer.layers["Segmentation: Image"]
    assert bench.names == ["Image", "Segmentation: Image", "Scribbles: Image"]
    assert same_place(result, bench.viewer.layers["Image"])
    assert np.mean(result.data[:, :20] == 1) > 0.9
    assert np.mean(result.data[:, 60:] == 2) > 0.9
    np.testing.assert_array_equal(
        result.colormap.map(np.array([1, 2])),
        bench.scribbles.colormap.map(np.array([1, 2])),
    )


def test_the_segmentation_is_safe_from_the_brush(bench):
    bench.segment()
    assert not bench.viewer.layers["Segmentation: Image"].editable
    assert bench.viewer.layers.selection.active == bench.scribbles
    assert bench.scribbles.mode == "paint"
    bench.paint((50,), (10,), 2)
    bench.settle()
    assert not bench.viewer.layers["Segmentation: Image"].editable


def test_undo_brings_exactly_the_former_segmentation_back(bench):
    bench.segment()
    former = bench.viewer.layers["Segmentation: Image"].data.copy()
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.wait(
        lambda: (bench.viewer.layers["Segmentation: Image"].data != former).any()
    )
    bench.settle()
    bench.scribbles.undo()
    bench.wait(
        lambda: (bench.viewer.layers["Segmentation: Image"].data == former).all()
    )


def test_replaced_data_trains_too(bench):
    bench.compute()
    labels = np.zeros((64, 80), np.uint8)
    labels[10, 5:20], labels[10, 60:70] = 1, 2
    bench.scribbles.data = labels
    bench.wait(lambda: "Segmentation: Image" in bench.names)


def test_one_class_says_to_paint_another(bench):
    bench.compute()
    bench.paint((10,), (10,), 1)
    bench.wait(lambda: "Only Class 1" in bench.widget.status.text())
    assert "Segmentation: Image" not in bench.names


def test_erasing_a_class_clears_the_segmentation(bench):
    bench.segment()
    bench.scribbles.data[:, 40:] = 0
    bench.scribbles.refresh()
    bench.wait(lambda: not bench.viewer.layers["Segmentation: Image"].data.any())
    assert "Only Class 1" in bench.widget.status.text()


def test_scribbles_made_before_the_features_count(bench):
    bench.paint((10,), (10, 20), 1)
    bench.paint((40,), (55, 65), 2)
    bench.compute()
    bench.wait(lambda: "Segmentation: Image" in bench.names)


def test_an_unknown_label_becomes_a_class_when_painted(bench):
    bench.scribbles.selected_label = 5
    bench.paint((10,), (10,), 5)
    bench.wait(lambda: 5 in bench.session.classes)


def test_phase_fractions_are_shown_with_their_names(bench):
    bench.session.classes.ensure((), names={1: "a < b"})
    bench.segment()
    assert "a &lt; b" in bench.widget.result.fractions.text()
    assert "%" in bench.widget.result.fractions.text()


def test_a_misspelt_transform_set_is_noted_and_cannot_start(bench):
    bench.widget.features.transforms.setEditText("shift:1*blur")
    assert "'blur' in 'shift:1*blur'" in bench.widget.features.transforms_note.text()
    assert not bench.widget.features.compute.isEnabled()
    bench.widget.features.transforms.setEditText("lattice:2")
    assert bench.session.options.transforms == "lattice:2"
    assert bench.widget.features.compute.isEnabled()


def test_a_stack_asks_for_the_names_of_its_axes(bench):
    bench.viewer.add_image(np.zeros((4, 64, 80)), name="volume")
    bench.wait(lambda: bench.widget.features.image.count() == 2)
    bench.widget.features.image.activated.emit(1)
    assert bench.widget.status.text().startswith("volume is a stack: choose")
    assert bench.widget.sections["images"].isExpanded()


def test_an_image_with_nan_is_segmented_without_those_pixels(bench, image):
    broken = image / 255
    broken[:5] = np.nan
    bench.viewer.add_image(broken, name="broken", contrast_limits=(0, 1))
    bench.wait(lambda: bench.controller.link.image.name == "broken")
    bench.settle()
    bench.widget.features.compute.click()
    bench.wait(lambda: bench.session.features is not None)
    layer = bench.controller.link.scribbles
    for columns, label in (((10, 20), 1), ((60, 70), 2)):
        for column in columns:
            layer.paint((30, column), label)
    bench.settle()
    shown = bench.viewer.layers["Segmentation: broken"].data
    assert not shown[:5].any()
    assert shown[5:].all()


def test_a_weights_file_that_is_none_is_refused_in_one_sentence(bench, tmp_path):
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"junk")
    bench.session.configure(backbone="dinov2-small", weights=str(junk))
    assert "junk.safetensors" in bench.widget.features.backbone_note.text()
    bench.widget.features.compute.click()
    bench.wait(lambda: bench.widget.status.text().startswith("weights:"))
    assert bench.session.features is None
    assert bench.widget.features.compute.isEnabled()


def test_a_failed_save_is_one_sentence_in_the_status(bench, tmp_path):
    bench.segment()
    assert not bench.controller.attempt(
        bench.session.save_classifier, tmp_path / "missing" / "a.safetensors"
    )
    assert "could not be written" in bench.widget.status.text()
    assert bench.controller.attempt(
        bench.session.save_classifier, tmp_path / "a.safetensors"
    )
    assert bench.controller.load_classifier(tmp_path / "a.safetensors")
    bench.settle()
    assert "Segmented by the loaded classifier" in bench.widget.status.text()


def test_every_control_has_a_name_and_a_tooltip(bench):
    kinds = (QAbstractButton, QComboBox, QProgressBar)
    panels = (bench.widget.features, bench.widget.paint, bench.widget.result)
    controls = [c for p in panels for kind in kinds for c in p.findChildren(kind)]
    assert len(controls) >= 15
    assert [c for c in controls if not (c.objectName() and c.toolTip())] == []


@pytest.mark.parametrize("rgb", [False, True])
def test_a_new_image_is_taken_while_nothing_would_be_lost(bench, rgb):
    image = np.random.default_rng(0).integers(0, 255, (70, 70, 3), np.uint8)
    bench.viewer.add_image(image if rgb else image[..., 0], rgb=rgb, name="new")
    bench.wait(lambda: bench.controller.link.image.name == "new")
    assert bench.scribbles.data.shape == (64, 80)
    assert bench.viewer.layers["Scribbles: new"].data.shape == (70, 70)
    assert bench.widget.features.image.currentText() == "new"


def test_an_image_that_was_seen_whole_is_so_beside_the_dock(
    make_napari_viewer, make_bench, qtbot
):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(900, 700)
    wide = viewer.add_image(np.random.default_rng(0).random((40, 120)), name="wide")
    qtbot.wait(200)
    viewer.reset_view()
    bench = make_bench(viewer)
    bench.wait(lambda: not bench.widget._was_whole)
    _, width = viewer.canvas.size
    camera = getattr(viewer, "scene", viewer).camera
    assert wide.data.shape[1] * camera.zoom <= width
