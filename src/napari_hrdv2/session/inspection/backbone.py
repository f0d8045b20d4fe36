"""What a backbone looks at: attention, and the regions it works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
from napari_hrdv2.core.backbones.superpixels import borders
from napari_hrdv2.core.checks import filled
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.upsampling.featup import featup_file
from napari_hrdv2.core.guidance.attention import (
    attention_flow_map,
    attention_maps,
    region_count,
    region_labels,
    shows_attention,
)
from napari_hrdv2.core.guidance.foreground import attention_foreground
from napari_hrdv2.session.features import FeatureStore
from napari_hrdv2.session.images import ImageEntry, Images, has_regions
from napari_hrdv2.session.planes import PlaneKey, is_large
from napari_hrdv2.session.tasks import Task, TaskContext

if TYPE_CHECKING:
    import numpy as np

_NOT_LOADED = "compute features with this backbone first, which loads it"
_NO_IMAGE = "open an image first"


@dataclass(frozen=True)
class Attention:
    """How much the class token looks at each pixel."""

    key: PlaneKey
    backbone: str
    maps: NDArray[np.float32]  # (heads, H, W); of a network of regions one, the flow
    foreground: NDArray[np.bool_] | None = None  # where it is high, given features


@dataclass(frozen=True)
class Regions:
    """The regions that the features of an image stand for."""

    key: PlaneKey
    labels: NDArray[np.int32]  # from 1 on
    borders: NDArray[np.bool_]  # where one ends and another begins
    count: int


class Inspection:
    """Whether there is anything to see, and the requests for it."""

    def __init__(self, images: Images, features: FeatureStore) -> None:
        self._images, self._features = images, features

    def why_no_attention(self) -> str:
        """Return why no attention can be shown now, or ""."""
        name = self._features.options.backbone
        if self._images.current is None:
            return _NO_IMAGE
        if not shows_attention(name):
            return (
                f"{name} has no class token; choose a Vision Transformer such as "
                "dino-small-8, or a network of regions such as spit-small"
            )
        current = self._images.current
        if self._features.options.channels:
            return "attention is of one picture; choose no channels"
        if current is not None and (current.is_in_blocks or is_large(current.image)):
            return "this image is too large to be looked at as a whole"
        return "" if self._backbone() is not None else _NOT_LOADED

    def why_no_regions(self) -> str:
        """Return why no regions can be shown now, or ""."""
        entry = self._images.current
        if entry is None:
            return _NO_IMAGE
        made = entry.options or self._features.options
        return _why_no_regions(made) or (
            "" if entry.features is not None else "compute features first"
        )

    def region_count(self) -> str:
        """Return how many regions the current image's features have, or ""."""
        entry = self._images.current
        if entry is None or self.why_no_regions():
            return ""

        count = region_count(entry.features)
        each = entry.shape[0] * entry.shape[1] / count
        return f"{count} regions, {each:.0f} px each on average."

    def why_no_partition(self) -> str:
        """Return why regions from elsewhere would be of no use, or ""."""
        if self._images.current is None:
            return _NO_IMAGE
        return _why_no_regions(self._features.options)

    def why_no_upsampler(self) -> str:
        """Return what to do for the weights of the chosen interpolation, or ""."""
        if not self._features.options.interpolation.startswith("jbu"):
            return ""

        try:
            featup_file()
        except WeightsError as error:
            return str(error).removeprefix("interpolation: ")
        return ""

    def attention_request(self) -> Task:
        """Return the request for the attention on the current image."""
        entry = self._entry("attention", self.why_no_attention())
        options, backbone = self._features.options, self._backbone()
        assert backbone is not None  # else there is a reason
        partition = entry.partition_for(options)
        key, image, (levels,) = entry.key, filled(entry.image), options.ranges
        features, exclusion = entry.features, entry.left_out
        how = "bilinear" if options.interpolation == "auto" else options.interpolation

        def find(context: TaskContext) -> Attention:
            """Run the backbone once more, with the chosen transforms."""
            context.progress("Attention", 0, 0)
            if isinstance(backbone, SpitBackbone):
                flow = attention_flow_map(
                    image, backbone, partition=partition, value_range=levels
                )
                maps = flow[None]
            else:
                maps = attention_maps(
                    image,
                    backbone,
                    options.transforms,
                    options.stride,
                    partial(context.progress, "Attention"),
                    context.should_stop,
                    interpolation=how,
                    value_range=levels,
                )
            if features is None:
                return Attention(key, options.backbone, maps)
            mask = attention_foreground(
                features, maps, exclusion=exclusion, should_stop=context.should_stop
            )
            return Attention(key, options.backbone, maps, mask)

        return find

    def regions_request(self) -> Task:
        """Return the request for the regions of the current image's features."""
        entry = self._entry("regions", self.why_no_regions())
        key, features = entry.key, entry.features

        def find(context: TaskContext) -> Regions:
            context.progress("Regions", 0, 0)
            labels = region_labels(features)
            return Regions(key, labels, borders(labels), int(labels.max()))

        return find

    def use_partition(self, labels: ArrayLike | None, name: str = "") -> bool:
        """Use regions from elsewhere on the current image; return if they changed."""
        entry = self._entry("partition", self.why_no_partition())
        return self._images.set_partition(entry, labels, name)

    def _entry(self, wanted: str, reason: str) -> ImageEntry:
        entry = self._images.current
        if reason or entry is None:
            raise ValueError(f"{wanted}: {reason}")
        return entry

    def _backbone(self) -> Backbone | JoinedBackbone | None:
        loaded, options = self._features.loaded, self._features.options
        return loaded.backbone if loaded and loaded.serves(options) else None


def _why_no_regions(options: FeatureOptions) -> str:
    if has_regions(options):
        return ""
    return (
        f"{options.backbone} sees square patches, not regions; choose a network such "
        "as spit-small"
    )
