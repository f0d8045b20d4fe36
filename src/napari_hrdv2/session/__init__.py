"""The state a user builds up, drivable with no window."""

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session.classes import (
    Classes,
    ClassInfo,
    default_class,
    default_classes,
    default_color,
)
from napari_hrdv2.session.cost import Cost
from napari_hrdv2.session.image_entry import ImageEntry, Result
from napari_hrdv2.session.session import Session
from napari_hrdv2.session.tasks.context import Request, TaskContext, compute
from napari_hrdv2.session.tasks.features import FeatureRequest, FeatureResult
from napari_hrdv2.session.tasks.progress import TimeLeft, bytes_text
from napari_hrdv2.session.tasks.training import (
    LIVE_TOLERANCE,
    PartialResult,
    TrainRequest,
    TrainResult,
)

__all__ = [
    "LIVE_TOLERANCE",
    "ClassInfo",
    "Classes",
    "Cost",
    "FeatureOptions",
    "FeatureRequest",
    "FeatureResult",
    "ImageEntry",
    "PartialResult",
    "Request",
    "Result",
    "Session",
    "TaskContext",
    "TimeLeft",
    "TrainRequest",
    "TrainResult",
    "bytes_text",
    "compute",
    "default_class",
    "default_classes",
    "default_color",
]
