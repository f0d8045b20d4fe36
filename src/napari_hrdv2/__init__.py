"""Weakly supervised segmentation of micrographs with high-resolution deep features.

The names below are loaded when they are first used, so that importing the package
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.backbones import load_backbone
    from .core.classifier.pixel_classifier import PixelClassifier
    from .core.errors import Cancelled
    from .core.features.blocks import block_features
    from .core.features.compute import compute_features
    from .core.features.high_resolution import HighResFeatures
    from .core.guidance import propose_places
    from .core.series.left_out import predict_left_out
    from .core.series.reading import reading_of
    from .core.series.training import train_series

__all__ = [
    "Cancelled",
    "HighResFeatures",
    "PixelClassifier",
    "block_features",
    "compute_features",
    "load_backbone",
    "predict_left_out",
    "propose_places",
    "reading_of",
    "train_series",
]

try:
    __version__ = version("napari-hrdv2")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"

_HOME = {
    "Cancelled": "core.errors",
    "HighResFeatures": "core.features.high_resolution",
    "PixelClassifier": "core.classifier.pixel_classifier",
    "block_features": "core.features.blocks",
    "compute_features": "core.features.compute",
    "load_backbone": "core.backbones",
    "predict_left_out": "core.series.left_out",
    "propose_places": "core.guidance",
    "reading_of": "core.series.reading",
    "train_series": "core.series.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
