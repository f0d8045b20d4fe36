"""The pictures of *Propose places*: a real window, a real mouse and real keys.

Run as `make_story.py` beside it, which this needs::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_places.py OUT
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from make_story import Stage

from micrographs import make_sample
from napari_hrdv2.files import write_image, write_labels

SHOWN = 4  # the place in the first picture


def main() -> None:
    """Write OUT/places.png, in the middle of it, and OUT/places-named.png."""
    out, folder = Path(sys.argv[1]), Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    sample = make_sample("grains", seed=1)
    image, truth = folder / "micrograph.tif", folder / "truth.tif"
    write_image(image, sample.image)
    write_labels(truth, sample.labels)
    start = time.monotonic()
    stage = Stage(out, image, truth)
    stage.open_plugin()
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.settle()
    stage.click("features_fold")
    stage.click("propose_places")
    walk = stage.widget.paint.places.walk
    stage.wait(lambda: walk.shown is not None, "a place")
    named = 0
    while (place := walk.shown) is not None:
        if named == SHOWN:
            stage.settle()
            stage.do("mousemove", 5, 400)  # off the ring
            stage.screenshot("places")
        stage.key(str(int(stage.truth[place.row, place.column])))
        stage.wait(lambda before=place: walk.shown is not before, "the next place")
        named += 1
    stage.settle()
    stage.wait(lambda: stage.session.segmentation is not None, "a segmentation")
    right = (stage.session.segmentation == stage.truth).mean()
    print(
        f"{named} places named, {time.monotonic() - start:.0f} s after opening: "
        f"{right:.1%} of the pixels are right"
    )
    stage.controller.link.view.fit()
    stage.pause(0.5)
    stage.screenshot("places-named")
    stage.viewer.close()


if __name__ == "__main__":
    main()
