"""From probabilities to the labels that are kept: smoothing, small objects, holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_hrdv2.core.checks import checked_labels, checked_mask
from napari_hrdv2.core.errors import Cancelled

from .small_regions import without_small_holes, without_small_objects

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SMOOTHINGS", "Refinement", "Smoothing", "clean", "refine"]

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
    min_object : int
        Objects of fewer pixels go to the class that surrounds them; 0 keeps all.
    fill_holes : int
        Holes of fewer pixels are filled; 0 fills none.
    """

    smoothing: Smoothing = "none"
    radius: int = 8
    strength: float = 0.5
    min_object: int = 0
    fill_holes: int = 0

    def check(self) -> None:
        """Raise ValueError, in one sentence, unless all values can be used."""
        if self.smoothing not in SMOOTHINGS:
            raise ValueError(
                f"smoothing: {self.smoothing!r} is none of {', '.join(SMOOTHINGS)}"
            )
        if not _is_whole(self.radius) or self.radius < 1:
            raise ValueError(
                f"radius: {self.radius!r} is not a whole number of pixels from 1"
            )
        # NaN fails the comparison too.
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: {self.strength!r} is not a number in 0..1")
        for name in ("min_object", "fill_holes"):
            _check_size(name, getattr(self, name))

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
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.unsignedinteger[Any]]:
    """Return the label id of every pixel; the probabilities are left as they are.

    Parameters
    ----------
    probabilities : (K, H, W) float array
        Of each class, as `PixelClassifier.predict_proba` gives them.
    image : (H, W), (H, W, 3) or (H, W, 4) array, or None
        Grey levels or colours that guide the smoothing; an alpha channel is dropped.
        Without smoothing it is not looked at.
    classes : (K,) ints
        Label ids from 1, in the order of the probabilities.
    refinement : Refinement
    exclusion : (H, W) bool array, optional
        Pixels of no class, for instance of a databar: 0 in the result, and nothing
        around them depends on them.
    should_stop : callable, optional
        Asked from time to time.

    Returns
    -------
    (H, W) array of the smallest unsigned integer type that holds the ids

    Raises
    ------
    ValueError
        If an argument cannot be used, or does not fit the others.
    Cancelled
        When `should_stop` returned True.
    """
    refinement.check()
    planes, ids = _checked_planes(probabilities, classes)
    exclusion = checked_mask(exclusion, planes.shape[1:])
    tick = _ticker(should_stop)
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
    labels = ids[planes.argmax(axis=0)]
    if exclusion is not None:
        labels[exclusion] = 0
    tick()
    return _cleaned(labels, refinement.min_object, refinement.fill_holes, tick)


def clean(
    labels: NDArray[np.integer[Any]],
    min_object: int = 0,
    fill_holes: int = 0,
    *,
    exclusion: NDArray[np.bool_] | None = None,
    should_stop: Callable[[], bool] | None = None,
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
    should_stop : callable, optional
        Asked from time to time.

    Returns
    -------
    (H, W) array of the same type

    Raises
    ------
    ValueError
        If an argument cannot be used.
    Cancelled
        When `should_stop` returned True.
    """
    _check_size("min_object", min_object)
    _check_size("fill_holes", fill_holes)
    labels = checked_labels(labels).copy()
    exclusion = checked_mask(exclusion, labels.shape)
    if exclusion is not None:
        labels[exclusion] = 0
    return _cleaned(labels, min_object, fill_holes, _ticker(should_stop))


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


def _cleaned(
    labels: NDArray[Any], min_object: int, fill_holes: int, tick: Callable[[], None]
) -> NDArray[Any]:
    # One pixel is the smallest object there is: a limit of 1 spares it.
    if min_object > 1:
        labels = without_small_objects(labels, min_object)
        tick()
    if fill_holes > 1:
        labels = without_small_holes(labels, fill_holes, tick=tick)
    return labels


def _ticker(should_stop: Callable[[], bool] | None) -> Callable[[], None]:
    def tick() -> None:
        if should_stop is not None and should_stop():
            raise Cancelled

    return tick


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_size(name: str, value: int) -> None:
    if not _is_whole(value) or value < 0:
        raise ValueError(f"{name}: {value!r} is not a whole number of pixels from 0")
