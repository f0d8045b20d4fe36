"""The pictures of *Look without labels*: two plates, and a real window.

Run as `make_story.py` beside it, which this needs::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/images/make_looking.py OUT
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from make_story import Stage
from napari.utils.colormaps import ensure_colormap
from PIL import Image, ImageDraw, ImageFont

from micrographs import make_sample
from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core.classifier.clusters import find_clusters, principal_colors
from napari_hrdv2.core.guidance.alike import similar_to
from napari_hrdv2.core.guidance.foreground import principal_foreground
from napari_hrdv2.core.guidance.tokens import correspondences, token_saliency
from napari_hrdv2.files import write_image, write_labels
from napari_hrdv2.files.labels import rgb
from napari_hrdv2.session.classes import default_color

SEEDS, SIDE, GAP = (1, 4), 320, 6
KIND, PLACE = "grains", (160, 160)  # of the first image, which is looked for
OBJECTS, MARKED, RING = "particles", (255, 120, 0), 9


def plate() -> Image.Image:
    """Return two images, their colours, clusters and similarity, a row each."""
    samples = [make_sample(KIND, (SIDE, SIDE), seed=seed) for seed in SEEDS]
    backbone = load_backbone("embedded")
    features = [compute_features(one.image, backbone) for one in samples]
    colors, clusters = principal_colors(features), find_clusters(features, 6)
    similarity = similar_to(features, *PLACE)
    table = np.array([rgb(i, {i: default_color(i)}) for i in range(1, 7)], np.uint8)
    rows = []
    for sample, one in zip(samples, features, strict=True):
        parts = (
            grey(sample.image),
            colors.paint(one),
            table[clusters.predict(one)],
            heat(similarity.of(one)),
        )
        rows.append(beside(parts))
    return Image.fromarray(np.vstack([rows[0], between(rows), rows[1]]))


def foreground() -> Image.Image:
    """Return two images, their foreground, saliency and what corresponds."""
    samples = [make_sample(OBJECTS, (SIDE, SIDE), seed=seed) for seed in SEEDS]
    backbone = load_backbone("embedded")
    features = [compute_features(one.image, backbone) for one in samples]
    found = principal_foreground(features, [one.image for one in samples])
    pairs = correspondences(features)
    rows = []
    for number, (sample, one) in enumerate(zip(samples, features, strict=True)):
        marked = grey(sample.image)
        inside = found.predict(one) > 0
        marked[inside] = (marked[inside] + np.array(MARKED)) // 2
        places = [pair[2 * number : 2 * number + 2] for pair in pairs]
        parts = (
            grey(sample.image),
            marked,
            heat(token_saliency(one)),
            numbered(grey(sample.image), places),
        )
        rows.append(beside(parts))
    return Image.fromarray(np.vstack([rows[0], between(rows), rows[1]]))


def grey(image: np.ndarray) -> np.ndarray:
    """Return a grey image as RGB."""
    return np.repeat(image[..., None], 3, -1)


def heat(values: np.ndarray) -> np.ndarray:
    """Return values of 0 to 1 in the colours of the window, (H, W, 3)."""
    shown = ensure_colormap("inferno").map(values.clip(0, 1).ravel())
    return (shown.reshape(*values.shape, 4)[..., :3] * 255).astype(np.uint8)


def numbered(image: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """Return an image with numbers in rings at places, one colour a number."""
    picture = Image.fromarray(image)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for number, (row, column) in enumerate(places, start=1):
        box = (column - RING, row - RING, column + RING, row + RING)
        draw.ellipse(box, fill=default_color(number), outline="white")
        draw.text((column, row), str(number), fill="white", font=font, anchor="mm")
    return np.array(picture)


def beside(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return pictures in a row."""
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    return np.hstack([x for part in parts for x in (part, gap)][:-1])


def between(rows: list[np.ndarray]) -> np.ndarray:
    """Return the gap between two rows."""
    return np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)


def window(out: Path) -> None:
    """Write OUT/looking-window.png: clusters with names, and what is alike."""
    folder = Path(tempfile.mkdtemp())
    for seed in SEEDS:
        sample = make_sample(KIND, seed=seed)
        write_image(folder / f"grains {seed}.tif", sample.image)
        write_labels(folder / f"truth {seed}.tif", sample.labels)
    first, second = (folder / f"grains {seed}.tif" for seed in SEEDS)
    stage = Stage(out, second, folder / f"truth {SEEDS[1]}.tif")
    stage.open_plugin()
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.settle()
    stage.viewer.add_image(np.array(Image.open(first)), name=first.stem)
    stage.wait(lambda: stage.session.current.name == first.stem, "the image")
    stage.wait(lambda: stage.session.features is not None, "features")
    stage.settle()
    for fold in ("paint_fold", "result_fold", "looking_fold"):
        stage.click(fold)
    stage.click("clusters")
    stage.wait(lambda: "Clusters: grains 1" in stage.viewer.layers, "clusters")
    stage.settle()
    panel, clusters = stage.widget.looking, stage.session.looking.clusters
    for class_id in (1, 2):
        panel.rows.clearSelection()
        labels = clusters.maps[stage.session.current.key]
        truth = make_sample(KIND, seed=SEEDS[0]).labels
        for i in clusters.shares:
            counts = np.bincount(truth[labels == i], minlength=3)
            if counts.argmax() == class_id:
                panel.rows.topLevelItem(i - 1).setSelected(True)
        panel.name.activated.emit(class_id)
    stage.settle()
    stage.viewer.layers["Clusters: grains 1"].visible = True
    stage.click("find_alike")
    stage.viewer.layers["Clusters: grains 1"].visible = False
    stage.do("mousemove", *stage.place(*PLACE), "click", 1)
    stage.wait(lambda: "Similarity: grains 1" in stage.viewer.layers, "similarity")
    stage.settle()
    stage.screenshot("looking-window")
    stage.viewer.close()


def main() -> None:
    """Write OUT/looking.png, OUT/foreground.png and OUT/looking-window.png."""
    out = Path(sys.argv[1])
    plate().save(out / "looking.png", optimize=True)
    foreground().save(out / "foreground.png", optimize=True)
    window(out)


if __name__ == "__main__":
    main()
