"""The story of a series: label two of six images, apply to the folder, see the report.

Run as `make_story.py` beside it, which this needs::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_series.py OUT

Writes OUT/series.png, the window after the batch, OUT/series_next.png, once the most
doubtful image is opened, and OUT/report.png, the page as Qt draws it.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from make_story import Stage
from qtpy.QtCore import QBuffer, QByteArray
from qtpy.QtGui import QImage, QPainter, QTextDocument
from qtpy.QtSvg import QSvgRenderer

from micrographs import make_sample
from napari_hrdv2.files import write_image, write_labels

if TYPE_CHECKING:
    from napari_hrdv2.core.samples import Sample

WIDTH, HEIGHT = 900, 1095  # px, of the page


def write_series(folder: Path) -> list[Sample]:
    """Write six micrographs at other exposures, a negative, the last too short."""
    samples = [make_sample("particles", (320, 320), seed=seed) for seed in range(6)]
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number, sample in enumerate(samples):
        gain, offset = rng.uniform(0.8, 1.0), rng.uniform(0, 25)
        noise = rng.normal(0, 80 * (number == 5), sample.image.shape)
        changed = np.clip(gain * sample.image + noise + offset, 0, 255)
        changed = changed.astype(np.uint8)
        changed = 255 - changed if number == 3 else changed
        write_image(folder / f"scan_{number + 1}.tif", changed)
    return samples


def draw_page(page: Path, picture: Path) -> None:
    """Draw a report as far as a picture needs it, its plots as pixels."""

    def drawn(match: re.Match[str]) -> str:
        text = match.group().replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
        renderer = QSvgRenderer(QByteArray(text.encode()))
        image = QImage(renderer.defaultSize(), QImage.Format.Format_ARGB32)
        image.fill(0xFFFFFFFF)
        painter = QPainter(image)
        renderer.render(painter)
        painter.end()
        buffer = QBuffer()
        image.save(buffer, "PNG")
        content = base64.b64encode(bytes(buffer.data())).decode()
        return f'<p><img src="data:image/png;base64,{content}"></p>'

    html = re.sub(r"<svg.*?</svg>", drawn, page.read_text(), flags=re.DOTALL)
    document = QTextDocument()
    document.setHtml(html.replace("<img alt", "<img width=48 alt"))
    document.setTextWidth(WIDTH)
    image = QImage(WIDTH, HEIGHT, QImage.Format.Format_ARGB32)
    image.fill(0xFFFFFFFF)
    painter = QPainter(image)
    document.drawContents(painter)
    painter.end()
    image.save(str(picture))


def main() -> None:
    """Write the pictures."""
    out, folder = Path(sys.argv[1]), Path(tempfile.mkdtemp())
    os.environ["NAPARI_HRDV2_AUTOSAVE"] = str(folder / "kept")  # offer no former work
    samples = write_series(folder / "scans")
    truth = folder / "truth.tif"
    write_labels(truth, samples[0].labels)
    first, second = (folder / "scans" / f"scan_{number}.tif" for number in (1, 2))
    stage = Stage(out, first, truth)
    stage.open_plugin()
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.controller.link.scribbles.data = samples[0].scribbles
    stage.settle()
    stage.widget.images.add_files([str(second)])
    stage.wait(lambda: len(stage.controller.link.layers.images()) == 2, "an image")
    stage.controller.link.select_image(stage.controller.link.layers.images()[1])
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.controller.link.scribbles.data = samples[1].scribbles
    stage.wait(lambda: stage.session.segmentation is not None, "a segmentation")
    stage.settle()
    for class_id, name in ((1, "matrix"), (2, "particle")):
        stage.session.classes.rename(class_id, name)
    for fold in ("features_fold", "paint_fold", "apply_fold"):
        stage.click(fold)
    panel = stage.widget.apply
    panel.add([folder / "scans"])
    panel.start(folder / "out")
    stage.wait(lambda: not panel.run.is_running, "the batch")
    stage.settle()
    stage.widget.findChild(type(stage.find("panels")), "panels").ensureWidgetVisible(
        panel.report
    )
    stage.pause(2.0)
    stage.screenshot("series")
    panel.label_next.click()
    stage.wait(lambda: len(stage.controller.link.layers.images()) == 3, "the doubtful")
    stage.wait(lambda: stage.session.segmentation is not None, "a segmentation")
    stage.settle()
    stage.pause(1.0)
    stage.screenshot("series_next")
    draw_page(folder / "out" / "report.html", out / "report.png")
    print((folder / "out" / "phase_fractions.csv").read_text())
    stage.controller.close()
    stage.viewer.close()


if __name__ == "__main__":
    main()
