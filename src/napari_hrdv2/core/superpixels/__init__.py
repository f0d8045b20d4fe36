"""Dividing an image into regions: superpixels, squares, cells about random points."""

from .cells import pca_tree, squares
from .hierarchy import COMPACTNESS, LEVELS, hierarchy, superpixels
from .label_maps import borders, boxes_of, numbered
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
