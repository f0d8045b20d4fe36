"""The whole story in a real window with a real mouse and real keys, in pictures.

Run with an X server that has nothing else on it::

    export PYTHONPATH=training  # for the made micrographs
    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_story.py OUT
    … make_story.py OUT --case ID --cases DIR  # on a micrograph of an evaluation set

It needs xdotool. The window is killed after the project was saved and more was painted;
a second one recovers the work and goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
import tifffile
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

from micrographs import make_sample
from napari_hrdv2.files import read_image, read_labels, write_labels
from napari_hrdv2.widgets import SegmentationWidget
from napari_hrdv2.widgets.sample_data import DOCK_NAME

PATIENCE = 120.0  # s
MORE = 3  # micrographs that the classifier is applied to


class Stage:
    """A viewer with the plugin, a hand on mouse and keyboard, and a camera."""

    def __init__(self, out: Path, image: Path, truth: Path) -> None:
        self.out, self.path = out, image
        self.truth = read_labels(truth)
        self.classes = [int(i) for i in np.unique(self.truth) if i]
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        self.viewer.add_image(read_image(image).data, name=image.stem)
        self.clicks = 0

    def open_plugin(self) -> None:
        """Dock the plugin, as its menu entry does."""
        self.widget = SegmentationWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name=DOCK_NAME, area="right")
        self.session, self.controller = self.widget.session, self.widget.controller
        (self.canvas,) = (
            widget
            for widget in QApplication.allWidgets()
            if type(widget).__name__ == "CanvasBackendDesktop" and widget.isVisible()
        )
        self.pause(1.0)

    def wait(self, condition: Callable[[], object], what: str = "") -> None:
        """Let the window live until something is so."""
        end = time.monotonic() + PATIENCE
        while not condition():
            QApplication.processEvents()
            time.sleep(0.005)
            if time.monotonic() > end:
                self.screenshot("stuck")
                raise TimeoutError(f"{what or condition}: {self.session.status}")

    def pause(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)

    def settle(self) -> None:
        """Wait until strokes are read and nothing is computed."""
        self.pause(0.2)
        self.wait(lambda: not self.controller.is_busy, "to settle")
        self.pause(0.3)

    def screenshot(self, name: str) -> None:
        """Save what is on the screen."""
        self.pause(0.3)
        screen = QApplication.primaryScreen().grabWindow(0)
        screen.save(str(self.out / f"{name}.png"))
        print(f"{name}: {self.widget.status.text()}", flush=True)

    def do(self, *words: object) -> None:
        """Have xdotool do something."""
        process = subprocess.Popen(["xdotool", *map(str, words)])
        self.wait(lambda: process.poll() is not None, "xdotool")

    def place(self, row: int, column: int) -> tuple[int, int]:
        """Return where a pixel of the image is on the screen."""
        camera = getattr(self.viewer, "scene", self.viewer).camera
        offset = (np.array([column, row]) - camera.center[:0:-1]) * camera.zoom
        x, y = np.round(offset).astype(int)
        point = self.canvas.mapToGlobal(
            self.canvas.rect().center() + QPoint(int(x), int(y))
        )
        return point.x(), point.y()

    def stroke(self, *pixels: tuple[int, int]) -> None:
        """Paint along pixels with the left button down."""
        self.do("mousemove", *self.place(*pixels[0]))
        self.do("mousedown", 1)
        for pixel in pixels:
            self.do("mousemove", *self.place(*pixel))
        self.do("mouseup", 1)
        self.settle()

    def find(self, name: str) -> QWidget:
        """Return the control with this name."""
        found = self.widget.findChild(QWidget, name)
        assert found is not None, name
        return found

    def click(self, control: QWidget | str, *, counts: bool = True) -> None:
        """Click on a control with the mouse, after scrolling to it."""
        control = self.find(control) if isinstance(control, str) else control
        self.widget.findChild(QScrollArea, "panels").ensureWidgetVisible(control)
        self.pause(0.2)
        point = control.mapToGlobal(control.rect().center())
        self.do("mousemove", point.x(), point.y(), "click", 1)
        self.clicks += counts
        self.pause(0.3)

    def key(self, *keys: str) -> None:
        """Press keys while the mouse is over the canvas."""
        point = self.canvas.mapToGlobal(self.canvas.rect().center())
        self.do("mousemove", point.x(), point.y(), "key", *keys)
        self.pause(0.3)

    def inside(self, class_id: int, number: int = 0) -> list[tuple[int, int]]:
        """Return the ends of a level stroke in the truth of one class."""
        for rows, columns in ((9, 41), (5, 21), (3, 9)):
            window = np.lib.stride_tricks.sliding_window_view(
                self.truth == class_id, (rows, columns)
            )
            places = np.argwhere(window.all(axis=(2, 3)))
            if len(places):
                break
        row, column = places[(number * 7919) % len(places)]
        return [
            (int(row) + rows // 2, int(column) + step)
            for step in range(2, columns - 2, max(columns // 6, 1))
        ]


def paint_and_save(stage: Stage, project: Path) -> None:
    """Go from an open image to a saved project, and on until the power fails."""
    stage.open_plugin()
    stage.screenshot("01-open")
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.screenshot("02-features")

    first, second = stage.classes[:2]
    stage.stroke(*stage.inside(first))
    stage.key("2")
    stage.stroke(*stage.inside(second))
    stage.wait(lambda: stage.session.segmentation is not None, "a segmentation")
    print(f"clicks before the first segmentation, beside painting: {stage.clicks}")
    stage.screenshot("03-two-strokes")

    stage.key("1")
    stage.stroke(*stage.inside(first, 1))
    stage.key("2")
    stage.stroke(*stage.inside(second, 1))
    stage.screenshot("04-live")

    stage.click("add_class")
    if len(stage.classes) > 2:
        stage.stroke(*stage.inside(stage.classes[2]))
        stage.stroke(*stage.inside(stage.classes[2], 1))
    rename(stage, 3, "third phase")
    stage.screenshot("05-third-class")

    before = stage.session.segmentation.copy()
    stage.key("1")
    stage.stroke(*stage.inside(second, 2))  # wrong on purpose
    assert (stage.session.segmentation != before).any()
    stage.key("ctrl+z")
    stage.settle()
    assert np.array_equal(stage.session.segmentation, before), "undo"
    stage.screenshot("06-undo")

    stage.key("c", "c")
    stage.settle()
    stage.screenshot("07-uncertainty")
    stage.key("n")
    stage.settle()
    stage.screenshot("08-next-region")
    stage.key("c", "c")
    stage.viewer.reset_view()
    stage.settle()

    find_mislabel(stage, first, second)
    smooth(stage)
    measure(stage)

    stage.widget.files.save_project(project)
    stage.settle()
    stage.screenshot("12-project")
    stage.key("2")
    stage.stroke(*stage.inside(second, 5))
    stage.settle()
    wait_for_autosave(stage)
    print("painted pixels:", int(np.count_nonzero(stage.session.scribbles.labels)))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def rename(stage: Stage, class_id: int, name: str) -> None:
    """Double-click on the name of a class, and type another."""
    rows = stage.widget.paint.classes.rows
    corner = rows.visualItemRect(rows.items()[class_id]).topLeft()
    cell = rows.viewport().mapToGlobal(corner + QPoint(70, 6))
    stage.do("mousemove", cell.x(), cell.y())
    stage.do("click", "--repeat", 2, "--delay", 60, 1)
    stage.pause(0.4)
    stage.do("key", "ctrl+a")
    stage.do("type", name)
    stage.do("key", "Return")
    stage.pause(0.4)
    assert stage.session.classes[class_id].name == name, stage.session.classes[class_id]


def find_mislabel(stage: Stage, first: int, second: int) -> None:
    """Paint a wrong stroke, have it found, and erase it."""
    for number in range(3, 6):
        stage.key("1")
        stage.stroke(*stage.inside(first, number))
        stage.key("2")
        stage.stroke(*stage.inside(second, number))
    stage.key("1")
    stage.stroke(*stage.inside(second, 11))
    stage.click("check_scribbles_fold")
    stage.click("check_scribbles")
    stage.wait(lambda: stage.session.guidance.has_checked, "strokes checked")
    stage.settle()
    stage.screenshot("09-mislabel")
    print("label issues:", [s.reason for s in stage.session.guidance.label_issues])
    stage.key("ctrl+z")
    stage.settle()
    stage.click("check_scribbles_fold")


def smooth(stage: Stage) -> None:
    """Preview a smoothing."""
    stage.click("paint_fold")
    stage.click("refine_fold")
    stage.click("smoothing")
    stage.do("key", "Down", "Return")
    stage.settle()
    assert not stage.session.refinement.settings.is_off
    stage.screenshot("10-smoothing")
    stage.click("refine_fold")


def measure(stage: Stage) -> None:
    """Measure the phase fractions."""
    stage.click("measure_fold")
    stage.settle()
    stage.screenshot("11-fractions")
    stage.click("measure_fold")
    stage.click("paint_fold")


def wait_for_autosave(stage: Stage) -> None:
    """Wait until the last stroke is kept."""
    stage.pause(3.0)


def recover_and_apply(stage: Stage, others: list[Path]) -> None:
    """Take the work back in a new window, and apply it to other micrographs."""
    stage.open_plugin()
    stage.wait(lambda: stage.find("recovery_restore").isVisible(), "an offer")
    stage.screenshot("13-autosave")
    stage.click("recovery_restore")
    stage.wait(lambda: stage.session.segmentation is not None, "a segmentation")
    stage.settle()
    stage.screenshot("14-recovered")
    print("painted pixels:", int(np.count_nonzero(stage.session.scribbles.labels)))
    stage.click("features_fold")
    stage.click("apply_fold")
    stage.widget.apply.add(others)
    stage.widget.apply.start(stage.out / "applied")
    stage.wait(lambda: not stage.widget.apply.run.is_running, "files applied")
    stage.settle()
    stage.screenshot("15-applied")
    stage.controller.close()
    stage.viewer.close()


def write_sample(folder: Path) -> tuple[Path, Path, list[Path]]:
    """Write a generated micrograph with its truth, and more of its kind."""
    paths = []
    for seed in range(1 + MORE):
        sample = make_sample("grains", (512, 512), seed=seed)
        path = folder / f"grains_{seed}.tif"
        tifffile.imwrite(path, sample.image)
        paths.append(path)
        if seed == 0:
            write_labels(folder / "truth.tif", sample.labels)
    return paths[0], folder / "truth.tif", paths[1:]


def find_case(cases: Path, name: str, folder: Path) -> tuple[Path, Path, list[Path]]:
    """Return a micrograph of an evaluation set with its truth, and more of its kind."""
    manifest = json.loads((cases / "manifest.json").read_text())
    (case,) = (entry for entry in manifest if entry["id"] == name)
    truth = folder / "truth.tif"
    write_labels(truth, read_labels(cases / case["label"]) + 1)
    others = [
        cases / entry["image"]
        for entry in manifest
        if entry["source"] == case["source"] and entry["id"] != name
    ]
    return cases / case["image"], truth, others[:MORE]


def main() -> None:
    """Tell the story in two processes; the first is killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--case")
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--part", type=int, default=0)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.case:
        image, truth, others = find_case(options.cases, options.case, out)
    else:
        image, truth, others = write_sample(out)
    project = out / "work.hrdv2"
    if options.part:
        stage = Stage(out, image, truth)
        if options.part == 1:
            paint_and_save(stage, project)
        recover_and_apply(stage, others)
        return
    again = [sys.executable, *sys.argv]
    environment = os.environ | {"NAPARI_HRDV2_AUTOSAVE": str(out / "kept")}
    killed = subprocess.run([*again, "--part", "1"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.returncode
    subprocess.run([*again, "--part", "2"], env=environment, check=True)


if __name__ == "__main__":
    main()
