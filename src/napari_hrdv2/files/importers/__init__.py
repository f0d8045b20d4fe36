"""Labels from any of the files that programs keep them in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from napari_hrdv2.core.checks import spread_levels
from napari_hrdv2.files import labels as label_files
from napari_hrdv2.files.ome_zarr import read_ome_zarr
from napari_hrdv2.files.reading import file_start

from .ilastik import read_ilastik
from .imagej_rois import read_rois
from .labkit import from_label_sets, label_sets, read_labkit


def import_labels(
    path: str | os.PathLike[str],
    shape: tuple[int, int] | None = None,
    *,
    image_name: str | None = None,
    grey_levels: bool = True,
) -> label_files.ImportedLabels:
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
        return read_ome_zarr(path, shape, name=image_name)
    start = file_start(path, 64)
    if start.startswith(b"\x89HDF"):
        return read_ilastik(path, shape, image_name=image_name)
    if start.startswith((b"PK\x03\x04", b"Iout")):
        return read_rois(path, shape)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return read_labkit(path, shape)
    return _from_image(path, shape, grey_levels)


def _from_image(
    path: Path, shape: tuple[int, int] | None, grey_levels: bool
) -> label_files.ImportedLabels:
    labels = label_files.read_labels(path)
    label_files.check_size(path, labels.shape, shape)
    sets = label_sets(path)
    if sets is not None:
        return from_label_sets(path, labels, sets)
    classes = label_files.read_label_classes(path)
    ours = classes.names or classes.colors
    levels = spread_levels(labels) if grey_levels and not ours else None
    if levels is None:
        ids = np.unique(labels[labels > 0]).tolist()
        note = f"{label_files.count_text(len(ids), 'class', 'classes')} as in the file."
        return label_files.ImportedLabels(labels, classes, note)
    shown = ", ".join(map(str, levels.tolist()))
    many = label_files.count_text(len(levels), "class", "classes")
    return label_files.ImportedLabels(
        label_files.checked_ids(np.searchsorted([0, *levels], labels)),
        label_files.LabelClasses(),
        f"{many} from the evenly spaced grey levels {shown}, as 1 to {len(levels)}."
        if len(levels) > 1
        else f"{many} from the grey level {shown}, as 1.",
    )
