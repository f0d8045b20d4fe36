"""The dock widget for napari, and what the manifest points to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sample_data import launch_demo
    from .widget import SegmentationWidget

__all__ = ["SegmentationWidget", "launch_demo"]


def __getattr__(name: str) -> Any:
    # Sample data are listed without loading Qt or torch.
    if name == "SegmentationWidget":
        from .widget import SegmentationWidget

        return SegmentationWidget
    if name == "launch_demo":
        from .sample_data import launch_demo

        return launch_demo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
