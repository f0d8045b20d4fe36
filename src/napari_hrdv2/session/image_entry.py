"""One image, or one plane of a stack, with all that belongs to it."""

from __future__ import annotations

import copy
import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .planes import Plane, PlaneKey
from .project.format import image_fingerprint
from .snapshots import ImageSnapshot, Result, TrainingImage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.features.options import FeatureOptions


_versions = itertools.count(1)  # a fit on other features is another one


class Scribbles:
    """The scribbles on one image at one moment.

    Parameters
    ----------
    labels : (H, W) int array
        Label ids, 0 where nothing is painted. Copied: a layer goes on being painted.
    image_shape : tuple of int
        (H, W) of the image that was painted on.

    Attributes
    ----------
    class_ids : tuple of int
        The ids that occur, ascending, without 0.
    counts : dict of int to int
        How many pixels each of them has.
    fingerprint : bytes
        Equal for equal scribbles; empty if there are none.
    """

    def __init__(self, labels: NDArray[Any], image_shape: tuple[int, ...]) -> None:
        if labels.shape != tuple(image_shape):
            raise ValueError(
                f"labels: shape {labels.shape} is not that of the image, "
                f"{tuple(image_shape)}"
            )
        if labels.dtype.kind not in "bui":
            raise ValueError(f"labels: dtype {labels.dtype} is not an integer")
        self.labels = labels.copy()
        painted = np.flatnonzero(self.labels != 0)  # much faster on booleans
        values = self.labels.ravel()[painted]
        if values.size and values.min() < 0:
            raise ValueError(
                f"labels: {values.min()} is negative; classes are numbered from 1, and "
                "0 is not labelled"
            )
        self._describe(painted)

    def without(self, mask: NDArray[np.bool_]) -> Scribbles:
        """Return the scribbles outside of an (H, W) mask; itself if all are."""
        hidden = mask.ravel()[self._painted]
        if not hidden.any():
            return self
        rest = copy.copy(self)
        rest.labels = self.labels.copy()
        rest.labels.ravel()[self._painted[hidden]] = 0
        rest._describe(self._painted[~hidden])
        return rest

    def _describe(self, painted: NDArray[np.int64]) -> None:
        values = self.labels.ravel()[painted]
        self._painted = painted
        ids, counts = np.unique(values, return_counts=True)
        self.class_ids: tuple[int, ...] = tuple(ids.tolist())
        self.counts = dict(zip(self.class_ids, counts.tolist(), strict=True))
        fingerprint = hashlib.blake2b(painted.tobytes(), digest_size=16)
        fingerprint.update(values.astype(np.int64).tobytes())
        self.fingerprint = fingerprint.digest() if values.size else b""


@dataclass(frozen=True, eq=False)
class Partition:
    """Regions of an image that come from elsewhere, not from the backbone.

    `labels` is an (H, W) int array, each value of which is one region, 0 as well.
    """

    labels: NDArray[np.integer[Any]]
    name: str


