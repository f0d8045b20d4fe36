"""Images and labels from files into a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import MOST_CLASSES
from napari_hrdv2.core.errors import explained_of
from napari_hrdv2.files import ImageFile, ImportedLabels, import_labels
from napari_hrdv2.session.classes import (
    Classes,
    ClassInfo,
    default_class,
    matched_classes,
    relabelled,
)
from napari_hrdv2.session.images import Images
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.tasks import TaskContext


@dataclass(frozen=True)
class OpenedImage:
    """A micrograph and the file that it was read from."""

    path: str
    image: ImageFile


def open_images(context: TaskContext, *, paths: Sequence[str]) -> list[str]:
    """Read files; each is a partial answer, the answer says which cannot be read."""
    from napari_hrdv2.files import read_image

    problems = []
    for count, path in enumerate(paths):
        context.stop_if_cancelled()
        context.progress(f"Reading {Path(path).name}", count, len(paths))
        try:
            opened = OpenedImage(path, read_image(path))
        except Exception as error:  # noqa: BLE001 - a fault of one file is not of all
            problems.append(explained_of(path, error))
        else:
            context.partial(opened)
    return problems


def read_labels(
    context: TaskContext, *, path: Path, shape: tuple[int, int], image_name: str
) -> ImportedLabels:
    """Read labels for an image; files of several images know it by its name."""
    context.progress(f"Reading {path.name}", 0, 1)
    return import_labels(path, shape, image_name=image_name)


def scribbles_with(
    images: Images,
    classes: Classes,
    key: PlaneKey | str,
    labels: NDArray[Any],
    *,
    names: Mapping[int, str] | None = None,
    colors: Mapping[int, str] | None = None,
) -> NDArray[Any]:
    """Return the scribbles of an image with labels painted over them."""
    entry, names, colors = images[key], names or {}, colors or {}
    labels = np.asarray(labels)
    if labels.shape != entry.shape:
        raise ValueError(
            f"labels: shape {labels.shape} is not that of the image, {entry.shape}"
        )
    ids = [int(i) for i in np.unique(labels) if i]
    if len(ids) > MOST_CLASSES or (ids and ids[0] < 0):
        raise ValueError(
            f"labels: there are {len(ids)} of them from {ids[0]} to {ids[-1]}, which "
            f"are objects rather than classes; up to {MOST_CLASSES} from 1 can be "
            "scribbles"
        )
    if not ids:
        raise ValueError("labels: nothing is painted in them; choose others")
    theirs = {
        i: ClassInfo(names[i], colors.get(i) or default_class(i).color)
        for i in ids
        if names.get(i)
    }
    if theirs and not any(one.class_ids for one in images.values()):
        classes.ensure(theirs, names=names, colors=colors)
    elif theirs:
        labels = relabelled(labels, matched_classes(classes, theirs))
    if entry.scribbles is None:
        return labels
    return np.where(labels == 0, entry.scribbles.labels, labels)
