"""The kinds of files that results are exported as.

To add a kind, add one `ExportFormat` to `FORMATS`: the window has a box for it, and
`export_all` knows its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.measure import write_fractions_csv
from napari_hrdv2.files import read_image, write_color_png, write_image, write_labels

from .content import ExportContent, ExportImage
from .methods import methods_paragraph
from .script import python_script

CLASSIFIER = "classifier.safetensors"
FRACTIONS, SCRIPT, METHODS = "fractions.csv", "segment.py", "methods.md"
SCRIBBLES = "_scribbles.tif"

Targets = Callable[["ExportContent"], list[Path]]


@dataclass(frozen=True)
class ExportFormat:
    """One kind of file.

    `write` writes each file whole or not at all and returns those that were written; it
    raises ImportError, with the name of the extra, where a package is missing.
    """

    name: str  # for `export_all`
    title: str  # for the window, as the hint
    hint: str
    targets: Targets  # returns the files that would be written
    write: Targets
    is_default: bool = True  # whether it is ticked at first


def image_format(
    name: str,
    title: str,
    hint: str,
    suffix: str,
    write: Callable[[Path, ExportImage, ExportContent], bool],
    *,
    is_default: bool = True,
) -> ExportFormat:
    """Return a format with one file for each image.

    `write` gets the path, the image and all that is exported, and returns False where
    the image has nothing of the kind.
    """

    def targets(content: ExportContent) -> list[Path]:
        return [content.path(image, suffix) for image in content.wanted]

    def write_all(content: ExportContent) -> list[Path]:
        images = content.each(content.wanted)
        pairs = ((content.path(image, suffix), image) for image in images)
        return [path for path, image in pairs if write(path, image, content)]

    return ExportFormat(name, title, hint, targets, write_all, is_default)


def _write_labels(
    path: Path, labels: NDArray[Any] | None, image: ExportImage, content: ExportContent
) -> bool:
    if labels is None:
        return False
    size, unit = image.pixel_size or (None, "pixel")
    write_labels(
        path,
        labels,
        pixel_size=size,
        unit=unit,
        class_names=content.names,
        class_colors=content.colors,
    )
    return True


def _write_colors(path: Path, image: ExportImage, content: ExportContent) -> bool:
    if image.segmentation is None:
        return False
    write_color_png(path, image.segmentation, content.colors)
    return True


def _write_zarr(path: Path, image: ExportImage, content: ExportContent) -> bool:
    from napari_hrdv2 import files

    if image.segmentation is None:
        return False
    size, unit = image.pixel_size or (None, "pixel")
    labels = {"segmentation": image.segmentation}
    if image.scribbles is not None:
        labels["scribbles"] = image.scribbles
    classes = files.LabelClasses(content.names, content.colors)
    pixels = np.asarray(image.image)
    pixels = pixels[..., 0] if image.channels else pixels
    files.write_ome_zarr(path, pixels, labels, classes, size, unit)
    return True


def _write_fractions(content: ExportContent) -> list[Path]:
    names = {image.stem: image.name for image in content.images}
    unique = len(set(names.values())) == len(names)
    rows = {
        names[stem] if unique else stem: table
        for stem, table in content.fractions.items()
    }
    path = content.folder / FRACTIONS
    write_fractions_csv(path, rows, class_names=content.names)
    return [path]


def _script_targets(content: ExportContent) -> list[Path]:
    if content.provenance is None:
        return []
    found = [content.folder / SCRIPT, content.folder / METHODS]
    found += [content.path(i, SCRIBBLES) for i in content.images if i.trains]
    found += [content.path(i, "_image.tif") for i in content.images]
    return found + [content.folder / CLASSIFIER] * (content.classifier is not None)


def _write_script(content: ExportContent) -> list[Path]:
    """Write the script, the methods paragraph, and what the script reads."""
    if content.provenance is None:
        return []
    paths: list[Path] = []
    files: list[tuple[str, str | None]] = []
    for image in content.each(content.images):
        file = _readable_image(image, content)
        is_ours = file.parent == content.folder
        paths += [file] * is_ours
        scribbles = content.path(image, SCRIBBLES)
        if image.trains and _write_labels(scribbles, image.scribbles, image, content):
            paths.append(scribbles)
        painted = scribbles.name if image.trains else None
        files.append((file.name if is_ours else str(file), painted))
    if content.classifier is not None:
        paths.append(content.folder / CLASSIFIER)
        content.classifier.save(paths[-1])
    made, images = content.provenance, content.images
    script = python_script(made, images, files)
    methods = methods_paragraph(made, images, content.fractions)
    for name, text in ((SCRIPT, script), (METHODS, methods)):
        with atomic_path(content.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(content.folder / name)
    return paths


def _readable_image(image: ExportImage, content: ExportContent) -> Path:
    """Return a file that reads as the very image; written where there is none."""
    pixels = np.asarray(image.image)
    if image.channels and image.source is not None:
        return Path(image.source).absolute()
    if image.source is not None and os.path.exists(image.source):
        try:
            if np.array_equal(read_image(image.source).data, pixels):
                return Path(image.source).absolute()
        except (OSError, ValueError):
            pass  # a file of a kind that only the viewer reads
    path = content.path(image, "_image.tif")
    size, unit = image.pixel_size or (None, "pixel")
    with atomic_path(path) as temporary:
        write_image(temporary, pixels, pixel_size=size, unit=unit)
    return path


FORMATS: list[ExportFormat] = [
    image_format(
        "labels",
        "Labels, TIFF",
        "Label ids with class names, colours and pixel size; ImageJ reads it",
        "_labels.tif",
        lambda path, one, content: _write_labels(path, one.segmentation, one, content),
    ),
    image_format(
        "colors",
        "Colours, PNG",
        "An image to look at, in the colours of the classes",
        "_colors.png",
        _write_colors,
    ),
    image_format(
        "zarr",
        "OME-Zarr",
        "Image, segmentation and scribbles with names and colours, as one folder",
        ".zarr",
        _write_zarr,
        is_default=False,
    ),
    image_format(
        "scribbles",
        "Scribbles, TIFF",
        "What was painted, as label ids",
        SCRIBBLES,
        lambda path, one, content: _write_labels(path, one.scribbles, one, content),
        is_default=False,
    ),
    ExportFormat(
        "fractions",
        "Phase fractions, CSV",
        "The phase fraction of each class with its error, as a table",
        lambda content: [content.folder / FRACTIONS],
        _write_fractions,
    ),
    ExportFormat(
        "script",
        "Script, text",
        "A Python script that segments the images again, and a paragraph for the "
        "methods section of a paper",
        _script_targets,
        _write_script,
    ),
]
"""What can be exported, in the order of the window."""
