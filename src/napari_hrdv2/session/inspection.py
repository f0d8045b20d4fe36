"""What the backbone looks at: attention, its regions, and regions from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.session.features import FeatureStore
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.session.tasks.features import LoadedBackbone

_NOT_LOADED = "compute features with this backbone first, which loads it"
_NO_IMAGE = "open an image first"


@dataclass(frozen=True)
class Attention:
    """How much the class token looks at each pixel.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    backbone : str
    maps : (heads, H, W) float32 array
        Of a network of regions there is one, the attention flow.
    """

    key: PlaneKey
    backbone: str
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class AttentionRequest:
    """Attention of a picture is wanted, with the transforms that the options name."""

    key: PlaneKey
    image: ArrayLike
    options: FeatureOptions
    backbone: Backbone | JoinedBackbone
    partition: NDArray[Any] | None = None

    def answer(self, context: TaskContext) -> Attention:
        """Run the backbone once more, for its attention."""
        from napari_hrdv2.core.backbones import RegionBackbone
        from napari_hrdv2.core.guidance.attention import (
            attention_flow_map,
            attention_maps,
        )

        options, name = self.options, self.options.backbone
        context.progress("Attention", 0, 0)
        if isinstance(self.backbone, RegionBackbone):
            flow = attention_flow_map(
                self.image,
                self.backbone,
                partition=self.partition,
                value_range=options.value_range,
            )
            return Attention(self.key, name, flow[None])
        maps = attention_maps(
            self.image,
            self.backbone,
            options.transforms,
            options.stride,
            partial(context.progress, "Attention"),
            context.should_stop,
            interpolation=options.interpolation,
            value_range=options.value_range,
        )
        return Attention(self.key, name, maps)


@dataclass(frozen=True)
class Regions:
    """The regions that the features of a picture stand for.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    labels : (H, W) int32 array
        From 1 on.
    borders : (H, W) bool array
        Where one ends and another begins.
    count : int
    """

    key: PlaneKey
    labels: NDArray[np.int32]
    borders: NDArray[np.bool_]
    count: int


@dataclass(frozen=True)
class RegionsRequest:
    """The regions of features are wanted."""

    key: PlaneKey
    features: Any

    def answer(self, context: TaskContext) -> Regions:
        """Read them off the features."""
        from napari_hrdv2.core.backbones.superpixels import borders
        from napari_hrdv2.core.guidance.attention import region_labels

        context.progress("Regions", 0, 0)
        labels = region_labels(self.features)
        return Regions(self.key, labels, borders(labels), int(labels.max()))


class Inspection:
    """Whether there is anything to see, and the requests for it.

    Parameters
    ----------
    session : Session
    featuring : Featuring
        Which has the backbone in memory.
    """

    def __init__(self, session: Session, feature_store: FeatureStore) -> None:
        self._session, self._feature_store = session, feature_store

    def why_no_attention(self) -> str:
        """Return why no attention can be shown now, or ""."""
        from napari_hrdv2.core.guidance.attention import shows_attention

        name = self._session.options.backbone
        if self._session.current is None:
            return _NO_IMAGE
        if not shows_attention(name):
            return (
                f"{name} has no class token; choose a Vision Transformer such as "
                "dino-small-8, or a network of regions such as spit-small"
            )
        return "" if self._backbone() is not None else _NOT_LOADED

    def why_no_regions(self) -> str:
        """Return why no regions can be shown now, or ""."""
        entry = self._session.current
        if entry is None:
            return _NO_IMAGE
        made = entry.options or self._session.options
        if not self._divides(made):
            return self._no_regions(made)
        return "" if entry.features is not None else "compute features first"

    def region_count(self) -> str:
        """Return how many regions the current picture's features have, or ""."""
        entry = self._session.current
        if entry is None or entry.features is None:
            return ""
        if not self._divides(entry.options or self._session.options):
            return ""
        from napari_hrdv2.core.guidance.attention import region_count

        count = region_count(entry.features)
        height, width = entry.shape
        each = height * width / count
        return f"{count} regions, {each:.0f} px each on average."

    def why_no_partition(self) -> str:
        """Return why regions from elsewhere would be of no use, or ""."""
        if self._session.current is None:
            return _NO_IMAGE
        options = self._session.options
        return "" if self._divides(options) else self._no_regions(options)

    def why_no_upsampler(self) -> str:
        """Return what to do for the weights of the chosen interpolation, or ""."""
        if not self._session.options.interpolation.startswith("jbu"):
            return ""
        from napari_hrdv2.core.errors import WeightsError
        from napari_hrdv2.core.features.upsampling.featup import featup_advice

        try:
            return featup_advice()
        except WeightsError as error:
            return str(error)

    def attention_request(self) -> AttentionRequest:
        """Return the request for the attention on the current picture.

        Raises
        ------
        ValueError
            If none can be shown.
        """
        reason = self.why_no_attention()
        entry, backbone = self._session.current, self._backbone()
        if reason or entry is None or backbone is None:
            raise ValueError(f"attention: {reason}")
        options = self._session.options
        return AttentionRequest(
            entry.key,
            entry.image,
            options,
            backbone,
            entry.partition_for(options),
        )

    def regions_request(self) -> RegionsRequest:
        """Return the request for the regions of the current picture's features.

        Raises
        ------
        ValueError
            If there are none.
        """
        reason, entry = self.why_no_regions(), self._session.current
        if reason or entry is None:
            raise ValueError(f"regions: {reason}")
        return RegionsRequest(entry.key, entry.features)

    def use_partition(self, labels: ArrayLike | None, name: str = "") -> bool:
        """Use regions from elsewhere on the current picture; return if they changed.

        Its features go, because they were made with other regions; those of other
        pictures stay as they are.

        Parameters
        ----------
        labels : (H, W) int array or None
            None for the backbone's own.
        name : str, optional
            What people call it.

        Raises
        ------
        ValueError
            If there is no image, the backbone has no regions, or the labels do not fit.
        """
        reason, entry = self.why_no_partition(), self._session.current
        if reason or entry is None:
            raise ValueError(f"partition: {reason}")
        had_features = entry.features is not None
        changed = entry.set_partition(labels, name)
        if changed and had_features:
            self._session.set_image(entry.image, entry.key)  # tells that they went
        elif changed:
            self._session.images_changed.emit()
        return changed

    def _backbone(self) -> Backbone | JoinedBackbone | None:
        loaded: LoadedBackbone | None = self._feature_store.loaded
        if loaded is None or not loaded.serves(self._session.options):
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
