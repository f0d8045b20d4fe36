import dask.array
import numpy as np
import pytest

from napari_hrdv2.widgets.viewer import planes
from small_networks import load_small

SQUARES = np.arange(64)[:, None] // 8 * 10 + np.arange(80) // 8


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Networks of the registry's names, with little in them."""
    monkeypatch.setattr("napari_hrdv2.core.backbones.load_backbone", load_small)


@pytest.fixture
def panel(bench):
    return bench.widget.insight


def choose(bench, backbone):
    bench.settle()  # planes begin by themselves
    bench.session.configure(backbone=backbone, transforms="identity")
    bench.compute()
    bench.settle()


def show(bench, button):
    button.click()
    bench.settle()


def use(bench, panel, name):
    panel.partition.setCurrentText(name)
    panel.use.click()
    bench.settle()


def test_what_a_backbone_does_not_have_is_not_offered(bench, panel):
    bench.session.configure(backbone="filters")
    for control in (panel.attention, panel.regions, panel.partition, panel.use):
        assert not control.isEnabled()
    assert "no class token" in panel.attention.toolTip()
    assert "square patches" in panel.use.toolTip()


def test_buttons_open_with_the_features(bench, panel):
    bench.session.configure(backbone="spit-small", transforms="identity")
    assert panel.use.isEnabled()
    assert not panel.attention.isEnabled()
    assert panel.regions.toolTip() == "Compute features first."
    bench.compute()
    bench.settle()
    assert panel.attention.isEnabled()
    assert panel.regions.isEnabled()
    assert "borders" in panel.regions.toolTip()


def test_attention_lies_on_the_image_and_is_not_taken_for_one(bench, panel):
    choose(bench, "dino-small-16")
    show(bench, panel.attention)
    layer, image = (
        bench.viewer.layers["Attention of dino-small-16: Image"],
        bench.controller.link.image,
    )
    assert layer.data.shape == (2, 64, 80)
    np.testing.assert_allclose(
        layer.data_to_world((0, 5, 7))[1:], image.data_to_world((5, 7))
    )
    assert layer.units[1:] == image.units
    assert bench.controller.link.layers.images() == [image]
    assert bench.names[-1] == "Scribbles: Image"
    assert bench.viewer.layers.selection.active == bench.scribbles


def test_scribbles_are_still_painted_and_answered_beside_the_attention(bench, panel):
    choose(bench, "dino-small-16")
    show(bench, panel.attention)
    bench.paint((10, 50), (10, 20), 1)
    bench.paint((10, 50), (60, 70), 2)
    bench.wait(lambda: bench.session.segmentation is not None)
    bench.settle()


def test_attention_shown_again_takes_the_place_of_the_former(bench, panel):
    choose(bench, "dino-small-16")
    show(bench, panel.attention)
    show(bench, panel.attention)
    assert bench.names.count("Attention of dino-small-16: Image") == 1


def test_regions_come_with_their_borders_and_their_number(bench, panel):
    choose(bench, "spit-small")
    told = bench.widget.features.cost.text()
    assert panel.count.text() in told  # before anybody asks for the layers
    show(bench, panel.regions)
    regions, borders = (
        bench.viewer.layers[name]
        for name in ("Regions: Image", "Region borders: Image")
    )
    count = len(np.unique(regions.data))
    assert f"{count} regions, {5120 / count:.0f} px" in told
    assert panel.count.text().startswith(f"{count} regions, {5120 / count:.0f} px")
    assert not regions.visible
    assert borders.visible
    assert np.unique(borders.data).tolist() == [0, 1]
    np.testing.assert_allclose(
        regions.data_to_world((5, 7)), bench.controller.link.image.data_to_world((5, 7))
    )


def test_attention_of_regions_is_one_map(bench, panel):
    choose(bench, "spit-small")
    show(bench, panel.attention)
    assert bench.viewer.layers["Attention of spit-small: Image"].data.shape == (64, 80)
    mask = bench.viewer.layers["Attention foreground: Image"]
    assert not mask.visible
    assert np.unique(mask.data).tolist() == [0, 1]


