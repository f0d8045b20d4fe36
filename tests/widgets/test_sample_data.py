import numpy as np
import pytest

MADE = ("grains",)
BUNDLED = ("immunohistochemistry", "cell", "retina")
PLUGIN = "napari-hrdv2"


def test_the_widget_opens_from_the_manifest(make_napari_viewer):
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN)
    assert widget.objectName() == "high_resolution_segmentation"


def test_the_manifest_lists_every_sample():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution(PLUGIN)
    manifest.validate_imports()
    keys = [sample.key for sample in manifest.contributions.sample_data]
    assert keys == [*MADE, *BUNDLED]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_images_need_no_download(name):
    from napari_hrdv2.widgets import sample_data

    ((data, options, kind),) = getattr(sample_data, name)()
    assert kind == "image"
    assert data.shape[0] > 400
    assert options["name"] == name


def test_scribbles_of_a_sample_are_painted_on(make_napari_viewer, make_bench):
    viewer = make_napari_viewer()
    bench = make_bench(viewer)
    viewer.open_sample(PLUGIN, "grains")
    bench.wait(lambda: bench.controller.link.scribbles is not None)
    assert bench.names == ["grains", "Ground truth", "Scribbles: grains"]
    assert not viewer.layers["Ground truth"].visible
    assert bench.session.classes[3].name == "bainite"


def test_a_sample_is_segmented_once_its_features_are_there(
    make_napari_viewer, make_bench
):
    viewer = make_napari_viewer()
    viewer.open_sample(PLUGIN, "grains")
    bench = make_bench(viewer)
    bench.compute()
    bench.wait(lambda: "Segmentation: grains" in bench.names)
    truth = viewer.layers["Ground truth"].data
    assert np.mean(viewer.layers["Segmentation: grains"].data == truth) > 0.9
