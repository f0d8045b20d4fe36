"""From label images to the pixels that train, with their classes and weights."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.checks import checked_mask, one_each
from napari_hrdv2.core.errors import Stop, stop_if
from napari_hrdv2.core.features.base import Features

Pixels = NDArray[np.int64]

# Pixels of a class in one image: a fill has a hundred thousand of 2 kB, mostly alike.
MOST_PER_CLASS = 5_000  # that train, by default
SUBSAMPLED_ABOVE = 500  # up to so many all train
PLACE = 16  # side in px of what is one place: a patch, or what a token's window sees
PIXELS_AT_ONCE = 1 << 15  # that are numbered: what stays in the processor is faster
STRIP = 1 << 20  # pixels that are looked for labels at once: most have none
LARGE_PAGES = 1 << 22  # bytes from which NumPy asks Linux for pages of 2 MB


@dataclass(frozen=True, eq=False)
class SparseLabels:
    """(H, W) labels by the few pixels that have one: as an array, but never scanned.

    `pixels` are their flat indices, ascending, and `ids` their labels.
    """

    shape: tuple[int, ...]
    pixels: Pixels
    ids: NDArray[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the labels."""
        return self.ids.dtype

    def ravel(self) -> Self:
        """Return itself: it is read by flat indices only."""
        return self

    def __getitem__(self, pixels: Pixels) -> NDArray[Any]:
        at = np.searchsorted(self.pixels, pixels)
        at[at == len(self.pixels)] = 0
        is_there = self.pixels[at] == pixels
        return np.where(is_there, self.ids[at], self.ids.dtype.type(0))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        labels = blank_labels(self.shape, self.dtype if dtype is None else dtype)
        labels.reshape(-1)[self.pixels] = self.ids
        return labels


