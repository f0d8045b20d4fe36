"""The whole story in a real window, with a real mouse."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QApplication, QScrollArea

pytestmark = pytest.mark.skipif(
    shutil.which("xdotool") is None, reason="needs xdotool for real mouse strokes"
)


class Hand:
    """A hand on mouse and keyboard, through the X server."""

    def __init__(self, bench):
        self.bench = bench
        (self.canvas,) = (
            widget
            for widget in QApplication.allWidgets()
            if type(widget).__name__ == "CanvasBackendDesktop" and widget.isVisible()
        )
        # The layout has come to rest once the dock is as wide as what is in it.
        area = bench.widget.findChild(QScrollArea, "panels")
        column = area.widget()
        bench.wait(
            lambda: column.minimumSizeHint().width() <= area.viewport().width() < 400
        )

    def do(self, *words):
        process = subprocess.Popen(["xdotool", *map(str, words)])
        self.bench.wait(lambda: process.poll() is not None)
        assert process.returncode == 0

    def place(self, row, column):
        """Return where a pixel of the image is on the screen."""
        viewer = self.bench.viewer
        camera = getattr(viewer, "scene", viewer).camera  # moved in napari 0.9
        offset = (np.array([column, row]) - camera.center[:0:-1]) * camera.zoom
        x, y = np.round(offset).astype(int)
        point = self.canvas.mapToGlobal(self.canvas.rect().center() + QPoint(x, y))
        return point.x(), point.y()

    def stroke(self, *pixels):
        self.do("mousemove", *self.place(*pixels[0]))
        self.do("mousedown", 1)
        for pixel in pixels:
            self.do("mousemove", *self.place(*pixel))
        self.do("mouseup", 1)

    def click(self, widget):
        def middle():
            return widget.mapToGlobal(widget.rect().center())

        seen = []

        def rests():  # on a slow machine the layout changes under the mouse
            seen.append(middle())
            last = seen[-20:]
            return len(last) == 20 and all(point == last[0] for point in last)

        self.bench.wait(lambda: QApplication.widgetAt(middle()) is widget)
        self.bench.wait(rests)
        point = middle()
        self.do("mousemove", point.x(), point.y(), "click", 1)


def test_the_story_of_a_segmentation(make_napari_viewer, make_bench):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    bench = make_bench(viewer)
    viewer.open_sample("napari-hrdv2", "grains")
    bench.wait(lambda: "Scribbles: grains" in bench.names)
    bench.scribbles.data = np.zeros_like(bench.scribbles.data)
    hand, panel = Hand(bench), bench.widget
    viewer.reset_view()

    # Two classes painted make a segmentation layer.
    hand.click(panel.features.compute)
    bench.wait(lambda: bench.session.features is not None)
    truth = viewer.layers["Ground truth"].data
    hand.stroke(*within(truth, 1))
    bench.wait(lambda: bench.session.scribbles.class_ids == (1,))
    hand.do("key", "2")
    bench.wait(lambda: bench.scribbles.selected_label == 2)
    hand.stroke(*within(truth, 2))
    bench.wait(lambda: "Segmentation: grains" in bench.names)
    bench.settle()
    result = viewer.layers["Segmentation: grains"]
    former = result.data.copy()
    assert set(np.unique(former)) == {1, 2}

    # A stroke changes it, ctrl+z brings it back exactly.
    hand.stroke(*within(truth, 1, largest=False))
    bench.wait(lambda: (result.data != former).any())
    bench.settle()
    hand.do("key", "ctrl+z")
    bench.wait(lambda: (result.data == former).all())
    assert viewer.layers.selection.active == bench.scribbles


def test_cancel_with_the_mouse_and_close_the_window(
    make_napari_viewer, make_bench, image, endless
):
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image, name="Image")
    bench = make_bench(viewer)
    hand, button = Hand(bench), bench.widget.features.compute
    hand.click(button)
    bench.wait(endless.began.is_set)
    hand.click(button)
    bench.wait(endless.ended.is_set)
    bench.wait(lambda: button.text() == "Compute features")
    endless.began.clear()
    endless.ended.clear()
    hand.click(button)
    bench.wait(endless.began.is_set)
    viewer.close()
    assert endless.ended.is_set()


def within(truth, label, *, largest=True):
    """Return the ends of a level stroke inside one class, away from its borders."""
    inside = np.lib.stride_tricks.sliding_window_view(truth == label, (9, 31))
    rows, columns = np.nonzero(inside.all(axis=(2, 3)))
    first = 0 if largest else len(rows) // 2
    row, column = rows[first] + 4, columns[first]
    return [(row, column + step) for step in (5, 12, 19, 25)]


CLOSED_IN_THE_MIDDLE = """
import threading
from qtpy.QtCore import QTimer
import napari
from napari_hrdv2.core import backbones
from napari_hrdv2.core.backbones.embedded.backbone import EmbeddedBackbone
from napari_hrdv2.widgets import sample_data as demo

pause = threading.Event()

class Endless(EmbeddedBackbone):
    def tokens(self, images, *, stride, tick=None):
        print("began", flush=True)
        try:
            while True:
                tick()
                pause.wait(0.001)
        finally:
            print("ended", flush=True)

backbones.load_backbone = lambda *_, **__: Endless()
viewer, widget = demo.open_demo()
timer = QTimer()
timer.timeout.connect(widget.window().close)
timer.start(1500)
napari.run()
print("closed", flush=True)
"""


CLOSED_WHILE_LOADING = """
import threading, time
from qtpy.QtCore import QTimer
import napari
from napari_hrdv2.core import backbones
from napari_hrdv2.widgets import sample_data as demo

began = threading.Event()

def load_backbone(*_, progress, **__):
    began.set()
    threading.Event().wait(4)  # as a server may that does not answer
    progress(1, 1)

backbones.load_backbone = load_backbone
viewer, widget = demo.open_demo()
clock = []

def close():
    began.wait()
    clock.append(time.monotonic())
    widget.window().close()

QTimer.singleShot(1000, close)
napari.run()
print("closed" if time.monotonic() - clock[0] < 3 else "late", flush=True)
"""


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (CLOSED_IN_THE_MIDDLE, ["began", "ended", "closed"]),
        (CLOSED_WHILE_LOADING, ["closed"]),
    ],
)
def test_a_window_closed_in_the_middle_of_a_computation_ends_quietly(
    qapp, script, words
):
    finished = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in finished.stderr
    assert "QThread" not in finished.stderr
    assert finished.stdout.split() == words
    assert finished.returncode == 0
