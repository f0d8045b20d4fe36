"""Segment micrographs as it was done with napari-hrdv2 0.1.0 on 2026-11-29.

The features are computed and the classifier is fitted from scratch, to the last digit.
In the window each stroke was answered from the fit before it, and less exactly: expect
about 99 % of the pixels or more to be of the same class.
"""

from pathlib import Path

import numpy as np

import napari_hrdv2 as hr
from napari_hrdv2.core.refine import Refinement, refine
from napari_hrdv2.files import read_image, read_labels, write_color_png, write_labels

# Of each image: its file, the strokes (0 is no class), the file to write, the grey
# levels that become 0 and 1, and the rectangles that are left out (rows from, columns
# from, rows to, columns to).
IMAGES = [
    (
        'grains_image.tif',
        'grains_strokes.tif',
        'grains_segmentation.tif',
        (0.0, 255.0),
        [(85, 0, 97, 113)],
    ),
    (
        'second_image.tif',
        'second_strokes.tif',
        'second_segmentation.tif',
        (0.0, 255.0),
        [],
    ),
    (
        'stack_Z_1_Z1_image.tif',
        'stack_Z_1_Z1_strokes.tif',
        'stack_Z_1_Z1_segmentation.tif',
        (0.0, 255.0),
        [],
    ),
]
NAMES = {
    1: 'ferrite',
    2: 'Class 2',
    3: 'Class 3',
}
COLORS = {
    1: '#e8590c',
    2: '#56b4e9',
    3: '#f0e442',
}
BACKBONE = {
    'name': 'embedded',
    'weights': None,
}
FEATURES = {
    'transforms': 'identity',
    'stride': None,
    'boundary': 'periodic',
    'interpolation': 'bilinear',
    'compat': 'corrected',
    'debias': 'none',
}


def features_of(image, value_range):
    found = hr.compute_features(image, backbone, value_range=value_range, **FEATURES)
    hashes = tuple(recipe.weights_hash for recipe in found.recipes)
    if hashes != ('06f29b4ad5077344',):
        print("note: the weights of the backbone are not those of then")
    return found


def left_out(image, rectangles):
    mask = np.zeros(image.shape[:2], bool)
    for top, left, bottom, right in rectangles:
        mask[top:bottom, left:right] = True
    return mask


backbone = hr.load_backbone(**BACKBONE)

features, strokes, excluded = {}, [], []
for number, (image, labels, _, value_range, rectangles) in enumerate(IMAGES):
    if labels is not None:
        picture = read_image(image).data
        features[number] = features_of(picture, value_range)
        painted = read_labels(labels)
        excluded.append(left_out(picture, rectangles))
        painted[excluded[-1]] = 0
        strokes.append(painted)
classifier = hr.PixelClassifier(
    C=0.03, balanced=True, self_training=True
)
classifier.fit(list(features.values()), strokes, excluded=excluded)
if classifier.labels_hash != '9b061e386bb9dc177d67aeaee983b0eaf81a23ba0a9a9c7b2856414fd5b56023':
    print("note: the strokes are not those of then")

for number, (image, _, out, value_range, rectangles) in enumerate(IMAGES):
    source = read_image(image)
    found = features.pop(number, None) or features_of(source.data, value_range)
    excluded = left_out(source.data, rectangles)
    segmentation = refine(
        classifier.predict_proba(found),
        source.data,
        classifier.classes,
        Refinement(smoothing='guided', radius=3, strength=0.5, min_object=20, fill_holes=0),
        excluded=excluded,
    )
    write_labels(
        out,
        segmentation,
        pixel_size=source.pixel_size,
        unit=source.unit,
        class_names=NAMES,
        class_colors=COLORS,
    )
    write_color_png(Path(out).with_suffix(".png"), segmentation, COLORS)
    for label, name in NAMES.items():
        share = (segmentation[~excluded] == label).mean()
        print(f"{image}: {name} {share:.2%}")
