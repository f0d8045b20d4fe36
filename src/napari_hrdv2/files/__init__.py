"""Images, labels and segmentations on disk."""

from __future__ import annotations

from ._labels import (
    LabelClasses,
    read_label_classes,
    read_labels,
    write_color_png,
    write_labels,
)
from ._read import ImageFile, image_files, read_image

__all__ = [
    "ImageFile",
    "LabelClasses",
    "image_files",
    "read_image",
    "read_label_classes",
    "read_labels",
    "write_color_png",
    "write_labels",
]
