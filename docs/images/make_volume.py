"""The picture of a stack in the window, while all its planes are segmented.

It makes a volume of three phases as a Zarr in a temporary folder, and needs a screen::

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/images/make_volume.py OUT
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
import PIL.Image
import zarr
from qtpy.QtWidgets import QApplication, QScrollArea
from scipy import ndimage

from napari_hrdv2.widgets import SegmentationWidget
from napari_hrdv2.widgets.panels.controls import Section

SIZE = (400, 256, 256)
DONE = 60  # planes, when the picture is taken
NAMES = {1: "pore", 2: "binder", 3: "grain"}


def main() -> None:
    """Write OUT/volume.png."""
    folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=[n // 4 for n in SIZE]), 3)
    field = ndimage.zoom(field.astype(np.float32), 4, order=1)
    truth = 1 + np.digitize(field, np.quantile(field, (0.35, 0.7)))
    stack = zarr.create_array(
        folder / "foam.zarr", shape=SIZE, chunks=(1, *SIZE[1:]), dtype="u1"
    )
    for z, plane in enumerate(truth):
        noisy = 40 + 60 * plane + rng.normal(0, 30, plane.shape)
        stack[z] = np.clip(noisy, 0, 255).astype(np.uint8)
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1400, 900)
    widget = SegmentationWidget(viewer)
    viewer.window.add_dock_widget(widget, name="segmentation")
    session, link, panel = widget.session, widget.controller.link, widget.apply.stack
    session.configure(backbone="filters")
    viewer.open(folder / "foam.zarr")
    wait(lambda: bool(link.unnamed_axes()))
    link.name_axis(0, "Z")
    for z in (50, 350, 200):
        viewer.dims.set_current_step(0, z)
        wait(lambda z=z: link.index == (z,) and session.features is not None)
        for label in NAMES:
            inside = ndimage.binary_erosion(truth[z] == label, iterations=4)
            for place in np.argwhere(inside)[:: inside.sum() // 4][1:4].tolist():
                link.scribbles.paint((z, *place), label)
        link.flush()
        wait(lambda: not widget.controller.is_busy)
    for label, name in NAMES.items():
        session.classes.rename(label, name)
    session.configure(planes="z+2")
    for section in widget.findChildren(Section):
        if "Apply to many" in section.text():
            section.expand(animate=False)
    panel.overlay.start(folder / "foam_segmentation.zarr")
    lines = folder / "foam_segmentation.zarr.unfinished" / "done.txt"
    wait(lambda: lines.exists() and lines.read_text().count("\n") >= DONE)
    widget.findChild(QScrollArea).ensureWidgetVisible(panel.note)
    until = time.monotonic() + 1
    wait(lambda: time.monotonic() > until)
    path = Path(sys.argv[1]) / "volume.png"
    viewer.window._qt_window.grab().save(str(path))
    PIL.Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    widget.controller.close()
    viewer.close()


def wait(condition: Callable[[], bool]) -> None:
    """Let the window live until something is so."""
    while not condition():
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
