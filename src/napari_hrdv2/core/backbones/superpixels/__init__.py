"""Dividing an image into regions: superpixels, squares, cells about random points."""

from .partitions import (
    COMPACTNESS,
    LEVELS,
    borders,
    boxes_of,
    hierarchy,
    numbered,
    pca_tree,
    squares,
    superpixels,
)
from .pixels import pixel_features, vertex_features

__all__ = [
    "COMPACTNESS",
    "LEVELS",
    "borders",
    "boxes_of",
    "hierarchy",
    "numbered",
    "pca_tree",
    "pixel_features",
    "squares",
    "superpixels",
    "vertex_features",
]
