"""The picture of an exchange of light and dark: a classifier and a negative.

Run with::

    python docs/images/make_negative.py docs/images/negative.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import napari_hrdv2 as hr
from napari_hrdv2.core.series.reading import reading_of

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

from micrographs import make_sample


def main() -> None:
    """Draw the painted image, a negative, and its segmentation both ways."""
    sample, other = (make_sample("particles", (320, 320), seed=n) for n in (0, 2))
    negative = 255 - np.clip(0.85 * other.image + 15, 0, 255).astype(np.uint8)
    backbone = hr.load_backbone("embedded")
    trained = hr.train_series([sample.image], [sample.scribbles], backbone).classifier
    levels = trained.normalisation.match(negative).levels
    features = hr.compute_features(negative, backbone, levels=levels)
    straight = trained.adapted_to(features).predict(features)
    read = reading_of(trained, negative, backbone)
    for found in (straight, read.predict()):
        print(f"right: {(found == other.labels).mean():.1%}")
    print(f"exchanged: {read.is_inverted}, doubt {read.doubt:.2f}")
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    titles = (
        "painted",
        "new image",
        "by gain and offset alone",
        "light and dark exchanged",
    )
    pictures = sample.image, negative, negative, negative
    masks = sample.scribbles, None, straight, read.predict()
    drawn = zip(figure.subplots(1, 4), titles, pictures, masks, strict=True)
    for axes, title, picture, mask in drawn:
        axes.imshow(picture, "gray", vmin=0, vmax=255)
        axes.set(title=title, xticks=[], yticks=[])
        if mask is not None:
            alpha = 1.0 if mask is sample.scribbles else 0.6
            shown = np.ma.masked_equal(mask, 0)
            axes.imshow(shown, "tab10", vmin=1, vmax=10, alpha=alpha)
    figure.savefig(sys.argv[1], dpi=75)


if __name__ == "__main__":
    main()
