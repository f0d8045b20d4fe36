"""Dividing an image into regions: superpixels, squares, cells about random points."""

from napari_hrdv2.core.backbones.superpixels.cells import pca_tree, squares
from napari_hrdv2.core.backbones.superpixels.hierarchy import (
    COMPACTNESS,
    LEVELS,
    hierarchy,
    superpixels,
)
from napari_hrdv2.core.backbones.superpixels.label_maps import (
    borders,
    boxes_of,
    numbered,
)
from napari_hrdv2.core.backbones.superpixels.pixels import (
    pixel_features,
    vertex_features,
)

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
