"""Grey levels: the mean and the deviation of images, and of labelled ones together.

A backbone that standardises images brings their grey levels to mean 0 and deviation 1.
Of labelled images the scribbles tell which levels make the classes of all alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tiles import runs

Grey = NDArray[np.float64]
Levels = tuple[float, float]
"""Mean and deviation of grey levels, in those of the image itself.

The deviation is below 0 where light and dark are exchanged.
"""

LEAST_GAIN, MOST_GAIN = 0.5, 2.0  # of a labelled image, against its own deviation
# Of the grey levels of classes in two labelled images, from which on light and dark are
# taken as exchanged: their correlation, and their covariance in deviations of both.
INVERTED_CORRELATION, INVERTED_COVARIANCE = -0.5, -0.05
WINDOW = 512  # px along a side of what is seen of images that are not read as a whole


def grey_plane(image: ArrayLike) -> Grey:
    """Return the grey levels of an (H, W) or (H, W, 3|4) image, the mean of colours."""
    array = np.asarray(image)
    if array.ndim == 3:
        return np.asarray(array[..., :3].mean(axis=2, dtype=np.float64))
    return array.astype(np.float64)


def image_levels(
    images: Sequence[ArrayLike], exclusion: Sequence[ArrayLike | None] | None = None
) -> Levels:
    """Return the mean and the deviation of one or more images, their colours as one.

    >>> image_levels([np.array([[0, 2]]), np.array([[4, 6]])])
    (3.0, 2.23606797749979)
    """
    masks = exclusion or [None] * len(images)
    parts = []
    for image, mask in zip(images, masks, strict=True):
        array = np.asarray(image)
        array = array[..., :3] if array.ndim == 3 else array
        kept = array if mask is None else array[~np.asarray(mask, bool)]
        parts.append(kept.astype(np.float64).ravel())
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("images: there is no grey level that is a number")
    return float(values.mean()), float(values.std())


def windows_of(shape: Sequence[int], most: int) -> list[tuple[slice, slice]]:
    """Return windows from all over an image, at most so many along each side.

    It is one, of all of it, where it is not much larger.
    """
    if max(shape[:2]) <= most * WINDOW:
        return [(slice(0, shape[0]), slice(0, shape[1]))]
    starts = (np.linspace(0, max(n - WINDOW, 0), most).astype(int) for n in shape[:2])
    tops, lefts = ([slice(i, i + WINDOW) for i in each.tolist()] for each in starts)
    return list(product(tops, lefts))


def mosaic(array: Any, windows: Sequence[tuple[slice, slice]]) -> Any:
    """Return windows of an image below each other; None of None."""
    if array is None:
        return None
    seen = [np.asarray(array[window]) for window in windows]
    return np.concatenate(seen) if len(seen) > 1 else seen[0]


def painted(image: Any, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the labelled pixels of an image, (N, 1[, C]), and their labels.

    Only rows near labels are read.
    """
    rows = [each for each in runs(0, len(labels), WINDOW) if labels[each].any()]
    pixels = [np.asarray(image[each])[labels[each] > 0] for each in rows]
    drawn = [labels[each][labels[each] > 0] for each in rows]
    return np.concatenate(pixels)[:, None], np.concatenate(drawn)[:, None]


def aligned_levels(
    images: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    levels: Sequence[Levels] | None = None,
    *,
    exchanges: bool = True,
) -> list[Levels]:
    """Return levels for each labelled image that bring its classes to those of all.

    Least squares on the mean grey level of each class; classes that one image alone has
    count for nothing. `levels` are the images' own, where these are parts of them. If
    it `exchanges` light and dark, the deviation is below 0 where what is light in most
    images is clearly dark.
    """
    own = np.array(levels or [image_levels([image]) for image in images])
    planes = map(grey_plane, images)
    means = list(map(_class_means, planes, map(np.asarray, labels)))
    ids = sorted({label for each in means for label in each})
    table = np.array([[each.get(label, np.nan) for label in ids] for each in means])
    standardised = (table - own[:, :1]) / np.maximum(own[:, 1:], np.finfo(float).tiny)
    common = np.isfinite(table).sum(0) > 1
    if not common.any():
        return [(float(mean), float(deviation)) for mean, deviation in own]
    signs = np.ones(len(own))
    if exchanges:
        signs = _signs(standardised[:, common])
    target = np.nanmean(signs[:, None] * standardised[:, common], axis=0)
    # Of the negative of an image, light and dark are as in the others.
    straight = own * np.stack([signs, np.ones_like(signs)], 1)
    given = zip(straight.tolist(), signs[:, None] * table[:, common], strict=True)
    result = []
    for (mean, deviation), row in given:
        known = np.isfinite(row)
        if known.any():
            there, here = target[known], row[known]
            apart = there - there.mean()
            gain = deviation
            if (spread := apart @ apart) > 0:
                fitted = float((here - here.mean()) @ apart / spread)
                gain = min(max(fitted, LEAST_GAIN * deviation), MOST_GAIN * deviation)
            mean, deviation = float(here.mean() - gain * there.mean()), gain
        result.append((mean, deviation))
    return [
        levels if sign > 0 else negative_of(levels)
        for levels, sign in zip(result, signs, strict=True)
    ]


def negative_of(levels: Levels) -> Levels:
    """Return the levels of an image, from those of its negative.

    >>> negative_of((-100.0, 20.0))
    (100.0, -20.0)
    """
    return -levels[0], -levels[1]


def _signs(rows: Grey) -> Grey:
    """Return 1, or -1 where light and dark are not as in most of the images, (N,).

    `rows` are the (N, K) grey levels of classes, NaN where an image has none of one.
    """
    count, known = len(rows), np.isfinite(rows)
    signs, values = np.zeros(count), np.where(known, rows, 0.0)
    signs[0] = 1
    # By those before it, and again, by what was found of all others.
    for number in (*range(1, count), *range(count)):
        weights = np.where(np.arange(count) == number, 0.0, signs)
        images = np.abs(weights) @ known
        both = known[number] & (images > 0)
        here = rows[number, both]
        signs[number] = 1
        if len(here) > 1 and _is_negative(
            here, (weights @ values)[both] / images[both]
        ):
            signs[number] = -1
    return signs if signs.sum() >= 0 else -signs


def _is_negative(some: Grey, others: Grey) -> bool:
    """Return whether grey levels of the same classes are clearly the other way."""
    some, others = some - some.mean(), others - others.mean()
    covariance = float((some * others).mean())
    product = float(some.std() * others.std())
    return covariance < INVERTED_COVARIANCE and (
        covariance < INVERTED_CORRELATION * product
    )


def _class_means(plane: Grey, labels: NDArray[Any]) -> dict[int, float]:
    """Return the mean grey level of the labelled pixels of each class."""
    ids, index = np.unique(labels, return_inverse=True)
    means = np.bincount(index.ravel(), plane.ravel()) / np.bincount(index.ravel())
    return {int(i): float(mean) for i, mean in zip(ids, means, strict=True) if i}
