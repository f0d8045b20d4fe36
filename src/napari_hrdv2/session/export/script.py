"""The Python script that does again what was done in a window."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.session.classes import ClassInfo, default_class

if TYPE_CHECKING:
    from .provenance import ImageRecord, Provenance

PathLike = str | os.PathLike[str]

_HEAD = '''\
"""Segment micrographs as it was done with napari-hrdv2 {version} on {date}.

The features are computed and the classifier is fitted from scratch, to the last digit.
In the window each fit began at the one before it and stopped earlier: expect about
99 % of the pixels or more to be of the same class.
"""

from pathlib import Path

import numpy as np

import napari_hrdv2 as hr
{imports}
# Of each image: its file, the scribbles (0 is no class), the file to write, the grey
# levels that become 0 and 1, and the rectangles that are excluded (rows from, columns
# from, rows to, columns to).
IMAGES = [
{images}
]
NAMES = {names}
COLORS = {colors}
BACKBONE = {backbone}
FEATURES = {features}
'''

_FUNCTIONS = """

def features_of(image, value_range):
    found = hr.compute_features(image, backbone, value_range=value_range, **FEATURES)
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
for number, (image, labels, _, value_range, rectangles) in enumerate(IMAGES):
    if labels is not None:
        micrograph = read_image(image).data
        features[number] = features_of(micrograph, value_range)
        painted = read_labels(labels)
        exclusion.append(exclusion_mask(micrograph, rectangles))
        painted[exclusion[-1]] = 0
        scribbles.append(painted)
classifier = hr.PixelClassifier(
    C={C!r}, balanced={balanced!r}, self_training={self_training!r}
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
for number, (image, _, out, value_range, rectangles) in enumerate(IMAGES):
    source = read_image(image)
    found = features.pop(number, None) or features_of(source.data, value_range)
    exclusion = exclusion_mask(source.data, rectangles)
"""

_PREDICT = """\
    segmentation = classifier.predict(found)
    segmentation[exclusion] = 0
"""

_REFINE = """\
    segmentation = refine(
        classifier.predict_proba(found),
        source.data,
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
    provenance: Provenance,
    *,
    labels: Sequence[PathLike | None],
    images: Sequence[PathLike | None] = (),
) -> str:
    """Return a Python script that makes the segmentations again.

    Parameters
    ----------
    provenance : Provenance
    labels : sequence of path-like or None
        For each image the file of its scribbles, as `files.write_labels` writes them;
        None for those that were not painted.
    images : sequence of path-like or None, optional
        For each image its file where the record has none, or another one.

    Returns
    -------
    str
        It writes ``<image>_segmentation.tif`` and ``.png`` into the working folder for
        each image and prints the phase fraction of each class.

    Raises
    ------
    ValueError
        If a file is missing for an image or for scribbles.
    """
    given = list(images) or [None] * len(provenance.images)
    for name, paths in (("labels", labels), ("images", given)):
        if len(paths) != len(provenance.images):
            raise ValueError(
                f"{name}: {len(paths)} files for {len(provenance.images)} images; one "
                "for each is needed, or None"
            )
    refined = _refinement(provenance)
    trains = provenance.classifier_file is None
    entries = _entries(provenance, labels if trains else [None] * len(labels), given)
    classes = sorted(_all_classes(provenance).items())
    made = provenance.features
    parts = [
        _HEAD.format(
            version=provenance.versions.get("napari-hrdv2", "of then"),
            date=provenance.date,
            imports=_imports(refined=bool(refined), trains=trains),
            images=entries,
            names=_table({i: info.name for i, info in classes}),
            colors=_table({i: info.color for i, info in classes}),
            backbone=_table({"name": made.backbone, "weights": made.weights}),
            features=_table(
                {
                    "transforms": made.transforms,
                    "stride": made.stride,
                    "boundary": made.boundary,
                    "interpolation": made.interpolation,
                    "compat": made.compat,
                    "debias": made.debias,
                }
            ),
        ),
        _FUNCTIONS.format(hashes=provenance.weights_hashes),
        (_TRAIN if trains else _LOAD).format(
            C=provenance.C,
            balanced=provenance.balanced,
            self_training=provenance.self_training,
            classifier_file=provenance.classifier_file,
        ),
    ]
    if trains and provenance.labels_hash:
        parts.append(_CHECK.format(labels_hash=provenance.labels_hash))
    parts += [
        _SEGMENT,
        _REFINE.format(refinement=refined) if refined else _PREDICT,
        _WRITE,
    ]
    return "".join(parts)


def _all_classes(provenance: Provenance) -> dict[int, ClassInfo]:
    """With a name and a colour for each class that was painted."""
    painted = {i for image in provenance.images for i in image.scribble_pixels}
    return {i: default_class(i) for i in painted} | dict(provenance.classes)


def _imports(*, refined: bool, trains: bool) -> str:
    names = ["read_image", "read_labels", "write_color_png", "write_labels"]
    if not trains:
        names.remove("read_labels")
    lines = [f"from napari_hrdv2.files import {', '.join(names)}"]
    if refined:
        lines.insert(
            0, "from napari_hrdv2.core.postprocess.refinement import Refinement, refine"
        )
    return "\n".join(lines) + "\n"


def _refinement(provenance: Provenance) -> str:
    """Its fields as arguments; empty where it changes nothing."""
    if provenance.refinement is None:
        return ""
    fields = asdict(provenance.refinement)
    if fields == asdict(type(provenance.refinement)()):
        return ""
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())


def _entries(
    provenance: Provenance,
    labels: Sequence[PathLike | None],
    images: Sequence[PathLike | None],
) -> str:
    lines, taken = [], set[str]()
    trains = provenance.classifier_file is None
    for record, scribbles, given in zip(provenance.images, labels, images, strict=True):
        path = record.path if given is None else given
        if path is None:
            raise ValueError(
                f"images: {record.name} has no file; save it as TIFF and give its path"
            )
        if trains and record.scribble_pixels and scribbles is None:
            raise ValueError(
                f"labels: {record.name} was painted; save its scribbles, give the path"
            )
        entry = (
            os.fspath(path),
            None
            if scribbles is None or not record.scribble_pixels
            else os.fspath(scribbles),
            _free_name(record, taken),
            record.value_range,
            list(record.exclusion),
        )
        lines.append("    (\n" + "".join(f"        {v!r},\n" for v in entry) + "    ),")
    return "\n".join(lines)


def _free_name(record: ImageRecord, taken: set[str]) -> str:
    """A file to write: two images may have the same name."""
    stem = Path(record.path or record.name).stem or "image"
    name = next(
        name
        for number in range(1, len(taken) + 2)
        if (name := f"{stem}{f'_{number}' * (number > 1)}_segmentation.tif")
        not in taken
    )
    taken.add(name)
    return name


def _table(entries: Mapping[Any, Any]) -> str:
    lines = "".join(f"    {key!r}: {value!r},\n" for key, value in entries.items())
    return "{\n" + lines + "}"
