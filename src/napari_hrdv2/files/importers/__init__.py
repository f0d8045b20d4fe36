"""Labels from any of the files that programs keep them in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from napari_hrdv2.core.checks import spread_levels
from napari_hrdv2.files.labels import (
    ImportedLabels,
    LabelClasses,
    check_size,
    checked_ids,
    count_text,
    read_label_classes,
    read_labels,
)
from napari_hrdv2.files.reading import file_start

LABEL_SUFFIXES = (
    *(".tif", ".tiff", ".png", ".bmp"),
    *(".ilp", ".labeling", ".roi", ".zip", ".zarr"),
)
"""Of the files that `import_labels` reads; it goes by their content."""


def import_labels(
    path: str | os.PathLike[str],
    shape: tuple[int, int] | None = None,
    *,
    image_name: str | None = None,
    grey_levels: bool = True,
) -> ImportedLabels:
    """Return labels from a file of ours or of another program, seen from its content.

    Parameters
    ----------
    path : path-like
        A TIFF, PNG or BMP with one whole number per pixel; an ilastik project
        (``.ilp``); a Labkit labeling (``.labeling``, or a TIFF with ``.labels`` beside
        it); ImageJ regions (``.roi`` or a ``.zip`` of them); an OME-Zarr folder.
    shape : (H, W), optional
        Of the image that the labels are for. ImageJ regions need it.
    image_name : str, optional
        The image of an ilastik project, or label image of an OME-Zarr, if there are
        several.
    grey_levels : bool, optional
        Whether values that are evenly spaced up to white, such as 85, 170 and 255,
        stand for the classes 1, 2 and 3. Black stays 0. The note says so.

    Raises
    ------
    ImportError
        If a package of the extra "interop" is missing, which the message names.
    OSError, ValueError
        If it cannot be read, holds no labels, or those of an image of another size.
    """
    path = Path(path)
    if path.is_dir():
        from napari_hrdv2.files.ome_zarr import read_ome_zarr

        return read_ome_zarr(path, shape, name=image_name)
    start = file_start(path, 64)
    if start.startswith(b"\x89HDF"):
        from .ilastik import read_ilastik

        return read_ilastik(path, shape, image_name=image_name)
    if start.startswith((b"PK\x03\x04", b"Iout")):
        from .imagej_rois import read_rois

        return read_rois(path, shape)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        from .labkit import read_labkit

        return read_labkit(path, shape)
    return _from_image(path, shape, grey_levels)


def _from_image(
    path: Path, shape: tuple[int, int] | None, grey_levels: bool
) -> ImportedLabels:
    from .labkit import from_label_sets, label_sets

    labels = read_labels(path)
    check_size(path, labels.shape, shape)
    sets = label_sets(path)
    if sets is not None:
        return from_label_sets(path, labels, sets)
    classes = read_label_classes(path)
    ours = classes.names or classes.colors
    levels = spread_levels(labels) if grey_levels and not ours else None
    if levels is None:
        ids = np.unique(labels[labels > 0]).tolist()
        note = f"{count_text(len(ids), 'class', 'classes')} as in the file."
        return ImportedLabels(labels, classes, note)
    shown = ", ".join(map(str, levels.tolist()))
    many = count_text(len(levels), "class", "classes")
    return ImportedLabels(
        checked_ids(np.searchsorted([0, *levels], labels)),
        LabelClasses(),
        f"{many} from the evenly spaced grey levels {shown}, as 1 to {len(levels)}."
        if len(levels) > 1
        else f"{many} from the grey level {shown}, as 1.",
    )
