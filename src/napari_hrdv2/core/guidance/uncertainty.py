"""How sure a classifier is of every pixel, from a few rows of planes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.features.tiles import Tile, checked_region, paste

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import Region


def uncertainty(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return how close the two most probable classes are at every pixel.

    Parameters
    ----------
    probabilities : (K, H, W) array of float
        Of each class; sums to 1 over the first axis.

    Returns
    -------
    (H, W) float32 array
        1 minus their difference: 0 where one class is certain, 1 where two are
        equally probable. 0 everywhere for a single class.

    Raises
    ------
    ValueError
        If the array has no such shape, or holds NaN.

    Examples
    --------
    >>> uncertainty(np.array([[[0.5, 0.75, 1.0]], [[0.5, 0.25, 0.0]]])).tolist()
    [[1.0, 0.5, 0.0]]
    """
    planes = np.asarray(probabilities, np.float32)
    if planes.ndim != 3 or not len(planes):
        raise ValueError(
            f"probabilities: shape {planes.shape} is not (classes, height, width)"
        )
    if np.isnan(planes).any():
        raise ValueError(
            "probabilities: some are NaN; numbers from 0 to 1 are needed everywhere"
        )
    best = planes[0].copy()
    second = np.zeros_like(best)
    for plane in planes[1:]:
        np.maximum(second, np.minimum(best, plane), out=second)
        np.maximum(best, plane, out=best)
    if len(planes) == 1:
        return np.asarray(second)
    return np.asarray(np.clip(1 - (best - second), 0, 1), np.float32)


def uncertainty_of(
    classifier: PixelClassifier,
    features: Features,
    *,
    region: Region | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.uint8]:
    """Return how undecided a classifier is between two classes at every pixel.

    Parameters
    ----------
    classifier : PixelClassifier
    features : Features
    region, should_stop
        As for `PixelClassifier.predict`.

    Returns
    -------
    (H, W) uint8 array
        `uncertainty` of its probabilities in 255ths, rounded. The probabilities of
        the whole image are never held at once.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    ValueError
        If the classifier was not trained or cannot read these features, or if some
        of them are NaN.
    """
    area = checked_region(region, features.shape[1:])
    output = np.empty(area.shape, np.uint8)
    for tile, logits in _against(classifier, features, 0, area, should_stop):
        best = torch.zeros_like(logits[:, 0])  # the first class, against itself
        second = torch.full_like(best, -torch.inf)
        for plane in logits.unbind(1):
            torch.maximum(second, torch.minimum(best, plane), out=second)
            torch.maximum(best, plane, out=best)
        total = (-best).exp_()
        for plane in logits.unbind(1):
            total += plane.sub_(best).exp_()
        certainty = second.sub_(best).exp_().neg_().add_(1).div_(total)
        paste(output, tile, _as_bytes(certainty.neg_().add_(1)), area)
    return output


def probability_of(
    classifier: PixelClassifier,
    features: Features,
    class_id: int,
    *,
    region: Region | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.uint8]:
    """Return how probable one class is at every pixel.

    Parameters
    ----------
    classifier : PixelClassifier
    features : Features
    class_id : int
        One of the classifier's `classes`.
    region, should_stop
        As for `PixelClassifier.predict`.

    Returns
    -------
    (H, W) uint8 array
        In 255ths, rounded.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    ValueError
        If the classifier was not trained, does not know the class or cannot read
        these features, or if some of them are NaN.
    """
    known = classifier.classes.tolist()
    if known and class_id not in known:
        raise ValueError(
            f"class_id: {class_id} is none of the classifier's classes "
            f"{', '.join(map(str, known))}"
        )
    chosen = known.index(class_id) if known else 0
    area = checked_region(region, features.shape[1:])
    output = np.empty(area.shape, np.uint8)
    for tile, logits in _against(classifier, features, chosen, area, should_stop):
        total = torch.ones_like(logits[:, 0])
        for plane in logits.unbind(1):
            total += plane.exp_()
        paste(output, tile, _as_bytes(total.reciprocal_()), area)
    return output


def _against(
    classifier: PixelClassifier,
    features: Features,
    chosen: int,
    area: Tile,
    should_stop: Callable[[], bool] | None,
) -> Iterator[tuple[Tile, Tensor]]:
    """Yield blocks of the other classes' logits minus those of the chosen one."""
    classifier.check_can_read(features)
    readout = features.readout(classifier.weight, classifier.bias, area, should_stop)
    yield from features.planes(readout.against(chosen))


def _as_bytes(values: Tensor) -> NDArray[np.uint8]:
    """Return numbers from 0 to 1 in 255ths."""
    if not torch.isfinite(values.sum()):
        raise ValueError(
            "features: some are NaN or infinite; the backbone's weights may be damaged"
        )
    rounded = values.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return rounded.cpu().numpy()
