"""The state a user builds up, drivable with no window."""

from napari_hrdv2.core.devices import bytes_text
from napari_hrdv2.core.features.cost import Cost
from napari_hrdv2.core.features.options import FeatureOptions

from .classes import Classes, ClassInfo, default_color
from .features import FeatureRequest, FeatureResult
from .images import ImageEntry
from .pipeline import (
    LIVE_TOLERANCE,
    PipelineInput,
    PipelineResult,
    ProcessedImage,
    process_image,
)
from .session import Session
from .snapshots import ImageSnapshot, Preview, Result, Stage, TrainingImage
from .tasks import Task, TaskContext, TimeLeft, compute

__all__ = [
    "LIVE_TOLERANCE",
    "ClassInfo",
    "Classes",
    "Cost",
    "FeatureOptions",
    "FeatureRequest",
    "FeatureResult",
    "ImageEntry",
    "ImageSnapshot",
    "PipelineInput",
    "PipelineResult",
    "Preview",
    "ProcessedImage",
    "Result",
    "Session",
    "Stage",
    "Task",
    "TaskContext",
    "TimeLeft",
    "TrainingImage",
    "bytes_text",
    "compute",
    "default_color",
    "process_image",
]
