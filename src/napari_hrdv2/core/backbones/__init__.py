"""From an image to tokens: what there is to choose from, and how it is loaded."""

from .base import (
    Backbone,
    BackboneSpec,
    GridBackbone,
    JoinedBackbone,
    LoadOptions,
    RegionBackbone,
)
from .hub import files_of
from .registry import (
    DEFAULT_BACKBONE,
    backbone_info,
    backbone_names,
    backbone_state,
    backbone_variants,
    load_backbone,
    register,
    sources_of,
)

__all__ = [
    "DEFAULT_BACKBONE",
    "Backbone",
    "BackboneSpec",
    "GridBackbone",
    "JoinedBackbone",
    "LoadOptions",
    "RegionBackbone",
    "backbone_info",
    "backbone_names",
    "backbone_state",
    "backbone_variants",
    "files_of",
    "load_backbone",
    "register",
    "sources_of",
]
