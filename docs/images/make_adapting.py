"""The picture of *Adapt to these images*: a real window, in the middle of a run.

Run as `make_story.py` beside it, which this needs::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_adapting.py OUT
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from make_story import Stage
from PIL import Image

from micrographs import make_sample
from napari_hrdv2.files import write_image, write_labels

STEPS = 20


def main() -> None:
    """Write OUT/adapting.png."""
    out, folder = Path(sys.argv[1]), Path(tempfile.mkdtemp())
    sample = make_sample("grains", (256, 256), seed=1)
    write_image(folder / "grains.tif", sample.image)
    write_labels(folder / "truth.tif", sample.labels)
    stage = Stage(out, folder / "grains.tif", folder / "truth.tif")
    stage.open_plugin()
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.settle()
    for class_id in stage.classes[:2]:
        stage.session.classes.ensure([class_id])
        stage.widget.paint.classes.choose(class_id)
        for number in (1, 2):
            stage.stroke(*stage.inside(class_id, number))
    stage.settle()
    for fold in ("paint_fold", "result_fold", "more_features", "adapt_fold"):
        stage.click(fold)
    panel = stage.widget.features.adapt
    panel.steps.setValue(STEPS)
    panel.start(str(folder / "mine.safetensors"))  # the dialog is the system's
    stage.wait(lambda: f"Step 10 of {STEPS}" in panel.note.text(), "ten steps")
    stage.screenshot("adapting")
    stage.wait(lambda: not panel.stop.isVisibleTo(panel), "the end")
    stage.settle()
    print(panel.note.text())
    whole, corner = Image.open(out / "adapting.png"), stage.widget.rect().topLeft()
    left = stage.widget.mapTo(stage.widget.window(), corner).x()
    whole.crop((left, 50, whole.width, 770)).save(out / "adapting.png", optimize=True)
    stage.viewer.close()


if __name__ == "__main__":
    main()
