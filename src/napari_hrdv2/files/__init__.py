"""Images, labels and segmentations on disk."""

from __future__ import annotations

from .folders import FoundImages, find_images, image_files, is_ours, is_result
from .images import (
    ImageFile,
    open_image,
    read_channel_names,
    read_image,
    read_pixel_size,
    read_turn,
    size_text,
    write_image,
)
from .importers import import_labels
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
    "FoundImages",
    "ImageFile",
    "ImportedLabels",
    "LabelClasses",
    "find_images",
    "image_files",
    "import_labels",
    "is_ours",
    "is_result",
    "open_image",
    "read_channel_names",
    "read_image",
    "read_label_classes",
    "read_labels",
    "read_ome_zarr",
    "read_pixel_size",
    "read_turn",
    "size_text",
    "write_color_png",
    "write_image",
    "write_labels",
    "write_ome_zarr",
]
