"""From an image to tokens: what there is to choose from, and how it is loaded.

The names below are loaded when they are first used, so that importing this costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .archive import export_weights, import_weights
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
    "export_weights",
    "files_of",
    "import_weights",
    "load_backbone",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in ("base", "registry", "hub", "archive"):
            module = import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
