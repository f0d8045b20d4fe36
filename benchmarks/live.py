"""The window under a hand: strokes, features beside them, and a long session.

Run with a display (or ``xvfb-run -a -s "-screen 0 1400x900x24"``)::

    python benchmarks/live.py strokes     # mouse released -> new pixels on the screen
    python benchmarks/live.py heartbeat   # longest pause of the window meanwhile
    python benchmarks/live.py long        # 200 strokes on 4096 × 4096 pixels

Mouse events are sent to the canvas as Qt gets them from a real mouse.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import napari
import numpy as np
import psutil
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

import measure
from napari_hrdv2.cli.bench import machine, matmul_rates
from napari_hrdv2.session import FeatureOptions
from napari_hrdv2.widgets import SegmentationWidget
from samples import make_sample

STROKES, LONG_STROKES, LONG_SIZE = 30, 200, 4096
PAINTED = 5000  # px before the first stroke that counts
BRUSH = 5  # px
TICK = 2  # ms after which the hand looks again
PATIENCE = 600.0  # s


class Hand:
    """A viewer with the plugin, and a mouse on its canvas."""

    def __init__(self, image: np.ndarray) -> None:
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        self.viewer.add_image(image, name="image")
        self.widget = SegmentationWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="segmentation")
        self.controller, self.session = self.widget.controller, self.widget.session
        canvas = self.viewer.window._qt_viewer.canvas  # the only way to its pixels
        self.native, self.drawn = canvas.native, canvas._scene_canvas.events.draw
        self._tick = QTimer()
        self._tick.start(TICK)
        self.pause(1.0)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let the window live until something is so."""
        end = time.perf_counter() + PATIENCE
        while not condition():
            # Sleeps until something happens, as the window does: spinning would take
            # the processor from what is measured.
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
            if time.perf_counter() > end:
                raise TimeoutError("the window did not come to it")

    def pause(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.perf_counter() + seconds
        self.wait(lambda: time.perf_counter() > end)

    def settle(self) -> None:
        """Wait until nothing is computed, and all is drawn."""
        self.pause(0.1)
        self.wait(lambda: not self.controller.is_busy)
        self.pause(0.1)

    def place(self, row: int, column: int) -> QPoint:
        """Return where a pixel of the image is on the canvas."""
        camera = getattr(self.viewer, "scene", self.viewer).camera
        offset = (np.array([column, row]) - camera.center[:0:-1]) * camera.zoom
        x, y = np.round(offset).astype(int)
        return self.native.rect().center() + QPoint(int(x), int(y))

    def stroke(self, class_id: int, pixels: list[tuple[int, int]]) -> None:
        """Press, move and release; returns before anything is answered."""
        self.controller.link.select_label(class_id)
        button = Qt.MouseButton.LeftButton
        QTest.mousePress(self.native, button, pos=self.place(*pixels[0]))
        for pixel in pixels:
            QTest.mouseMove(self.native, self.place(*pixel))
            QApplication.processEvents()
        QTest.mouseRelease(self.native, button, pos=self.place(*pixels[-1]))

    def close(self) -> None:
        """Close the window."""
        self.controller.close()
        self.viewer.close()
        self.pause(0.2)


class Watch:
    """Times when a new segmentation reached its layer, and the screen."""

    def __init__(self, hand: Hand) -> None:
        self.answered = self.shown = 0.0
        self._waits = False
        hand.session.segmentation_changed.connect(self._on_answer)
        hand.drawn.connect(self._on_draw, position="last")

    def begin(self) -> float:
        """Forget the last stroke; return the time."""
        self.answered = self.shown = 0.0
        self._waits = False
        return time.perf_counter()

    def _on_answer(self) -> None:
        if not self.answered:
            self.answered, self._waits = time.perf_counter(), True

    def _on_draw(self, event: object = None) -> None:
        if self._waits:
            self.shown, self._waits = time.perf_counter(), False


class Truth:
    """Where to paint which class, so that strokes lie inside of one."""

    def __init__(self, truth: np.ndarray, rng: np.random.Generator) -> None:
        self.truth, self.rng = truth, rng
        self.classes = [int(i) for i in np.unique(truth) if i]

    def stroke(self, length: int = 25) -> tuple[int, list[tuple[int, int]]]:
        """Return a class and the pixels of a level stroke in it."""
        class_id = int(self.rng.choice(self.classes))
        while True:
            row = int(self.rng.integers(10, self.truth.shape[0] - 10))
            column = int(self.rng.integers(10, self.truth.shape[1] - length - 10))
            along = self.truth[row, column : column + length]
            if (along == class_id).mean() > 0.8:
                return class_id, [(row, column + step) for step in range(0, length, 4)]

    def paint(self, labels: np.ndarray, count: int) -> None:
        """Paint until so many pixels are labelled."""
        while np.count_nonzero(labels) < count:
            class_id, pixels = self.stroke()
            (row, first), (_, last) = pixels[0], pixels[-1]
            labels[row - 2 : row + 3, first:last] = class_id


def strokes() -> None:
    """Time strokes on 1 megapixel with tokens of ViT-S/14."""
    sample = make_sample("grains", (measure.SIZE, measure.SIZE))
    features, _ = measure.measure_features(matmul_rates())
    hand = Hand(sample.image)
    use_features(hand, features)
    time_strokes(hand, Truth(sample.labels, np.random.default_rng(0)), "ViT-S/14")
    hand.close()
    hand = Hand(sample.image)
    hand.wait(lambda: hand.session.features is not None)
    time_strokes(hand, Truth(sample.labels, np.random.default_rng(0)), "embedded")
    hand.close()


def use_features(hand: Hand, features: Any) -> None:
    """Have the session work on features that were made elsewhere."""
    hand.controller.cancel()
    hand.settle()
    settings = FeatureOptions("dinov2-small", transforms=measure.TRANSFORMS)
    hand.session.configure(backbone="dinov2-small", transforms=measure.TRANSFORMS)
    hand.session.current.set_features(features, settings)
    hand.session.features_changed.emit()


def time_strokes(hand: Hand, truth: Truth, name: str) -> None:
    """Print the median of strokes, and what of it is napari's redraw."""
    layer = hand.widget.controller.link.scribbles
    layer.brush_size = BRUSH
    truth.paint(layer.data, PAINTED)
    layer.refresh()
    hand.wait(lambda: hand.session.segmentation is not None)
    hand.settle()
    watch, totals, redraws = Watch(hand), [], []
    for _ in range(STROKES):
        class_id, pixels = truth.stroke()
        hand.stroke(class_id, pixels)
        begin = watch.begin()
        hand.wait(lambda: watch.shown > 0)
        totals.append(1000 * (watch.shown - begin))
        redraws.append(1000 * (watch.shown - watch.answered))
        hand.settle()
    print(
        f"{name}, {measure.SIZE}², {np.count_nonzero(layer.data)} labelled pixels: "
        f"released to on the screen {statistics.median(totals):.0f} ms median of "
        f"{STROKES} (90 %: {np.quantile(totals, 0.9):.0f}), of it napari's redraw "
        f"{statistics.median(redraws):.0f} ms"
    )


@contextmanager
def heartbeats() -> Iterator[list[float]]:
    """Collect the pauses between beats of a timer of the window, in milliseconds."""
    pauses: list[float] = []
    last = time.perf_counter()

    def beat() -> None:
        nonlocal last
        now = time.perf_counter()
        pauses.append(max(1000 * (now - last) - TICK, 0.0))
        last = now

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setInterval(TICK)
    timer.timeout.connect(beat)
    timer.start()
    yield pauses
    timer.stop()


def heartbeat() -> None:
    """Print how long the window stood still while features were computed."""
    image = make_sample("grains", (measure.SIZE, measure.SIZE)).image
    for backbone in ("embedded", "filters", "dinov2-small"):
        hand = Hand(image)
        hand.settle()
        if backbone == "dinov2-small":
            hand.session.configure(backbone=backbone, weights="random")
            hand.session.configure(transforms="identity")
        else:
            hand.session.configure(backbone=backbone)
        hand.settle()
        with heartbeats() as pauses:
            before = hand.session.features
            hand.controller.compute_features()
            hand.wait(lambda: hand.session.features is not before)  # noqa: B023
        print(
            f"{backbone}: longest piece {max(pauses):.0f} ms, 99 % of "
            f"{len(pauses)} below {np.quantile(pauses, 0.99):.1f} ms"
        )
        hand.close()


def long() -> None:
    """Print latency, memory and threads after 20 and after 200 strokes."""
    sample = make_sample("grains", (1024, 1024))
    tiles = LONG_SIZE // 1024
    hand = Hand(np.tile(sample.image, (tiles, tiles)))
    hand.session.configure(backbone="filters")
    hand.wait(lambda: hand.session.options_in_use.backbone == "filters")
    hand.wait(lambda: hand.session.features is not None)
    hand.settle()
    truth = Truth(np.tile(sample.labels, (tiles, tiles)), np.random.default_rng(0))
    truth.paint(hand.widget.controller.link.scribbles.data, 200)
    hand.controller.link.flush()
    hand.settle()
    watch, totals, threads = Watch(hand), [], threading.active_count()
    for number in range(1, LONG_STROKES + 1):
        class_id, pixels = truth.stroke(60)
        hand.stroke(class_id, pixels)
        begin = watch.begin()
        hand.wait(lambda: watch.shown > 0)
        totals.append(1000 * (watch.shown - begin))
        hand.settle()
        if number in (20, 100, LONG_STROKES):
            gc.collect()
            memory = psutil.Process().memory_info().rss / 1e6
            painted = np.count_nonzero(hand.widget.controller.link.scribbles.data)
            print(
                f"{number} strokes, {painted} labelled pixels: median of the last 20 "
                f"{statistics.median(totals[-20:]):.0f} ms, memory {memory:.0f} MB, "
                f"threads {threading.active_count() - threads:+d}"
            )
    hand.close()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("strokes", "heartbeat", "long"), nargs="+")
    application = QApplication.instance() or QApplication([])
    print(machine())
    for what in parser.parse_args().what:
        {"strokes": strokes, "heartbeat": heartbeat, "long": long}[what]()
    application.quit()


if __name__ == "__main__":
    main()
