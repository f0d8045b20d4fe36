"""What a trained ViT sees without labels: a plate, a row for each image.

Run with the weights of `benchmarks/trained.py`, and a backbone for other weights::

    python docs/images/make_trained.py WEIGHTS OUT.png [IMAGE…] [--backbone NAME]

The image; principal components as colours of `embedded`, of the ViT's last block and of
a block two thirds up, upsampled along the edges of the image; six clusters of these;
and the mean of the heads of the last block's attention. Images are the example of the
package and a generated one, unless files are named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from micrographs import make_sample
from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core.classifier.clusters import find_clusters, principal_colors
from napari_hrdv2.core.guidance.attention import attention_maps
from napari_hrdv2.core.samples import example
from napari_hrdv2.files import read_image
from napari_hrdv2.files.labels import rgb
from napari_hrdv2.session.classes import default_color

SIDE, GAP, COUNT, SETS = 320, 6, 6, "lattice:2"


def grey(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a map stretched from its percentile 2 to its percentile 98, (H, W, 3)."""
    low, high = np.percentile(values, (2, 98))
    shown = (values.clip(low, high) - low) / max(high - low, 1e-9) * 255
    return np.repeat(shown[..., None], 3, -1).astype(np.uint8)


def row(image: NDArray[np.uint8], vit: str, weights: Path) -> NDArray[np.uint8]:
    """Return the pictures of one image side by side."""
    network = load_backbone(vit, weights)
    block = network.model.config.depth * 2 // 3
    own = compute_features(image, load_backbone("embedded"))
    last = compute_features(image, network, SETS)
    lower = load_backbone(f"{vit}@t{block}", weights)
    sharp = compute_features(image, lower, SETS, interpolation="bilateral")
    table = np.array([rgb(i, {i: default_color(i)}) for i in range(1, COUNT + 1)])
    parts = [image if image.ndim == 3 else np.repeat(image[..., None], 3, -1)]
    parts += [principal_colors(one).paint(one) for one in (own, last, sharp)]
    parts += [table[find_clusters(sharp, COUNT).predict(sharp)].astype(np.uint8)]
    parts += [grey(attention_maps(image, network, SETS).mean(0))]
    gap = np.full((len(image), GAP, 3), 255, np.uint8)
    return np.hstack([x for part in parts for x in (part, gap)][:-1])


def main() -> None:
    """Write the plate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--backbone", default="dinov2-small")
    given = parser.parse_args()
    images = [read_image(path).data[:SIDE, :SIDE] for path in given.images]
    if not images:
        images = [example().image[:SIDE, :SIDE]]
        images += [make_sample("particles", (SIDE, SIDE), seed=3).image]
    rows = [row(image, given.backbone, given.weights) for image in images]
    line = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    plate = np.vstack([x for one in rows for x in (one, line)][:-1])
    size = plate.shape[1] * 2 // 3, plate.shape[0] * 2 // 3
    Image.fromarray(plate).resize(size).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
