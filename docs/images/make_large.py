"""The picture of a large image in the window, while *Segment all* is at work.

It makes 20 000 × 20 000 px, tile by tile, in a temporary file, and needs a screen::

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/images/make_large.py OUT
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
import PIL.Image
from qtpy.QtWidgets import QApplication

from micrographs import make_sample
from napari_hrdv2.widgets import SegmentationWidget

SIDE, TILE = 20_000, 1_000
BLOCKS = 6  # that are segmented when the picture is taken, beside those in view


def main() -> None:
    """Write OUT/large.png."""
    sample = make_sample("grains", seed=1, shape=(TILE, TILE))
    path = Path(tempfile.mkdtemp()) / "large.npy"
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (SIDE, SIDE))
    for row in range(0, SIDE, TILE):
        for column in range(0, SIDE, TILE):
            image[row : row + TILE, column : column + TILE] = sample.image
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1400, 900)
    levels = [image[:: 2**n, :: 2**n] for n in range(6)]
    viewer.add_image(levels, name="Large", multiscale=True, contrast_limits=(0, 255))
    widget = SegmentationWidget(viewer)
    viewer.window.add_dock_widget(widget, name="segmentation")
    session, work = widget.session, widget.controller.blocks
    wait(lambda: session.current is not None)
    session.configure(backbone="filters")
    widget.controller.compute_features()
    wait(lambda: session.features is not None)
    for label in np.unique(sample.labels):
        rows, columns = np.nonzero(sample.labels == label)
        for at in np.linspace(0, len(rows) - 1, 9).astype(int)[1:-1]:
            place = SIDE // 2 + rows[at], SIDE // 2 + columns[at]
            widget.controller.link.scribbles.paint(place, int(label))
    widget.controller.link.flush()
    wait(lambda: session.current.is_shown and not widget.controller.is_busy)
    work.segment_all(work.target_in(path.parent))
    done = session.current.result.blocks.done
    count, until = len(done) + BLOCKS, time.monotonic() + 1
    wait(lambda: len(done) >= count and time.monotonic() > until)
    path = Path(sys.argv[1]) / "large.png"
    viewer.window._qt_window.grab().save(str(path))
    PIL.Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    work.cancel()
    widget.controller.close()
    viewer.close()


def wait(condition: object) -> None:
    """Let the window live until something is so."""
    while not condition():
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
