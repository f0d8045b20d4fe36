"""Labels from files or layers as strokes: what is read, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.session.classes import (
    ClassInfo,
    default_class,
    matched_classes,
    relabelled,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.files import ImportedLabels
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import TaskContext

MOST_CLASSES = 64
"""More than these are objects that were numbered, not classes."""


@dataclass(frozen=True)
class ImportRequest:
    """Labels are to be read from a file.

    Attributes
    ----------
    path : pathlib.Path
    key : PlaneKey
        Of the picture that they are for.
    shape : (H, W)
    image_name : str
        By which files of several images know this one.
    """

    path: Path
    key: PlaneKey
    shape: tuple[int, int]
    image_name: str

    def answer(self, context: TaskContext) -> ImportedLabels:
        """Read them."""
        from napari_hrdv2.files import import_labels

        context.progress(f"Reading {self.path.name}", 0, 1)
        try:
            return import_labels(self.path, self.shape, image_name=self.image_name)
        except ImportError as error:  # its text names the extra
            raise ValueError(str(error)) from error


def strokes_with(
    session: Session,
    key: PlaneKey | str,
    labels: NDArray[Any],
    *,
    names: Mapping[int, str] | None = None,
    colors: Mapping[int, str] | None = None,
) -> NDArray[Any]:
    """Return the strokes of a picture with labels painted over them.

    Classes with names are matched by name with those of the session, or added; others
    by number.

    Parameters
    ----------
    session : Session
        Its classes are added to.
    key : PlaneKey
        Of the picture.
    labels : (H, W) int array
        0 where nothing is.
    names, colors : mapping of int to str, optional
        Of the labels.

    Raises
    ------
    ValueError
        If the labels do not fit the picture, or are no classes.
    """
    entry, names, colors = session.images[key], names or {}, colors or {}
    labels = np.asarray(labels)
    if labels.shape != entry.shape:
        raise ValueError(
            f"labels: shape {labels.shape} is not that of the image, {entry.shape}"
        )
    ids = [int(i) for i in np.unique(labels) if i]
    if len(ids) > MOST_CLASSES or (ids and ids[0] < 0):
        raise ValueError(
            f"labels: there are {len(ids)} of them from {ids[0]} to {ids[-1]}, which "
            "are objects rather than classes; up to 64 from 1 can be strokes"
        )
    if not ids:
        raise ValueError("labels: nothing is painted in them; choose others")
    theirs = {
        i: ClassInfo(names[i], colors.get(i) or default_class(i).color)
        for i in ids
        if names.get(i)
    }
    if theirs and not any(one.class_ids for one in session.images.values()):
        session.classes.ensure(theirs, names=names, colors=colors)
    elif theirs:
        labels = relabelled(labels, matched_classes(session.classes, theirs))
    if entry.scribbles is None:
        return labels
    return np.where(labels == 0, entry.scribbles.labels, labels)