@dataclass(eq=False)
class ImageEntry:
    """One (H, W) or (H, W, 3|4) image of the session.

    Attributes
    ----------
    key : PlaneKey
        By which the session knows it.
    image : (H, W) or (H, W, 3|4) array
        Of a stack a `Plane`, whose pixels are read when they are first needed.
    name : str
        What people call it.
    pixel_size : tuple of float and str, or None
        Length of a pixel's side and its unit.
    source : str or None
        The file it came from.
    plane : dict of str to int
        Which plane of a stack it is, by the names of the axes; else empty.
    trains : bool
        Whether its scribbles take part in the training.
    was_segmented : bool
        Whether a segmentation of it is left from an earlier visit.
    scribbles : Scribbles or None
        As painted.
    exclusion : (H, W) bool array or None
        Where it is no material, such as a scale bar.
    partition : Partition or None
        What a backbone with tokens of regions uses in place of its own.
    features, options
        The features and their options, or None.
    training_features
        The features, or where these were evicted to save memory those of the training
        pixels: the scribbles still train.
    result : Result or None
    pending : int
        Version of the feature request that is on its way, 0 without one.
    last_used : int
        Higher for those that were shown, or got their features, later.
    """

    key: PlaneKey
    image: NDArray[Any] | Plane
    name: str = ""
    pixel_size: tuple[float, str] | None = None
    source: str | None = None
    plane: dict[str, int] = field(default_factory=dict)
    trains: bool = True
    was_segmented: bool = False
    scribbles: Scribbles | None = None
    exclusion: NDArray[np.bool_] | None = None
    partition: Partition | None = None
    features: Any = None
    options: FeatureOptions | None = None
    training_features: Any = None
    result: Result | None = None
    pending: int = 0
    last_used: int = 0
    _version: int = 0  # of the features: fits on other ones are not the same

    def __post_init__(self) -> None:
        if not isinstance(self.image, Plane):
            self.image = np.asarray(self.image)
        shape = self.image.shape
        if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
            raise ValueError(
                f"image: shape {shape} is not one micrograph; choose a 2-D grey or RGB "
                "image"
            )
        self._counted: Scribbles | None = None
        self._exclusion_fingerprint = _fingerprint(self.exclusion)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def counted(self) -> Scribbles | None:
        """The scribbles that count: those outside of what is excluded."""
        return self._counted

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes that have scribbles that count."""
        return () if self._counted is None else self._counted.class_ids

    @property
    def scribbles_fingerprint(self) -> bytes:
        """Equal for equal scribbles that count; empty if there are none."""
        return b"" if self._counted is None else self._counted.fingerprint

    @property
    def is_segmented(self) -> bool:
        """Whether there is a result that shows a class."""
        return self.result is not None and bool(self.result.fractions)

    @property
    def is_untouched(self) -> bool:
        """Whether there are neither features, nor pending ones, nor scribbles."""
        return self.features is None and not (self.class_ids or self.pending)

    @property
    def is_evicted(self) -> bool:
        """Whether its features were given up for the memory that they took."""
        return self.features is None and self.options is not None

    @property
    def has_something_set(self) -> bool:
        """Whether anything was set by hand that would be lost with the image."""
        return bool(self.class_ids or self.exclusion is not None or self.partition)

    def set_scribbles(self, labels: ArrayLike | None) -> bool:
        """Take the scribbles as they are now; return whether those that count changed.

        That there are none is not the same as that there is nothing to paint on.
        """
        former = None if self._counted is None else self._counted.fingerprint
        self.scribbles = self._counted = None
        if labels is not None:
            self.scribbles = Scribbles(np.asarray(labels), self.shape)
        self._count_scribbles()
        return former != (None if self._counted is None else self._counted.fingerprint)

    def set_exclusion(self, mask: ArrayLike | None) -> None:
        """Exclude where an (H, W) mask is set; None excludes nothing."""
        array = None if mask is None else np.array(mask, bool)
        if array is not None and array.shape != self.shape:
            raise ValueError(
                f"exclusion: shape {array.shape} is not that of the image, {self.shape}"
            )
        if array is not None and array.all():
            raise ValueError("exclusion: this would leave nothing of the image")
        self.exclusion = None if array is None or not array.any() else array
        self._exclusion_fingerprint = _fingerprint(self.exclusion)
        self._count_scribbles()

    def set_partition(self, labels: ArrayLike | None, name: str = "") -> bool:
        """Take regions for the next features; return whether they are other ones.

        Features that were made with the former regions go, so that those there are
        always belong to the regions there are.

        Raises ValueError if it is not one whole number for each pixel.
        """
        array = None if labels is None else np.array(labels)
        if array is not None and (
            array.shape != self.shape or array.dtype.kind not in "biu"
        ):
            raise ValueError(
                f"partition: {array.dtype} of shape {array.shape} does not fit the "
                f"image; whole numbers of shape {self.shape} are needed"
            )
        former = None if self.partition is None else self.partition.labels
        self.partition = None if array is None else Partition(array, name)
        if former is None or array is None:
            is_same = former is array
        else:
            is_same = np.array_equal(former, array)
        if not is_same and (self.options is None or _has_regions(self.options)):
            self.pending = 0  # what is on its way is of the former regions
            self.set_features(None, None)
        return not is_same

    def partition_for(self, options: FeatureOptions) -> NDArray[Any] | None:
        """Return the regions to compute features with; None for the backbone's own."""
        if self.partition is None or not _has_regions(options):
            return None
        return self.partition.labels

    def set_features(self, features: Any, options: FeatureOptions | None) -> None:
        """Take other features, or None; the result of the last ones goes."""
        self._version = next(_versions)
        self.features, self.options, self.result = features, options, None
        self.training_features = features
        if features is not None:
            self.was_segmented = False

    def evict(self) -> None:
        """Give the features up, but for those of the scribbles; the result stays."""
        from napari_hrdv2.core.classifier.samples import training_pixels

        if self.features is None:
            return
        features, self.features, self.training_features = self.features, None, None
        self.was_segmented = self.result is not None
        if self._counted is not None and self._counted.class_ids:
            from napari_hrdv2.core.features.base import KnownPixels

            pixels = training_pixels(self._counted.labels)
            self.training_features = KnownPixels(features, pixels)
        if isinstance(self.image, Plane):
            self.image.forget()

    def training_image(self) -> TrainingImage:
        """Return what it adds to the training; it must be painted and have features."""
        assert self._counted is not None
        assert self.training_features is not None
        return TrainingImage(
            self.training_features, self._counted.labels, self.exclusion
        )

    def snapshot(self, **about: Any) -> ImageSnapshot:
        """Return it as the pipeline takes it; `about` are further fields."""
        return ImageSnapshot(
            self.key,
            self.image,
            self.name or str(self.key),
            self.features,
            self.exclusion,
            self.pixel_size,
            **about,
        )

    def fingerprint(self) -> bytes:
        """Return what tells what it trains from everything else that it could."""
        named = f"{self.key}/{self._version}/{self._exclusion_fingerprint}/"
        return named.encode() + self.scribbles_fingerprint

    def _knows_scribbles(self) -> bool:
        from napari_hrdv2.core.classifier.samples import training_pixels

        if self._counted is None or not self._counted.class_ids:
            return True
        known = self.training_features
        pixels = training_pixels(self._counted.labels)
        return known is not None and bool(known.knows(pixels))

    def _count_scribbles(self) -> None:
        self._counted = self.scribbles
        if self.scribbles is not None and self.exclusion is not None:
            self._counted = self.scribbles.without(self.exclusion)
        if self.is_evicted and not self._knows_scribbles():
            self.set_features(None, None)  # they must be read anew


def _fingerprint(mask: NDArray[np.bool_] | None) -> str:
    return "" if mask is None else image_fingerprint(mask)


def _has_regions(options: FeatureOptions) -> bool:
    from napari_hrdv2.core.guidance.attention import divides_into_regions

    return divides_into_regions(options.backbone)
