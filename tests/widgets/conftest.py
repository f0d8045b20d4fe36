import gc
import threading
from functools import partial

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy

from napari_hrdv2.widgets import SegmentationWidget
from napari_hrdv2.widgets.preferences import Preferences

WAIT = 60_000  # milliseconds; a machine under load is slow


@pytest.fixture(scope="module", autouse=True)
def lasting():
    """Take what windows have loaded out of every later collection of garbage.

    napari collects whenever a layer goes. A window that was left alive is still found
    by the next one.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def image() -> np.ndarray:
    """Dark on the left, bright on the right, with a little texture."""
    rows, columns = np.mgrid[:64, :80]
    return (np.where(columns < 40, 60, 180) + rows * 7 % 5).astype(np.uint8)


@pytest.fixture(autouse=True)
def preferences(monkeypatch, tmp_path):
    """Nothing starts by itself, and nothing is kept beyond the test."""
    chosen = Preferences(start_features=False, autosave_folder=str(tmp_path / "kept"))
    monkeypatch.setattr(
        "napari_hrdv2.widgets.controller.read_preferences", lambda: chosen
    )
    return chosen


class Bench:
    """A viewer with the dock widget, and the hands to work with it."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.widget = SegmentationWidget(viewer)
        if hasattr(viewer, "window"):
            viewer.window.add_dock_widget(self.widget, name="segmentation")
        else:
            qtbot.addWidget(self.widget)
        self.session = self.widget.session
        self.controller = self.widget.controller

    @property
    def names(self):
        return [layer.name for layer in self.viewer.layers]

    @property
    def scribbles(self):
        """The scribbles of the image that was opened first."""
        layers = self.viewer.layers
        return next(one for one in layers if one.name.startswith("Scribbles: "))

    def wait(self, condition):
        self.qtbot.waitUntil(condition, timeout=WAIT)

    def compute(self):
        self.widget.features.compute.click()
        self.wait(lambda: self.session.features is not None)

    def paint(self, rows, columns, label):
        """Paint a block the way a mouse does: the array first, one event after."""
        with self.scribbles.block_history():
            for row in rows:
                for column in columns:
                    self.scribbles.paint((row, column), label)

    def segment(self):
        self.compute()
        self.paint((10, 50), (10, 20), 1)
        self.paint((10, 50), (60, 70), 2)
        self.wait(lambda: self.session.segmentation is not None)
        self.wait(lambda: any(name.startswith("Segmentation: ") for name in self.names))
        self.settle()

    def settle(self):
        """Wait until scribbles are read and nothing is being computed."""
        self.controller.link.flush()
        self.wait(lambda: not self.controller.is_busy)


@pytest.fixture
def make_bench(qtbot):
    """Return a function that docks the widget in a viewer."""
    return partial(Bench, qtbot=qtbot)


@pytest.fixture
def make_viewer(request):
    """Return what makes a viewer: with a window in tests that use napari's fixture.

    What layers, sliders and our own widgets do needs none, and windows cost most of the
    time. Plugins see both through the same proxy.
    """
    if "make_napari_viewer_proxy" in request.fixturenames:
        return request.getfixturevalue("make_napari_viewer_proxy")
    return lambda: PublicOnlyProxy(ViewerModel())


@pytest.fixture
def bench(make_viewer, make_bench, image):
    viewer = make_viewer()
    viewer.add_image(
        image, name="Image", scale=(0.5, 0.5), translate=(3, 4), units=("nm", "nm")
    )
    return make_bench(viewer)


class EndlessBackbone:
    """Ticks until the computation is cancelled."""

    name, channels, patch_size, equivariant = "endless", 1, 1, True
    default_transforms, absolute_levels, activations = "identity", True, 0
    weights_hash, steps = "", 1000
    context_cell = 0
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        self.began, self.ended = threading.Event(), threading.Event()

    def channels_for(self, image_channels):
        return 1

    def channel_weights_for(self, image_channels):
        return None

    def to(self, device):
        return self

    def tokens(self, images, *, stride, tick=None):
        self.began.set()
        try:
            while True:
                tick()
                self.ended.wait(0.001)
        finally:
            self.ended.set()


@pytest.fixture
def endless(monkeypatch):
    """Every backbone that is loaded is this one."""
    backbone = EndlessBackbone()
    monkeypatch.setattr(
        "napari_hrdv2.core.backbones.load_backbone", lambda *_, **__: backbone
    )
    return backbone
