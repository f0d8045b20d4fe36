"""From an image and options to features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.session.planes import PlaneKey

    from .context import TaskContext


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone in memory with the choices that it was loaded for."""

    name: str
    weights: str | None
    device: str
    backbone: Backbone | JoinedBackbone

    @classmethod
    def load(cls, options: FeatureOptions, context: TaskContext) -> LoadedBackbone:
        """Load the backbone that the options name."""
        context.loading(0, 0)
        backbone = options.load(context.loading)
        return cls(options.backbone, options.weights, options.device, backbone)

    def serves(self, options: FeatureOptions) -> bool:
        """Whether loading for these options would give the same backbone."""
        return (self.name, self.weights, self.device) == (
            options.backbone,
            options.weights,
            options.device,
        )


@dataclass(frozen=True)
class FeatureResult:
    """The features, what they were made with, and the backbone for the next request."""

    key: PlaneKey
    version: int
    features: Any
    options: FeatureOptions
    loaded: LoadedBackbone


@dataclass(frozen=True)
class FeatureRequest:
    """Features of `image`, an (H, W) or (H, W, 3|4) array, are wanted.

    `key` names the image entry, `version` the request, `partition` the (H, W) regions
    that a backbone with tokens of regions is to use in place of its own.
    """

    key: PlaneKey
    version: int
    image: NDArray[Any]
    options: FeatureOptions
    loaded: LoadedBackbone | None = None
    partition: NDArray[Any] | None = None

    def answer(self, context: TaskContext) -> FeatureResult:
        """Load the backbone unless it is there, and compute the features."""
        from napari_hrdv2.core.features.compute import compute_with

        options, loaded = self.options, self.loaded
        if loaded is None or not loaded.serves(options):
            loaded = LoadedBackbone.load(options, context)
        features = compute_with(
            options,
            self.image,
            loaded.backbone,
            partial(context.progress, "Computing features"),
            context.should_stop,
            partition=self.partition,
        )
        return FeatureResult(self.key, self.version, features, options, loaded)
