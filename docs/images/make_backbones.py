"""The choices of backbones in the window, in pictures.

Run with an X server that has nothing else on it::

    export PYTHONPATH=training  # for the made micrographs
    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_backbones.py OUT

The weights are random. Regions do not depend on them; attention does, and is not shown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QAbstractButton, QApplication, QScrollArea

from micrographs import make_sample
from napari_hrdv2.widgets import SegmentationWidget
from napari_hrdv2.widgets.sample_data import DOCK_NAME

PATIENCE = 120.0  # s


class Stage:
    """A viewer with the plugin, and a camera."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        sample = make_sample("grains")
        self.viewer.add_image(sample.image, name="grains")
        self.widget = SegmentationWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name=DOCK_NAME, area="right")
        self.session, self.panel = self.widget.session, self.widget.features
        self.settle()

    def wait(self, condition: Callable[[], object]) -> None:
        """Let the window live until something is so."""
        end = time.monotonic() + PATIENCE
        while not condition():
            QApplication.processEvents()
            time.sleep(0.005)
            if time.monotonic() > end:
                raise TimeoutError(self.session.status)

    def settle(self) -> None:
        """Wait until nothing is computed, and all is drawn."""
        end = time.monotonic() + 1
        self.wait(lambda: time.monotonic() > end and not self.widget.controller.is_busy)

    def screenshot(self, name: str, *, panel_only: bool = False) -> None:
        """Save what is on the screen."""
        self.settle()
        screen = QApplication.primaryScreen().grabWindow(0)
        if panel_only:
            left = self.widget.mapToGlobal(QPoint(0, 0)).x()
            screen = screen.copy(left, 0, screen.width() - left, screen.height())
        screen.save(str(self.out / f"{name}.png"))

    def scroll_to(self, control: object) -> None:
        """Bring a control into view."""
        area = self.widget.findChild(QScrollArea, "panels")
        area.ensureWidgetVisible(control)


def choices(stage: Stage) -> None:
    """Show the list, then the choices that a backbone offers."""
    stage.session.configure(backbone="neco-small")
    stage.panel.backbone.showPopup()
    stage.screenshot("backbones", panel_only=True)
    stage.panel.backbone.hidePopup()
    stage.session.configure(
        backbone="neco-small:dinov2r",
        transforms="lattice:2",
        stride="7",
        interpolation="bilateral+2",
        debias="project",
    )
    more = stage.widget.findChild(QAbstractButton, "more_features")
    more.setChecked(True)
    stage.screenshot("choices", panel_only=True)
    more.setChecked(False)


def regions(stage: Stage) -> None:
    """Show the regions of a network that divides the image, as borders."""
    stage.session.configure(
        backbone="spit-small",
        weights="random",
        transforms="identity",
        stride="auto",
        interpolation="bilinear",
        debias="none",
    )
    stage.panel.compute.click()
    stage.wait(lambda: stage.session.features is not None)
    inspection = stage.widget.insight
    stage.widget.findChild(QAbstractButton, "insight_fold").setChecked(True)
    stage.settle()
    inspection.regions.click()
    stage.wait(lambda: "Region borders: grains" in stage.viewer.layers)
    stage.scroll_to(inspection.use)
    getattr(stage.viewer, "scene", stage.viewer).camera.zoom *= 2
    stage.screenshot("regions")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    stage = Stage(parser.parse_args().out)
    choices(stage)
    regions(stage)
    stage.viewer.close()


if __name__ == "__main__":
    main()
