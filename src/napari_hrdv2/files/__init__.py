"""Images, labels and segmentations on disk."""

from __future__ import annotations

from ._import_labels import LABEL_SUFFIXES, import_labels
from ._imported import ImportedLabels
from ._labels import (
    LabelClasses,
    read_label_classes,
    read_labels,
    write_color_png,
    write_labels,
)
from ._ome_zarr import write_ome_zarr
from ._ome_zarr_read import read_ome_zarr
from ._read import ImageFile, image_files, read_image

__all__ = [
    "LABEL_SUFFIXES",
    "ImageFile",
    "ImportedLabels",
    "LabelClasses",
    "image_files",
    "import_labels",
    "read_image",
    "read_label_classes",
    "read_labels",
    "read_ome_zarr",
    "write_color_png",
    "write_labels",
    "write_ome_zarr",
]
