"""The features of all images: which are computed, kept and evicted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

from napari_hrdv2.core.backbones import Backbone, JoinedBackbone, backbone_info
from napari_hrdv2.core.checks import filled, grey_if_equal, missing_pixels
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.cost import Cost, estimate_cost
from napari_hrdv2.core.features.options import (
    FeatureOptions,
    mapped_range,
    parse_stride,
)
from napari_hrdv2.core.features.resampled import compute_resampled
from napari_hrdv2.files.units import size_text

from .blocks import MOST_BYTES, BlockRoom
from .images import ImageEntry, Images, resolved
from .planes import PlaneKey, is_large, is_lazy
from .tasks import TaskContext

logger = logging.getLogger(__name__)

# The next features are computed in what is free, and need up to twice what they leave;
# the viewer and other programs need memory too.
_PART_OF_MEMORY = 4
_PART_OF_BLOCKS = 2  # of that, for the blocks of one image

BLOCK = 1024  # pixels along a side, of images whose features are computed in blocks

_OWN = "its own pixels"  # as they are in the image, not resized

# Options that come from a loaded classifier alone: another backbone does not want them.
_OF_A_CLASSIFIER: dict[str, Any] = {
    "value_range": None,
    "boundary": FeatureOptions.boundary,
    "compat": FeatureOptions.compat,
    "pixel_size": None,
}


@dataclass(frozen=True)
class FeatureSource:
    """A backbone in memory, and the options that it was loaded for."""

    options: FeatureOptions
    backbone: Backbone | JoinedBackbone

    @classmethod
    def load(cls, options: FeatureOptions, context: TaskContext) -> FeatureSource:
        """Load the backbone that the options name."""
        context.loading(0, 0)
        return cls(options, options.load(context.loading))

    def serves(self, options: FeatureOptions) -> bool:
        """Whether loading for these options would give the same backbone."""
        names = "backbone", "weights", "device"
        return all(getattr(self.options, n) == getattr(options, n) for n in names)

    def features(
        self,
        image: ArrayLike,
        context: TaskContext,
        *,
        reports: bool = True,
        partition: NDArray[Any] | None = None,
        levels: tuple[float, float] | None = None,
        pixel_ratio: tuple[float, float] | None = None,
    ) -> Any:
        """Return the features of an (H, W) or (H, W, 3|4) array.

        `levels` are those that become mean 0 and deviation 1, if not the options';
        `pixel_ratio` says how many times as high and wide its pixels are as they were
        where structures were learnt, if they are to be seen as there.
        """
        progress = partial(context.progress, "Computing features")
        return compute_resampled(
            filled(image),
            self.backbone,
            pixel_ratio or self.options.pixel_ratio,
            progress=progress if reports else None,
            should_stop=context.should_stop,
            partition=partition,
            levels=levels or self.options.levels,
            **self.options.choices,
        )

    def as_trained(
        self,
        image: Any,
        classifier: PixelClassifier | None,
        without_colors: Callable[[Any], Any] = grey_if_equal,
    ) -> Any:
        """Return colours that are all grey as grey levels, if those were trained on."""
        grey, colors = map(self.backbone.channels_for, (1, 3))
        weight = classifier.weight if classifier is not None else np.empty((0, 0))
        wants_colors = weight.shape[1] in (colors, 2 * colors)  # with context
        are_colors = image.ndim == 3 and not self.options.channels
        if not are_colors or (grey != colors and wants_colors):
            return image
        return without_colors(image)


@dataclass(frozen=True)
class FeatureResult:
    """The features, and the backbone and options that they were made with."""

    key: PlaneKey
    version: int
    features: Any
    source: FeatureSource
    missing: Any = None  # (H, W) bool, where the image has no values


@dataclass(frozen=True)
class FeatureRequest:
    """Features of `image`, an (H, W) or (H, W, 3|4) array, are wanted.

    `key` names the image entry, `version` the request, `partition` the (H, W) regions
    that a backbone with tokens of regions is to use in place of its own. With `room`
    they are those of blocks, computed when they are needed.
    """

    key: PlaneKey
    version: int
    image: NDArray[Any]
    options: FeatureOptions
    source: FeatureSource | None = None
    partition: NDArray[Any] | None = None
    room: BlockRoom | None = None

    def __call__(self, context: TaskContext) -> FeatureResult:
        """Load the backbone unless it is there, and compute the features."""
        options, source = self.options, self.source
        if source is None or not source.serves(options):
            source = FeatureSource.load(options, context)
        source = replace(source, options=options)
        if self.room is not None:
            keeps = options.channels or is_lazy(self.image)
            image = self.image if keeps else grey_if_equal(self.image)
            blocks = self.room.features(image, source.backbone, options, context)
            return FeatureResult(self.key, self.version, blocks, source)
        image = np.asarray(self.image)
        image = image if options.channels else grey_if_equal(image)
        features = source.features(image, context, partition=self.partition)
        holes = missing_pixels(image)
        return FeatureResult(self.key, self.version, features, source, holes)


class FeatureStore:
    """Features of the images: requested, pending, taken over and evicted."""

    options_changed: ClassVar[Signal] = Signal()

    def __init__(self, images: Images) -> None:
        self.options = FeatureOptions()
        self.budget_bytes: int | None = None
        self._images = images
        self.loaded: FeatureSource | None = None  # made the latest features
        self._count = 0
        # Who failed, or was called off, is not asked again and again.
        self._asked: dict[PlaneKey, FeatureOptions] = {}
        self._seen: ImageEntry | None = None

    def set_options(self, options: FeatureOptions) -> None:
        """Take options for the next features, and tell listeners of other ones."""
        if options != self.options:
            self.options = options
            self.options_changed.emit()

    def configure(self, **changes: Any) -> bool:
        """Change fields of the options, checked; return whether they are other ones."""
        if isinstance(stride := changes.get("stride"), str):  # "half", "7"
            backbone = changes.get("backbone", self.options.backbone)
            changes["stride"] = parse_stride(stride, backbone)
        options = replace(self.options, **changes)
        if options.backbone != self.options.backbone:
            options = replace(options, **{**_OF_A_CLASSIFIER, **changes})
        if options == self.options:
            return False
        options.check()
        self.set_options(options)
        return True

    @property
    def options_in_use(self) -> FeatureOptions:
        """The options that the features of the current image were made with."""
        made = self._images.current.options if self._images.current else None
        return replace(made or self.options, pixel_ratio=None)  # others have their own

    def outdated(self, entry: ImageEntry) -> tuple[str, str] | None:
        """Return how features of an image were made, and would be now, if otherwise."""
        made, now = entry.options, resolved(entry, self.options)
        if made is None:
            return None
        if (found := made.difference(now)) or made.pixel_ratio == now.pixel_ratio:
            return found
        sizes = (one.pixel_size if one.pixel_ratio else None for one in (made, now))
        before, after = (f"pixels of {size_text(s)}" if s else _OWN for s in sizes)
        return before, after

    def cost(self, entry: ImageEntry, options: FeatureOptions | None = None) -> Cost:
        """Return what the features of an image cost, in blocks where it is too large.

        That is where they would not fit into memory, or it would have to be read.
        """
        image, options = entry.image, resolved(entry, options or self.options)
        cost = estimate_cost(image.shape, options)
        if cost.fits and not is_large(image):
            return cost
        try:
            in_blocks = estimate_cost(image.shape, options, block=BLOCK)
        except ValueError as error:  # it takes the whole image at once
            return cost.refused_in_blocks(error)
        if not in_blocks.fits:
            return cost
        room = min(self._block_room(), cost.kept_bytes)
        more = max(room - in_blocks.kept_bytes, 0)
        kept, peak = in_blocks.kept_bytes + more, in_blocks.peak_bytes + more
        return replace(in_blocks, kept_bytes=kept, peak_bytes=peak, block=BLOCK)

    def request(self, entry: ImageEntry) -> FeatureRequest:
        """Return the request for features; an older one's answer will be dropped."""
        self._asked.clear()
        is_current = entry is self._images.current
        return self._request(entry, self.options if is_current else self.options_in_use)

    def next_request(self, ahead: Iterable[PlaneKey | str]) -> FeatureRequest | None:
        """Return a request for features that are wanted though nobody asked, or None.

        First those of the current image, where the options were used on another plane
        of its stack, or cost no download; then those of images that were painted on,
        like the current image's; then those with the keys `ahead`, as far as there is
        room.
        """
        current = self._images.current
        if current is not self._seen:  # whoever comes back may want to try again
            self._seen = current
            if current is not None:
                self._asked.pop(current.key, None)
        if current is None:
            return None
        if current.features is None:
            is_wanted = self._is_on_demand(current)
            return self._unasked(current, self.options) if is_wanted else None
        made = current.options
        assert made is not None
        for entry in (*self._images.painted(), *self._with_room(ahead)):
            if self._images.is_usable(entry):
                continue
            if entry.features is not None and entry.is_made_by(made):
                continue  # colours where the others are grey: nothing will help
            request = self._unasked(entry, made)
            if request is not None:
                return request
        return None

    def accept(self, result: FeatureResult) -> ImageEntry | None:
        """Take features over; return their image, or None if none waits for them."""
        self.loaded = result.source
        entry = self._images.find(result.key)
        if entry is None or entry.pending != result.version:
            return None
        entry.pending = 0
        if result.missing is not entry.missing:  # which are seldom
            entry.set_missing(result.missing)
        entry.set_features(result.features, result.source.options)
        self._asked.pop(entry.key, None)
        self._images.use(entry)
        self._make_room()
        self._images.changed.emit()
        return entry

    def _request(self, entry: ImageEntry, options: FeatureOptions) -> FeatureRequest:
        if entry.channels != options.channels:
            there, wanted = entry.channels or "none", options.channels or "none"
            raise ValueError(
                f"channels: {entry.name or entry.key} has {there}, and {wanted} are "
                "to be taken together; choose others"
            )
        cost, room = self.cost(entry, options), None
        if not cost.fits:
            raise ValueError(cost.refusal())
        if cost.block:
            room = BlockRoom.within(self._block_room(), cost.block)
        self._count += 1
        entry.pending = self._count
        return FeatureRequest(
            entry.key,
            self._count,
            entry.image,  # type: ignore[arg-type]  # of a plane read while computing
            self._on_levels_of_stack(entry, resolved(entry, options)),
            self.loaded,
            entry.partition_for(options),
            room,
        )

    def _unasked(
        self, entry: ImageEntry, options: FeatureOptions
    ) -> FeatureRequest | None:
        """Ask once, and not for what is on its way."""
        wanted = resolved(entry, options)
        if entry.pending or self._asked.get(entry.key) == wanted:
            return None
        self._asked[entry.key] = wanted
        try:
            return self._request(entry, options)
        except ValueError as error:
            logger.info("no features of %s: %s", entry.name, error)
            return None

    def _is_on_demand(self, entry: ImageEntry) -> bool:
        """Whether to compute the features of an image because it is looked at."""
        family = self._images.family(entry.key)
        made = (one.options for one in family if one.options is not None)
        if any(one.difference(self.options) is None for one in made):
            return True
        names = self.options.backbone.split("+") if entry.plane else ()
        return bool(names) and all(backbone_info(name).bundled for name in names)

    def _on_levels_of_stack(
        self, entry: ImageEntry, options: FeatureOptions
    ) -> FeatureOptions:
        """Map the grey levels of all planes alike, else they cannot be compared."""
        if not entry.plane or options.value_range is not None:
            return options
        for one in self._images.family(entry.key):
            known = one.training_features
            if one is not entry and known is not None and known.part_options:
                return replace(options, value_range=mapped_range(known.part_options))
        return options

    # Memory.

    def _with_room(self, ahead: Iterable[PlaneKey | str]) -> list[ImageEntry]:
        """Return as many of these images as can be kept beside the current one."""
        current, found = self._images.current, map(self._images.find, ahead)
        assert current is not None
        size = current.features.nbytes
        stored = sum(one.nbytes for one in self._images.values() if one.is_evicted)
        room = int((self._budget() - stored) // size) - 1 if size else 0
        others = [one for one in found if one is not None and one is not current]
        return others[: max(room, 0)]

    def _make_room(self) -> None:
        """Evict features, the longest unused first, until the rest has room."""
        held = [one for one in self._images.values() if one.features is not None]
        total, budget = self._held_bytes(), self._budget()
        for entry in sorted(held, key=lambda one: one.last_used):
            if total <= budget:
                return
            if entry is self._images.current:
                continue
            total -= entry.nbytes
            entry.evict()
            total += entry.nbytes
            if entry.plane and not entry.has_something_set:
                self._images.remove(entry.key)  # there are thousands in a stack

    def _budget(self) -> int:
        if self.budget_bytes is not None:
            return self.budget_bytes
        from napari_hrdv2.core.devices import available_memory, choose_device

        total = available_memory(choose_device("cpu")) + self._held_bytes()
        return total // _PART_OF_MEMORY

    def _block_room(self) -> int:
        """Return the memory for the blocks of one image."""
        return min(self._budget() // _PART_OF_BLOCKS, MOST_BYTES)

    def _held_bytes(self) -> int:
        return sum(one.nbytes for one in self._images.values())
