"""The picture of *Unlike painted*: three phases, of which one has no scribble.

Run with::

    python docs/images/make_unlike.py docs/images/unlike.png
"""

from __future__ import annotations

import sys

import numpy as np
from matplotlib.figure import Figure

import napari_hrdv2 as hr
from napari_hrdv2.core.guidance import uncertainty_of, unlikeness_of
from napari_hrdv2.core.guidance.unlike import LIKE
from napari_hrdv2.core.samples import example

LEFT_OUT = 3


def main() -> None:
    """Draw what was painted, the result, the uncertainty and what is unlike."""
    sample = example()
    drawn = np.where(sample.scribbles == LEFT_OUT, 0, sample.scribbles)
    features = hr.compute_features(sample.image, hr.load_backbone("embedded"))
    model = hr.PixelClassifier().fit(features, drawn)
    unlike = unlikeness_of(features, [features], [drawn])
    own = sample.labels == LEFT_OUT
    shares = [(unlike > LIKE)[which].mean() for which in (own, ~own)]
    print("beyond the threshold: {:.0%} of it, {:.0%} of the others".format(*shares))
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    name = sample.class_names[LEFT_OUT - 1]
    titles = (f"two classes painted, not {name}", "result", "uncertainty", "unlike")
    for axes, title in zip(figure.subplots(1, 4), titles, strict=True):
        axes.imshow(sample.image, "gray")
        axes.set(title=title, xticks=[], yticks=[])
    first, second, third, fourth = figure.axes
    first.imshow(np.ma.masked_equal(drawn, 0), "tab10", vmin=1, vmax=10)
    second.imshow(model.predict(features), "tab10", vmin=1, vmax=10, alpha=0.6)
    third.imshow(uncertainty_of(model, features), "inferno", vmin=0, vmax=255)
    fourth.imshow(unlike, "inferno", vmin=LIKE, vmax=191)
    figure.savefig(sys.argv[1], dpi=75)


if __name__ == "__main__":
    main()
