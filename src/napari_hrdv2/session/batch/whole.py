"""All of a large image of the session, segmented into an OME-Zarr."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_hrdv2.files import ImageFile, open_image
from napari_hrdv2.files.label_store import begun_as, check_store, store_fingerprint
from napari_hrdv2.files.lazy import LazyImage
from napari_hrdv2.files.units import NO_UNIT, unit_symbol
from napari_hrdv2.session.pipeline import ProcessedImage
from napari_hrdv2.session.session import Session
from napari_hrdv2.session.snapshots import Blocks, ImageSnapshot, Result, Stage
from napari_hrdv2.session.tasks import Task, TaskContext

from .streaming import stream_labels


def whole_request(session: Session, target: Path) -> Task:
    """Return the request to segment all of the current image into an OME-Zarr.

    By the classifier of what is shown, and refined as the settings are now. The labels
    of the answer stay in the file. What is cancelled is gone on with by the next one.
    ValueError where there is no result yet; others as `check_store`.
    """
    shown, snapshot, given, about = _to_stream(session)
    check_store(target)

    def segment(context: TaskContext) -> ProcessedImage:
        streamed = stream_labels(*given, target, context, **about)
        result = replace(
            shown,
            labels=open_image(target).data,
            fractions=streamed.by_class,
            refinement=about["refinement"],
            blocks=Blocks(0),  # none is missing
            counted=streamed.fractions,
        )
        return ProcessedImage(snapshot, Stage.REFINEMENT, result)

    return segment


def is_taken(session: Session, target: Path) -> bool:
    """Whether something was begun there that a request would not go on with."""
    if (known := begun_as(target)) is None:
        return False
    *_, given, about = _to_stream(session)
    return known != store_fingerprint(*given, **about)


def _to_stream(
    session: Session,
) -> tuple[Result, ImageSnapshot, tuple[Any, Any, Any], dict[str, Any]]:
    """Return result and image as they are now, and the arguments of `stream_labels`."""
    entry = session.current
    shown = None if entry is None else entry.result
    if entry is None or shown is None or shown.classifier is None:
        raise ValueError("There is no result yet: paint two classes first.")
    snapshot, classifier = entry.snapshot(), session.named_classifier(shown.classifier)
    size, unit = entry.pixel_size or (None, NO_UNIT)
    image: Any = entry.image
    if not isinstance(image, np.ndarray):
        plane, shape = image, (image.shape, image.dtype)
        image = LazyImage(Path(snapshot.name), lambda *window: plane[window], *shape)
    file = ImageFile(image, size, unit_symbol(unit))
    about = {
        "exclusion": snapshot.exclusion,
        "refinement": session.refinement.settings,
        "colors": classifier.class_colors,
    }
    return shown, snapshot, (file, snapshot.features, classifier), about
