"""The images of a session: what belongs to each, which is current, which train."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

from napari_hrdv2.core.classifier.samples import training_pixels
from napari_hrdv2.core.features.base import StoredPixels
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.core.features.options import FeatureOptions, upsampled_alike
from napari_hrdv2.core.features.resampled import resampling_factors
from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.core.guidance.attention import divides_into_regions
from napari_hrdv2.files.units import pixel_ratio

from .planes import Plane, PlaneKey, as_key
from .snapshots import ImageSnapshot, Partition, Result, Scribbles, TrainingImage

_versions = itertools.count(1)  # a fit on other features is another one


@dataclass(eq=False)
class ImageEntry:
    """One (H, W) or (H, W, 3|4) image of the session, or (H, W, n) with channels."""

    key: PlaneKey
    image: NDArray[Any] | Plane  # of a stack a plane, read when it is first needed
    name: str = ""
    pixel_size: tuple[float | tuple[float, float], str] | None = None
    source: str | None = None  # the file it came from
    plane: dict[str, int] = field(default_factory=dict)  # of a stack, by axis names
    channels: str = ""  # the names of its bands, as "BSE,Fe", where they are channels
    trains: bool = True  # its scribbles take part in the training
    was_segmented: bool = False  # a segmentation is left from an earlier visit
    scribbles: Scribbles | None = None  # as painted
    counted: Scribbles | None = None  # those outside of the exclusion mask
    exclusion: NDArray[np.bool_] | None = None  # no material, such as a scale bar
    missing: NDArray[np.bool_] | None = None  # where it has no values, once looked at
    left_out: NDArray[np.bool_] | None = None  # both of them
    partition: Partition | None = None
    features: Any = None
    options: FeatureOptions | None = None  # of the features
    training_features: Any = None  # once these are evicted: of the scribbles alone
    result: Result | None = None
    pending: int = 0  # version of the feature request that is on its way
    last_used: int = 0
    version: int = 0  # of the features: fits on other ones are not the same

    def __post_init__(self) -> None:
        if not isinstance(self.image, Plane):
            self.image = np.asarray(self.image)
        shape = self.image.shape
        if len(shape) != 2 and not (shape[2:] in ((3,), (4,)) or self.channels):
            raise ValueError(
                f"image: shape {shape} is not one micrograph; choose a 2-D grey or RGB "
                "image"
            )
        self._leave_out()

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes that have scribbles that count."""
        return () if self.counted is None else self.counted.class_ids

    @property
    def scribbles_fingerprint(self) -> bytes:
        """Equal for equal scribbles that count; empty if there are none."""
        return b"" if self.counted is None else self.counted.fingerprint

    @property
    def is_segmented(self) -> bool:
        """Whether there is a result that shows a class."""
        return self.result is not None and bool(self.result.fractions)

    @property
    def is_shown(self) -> bool:
        """Whether there is a result, perhaps of some blocks only."""
        return self.is_segmented or bool(self.result and self.result.is_partial)

    @property
    def is_untouched(self) -> bool:
        """Whether there are neither features, nor pending ones, nor scribbles."""
        return self.features is None and not (self.class_ids or self.pending)

    @property
    def is_evicted(self) -> bool:
        """Whether its features were given up for the memory that they took."""
        return self.features is None and self.options is not None

    @property
    def is_in_blocks(self) -> bool:
        """Whether its features are computed block by block, where they are needed."""
        return isinstance(self.features, BlockFeatures)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its features, or what is left of them, take."""
        known = self.training_features
        return 0 if known is None else int(known.nbytes)

    @property
    def has_something_set(self) -> bool:
        """Whether anything was set by hand that would be lost with the image."""
        return bool(self.class_ids or self.exclusion is not None or self.partition)

    def set_scribbles(self, labels: ArrayLike | Scribbles | None) -> bool:
        """Take the scribbles as they are now; return whether those that count changed.

        That there are none is not the same as that there is nothing to paint on.
        """
        former = self.counted and self.counted.fingerprint
        self.scribbles = self.counted = None
        if isinstance(labels, Scribbles):
            self.scribbles = labels
        elif labels is not None:
            self.scribbles = Scribbles(np.asarray(labels), self.shape)
        self._count_scribbles()
        return former != (self.counted and self.counted.fingerprint)

    def not_to_paint(self) -> NDArray[np.bool_] | None:
        """Return what is excluded, missing or painted already; None for nothing."""
        if self.scribbles is None:
            return self.left_out
        painted = np.asarray(self.scribbles.sparse, bool)
        return painted if self.left_out is None else painted | self.left_out

    def set_exclusion(self, mask: ArrayLike | None) -> None:
        """Exclude where an (H, W) mask is set; None excludes nothing."""
        array = None if mask is None else np.array(mask, bool)
        if array is not None and array.shape != self.shape:
            raise ValueError(
                f"exclusion: shape {array.shape} is not that of the image, {self.shape}"
            )
        holes = False if self.missing is None else self.missing
        if array is not None and np.all(array | holes):
            raise ValueError("exclusion: this would leave nothing of the image")
        self.exclusion = None if array is None or not array.any() else array
        self._leave_out()

    def set_missing(self, mask: NDArray[np.bool_] | None) -> None:
        """Leave out the pixels, too, that have no values."""
        self.missing = mask
        self._leave_out()

    def _leave_out(self) -> None:
        masks = [one for one in (self.exclusion, self.missing) if one is not None]
        out = masks[0] | masks[1] if masks[1:] else next(iter(masks), None)
        self.left_out = out
        self.exclusion_fingerprint = "" if out is None else image_fingerprint(out)
        self._count_scribbles()

    def set_partition(self, labels: ArrayLike | None, name: str = "") -> bool:
        """Take regions for the next features; return whether they are other ones."""
        array = None if labels is None else np.array(labels)
        fits = array is None or array.shape == self.shape
        if array is not None and not (fits and array.dtype.kind in "biu"):
            raise ValueError(
                f"partition: {array.dtype} of shape {array.shape} does not fit the "
                f"image; whole numbers of shape {self.shape} are needed"
            )
        former = self.partition
        self.partition = None if array is None else Partition(array, name)
        is_same = former is None and array is None
        if former is not None and array is not None:
            is_same = np.array_equal(former.labels, array)
        if not is_same and (self.options is None or has_regions(self.options)):
            self.pending = 0  # what is on its way is of the former regions
            self.set_features(None, None)
        return not is_same

    def partition_for(self, options: FeatureOptions) -> NDArray[Any] | None:
        """Return the regions to compute features with; None for the backbone's own."""
        if self.partition is None or not has_regions(options):
            return None
        return self.partition.labels

    def set_features(self, features: Any, options: FeatureOptions | None) -> None:
        """Take other features, or None; the result of the last ones goes."""
        self.version = next(_versions)
        self.features, self.options, self.result = features, options, None
        self.training_features = features
        if features is not None:
            self.was_segmented = False

    def is_made_by(self, options: FeatureOptions) -> bool:
        """Whether its features are those that options would give it."""
        made, wanted = self.options, resolved(self, options)
        if made is None or made.pixel_ratio != wanted.pixel_ratio:
            return False
        return made.difference(wanted) is None

    def evict(self) -> None:
        """Give the features up, but for those of the scribbles; the result stays.

        Blocks are computed again when they are needed.
        """
        if self.is_in_blocks:
            self.features.drop()
        if self.is_in_blocks or self.features is None:
            return
        features, self.features, self.training_features = self.features, None, None
        self.was_segmented = self.result is not None
        if self.counted is not None and self.class_ids:
            pixels = training_pixels(self.counted.labels)
            self.training_features = StoredPixels(features, pixels)
        if isinstance(self.image, Plane):
            self.image.forget()

    def training_image(self) -> TrainingImage:
        """Return what it adds to the training; it must be painted and have features."""
        features, counted = self.training_features, self.counted
        assert counted is not None
        assert features is not None
        labels: Any = counted.sparse if self.is_in_blocks else counted.labels
        return TrainingImage(features, labels, self.left_out)

    def snapshot(self, **about: Any) -> ImageSnapshot:
        """Return it as the pipeline takes it; `about` are further fields."""
        return ImageSnapshot(
            self.key,
            self.image,
            self.name or str(self.key),
            self.features,
            self.left_out,
            self.pixel_size,
            **about,
        )

    def fingerprint(self) -> bytes:
        """Return what tells what it trains from everything else that it could."""
        named = f"{self.key}/{self.version}/{self.exclusion_fingerprint}/"
        return named.encode() + self.scribbles_fingerprint

    def _knows_scribbles(self) -> bool:
        if self.counted is None or not self.counted.class_ids:
            return True
        known = self.training_features
        pixels = training_pixels(self.counted.labels)
        return known is not None and bool(known.knows(pixels))

    def _count_scribbles(self) -> None:
        self.counted = self.scribbles
        if self.scribbles is not None and self.left_out is not None:
            self.counted = self.scribbles.without(self.left_out)
        if self.is_evicted and not self._knows_scribbles():
            self.set_features(None, None)  # they must be read anew


