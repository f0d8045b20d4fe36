"""Dividing an image into regions: superpixels, squares, cells about random points."""

from .merging import COMPACTNESS, LEVELS, hierarchy, superpixels
from .pixels import pixel_features, vertex_features
from .regions import borders, boxes_of, numbered, pca_tree, squares

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
