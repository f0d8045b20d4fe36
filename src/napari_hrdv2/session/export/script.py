"""The Python script that does again what was done in a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.session.classes import default_class

from .content import ExportImage, Provenance

_OPTIONS = (  # those of `compute_features`
    *("transforms", "stride", "boundary", "interpolation", "compat", "debias"),
    "channels",
)

_HEAD = '''\
"""Segment micrographs as it was done with napari-hrdv2 {version} on {date}.

The features are computed and the classifier is fitted from scratch, to the last digit.
In the window each fit began at the one before it and stopped earlier: expect about
99 % of the pixels or more to be of the same class.
"""

from pathlib import Path

import numpy as np

import napari_hrdv2 as hr
from napari_hrdv2.core.checks import filled, grey_if_equal
from napari_hrdv2.core.features.resampled import compute_resampled
{refine}from napari_hrdv2.files import read_image, {labels}write_color_png, write_labels

# Of each image: its file, the scribbles (0 is no class), the file to write, the grey
# levels that become 0 and 1, by what it is resized for its features (None: not), and
# the rectangles that are excluded (rows from, columns from, rows to, columns to).
IMAGES = [
{images}
]
NAMES = {names}
COLORS = {colors}
BACKBONE = {backbone}
FEATURES = {features}
'''

_REFINE_IMPORT = (
    "from napari_hrdv2.core.postprocess.refinement import Refinement, refine\n"
)

_FUNCTIONS = """

def features_of(image, value_range, ratio):
    if not FEATURES["channels"]:
        image = grey_if_equal(image)  # grey levels may be stored as colours
    image = filled(image)
    found = compute_resampled(
        image, backbone, ratio, value_range=value_range, **FEATURES
    )
    hashes = tuple(part.weights_hash for part in found.part_options)
    if hashes != {hashes}:
        print("note: the weights of the backbone are not those of then")
    return found


def exclusion_mask(image, rectangles):
    mask = np.zeros(image.shape[:2], bool)
    for top, left, bottom, right in rectangles:
        mask[top:bottom, left:right] = True
    return mask


backbone = hr.load_backbone(**BACKBONE)
"""

_TRAIN = """
features, scribbles, exclusion = {{}}, [], []
for number, (image, labels, _, value_range, ratio, rectangles) in enumerate(IMAGES):
    if labels is not None:
        micrograph = read_image(image, FEATURES["channels"]).data
        features[number] = features_of(micrograph, value_range, ratio)
        painted = read_labels(labels)
        exclusion.append(exclusion_mask(micrograph, rectangles))
        painted[exclusion[-1]] = 0
        scribbles.append(painted)
classifier = hr.PixelClassifier(
    C={C!r},
    balanced={balanced!r},
    self_training={self_training!r},
    by_place={by_place!r},
)
classifier.fit(list(features.values()), scribbles, exclusion=exclusion)
"""

_CHECK = """\
if classifier.labels_hash != {labels_hash!r}:
    print("note: the scribbles are not those of then")
"""

_LOAD = """
features = {{}}
classifier = hr.PixelClassifier.load({classifier_file!r})
"""

_SEGMENT = """
for number, (image, _, out, value_range, ratio, rectangles) in enumerate(IMAGES):
    source = read_image(image, FEATURES["channels"])
    found = features.pop(number, None) or features_of(source.data, value_range, ratio)
    exclusion = exclusion_mask(source.data, rectangles)
"""

_PREDICT = """\
    segmentation = classifier.predict(found)
    segmentation[exclusion] = 0
"""

_REFINE = """\
    segmentation = refine(
        classifier.predict_proba(found),
        source.data[..., 0] if FEATURES["channels"] else source.data,
        classifier.classes,
        Refinement({refinement}),
        exclusion=exclusion,
    )
"""

_WRITE = """\
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
        fraction = (segmentation[~exclusion] == label).mean()
        print(f"{image}: {name} {fraction:.2%}")
"""


def python_script(
    made: Provenance,
    images: Sequence[ExportImage],
    files: Sequence[tuple[str, str | None]],
) -> str:
    """Return a Python script that makes the segmentations again.

    It writes ``<stem>_segmentation.tif`` and ``.png`` into the working folder for each
    image and prints the phase fraction of each class. `files` are, of each image, its
    file and that of its scribbles (None for those that did not train), as
    `files.write_labels` writes them.
    """
    refined, trains = _refinement(made.refinement), made.classifier_file is None
    painted = {i for image in images for i in image.scribble_pixels}
    classes = {i: default_class(i) for i in painted} | dict(made.classes)
    # So that it stays the same when the word comes to mean another set.
    options = replace(made.options, transforms=made.options.resolved_transforms)
    parts = [
        _HEAD.format(
            version=made.versions.get("napari-hrdv2", "of then"),
            date=made.date,
            refine=_REFINE_IMPORT * bool(refined),
            labels="read_labels, " * trains,
            images="\n".join(map(_entry, images, files)),
            names=_table({i: classes[i].name for i in sorted(classes)}),
            colors=_table({i: classes[i].color for i in sorted(classes)}),
            backbone=_table({"name": options.backbone, "weights": options.weights}),
            features=_table({name: getattr(options, name) for name in _OPTIONS}),
        ),
        _FUNCTIONS.format(hashes=made.weights_hashes),
        (_TRAIN if trains else _LOAD).format(**vars(made)),
    ]
    if trains and made.labels_hash:
        parts.append(_CHECK.format(labels_hash=made.labels_hash))
    parts += [
        _SEGMENT,
        _REFINE.format(refinement=refined) if refined else _PREDICT,
        _WRITE,
    ]
    return "".join(parts)


def _refinement(refinement: Refinement | None) -> str:
    """Its fields as arguments; empty where it changes nothing."""
    if refinement is None or refinement == type(refinement)():
        return ""
    return ", ".join(f"{name}={value!r}" for name, value in asdict(refinement).items())


def _entry(image: ExportImage, files: tuple[str, str | None]) -> str:
    out = f"{image.stem}_segmentation.tif"
    entry = *files, out, image.value_range, image.pixel_ratio, image.rectangles
    return "    (\n" + "".join(f"        {value!r},\n" for value in entry) + "    ),"


def _table(entries: Mapping[Any, Any]) -> str:
    lines = "".join(f"    {key!r}: {value!r},\n" for key, value in entries.items())
    return "{\n" + lines + "}"
