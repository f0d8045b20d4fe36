"""The picture of *Compare with a truth*: a real window, and a real mouse.

Run as `make_story.py` beside it, which this needs::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_compare.py OUT
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from make_story import Stage

from micrographs import make_sample
from napari_hrdv2.files import write_image, write_labels


def main() -> None:
    """Write OUT/compare.png."""
    out, folder = Path(sys.argv[1]), Path(tempfile.mkdtemp())
    sample = make_sample("grains", seed=1)
    image, truth = folder / "micrograph.tif", folder / "truth.tif"
    write_image(image, sample.image)
    write_labels(truth, sample.labels)
    stage = Stage(out, image, truth)
    stage.open_plugin()
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.controller.link.scribbles.data = sample.scribbles
    stage.wait(lambda: stage.session.segmentation is not None, "a segmentation")
    stage.settle()
    stage.viewer.add_labels(stage.truth, name="truth", visible=False)
    stage.pause(1.0)
    for fold in ("features_fold", "paint_fold", "compare_fold"):
        stage.click(fold)
    stage.click("compare")
    stage.wait(lambda: "Errors: micrograph" in stage.viewer.layers, "the errors")
    stage.settle()
    stage.controller.link.segmentation.visible = False
    stage.viewer.layers.selection.active = stage.viewer.layers["Errors: micrograph"]
    stage.screenshot("compare")
    stage.viewer.close()


if __name__ == "__main__":
    main()
