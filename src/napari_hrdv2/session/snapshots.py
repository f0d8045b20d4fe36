"""What the pipeline takes and gives: scribbles, snapshots, stages, results."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import SparseLabels, labelled_pixels
from napari_hrdv2.core.measure import Fractions, PixelSize, combined_fractions
from napari_hrdv2.core.postprocess.refinement import Refinement

from .planes import PlaneKey

Window = tuple[slice, slice]
"""Rows and columns of an image."""


class Scribbles:
    """The scribbles on one image at one moment: label ids, 0 where there are none."""

    def __init__(self, labels: NDArray[Any], image_shape: tuple[int, ...]) -> None:
        if labels.shape != tuple(image_shape):
            wanted = tuple(image_shape)
            raise ValueError(
                f"labels: shape {labels.shape} is not that of the image, {wanted}"
            )
        if labels.dtype.kind not in "bui":
            raise ValueError(f"labels: dtype {labels.dtype} is not an integer")
        painted = labelled_pixels(labels)
        values = labels.ravel()[painted]
        if values.size and values.min() < 0:
            raise ValueError(
                f"labels: {values.min()} is negative; classes are numbered from 1, and "
                "0 is not labelled"
            )
        self._describe(SparseLabels(labels.shape, painted, values))

    @cached_property
    def labels(self) -> NDArray[Any]:
        """The (H, W) label ids; they take memory only near what is painted."""
        return np.asarray(self.sparse)

    def without(self, mask: NDArray[np.bool_]) -> Scribbles:
        """Return the scribbles outside of an (H, W) mask; itself if all are."""
        shown = ~mask.ravel()[self.sparse.pixels]
        if shown.all():
            return self
        rest = copy.copy(self)
        rest.__dict__.pop("labels", None)
        pixels, ids = self.sparse.pixels[shown], self.sparse.ids[shown]
        rest._describe(replace(self.sparse, pixels=pixels, ids=ids))
        return rest

    def _describe(self, painted: SparseLabels) -> None:
        self.sparse, values = painted, painted.ids
        ids, counts = np.unique(values, return_counts=True)
        self.class_ids: tuple[int, ...] = tuple(ids.tolist())  # ascending
        self.counts = dict(zip(self.class_ids, counts.tolist(), strict=True))
        fingerprint = hashlib.blake2b(painted.pixels.tobytes(), digest_size=16)
        fingerprint.update(values.astype(np.int64).tobytes())
        self.fingerprint = fingerprint.digest() if values.size else b""


class Stage(IntEnum):
    """How far an image comes; its features are computed beforehand."""

    CLASSIFIER = 0
    SEGMENTATION = 1
    REFINEMENT = 2
    MEASUREMENT = 3


@dataclass(eq=False)
class Blocks:
    """Which blocks of a result are there: how many pixels of each class they have."""

    total: int
    done: dict[tuple[int, int], Counter[int]] = field(default_factory=dict)  # by corner

    @property
    def are_all_done(self) -> bool:
        """Whether the result is whole."""
        return len(self.done) == self.total

    def fractions(self) -> dict[int, float]:
        """Return the fraction of each class that occurs, empty until all is done."""
        if not self.are_all_done:
            return {}
        counts = sum(self.done.values(), Counter[int]())
        counts.pop(0, None)  # what is left out
        return {i: count / counts.total() for i, count in sorted(counts.items())}


@dataclass(frozen=True, eq=False)
class Result:
    """A segmentation of an image.

    `labels` are the ids as the classifier gave them: 0 where the image is excluded, and
    everywhere once the scribbles ceased to suffice. Of a large image as a whole they
    may be in a file, refined already.
    """

    labels: NDArray[np.integer[Any]]
    fractions: dict[int, float]  # of what is shown
    fingerprint: bytes  # of the scribbles that it belongs to
    refined: NDArray[np.integer[Any]] | None = None  # where that is wanted
    refinement: Refinement | None = None  # what led to `refined`, where known
    classifier: PixelClassifier | None = None  # which gave the labels, where known
    doubt: float | None = None  # see `Reading`; None where it is not known
    is_inverted: bool = False  # whether light and dark were exchanged for it
    blocks: Blocks | None = None  # of an image that is segmented block by block
    counted: Fractions | None = None  # where that was done on the way

    @property
    def is_partial(self) -> bool:
        """Whether blocks are missing; it has no fractions then."""
        return self.blocks is not None and not self.blocks.are_all_done

    @property
    def shown(self) -> NDArray[np.integer[Any]]:
        """The refined labels, or those of the classifier."""
        return self.labels if self.refined is None else self.refined

    def is_refined_by(self, refinement: Refinement) -> bool:
        """Whether what is shown is as this refinement would make it.

        It makes nothing of what is segmented block by block.
        """
        if self.blocks is not None:
            return True
        if self.refined is None:
            return refinement.is_off
        return self.refinement == refinement

    def unrefined(self, exclusion: NDArray[np.bool_] | None) -> Result:
        """Return the result as the classifier gave it."""
        fractions = label_fractions(self.labels, exclusion, self.classifier)
        return replace(self, refined=None, refinement=None, fractions=fractions)


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """What one image adds to the training; `labels` are its scribbles, 0 for none."""

    features: Any
    labels: NDArray[Any]
    exclusion: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Partition:
    """Regions of an image that come from elsewhere, not from the backbone.

    `labels` is an (H, W) int array, each value of which is one region, 0 as well.
    """

    labels: NDArray[np.integer[Any]]
    name: str


@dataclass(frozen=True, eq=False)
class ImageSnapshot:
    """An image that is to be segmented, refined or measured."""

    key: PlaneKey
    image: Any
    name: str = ""
    features: Any = None  # none to compute them on the way, and forget them
    exclusion: NDArray[np.bool_] | None = None
    pixel_size: PixelSize | None = None
    result: Result | None = None  # by the classifier in force, where known already
    measured: Fractions | None = None  # those of that result
    is_final: bool = False  # measured as it is, whatever the refinement


@dataclass(frozen=True, eq=False)
class Preview:
    """Label ids of a window, ahead of those of the whole image.

    Where `of` are the labels of a result, the window is a block of it.
    """

    key: PlaneKey
    window: Window
    labels: NDArray[np.integer[Any]]
    of: NDArray[np.integer[Any]] | None = None


def label_fractions(
    labels: NDArray[np.integer[Any]],
    exclusion: NDArray[np.bool_] | None = None,
    classifier: PixelClassifier | None = None,
) -> dict[int, float]:
    """Return the fraction of each class that occurs, of the pixels not excluded."""
    found = np.unique(labels) if classifier is None else classifier.classes
    total = labels.size - (0 if exclusion is None else int(exclusion.sum()))
    counts = {int(i): int(np.count_nonzero(labels == i)) for i in found if i}
    return {i: count / total for i, count in counts.items() if count}


@dataclass(frozen=True)
class Measured:
    """Phase fractions of images."""

    images: dict[PlaneKey, Fractions]
    names: dict[PlaneKey, str]  # none occurs twice
    together: Fractions  # of all that are of one classifier, and refined alike
    note: str  # what to mind about the images together

    @classmethod
    def of(
        cls,
        images: dict[PlaneKey, Fractions],
        names: dict[PlaneKey, str],
        pixel_sizes: dict[PlaneKey, PixelSize | None],
        *,
        apart: frozenset[PlaneKey] = frozenset(),
        note: str = "",
    ) -> Measured:
        """Return the fractions of images, and of all but those `apart` together."""
        joined = [key for key in images if key not in apart] or list(images)
        fractions = [images[key] for key in joined]
        sizes = [pixel_sizes[key] for key in joined]
        areas, notes = _areas(fractions, sizes), []
        if len({key.image for key in joined}) < len(joined):
            notes.append(
                "Planes of one stack are alike: the error of all together is too small."
            )
        if areas is None and len(set(sizes)) > 1:
            notes.append(
                "Images count by their pixels: not all have a pixel size in one unit."
            )
        together = combined_fractions(fractions, areas=areas)
        return cls(images, _unique(names), together, " ".join([*notes, note]).strip())


def _areas(
    fractions: Sequence[Fractions], sizes: Sequence[PixelSize | None]
) -> list[float] | None:
    """Return areas to weight by, if all pixel sizes are known in one unit."""
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or len({unit for _, unit in known}) != 1:
        return None
    pairs = zip(fractions, known, strict=True)
    return [one.pixels * float(np.prod(np.resize(size, 2))) for one, (size, _) in pairs]


def _unique(names: dict[PlaneKey, str]) -> dict[PlaneKey, str]:
    """Return names by key; those that occur twice are told apart by a number."""
    unique: dict[PlaneKey, str] = {}
    for key, wanted in names.items():
        name, number = wanted, 2
        while name in unique.values():
            name, number = f"{wanted} ({number})", number + 1
        unique[key] = name
    return unique
