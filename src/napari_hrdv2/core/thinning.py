"""Which of the labelled pixels train: one of a few neighbours, and not too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PER_CLASS = 5_000
"""Blocks of labelled pixels of a class in one image that train, by default.

A fill has a hundred thousand, alike for the most part, of 2 kB each.
"""

BLOCK_BITS = 1
"""Blocks are 2 × 2 px, within which pixels look alike."""


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
    >>> labels = np.repeat([[1, 0, 2]], 100, axis=1)
    >>> [len(training_pixels(labels, most)) for most in (None, 1000, 10)]
    [200, 100, 20]
    """
    return thinned(labels, labelled_pixels(labels), most_per_class)[0]


def thinned(
    labels: NDArray[Any], pixels: NDArray[np.int64], most_per_class: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return some of the labelled pixels, and how many each stands for.

    Of those of one class in a block one is chosen, and of too many blocks some from
    all over. A stroke changes few of the choices that were made before it.

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
    if most_per_class is None or not len(pixels):
        return pixels, np.ones(len(pixels))
    ids = labels.ravel()[pixels]
    numbers = _numbers(pixels, labels.shape[1])
    chosen, counts = [], []
    for label in np.unique(ids).tolist():
        places = np.flatnonzero(ids == label)
        own, total = numbers[places], len(places)
        enough = most_per_class << 2 * BLOCK_BITS  # fewer would be fewer blocks
        if total > enough:
            some = np.argpartition(own, enough)[:enough]
            places, own = places[some], own[some]
        order = np.argsort(own)
        blocks = own[order] >> np.uint64(2 * BLOCK_BITS)
        firsts = np.flatnonzero(np.diff(blocks, prepend=~blocks[:1]))
        sizes = np.diff(firsts, append=len(blocks)).astype(float)
        firsts, sizes = firsts[:most_per_class], sizes[:most_per_class]
        chosen.append(pixels[places[order[firsts]]])
        counts.append(sizes * (total / sizes.sum()))
    every = np.concatenate(chosen)
    ascending = np.argsort(every)
    return every[ascending], np.concatenate(counts)[ascending]


def _numbers(pixels: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """Number pixels so that blocks follow each other without a pattern.

    All but the last bits tell the block, through the mixer of SplitMix64; the last ones
    the place in it, which begins at another one in each block. The first n blocks are
    from all over the image. Every n-th block instead would be other ones after each
    stroke, all to be read, and could keep in step with a texture, as could the same
    place in every block.
    """
    rows, columns = np.divmod(pixels, width)
    inside = (1 << BLOCK_BITS) - 1
    places = (rows & inside) << BLOCK_BITS | columns & inside
    blocks = (rows >> BLOCK_BITS) * (width + inside) + (columns >> BLOCK_BITS)
    mixed = blocks.astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed ^ places.astype(np.uint64)
