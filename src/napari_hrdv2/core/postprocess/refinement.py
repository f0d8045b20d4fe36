"""From probabilities to the labels that are kept: smoothing, small objects, holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import (
    check_choice,
    check_whole,
    checked_labels,
    checked_mask,
)
from napari_hrdv2.core.errors import Stop, stop_if

Labels = NDArray[np.integer[Any]]

Smoothing = Literal["none", "guided", "crf"]
SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)


@dataclass(frozen=True)
class Refinement:
    """What is done to a segmentation after the classifier; by default nothing.

    Attributes
    ----------
    smoothing : "none", "guided" or "crf"
        A guided filter, or a conditional random field with a colour term.
    radius : int
        How far pixels are asked, in pixels.
    strength : float
        In 0..1. Up to 0.5 a pixel of which the classifier is sure keeps its class
        whatever its neighbours say, so lines of one pixel stay.
    min_object, fill_holes : int
        Objects of fewer pixels go to the class that surrounds them, holes of fewer
        are filled; 0 changes nothing.
    """

    smoothing: Smoothing = "none"
    radius: int = 8
    strength: float = 0.5
    min_object: int = 0
    fill_holes: int = 0

    def check(self) -> None:
        """Raise ValueError, in one sentence, unless all values can be used."""
        check_choice("smoothing", self.smoothing, SMOOTHINGS)
        check_whole("radius", self.radius, 1, " of pixels")
        # NaN fails the comparison too.
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: {self.strength!r} is not a number in 0..1")
        for name in ("min_object", "fill_holes"):
            check_whole(name, getattr(self, name), 0, " of pixels")

    @property
    def is_off(self) -> bool:
        """Whether nothing is done."""
        return not (self.smooths or self.min_object > 1 or self.fill_holes > 1)

    @property
    def smooths(self) -> bool:
        """Whether it needs probabilities and the image."""
        return self.smoothing != "none" and self.strength > 0


def refine(
    probabilities: NDArray[np.float32],
    image: ArrayLike | None,
    classes: Sequence[int] | NDArray[np.integer[Any]],
    refinement: Refinement,
    *,
    exclusion: NDArray[np.bool_] | None = None,
    should_stop: Stop = None,
) -> NDArray[Any]:
    """Return the label id of every pixel; the probabilities are left as they are.

    Parameters
    ----------
    probabilities : (K, H, W) float array
        Of each class, as `PixelClassifier.predict_proba` gives them.
    image : (H, W), (H, W, 3) or (H, W, 4) array, or None
        Grey levels or colours that guide the smoothing; an alpha channel is dropped.
    classes : (K,) ints
        Label ids from 1, in the order of the probabilities.
    refinement : Refinement
    exclusion : (H, W) bool array, optional
        Pixels of no class, for instance of a databar: 0 in the result, and nothing
        around them depends on them.
    """
    refinement.check()
    planes, ids = _checked_planes(probabilities, classes)
    exclusion = checked_mask(exclusion, planes.shape[1:])
    tick = partial(stop_if, should_stop, "refining")
    tick()
    if refinement.smooths and len(ids) > 1:
        from .smoothing import guide_of, smoothed

        planes = smoothed(
            planes,
            guide_of(image, planes.shape, exclusion),
            refinement.smoothing,
            radius=refinement.radius,
            strength=refinement.strength,
            exclusion=exclusion,
            tick=tick,
        )
    return clean(
        ids[planes.argmax(axis=0)],
        refinement.min_object,
        refinement.fill_holes,
        exclusion=exclusion,
        should_stop=should_stop,
    )


def clean(
    labels: NDArray[np.integer[Any]],
    min_object: int = 0,
    fill_holes: int = 0,
    *,
    exclusion: NDArray[np.bool_] | None = None,
    should_stop: Stop = None,
) -> NDArray[np.integer[Any]]:
    """Return labels without small objects and holes; the given ones are left as is.

    An object of fewer than `min_object` pixels that touch each other, also by corners,
    takes the class with which it shares most pixel edges. After that, what one class
    encloses takes that class if it has fewer than `fill_holes` pixels.

    Parameters
    ----------
    labels : (H, W) integer array
        Label ids; pixels of 0 have none, and neither give nor take one.
    min_object, fill_holes : int
        In pixels; 0 changes nothing.
    exclusion : (H, W) bool array, optional
        Pixels to treat like 0; they are 0 in the result.
    """
    Refinement(min_object=min_object, fill_holes=fill_holes).check()
    labels = checked_labels(labels).copy()
    exclusion = checked_mask(exclusion, labels.shape)
    if exclusion is not None:
        labels[exclusion] = 0
    tick = partial(stop_if, should_stop, "refining")
    tick()
    # One pixel is the smallest object there is: a limit of 1 spares it.
    if min_object > 1:
        labels = without_small_objects(labels, min_object)
        tick()
    if fill_holes > 1:
        labels = without_small_holes(labels, fill_holes, tick)
    return labels


def _checked_planes(
    probabilities: ArrayLike, classes: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    planes, ids = np.asarray(probabilities, np.float32), np.asarray(classes)
    if planes.ndim != 3 or not planes.size:
        raise ValueError(
            f"probabilities: shape {planes.shape} is not (classes, H, W) with one "
            "pixel or more"
        )
    if ids.shape != planes.shape[:1] or ids.dtype.kind not in "ui" or ids.min() < 1:
        raise ValueError(
            f"classes: {ids.tolist()} are not the ids of {len(planes)} planes; one "
            "whole number from 1 for each is needed"
        )
    bad = int(planes.size - np.isfinite(planes).sum())
    if bad:
        raise ValueError(
            f"probabilities: {bad} of {planes.size} are NaN or infinite; train the "
            "classifier again"
        )
    return planes, ids.astype(np.min_scalar_type(int(ids.max())))


def without_small_objects(labels: Labels, smallest: int) -> Labels:
    """Return the labels with each small object given to the class that surrounds it.

    An object is a set of pixels of one class that touch each other, also by corners:
    a thin oblique line is one object. It takes the class with which it shares most
    pixel edges (of equals, the lowest). Objects that touch small ones alone follow
    when these have been given away. In a (Z, Y, X) volume, voxels touch by faces,
    edges and corners, and share faces.
    """
    from skimage.measure import label

    objects = label(labels, connectivity=labels.ndim, background=0)
    small = np.bincount(objects.ravel(), minlength=1) < smallest
    small[0] = False
    if not small.any():
        return labels
    ids = np.unique(labels)
    class_of = np.zeros(len(small), np.intp)  # of each object, as a position in `ids`
    class_of[objects.ravel()] = np.searchsorted(ids, labels.ravel())
    along = [np.moveaxis(objects, axis, 0) for axis in range(objects.ndim)]
    edges = [shared_edges(each[1:], each[:-1], small) for each in along]
    inside, outside = np.concatenate(edges, axis=1)
    ones = np.ones(len(inside), np.intp)
    return np.asarray(ids[given_away(inside, outside, ones, small, class_of)][objects])


def given_away(
    inside: NDArray[Any],
    outside: NDArray[Any],
    counts: NDArray[np.intp],
    small: NDArray[np.bool_],
    class_of: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Return the class of each object once small ones are given to those around them.

    `inside` and `outside` are a small object and its neighbour, with how many pixel
    edges they share; `class_of` each object's class, `small` which are to go.
    """
    class_of, small, classes = class_of.copy(), small.copy(), int(class_of.max()) + 1
    while True:
        ready = small[inside] & ~small[outside]
        if not ready.any():
            return class_of
        given, position = np.unique(inside[ready], return_inverse=True)
        votes = np.zeros((len(given), classes), np.intp)
        np.add.at(votes, (position, class_of[outside[ready]]), counts[ready])
        class_of[given] = votes.argmax(1)
        small[given] = False


def without_small_holes(
    labels: Labels, largest: int, tick: Callable[[], None]
) -> Labels:
    """Return the labels with small holes of each class filled by it.

    A hole is whatever one class encloses: pixels of other classes that touch by their
    edges, but neither the border of the image nor unlabelled pixels. In a (Z, Y, X)
    volume, voxels that touch by their faces.
    """
    from skimage.measure import label

    filled = labels.copy()
    for one in np.unique(labels[labels != 0]):
        tick()
        # All that is unlabelled or beyond the border is one large region.
        padded = np.pad(filled, 1)
        holes = label(padded != one, connectivity=1)
        small = np.bincount(holes.ravel()) < largest
        small[0] = False
        small[np.unique(holes[padded == 0])] = False
        filled[small[holes[(slice(1, -1),) * labels.ndim]]] = one
    return filled


def shared_edges(a: Labels, b: Labels, small: NDArray[np.bool_]) -> Labels:
    """Return each small object and its neighbour, (2, n), where two arrays meet."""
    border = (a != b) & (small[a] | small[b]) & (a != 0) & (b != 0)
    ends = np.stack([a[border], b[border]])
    both = np.concatenate([ends, ends[::-1]], axis=1)
    return np.asarray(both[:, small[both[0]]])
