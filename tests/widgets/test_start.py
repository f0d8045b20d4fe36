"""What happens by itself, from the preferences to the first picture."""

from dataclasses import replace

import numpy as np
import pytest
from napari.settings import get_plugin_settings
from qtpy.QtWidgets import QCheckBox

from napari_hrdv2.core.features.resampled import ResampledFeatures
from napari_hrdv2.session import Session
from napari_hrdv2.widgets import preferences as home
from napari_hrdv2.widgets.preferences import Preferences


@pytest.fixture
def started(preferences, monkeypatch, make_viewer, make_bench, image):
    """A bench whose features start by themselves."""
    chosen = replace(preferences, start_features=True)
    monkeypatch.setattr(
        "napari_hrdv2.widgets.controller.read_preferences", lambda: chosen
    )
    viewer = make_viewer()
    viewer.add_image(image, name="Image", scale=(0.5, 0.5), units=("nm", "nm"))
    return make_bench(viewer)


def test_painting_two_classes_is_all(started):
    assert started.viewer.layers.selection.active == started.scribbles
    assert started.scribbles.mode == "paint"
    assert started.scribbles.selected_label == 1
    np.testing.assert_array_equal(started.scribbles.scale, (0.5, 0.5))
    started.wait(lambda: started.session.features is not None)
    started.paint((10, 50), (10, 20), 1)
    started.paint((10, 50), (60, 70), 2)
    started.wait(lambda: "Segmentation: Image" in started.names)


def test_choosing_another_backbone_of_the_package_starts_it(started):
    started.wait(lambda: started.session.features is not None)
    started.session.configure(backbone="filters")
    started.wait(lambda: started.session.options_in_use.backbone == "filters")


def test_a_backbone_to_download_waits_for_a_click(started):
    started.wait(lambda: started.session.features is not None)
    started.session.configure(backbone="dinov2-small")
    started.settle()
    assert started.session.options_in_use.backbone == "embedded"
    button = started.widget.features.compute
    assert button.text() == "Download 88 MB and compute"
    assert "facebook/dinov2-small" in button.toolTip()
    assert "Apache-2.0" in button.toolTip()


def test_what_was_cancelled_does_not_start_again(started):
    started.wait(lambda: started.session.features is not None)
    started.session.configure(backbone="filters")
    started.controller.cancel()
    started.settle()
    assert started.session.options_in_use.backbone == "embedded"
    assert not started.controller.is_busy


def test_without_live_nothing_is_answered_until_asked(bench):
    bench.controller.set_live(False)
    bench.compute()
    bench.paint((10, 50), (10, 20), 1)
    bench.paint((10, 50), (60, 70), 2)
    bench.settle()
    assert bench.session.segmentation is None
    assert "Live is off" in bench.widget.status.text()
    bench.controller.train_anew()
    bench.wait(lambda: bench.session.segmentation is not None)


def test_the_preferences_are_those_of_the_manifest(plugin_settings, npe2pm):
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_distribution("napari-hrdv2"))
    assert home.read_preferences() == Preferences()
    get_plugin_settings(home.PLUGIN).segmentation.live = False
    assert home.read_preferences() == Preferences(live=False)


def test_an_unknown_backbone_in_the_preferences_is_passed_over(
    preferences, monkeypatch, make_viewer, make_bench
):
    chosen = replace(preferences, backbone="dinov9")
    monkeypatch.setattr(
        "napari_hrdv2.widgets.controller.read_preferences", lambda: chosen
    )
    bench = make_bench(make_viewer())
    assert bench.session.options.backbone == "embedded"


def test_the_pixel_size_of_a_loaded_classifier_counts_until_it_is_switched_off(
    started, image, tmp_path
):
    other, labels = Session(), np.zeros((128, 160), np.uint8)
    labels[20:100, 20:40], labels[20:100, 120:140] = 1, 2
    other.configure(backbone="filters")
    finer = np.kron(image, np.ones((2, 2), np.uint8))
    other.set_image(finer, pixel_size=(0.25, "nm"))
    other.set_scribbles(labels)
    other.compute_features()
    other.train()
    other.save_classifier(tmp_path / "finer.safetensors")
    started.wait(lambda: started.session.features is not None)
    started.controller.load_classifier(tmp_path / "finer.safetensors")
    started.wait(lambda: "was resampled to them" in started.session.status)
    started.settle()
    assert isinstance(started.session.features, ResampledFeatures)
    shown = started.controller.link.segmentation.data
    assert shown.shape == image.shape
    assert np.mean(shown == np.where(image < 120, 1, 2)) > 0.95
    started.widget.findChild(QCheckBox, "apply_resample").setChecked(False)
    started.wait(lambda: not isinstance(started.session.features, ResampledFeatures))
    started.settle()
    assert "2 times as large as those of the training" in started.session.status
    assert "resampled" not in started.session.status
    assert started.session.current.is_segmented
