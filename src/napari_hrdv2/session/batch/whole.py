"""All of a large image of the session, segmented into an OME-Zarr."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.files import ImageFile, open_image
from napari_hrdv2.files.label_store import check_store
from napari_hrdv2.files.lazy import LazyImage
from napari_hrdv2.files.units import NO_UNIT, unit_symbol
from napari_hrdv2.session.pipeline import ProcessedImage
from napari_hrdv2.session.snapshots import Blocks, Stage

from .streaming import stream_labels

if TYPE_CHECKING:
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks import Task, TaskContext


def whole_request(session: Session, target: Path) -> Task:
    """Return the request to segment all of the current image into an OME-Zarr.

    By the classifier of what is shown, and refined as the settings are now. The labels
    of the answer stay in the file. What is cancelled is gone on with by the next one.
    ValueError where there is no result yet; others as `check_store`.
    """
    entry, refinement = session.current, session.refinement.settings
    shown = None if entry is None else entry.result
    if entry is None or shown is None or shown.classifier is None:
        raise ValueError("There is no result yet: paint two classes first.")
    check_store(target)
    snapshot, classifier = entry.snapshot(), session.named_classifier(shown.classifier)
    size, unit = entry.pixel_size or (None, NO_UNIT)
    image: Any = entry.image
    if not isinstance(image, np.ndarray):
        plane, about = image, (image.shape, image.dtype)
        image = LazyImage(Path(snapshot.name), lambda *window: plane[window], *about)
    file = ImageFile(image, size, unit_symbol(unit))

    def segment(context: TaskContext) -> ProcessedImage:
        streamed = stream_labels(
            file,
            snapshot.features,
            classifier,
            target,
            context,
            exclusion=snapshot.exclusion,
            refinement=refinement,
            colors=classifier.class_colors,
        )
        result = replace(
            shown,
            labels=open_image(target).data,
            fractions=streamed.by_class,
            refinement=refinement,
            blocks=Blocks(0),  # none is missing
            counted=streamed.fractions,
        )
        return ProcessedImage(snapshot, Stage.REFINEMENT, result)

    return segment
