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
from napari_hrdv2.session.image_entry import ImageEntry
from napari_hrdv2.session.pipeline import (
    LIVE_TOLERANCE,
    PipelineInput,
    PipelineResult,
    ProcessedImage,
    process_image,
)
from napari_hrdv2.session.session import Session
from napari_hrdv2.session.snapshots import (
    ImageSnapshot,
    Preview,
    Result,
    Stage,
    TrainingImage,
)
from napari_hrdv2.session.tasks.context import (
    Task,
    TaskContext,
    TimeLeft,
    bytes_text,
    compute,
)
from napari_hrdv2.session.tasks.features import FeatureRequest, FeatureResult

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
    "default_class",
    "default_classes",
    "default_color",
    "process_image",
]
