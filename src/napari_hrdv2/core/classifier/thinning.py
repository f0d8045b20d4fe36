"""Which of the labelled pixels train: one of a few neighbours, and not too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PER_CLASS = 5_000
"""Pixels of a class in one image that train at most, by default.

A fill has a hundred thousand, alike for the most part, of 2 kB each.
"""

THINNED_ABOVE = 500
"""Pixels of a class in one image; up to so many all train."""

PIXELS_AT_ONCE = 1 << 15  # that are numbered: what stays in the cache is faster


def labelled_pixels(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the flat indices of the pixels that are not 0, ascending."""
    # Ten times faster on booleans than on integers.
    return np.flatnonzero(labels != 0)


def training_pixels(
    labels: NDArray[Any], most_per_class: int | None = MOST_PER_CLASS
) -> NDArray[np.int64]:
    """Return the flat indices of the pixels that a classifier trains on, ascending.

    Parameters
    ----------
    labels : (H, W) array of int
        0 is not labelled.
    most_per_class : int or None
        As for `PixelClassifier`; None for all that are labelled.

    Returns
    -------
    (N,) int64 array
        Which they are depends on nothing but the labels.

    Examples
    --------
    >>> labels = np.repeat([[1, 0, 2]], 1000, axis=1)
    >>> [len(training_pixels(labels, most)) for most in (None, 5000, 10)]
    [2000, 1000, 20]
    """
    return thinned(labels, labelled_pixels(labels), most_per_class)[0]


def thinned(
    labels: NDArray[Any], pixels: NDArray[np.int64], most_per_class: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return some of the labelled pixels, and how many each stands for.

    Of a class with more than `THINNED_ABOVE` pixels one is chosen of those in a block
    of 2 × 2, which look alike, and of too many blocks some from all over. A stroke
    changes few of the choices that were made before it.

    Parameters
    ----------
    labels : (H, W) array of int
    pixels : (N,) int64 array
        Flat indices of all that are labelled, ascending.
    most_per_class : int or None
        All are chosen if None.

    Returns
    -------
    chosen : (M,) int64 array
        Ascending.
    counts : (M,) float64 array
        They sum to N.
    """
    ids = labels.ravel()[pixels]
    counts = np.ones(len(pixels))
    if most_per_class is None or not len(pixels):
        return pixels, counts
    is_chosen = np.ones(len(pixels), bool)
    for label in _distinct(ids):
        places = np.flatnonzero(ids == label)
        if len(places) <= min(THINNED_ABOVE, most_per_class):
            continue
        some, sizes = _blocks(pixels[places], labels.shape[1], most_per_class)
        is_chosen[places] = False
        is_chosen[places[some]] = True
        counts[places[some]] = sizes * (len(places) / sizes.sum())
    return pixels[is_chosen], counts[is_chosen]


def _blocks(
    pixels: NDArray[np.int64], width: int, most: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the place of one pixel for each block, and how many the block has."""
    numbers = np.concatenate(
        [
            _numbers(pixels[start : start + PIXELS_AT_ONCE], width)
            for start in range(0, len(pixels), PIXELS_AT_ONCE)
        ]
    )
    order: NDArray[np.intp]
    if len(pixels) > 4 * most:  # so many have the first blocks at most
        some = np.argpartition(numbers, 4 * most)[: 4 * most]
        order = some[np.argsort(numbers[some])]
    else:
        order = np.argsort(numbers)
    blocks = numbers[order] >> np.uint64(2)
    firsts = np.flatnonzero(np.diff(blocks, prepend=~blocks[:1]))
    sizes = np.diff(firsts, append=len(blocks)).astype(float)
    return order[firsts[:most]], sizes[:most]


def _numbers(pixels: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """Number pixels so that those of a block follow each other, blocks at random.

    All but the last two bits are those of the block, through the mixer of SplitMix64;
    the last two are the place in it, counted from another one in each block. So the
    first n blocks are from all over the image. Every n-th block instead would be other
    ones after each stroke, all to be read, and could keep in step with a texture, as
    could the same place in every block.
    """
    rows, columns = np.divmod(pixels, width)
    places = (rows & 1) << 1 | columns & 1
    mixed = ((rows >> 1) * width + (columns >> 1)).astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed ^ places.astype(np.uint64)


def _distinct(ids: NDArray[Any]) -> list[int]:
    """Return the label ids that occur, ascending."""
    small = ids.dtype == np.uint8  # counting is faster than sorting
    found = np.flatnonzero(np.bincount(ids)) if small else np.unique(ids)
    return [int(each) for each in found]