def blank_labels(shape: tuple[int, ...], dtype: Any = np.uint8) -> NDArray[Any]:
    """Return zeros that take memory only near what is written into them.

    In pages of 4 kB: each stroke would fill some of 2 MB.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if nbytes >= LARGE_PAGES and hasattr(mmap, "MADV_NOHUGEPAGE"):
        try:
            memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            return np.ndarray(shape, dtype, memory)
        except (OSError, OverflowError):
            pass  # NumPy tells of too little memory
    return np.zeros(shape, dtype)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """Features of an image, its labels, 0 where there are none, and what to exclude."""

    features: Features
    labels: NDArray[Any]
    exclusion: NDArray[np.bool_] | None

    @cached_property
    def pixels(self) -> Pixels:
        """The flat indices of the labelled pixels, ascending."""
        return labelled_pixels(self.labels)


@dataclass(frozen=True)
class TrainingSamples:
    """Feature vectors with their classes, and how much each counts.

    `orders` tell which pixels of each image they are; `rows` are (N, C), image after
    image; `index` is the position of the class of each in `classes`, the ascending ids.
    Pixels of one place look alike, so that the (K,) number of `places` of each class,
    not that of its pixels, says how much is known of it; None where they do not count.
    """

    features: tuple[Features, ...]
    orders: tuple[Pixels, ...]
    rows: NDArray[np.float32]
    index: NDArray[np.intp]
    weight: NDArray[np.float32]
    classes: Pixels
    places: NDArray[np.intp] | None

    @classmethod
    def read(
        cls,
        images: Sequence[LabelledImage],
        most_per_class: int | None,
        *,
        balanced: bool,
        by_place: bool,
        should_stop: Stop = None,
    ) -> Self:
        """Read what trains of some images; the options are as for `PixelClassifier`."""
        parts, before = [], 0
        for image in images:
            stop_if(should_stop, "the fit")
            chosen, counts = subsampled(image.labels, image.pixels, most_per_class)
            own, order = image.features.samples.rows(chosen)
            painted = image.labels.ravel()[order].astype(np.int64)
            numbers, count = cells_of(order, image.labels.shape)
            stands_for = counts[np.searchsorted(chosen, order)]
            parts.append((order, own, painted, stands_for, before + numbers))
            before += count
        orders, rows, ids, weights, cells = zip(*parts, strict=True)
        classes, index = np.unique(np.concatenate(ids), return_inverse=True)
        if len(classes) == 0:
            raise ValueError(
                "labels: no pixel is labelled; paint a scribble in each of two classes"
            )
        if len(classes) == 1:
            raise ValueError(
                f"labels: only class {classes[0]} is labelled; paint a second class too"
            )
        place = np.concatenate(cells) * len(classes) + index
        weight, places = weighed(
            np.concatenate(weights),
            index,
            place if by_place else None,
            balanced=balanced,
        )
        features = tuple(image.features for image in images)
        table = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return cls(features, orders, table, index, weight, classes, places)

    def transformed(self, transform: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what a transform makes of the rows; see `SampleCache.transformed`."""
        parts = [
            one.samples.transformed(order, transform)
            for one, order in zip(self.features, self.orders, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def weighed(
    counts: NDArray[np.float64],
    index: NDArray[np.intp],
    place: NDArray[np.int64] | None,
    *,
    balanced: bool,
) -> tuple[NDArray[np.float32], NDArray[np.intp] | None]:
    """Return what samples weigh that stand for some pixels, and the places of classes.

    `index` is the class of each; `place` and `balanced` make all places of a class,
    and all classes, weigh alike; the total stays.
    """
    weight, places = counts, None
    if place is not None:
        weight, places = evened_by_place(weight, index, place)
    if balanced:
        totals = np.bincount(index, weight)
        weight = weight * (totals.sum() / (len(totals) * totals))[index]
    return weight.astype(np.float32), places


def evened_by_place(
    weight: NDArray[np.float64], index: NDArray[np.intp], place: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return weights by which all places of a class count alike, and how many it has.

    `index` is the class of each sample and `place` a number that those of one class and
    one place share. A class, and within a place a sample, weighs what it did before.

    >>> classes, places = np.array([0, 0, 0, 0, 1, 1]), np.array([5, 5, 5, 8, 3, 9])
    >>> evened_by_place(np.ones(6), classes, places)
    (array([0.66666667, 0.66666667, 0.66666667, 2.        , 1.        ,
           1.        ]), array([2, 2]))
    """
    _, first, place = np.unique(place, return_index=True, return_inverse=True)
    places = np.bincount(index[first])
    each = np.bincount(index, weight) / places
    return weight * each[index] / np.bincount(place, weight)[place], places


def cells_of(pixels: Pixels, shape: tuple[int, ...]) -> tuple[Pixels, int]:
    """Return which square of `PLACE` px each pixel lies in, and how many there are."""
    rows, columns = np.divmod(pixels, shape[1])
    height, width = (-(-length // PLACE) for length in shape)
    return rows // PLACE * width + columns // PLACE, height * width


def labelled_pixels(labels: NDArray[Any]) -> Pixels:
    """Return the flat indices of the pixels that are not 0, ascending."""
    if isinstance(labels, SparseLabels):
        return labels.pixels
    height, width = labels.shape
    step = max(STRIP // max(width, 1), 1)
    found = [np.empty(0, np.int64)]
    for start in range(0, height, step):
        strip = labels[start : start + step]
        if strip.any():
            # Ten times faster on booleans than on integers.
            found.append(np.flatnonzero(strip != 0) + start * width)
    return found[1] if len(found) == 2 else np.concatenate(found)


def training_pixels(
    labels: NDArray[Any], most_per_class: int | None = MOST_PER_CLASS
) -> Pixels:
    """Return the flat indices of the pixels that a classifier trains on, ascending.

    Which they are depends on nothing but the labels; `most_per_class` is as for
    `PixelClassifier`.

    >>> labels = np.repeat([[1, 0, 2]], 1000, axis=1)
    >>> [len(training_pixels(labels, most)) for most in (None, 5000, 10)]
    [2000, 1000, 20]
    """
    return subsampled(labels, labelled_pixels(labels), most_per_class)[0]


def subsampled(
    labels: NDArray[Any], pixels: Pixels, most_per_class: int | None
) -> tuple[Pixels, NDArray[np.float64]]:
    """Return some of the labelled pixels, ascending, and how many each stands for.

    Of a class with more than `SUBSAMPLED_ABOVE` pixels one is chosen of those in a
    block of 2 × 2, which look alike, and of too many blocks some from all over. A
    scribble changes few of the choices that were made before it. The counts of a class
    add up to the number of its labelled pixels.
    """
    ids = labels.ravel()[pixels]
    counts = np.ones(len(pixels))
    if most_per_class is None or not len(pixels):
        return pixels, counts
    is_chosen = np.ones(len(pixels), bool)
    small = ids.dtype == np.uint8  # counting is faster than sorting
    for label in np.flatnonzero(np.bincount(ids)) if small else np.unique(ids):
        positions = np.flatnonzero(ids == label)
        if len(positions) <= min(SUBSAMPLED_ABOVE, most_per_class):
            continue
        some, sizes = _blocks(pixels[positions], labels.shape[1], most_per_class)
        is_chosen[positions] = False
        is_chosen[positions[some]] = True
        counts[positions[some]] = sizes * (len(positions) / sizes.sum())
    return pixels[is_chosen], counts[is_chosen]


def _blocks(
    pixels: NDArray[np.int64], width: int, most: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the position of one pixel for each block, and how many the block has."""
    parts = np.split(pixels, range(PIXELS_AT_ONCE, len(pixels), PIXELS_AT_ONCE))
    numbers = np.concatenate([_numbers(part, width) for part in parts])
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
    the last two are the position in it, counted from another one in each block. So the
    first n blocks are from all over the image. Every n-th block instead would be other
    ones after each scribble, all to be read, and could keep in step with a texture, as
    could the same position in every block.
    """
    rows, columns = np.divmod(pixels, width)
    positions = (rows & 1) << 1 | columns & 1
    mixed = ((rows >> 1) * width + (columns >> 1)).astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed ^ positions.astype(np.uint64)


def labelled_images(
    features: Features | Sequence[Features],
    labels: ArrayLike | Sequence[ArrayLike],
    exclusion: ArrayLike | Sequence[ArrayLike | None] | None,
) -> list[LabelledImage]:
    """Return features with their labels and masks, all of them checked."""
    is_one = isinstance(features, Features)
    many = [features] if isinstance(features, Features) else list(features or ())
    for each in many:
        if not isinstance(each, Features):
            raise TypeError(
                f"features: {type(each).__name__} are no features; give what "
                "compute_features returns, or a list of that"
            )
    arrays: list[Any] = [labels] if is_one else list(cast("Any", labels))
    if not len(many) == len(arrays) > 0:
        raise ValueError(
            f"labels: {len(arrays)} label images for {len(many)} features; one for "
            "each is needed"
        )
    given: Any = [exclusion] if is_one else exclusion
    masks = one_each("exclusion", given, len(many))
    return [
        LabelledImage(each, check_labels(array, shape), checked_mask(mask, shape))
        for each, array, mask in zip(many, arrays, masks, strict=True)
        for shape in (each.shape[1:],)
    ]


def check_labels(labels: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return labels as an array after checking type, shape and sign."""
    array: Any = labels if isinstance(labels, SparseLabels) else np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"labels: dtype {array.dtype} does not hold label ids; integers are "
            "needed, 0 where a pixel is not labelled"
        )
    if array.shape != tuple(shape):
        raise ValueError(
            f"labels: shape {array.shape} does not fit an image of shape {tuple(shape)}"
        )
    if isinstance(labels, SparseLabels):
        return cast("NDArray[Any]", labels)  # as far as a fit reads it
    is_wide = array.dtype == np.uint64  # of others none is too large
    if is_wide and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"labels: {array.max()} is too large for a label id")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(
            f"labels: {array.min()} is not a label id; use 0 for pixels that are not "
            "labelled and positive numbers for classes"
        )
    return cast("NDArray[Any]", array)


def fingerprint(images: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of label images, which does not depend on integer types."""
    total = hashlib.sha256()
    for labels in images:
        pixels = labelled_pixels(labels)
        total.update(repr(labels.shape).encode())
        total.update(pixels.astype("<i8").tobytes())
        total.update(labels.ravel()[pixels].astype("<i8").tobytes())
    return total.hexdigest()
