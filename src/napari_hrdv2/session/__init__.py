"""The state a user builds up, drivable with no window."""

from napari_hrdv2.session.classes import (
    ClassInfo,
    default_class,
    default_classes,
    default_color,
)
from napari_hrdv2.session.cost import Cost
from napari_hrdv2.session.progress import TimeLeft, bytes_text
from napari_hrdv2.session.requests import (
    FeatureRequest,
    FeatureResult,
    TrainRequest,
    TrainResult,
)
from napari_hrdv2.session.session import Session
from napari_hrdv2.session.settings import (
    STRIDES,
    TRANSFORM_CHOICES,
    FeatureSettings,
)
from napari_hrdv2.session.work import LIVE_TOLERANCE, compute

__all__ = [
    "LIVE_TOLERANCE",
    "STRIDES",
    "TRANSFORM_CHOICES",
    "ClassInfo",
    "Cost",
    "FeatureRequest",
    "FeatureResult",
    "FeatureSettings",
    "Session",
    "TimeLeft",
    "TrainRequest",
    "TrainResult",
    "bytes_text",
    "compute",
    "default_class",
    "default_classes",
    "default_color",
]
