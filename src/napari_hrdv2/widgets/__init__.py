"""The dock widget for napari, and what the manifest points to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sample_data import launch_demo
    from .widget import SegmentationWidget

__all__ = ["SegmentationWidget", "launch_demo"]


def __getattr__(name: str) -> Any:
    # Sample data are listed without loading Qt or torch.
    places = {"SegmentationWidget": ".widget", "launch_demo": ".sample_data"}
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(places[name], __name__), name)