def has_regions(options: FeatureOptions) -> bool:
    """Whether the tokens of the backbone stand for regions, not for patches."""
    return divides_into_regions(options.backbone)


def resolved(entry: ImageEntry, options: FeatureOptions) -> FeatureOptions:
    """Return options with the `pixel_ratio` by which they have an image resized."""
    is_on = options.resamples and not has_regions(options)  # those are not resized
    ratio = pixel_ratio(entry.pixel_size, options.pixel_size) if is_on else None
    return replace(options, pixel_ratio=resampling_factors(ratio))


class Images(Mapping[PlaneKey, ImageEntry]):
    """The image entries by key, in the order in which they came."""

    changed: ClassVar[Signal] = Signal()
    """Images came or went, or their scribbles, exclusion masks or features did."""
    features_changed: ClassVar[Signal] = Signal()
    """The current image has other features."""
    segmentation_changed: ClassVar[Signal] = Signal()
    """The current image has another result."""
    relabelled: ClassVar[Signal] = Signal(PlaneKey)
    """The session itself changed the scribbles of the image with this key."""

    def __init__(self) -> None:
        self._entries: dict[PlaneKey, ImageEntry] = {}
        self.current: ImageEntry | None = None
        self._uses = 0

    def __getitem__(self, key: PlaneKey | str) -> ImageEntry:
        return self._entries[as_key(key)]

    def __iter__(self) -> Iterator[PlaneKey]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: PlaneKey | str | None) -> ImageEntry | None:
        """Return the image with this key; the current one for None."""
        return self.current if key is None else self._entries.get(as_key(key))

    def family(self, key: PlaneKey | str) -> list[ImageEntry]:
        """Return all planes of the stack that a key belongs to, or the one image."""
        return [one for one in self.values() if one.key.image == as_key(key).image]

    def use(self, entry: ImageEntry) -> None:
        """Note that an image is in use, so that its features stay for longer."""
        self._uses += 1
        entry.last_used = self._uses

    def add(
        self, image: ArrayLike | Plane, key: PlaneKey | str, **about: Any
    ) -> ImageEntry:
        """Take an image in; one that had this key goes."""
        pixels = image if isinstance(image, Plane) else np.asarray(image)
        entry = ImageEntry(as_key(key), pixels, **about)
        self._entries[entry.key] = entry
        self.changed.emit()
        return entry

    def show(
        self, image: ArrayLike | Plane | None, key: PlaneKey | str, **about: Any
    ) -> bool:
        """Make an image the current one; return whether it is another image."""
        former, chosen = self.current, None
        if image is not None:
            chosen = self.find(key)
            if chosen is None or chosen.image is not image:
                chosen = self.add(image, key, **about)
            for name, value in about.items():
                setattr(chosen, name, value)
            self.use(chosen)
        self.current = chosen
        self.changed.emit()
        if former is None or chosen is None or former is chosen:
            return False
        is_plane = bool(former.plane and chosen.plane)
        return not (is_plane and former.key.image == chosen.key.image)

    def remove(self, key: PlaneKey | str) -> None:
        """Give an image up, with its scribbles."""
        entry = self._entries.pop(as_key(key), None)
        if entry is not None:
            self.current = None if entry is self.current else self.current
            self.changed.emit()

    def set_partition(
        self, entry: ImageEntry, labels: ArrayLike | None, name: str = ""
    ) -> bool:
        """Take regions for the next features of an image; return if they changed."""
        had_features = entry.features is not None
        if not entry.set_partition(labels, name):
            return False
        self.changed.emit()
        if had_features and entry.features is None and entry is self.current:
            self.features_changed.emit()
            self.segmentation_changed.emit()
        return True

    def merge_class(self, class_id: int, into: int) -> None:
        """Make the scribbles of a class those of another one on all images."""
        for entry in self.values():
            scribbles = entry.scribbles
            if scribbles is not None and class_id in scribbles.class_ids:
                labels = scribbles.labels
                entry.set_scribbles(np.where(labels == class_id, into, labels))
                self.relabelled.emit(entry.key)

    def painted(self) -> list[ImageEntry]:
        """Return the images whose scribbles take part in the training."""
        return [one for one in self.values() if one.trains and one.class_ids]

    def usable(self) -> list[ImageEntry]:
        """Return the painted images that train with the current one's features."""
        return [entry for entry in self.painted() if self.is_usable(entry)]

    def why_not_together(self, *, whole: bool = True) -> str:
        """Return why no images can be looked at, as a `whole`, now, or ""."""
        if self.current is None:
            return "open an image first"
        if whole and self.current.is_in_blocks:
            return "this image is too large to be looked at as a whole; open a part"
        return "compute features first" if self.current.features is None else ""

    def together(self) -> list[ImageEntry]:
        """Return the current image, and those others that can be looked at with it."""
        held = [one for one in self.values() if one.features and not one.is_in_blocks]
        able = [o for o in held if o is not self.current and self.is_usable(o)]
        return [] if self.current is None else [self.current, *able]

    def is_usable(self, entry: ImageEntry) -> bool:
        """Whether what is known of an image goes with the current one's features."""
        known, current = entry.training_features, self.current
        if current is None or current.features is None or current.options is None:
            return False
        if known is None or not (entry is current or entry.is_made_by(current.options)):
            return False
        is_alike = upsampled_alike(known.part_options, current.features.part_options)
        return is_alike and bool(known.shape[0] == current.features.shape[0])
