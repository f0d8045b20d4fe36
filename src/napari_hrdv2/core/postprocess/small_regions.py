"""Small objects and holes of a label image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]


def without_small_objects(labels: Labels, smallest: int) -> Labels:
    """Return the labels with each small object given to the class that surrounds it.

    An object is a set of pixels of one class that touch each other, also by corners:
    a thin oblique line is one object. It takes the class with which it shares most
    pixel edges (of equals, the lowest). Objects that touch small ones alone follow
    when these have been given away.

    Parameters
    ----------
    labels : (H, W) integer array
        0 is no label: never given and never taken.
    smallest : int
        Objects of fewer pixels are small.

    Returns
    -------
    (H, W) integer array
        Unchanged where nothing but small objects touch each other.
    """
    from skimage.measure import label

    objects = label(labels, connectivity=2, background=0)
    small = np.bincount(objects.ravel(), minlength=1) < smallest
    small[0] = False
    if not small.any():
        return labels
    ids = np.unique(labels)
    class_of = np.zeros(len(small), np.intp)  # of each object, as a position in `ids`
    class_of[objects.ravel()] = np.searchsorted(ids, labels.ravel())
    pairs = _neighbours(objects, small)
    while True:
        inside, outside = pairs
        ready = small[inside] & ~small[outside]
        if not ready.any():
            given_back: Labels = ids[class_of][objects]
            return given_back
        given, new = _commonest(inside[ready], class_of[outside[ready]], len(ids))
        class_of[given] = new
        small[given] = False


def without_small_holes(
    labels: Labels,
    largest: int,
    *,
    tick: Callable[[], None] | None = None,
) -> Labels:
    """Return the labels with small holes of each class filled by it.

    A hole is whatever one class encloses: pixels of other classes that touch by their
    edges, but neither the border of the image nor unlabelled pixels.

    Parameters
    ----------
    labels : (H, W) integer array
        0 is no label.
    largest : int
        Holes of fewer pixels are filled.
    tick : callable, optional
        Called between classes; it may raise.

    Returns
    -------
    (H, W) integer array
    """
    from skimage.measure import label

    filled = labels.copy()
    for one in np.unique(labels[labels != 0]):
        if tick is not None:
            tick()
        # All that is unlabelled or beyond the border is one large region.
        holes = label(np.pad(filled, 1) != one, connectivity=1)
        sizes = np.bincount(holes.ravel())
        small = sizes < largest
        small[0] = False
        small[np.unique(holes[np.pad(filled, 1) == 0])] = False
        filled[small[holes[1:-1, 1:-1]]] = one
    return filled


def _neighbours(
    objects: NDArray[np.integer[Any]], small: NDArray[np.bool_]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Return a small object and its neighbour for each pixel edge between them."""
    found = []
    for a, b in ((objects[1:], objects[:-1]), (objects[:, 1:], objects[:, :-1])):
        border = (a != b) & (small[a] | small[b]) & (a != 0) & (b != 0)
        found += [(a[border], b[border]), (b[border], a[border])]
    inside, outside = (np.concatenate(part) for part in zip(*found, strict=True))
    wanted = small[inside]
    return inside[wanted], outside[wanted]


def _commonest(
    objects: NDArray[np.integer[Any]], classes: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return each object once, with the class that stands beside it most often."""
    given, position = np.unique(objects, return_inverse=True)
    votes = np.zeros((len(given), count), np.intp)
    np.add.at(votes, (position, classes), 1)
    return given, votes.argmax(1)