def test_a_labels_layer_becomes_the_regions(bench, panel):
    bench.viewer.add_labels(SQUARES, name="Squares")
    choose(bench, "spit-small")
    use(bench, panel, "Squares")
    text = "80 regions, 64 px each on average. Regions from Squares."
    assert panel.count.text() == text
    show(bench, panel.regions)
    layer = bench.viewer.layers["Regions: Image"]
    np.testing.assert_array_equal(layer.data - 1, SQUARES)
    assert panel.count.text() == text
    use(bench, panel, "the network's own")
    assert "Squares" not in panel.count.text()
    assert "regions" in panel.count.text()
    assert bench.session.current.partition is None
    assert bench.session.features is not None


def test_a_layer_that_was_edited_can_be_used_again(bench, panel):
    layer = bench.viewer.add_labels(SQUARES.copy(), name="Squares")
    choose(bench, "spit-small")
    use(bench, panel, "Squares")
    before = bench.session.features
    use(bench, panel, "Squares")
    assert bench.session.features is before
    layer.data[layer.data == 1] = 0
    use(bench, panel, "Squares")
    assert bench.session.features is not before


def test_only_layers_that_fit_the_image_are_listed(bench, panel):
    bench.viewer.add_labels(SQUARES[:-1], name="Cut")
    bench.viewer.add_labels(SQUARES, name="Squares")
    bench.wait(lambda: panel.partition.findText("Squares") >= 0)
    assert panel.partition.findText("Cut") < 0
    panel.partition.setCurrentText("Squares")
    bench.viewer.layers["Squares"].name = "Cells"
    bench.wait(lambda: panel.partition.findText("Cells") >= 0)
    bench.viewer.layers.remove("Cells")
    bench.wait(lambda: panel.partition.findText("Cells") < 0)
    assert panel.partition.currentText() == "the network's own"


def test_missing_weights_of_featup_are_told(bench, panel, monkeypatch, tmp_path):
    monkeypatch.delenv("NAPARI_HRDV2_FEATUP", raising=False)
    monkeypatch.setattr(
        "napari_hrdv2.core.features.upsampling.featup._folders", lambda: [tmp_path]
    )
    assert panel.upsampler.isHidden()
    bench.session.configure(backbone="dino-small-16", interpolation="jbu")
    assert not panel.upsampler.isHidden()
    assert str(tmp_path) in panel.upsampler.text()


def test_attention_of_a_plane_lies_on_that_plane(make_viewer, make_bench, image):
    viewer = make_viewer()
    viewer.add_image(
        np.stack([image, image // 2, image // 3]),
        name="Image",
        scale=(2, 0.5, 0.5),
        axis_labels=("Z", "Y", "X"),
    )
    bench = make_bench(viewer)
    panel = bench.widget.insight
    bench.controller.link.flush()
    choose(bench, "dino-small-16")
    show(bench, panel.attention)
    layer = viewer.layers["Attention of dino-small-16: Image"]
    assert layer.data.shape == (2, 1, 64, 80)
    place = bench.controller.link.image.data_to_world(
        (*bench.controller.link.index, 5, 7)
    )
    np.testing.assert_allclose(layer.data_to_world((0, 0, 5, 7))[1:], place)


def test_a_plane_of_a_labels_stack_becomes_its_regions(make_viewer, make_bench, image):
    viewer = make_viewer()
    viewer.add_image(np.stack([image, image]), axis_labels=("Z", "Y", "X"))
    viewer.add_labels(np.stack([SQUARES, SQUARES // 2]), name="Cells")
    bench = make_bench(viewer)
    panel = bench.widget.insight
    bench.controller.link.flush()
    (index,) = bench.controller.link.index
    choose(bench, "spit-small")
    use(bench, panel, "Cells")
    np.testing.assert_array_equal(
        bench.session.current.partition.labels, (SQUARES, SQUARES // 2)[index]
    )


def test_closing_lets_go_of_the_viewer(bench, panel):
    bench.controller.close()
    bench.viewer.add_labels(SQUARES, name="Late")
    assert panel.partition.findText("Late") < 0


def test_of_a_labels_stack_only_the_plane_that_is_wanted_is_read(
    make_viewer,
):
    read = []

    def plane(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return SQUARES[np.newaxis].astype(np.uint8)

    chunks = ((1,) * 9, *((n,) for n in SQUARES.shape))
    lazy = dask.array.map_blocks(
        plane, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), "u1")
    )
    viewer = make_viewer()
    layer = viewer.add_labels(lazy, name="Cells", cache=False)
    read.clear()
    found = planes.labels_on_plane(layer, (7,), SQUARES.shape)
    np.testing.assert_array_equal(found, SQUARES)
    assert read == [7]
