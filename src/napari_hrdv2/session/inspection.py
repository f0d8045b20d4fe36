"""What the backbone looks at: attention, its regions, and regions from elsewhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from psygnal import Signal

from .tasks.guidance import find_attention, find_regions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions

    from .features import FeatureStore
    from .images import Images
    from .tasks.context import Task

_NOT_LOADED = "compute features with this backbone first, which loads it"
_NO_IMAGE = "open an image first"


class Inspection:
    """Whether there is anything to see, and the requests for it."""

    features_dropped: ClassVar[Signal] = Signal()
    """Those of the current image, because they were made with other regions."""

    def __init__(self, images: Images, features: FeatureStore) -> None:
        self._images, self._features = images, features

    def why_no_attention(self) -> str:
        """Return why no attention can be shown now, or ""."""
        from napari_hrdv2.core.guidance.attention import shows_attention

        name = self._features.options.backbone
        if self._images.current is None:
            return _NO_IMAGE
        if not shows_attention(name):
            return (
                f"{name} has no class token; choose a Vision Transformer such as "
                "dino-small-8, or a network of regions such as spit-small"
            )
        return "" if self._backbone() is not None else _NOT_LOADED

    def why_no_regions(self) -> str:
        """Return why no regions can be shown now, or ""."""
        entry = self._images.current
        if entry is None:
            return _NO_IMAGE
        made = entry.options or self._features.options
        if not self._divides(made):
            return self._no_regions(made)
        return "" if entry.features is not None else "compute features first"

    def region_count(self) -> str:
        """Return how many regions the current image's features have, or ""."""
        entry = self._images.current
        if entry is None or entry.features is None:
            return ""
        if not self._divides(entry.options or self._features.options):
            return ""
        from napari_hrdv2.core.guidance.attention import region_count

        count = region_count(entry.features)
        height, width = entry.shape
        each = height * width / count
        return f"{count} regions, {each:.0f} px each on average."

    def why_no_partition(self) -> str:
        """Return why regions from elsewhere would be of no use, or ""."""
        if self._images.current is None:
            return _NO_IMAGE
        options = self._features.options
        return "" if self._divides(options) else self._no_regions(options)

    def why_no_upsampler(self) -> str:
        """Return what to do for the weights of the chosen interpolation, or ""."""
        if not self._features.options.interpolation.startswith("jbu"):
            return ""
        from napari_hrdv2.core.errors import WeightsError
        from napari_hrdv2.core.features.upsampling.featup import featup_advice

        try:
            return featup_advice()
        except WeightsError as error:
            return str(error)

    def attention_request(self) -> Task:
        """Return the request for the attention on the current image."""
        reason = self.why_no_attention()
        entry, backbone = self._images.current, self._backbone()
        if reason or entry is None or backbone is None:
            raise ValueError(f"attention: {reason}")
        options = self._features.options
        return partial(
            find_attention,
            key=entry.key,
            image=entry.image,
            options=options,
            backbone=backbone,
            partition=entry.partition_for(options),
        )

    def regions_request(self) -> Task:
        """Return the request for the regions of the current image's features."""
        reason, entry = self.why_no_regions(), self._images.current
        if reason or entry is None:
            raise ValueError(f"regions: {reason}")
        return partial(find_regions, key=entry.key, features=entry.features)

    def use_partition(self, labels: ArrayLike | None, name: str = "") -> bool:
        """Use regions from elsewhere on the current image; return if they changed."""
        reason, entry = self.why_no_partition(), self._images.current
        if reason or entry is None:
            raise ValueError(f"partition: {reason}")
        had_features = entry.features is not None
        changed = entry.set_partition(labels, name)
        if changed and had_features:
            self.features_dropped.emit()
        elif changed:
            self._images.changed.emit()
        return changed

    def _backbone(self) -> Backbone | JoinedBackbone | None:
        loaded = self._features.loaded
        if loaded is None or not loaded.serves(self._features.options):
            return None
        return loaded.backbone

    def _divides(self, options: FeatureOptions) -> bool:
        from napari_hrdv2.core.guidance.attention import divides_into_regions

        return divides_into_regions(options.backbone)

    def _no_regions(self, options: FeatureOptions) -> str:
        return (
            f"{options.backbone} sees square patches, not regions; choose a network "
            "such as spit-small"
        )
