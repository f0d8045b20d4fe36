"""Images, labels and segmentations on disk."""

from __future__ import annotations

from .images import (
    ImageFile,
    image_files,
    read_image,
    read_pixel_size,
    size_text,
    write_image,
)
from .importers import LABEL_SUFFIXES, import_labels
from .labels import (
    ImportedLabels,
    LabelClasses,
    read_label_classes,
    read_labels,
    write_color_png,
    write_labels,
)
from .ome_zarr import read_ome_zarr, write_ome_zarr

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
    "read_pixel_size",
    "size_text",
    "write_color_png",
    "write_image",
    "write_labels",
    "write_ome_zarr",
]
