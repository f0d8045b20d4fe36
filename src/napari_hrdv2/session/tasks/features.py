"""From an image and settings to features: request, work and answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_hrdv2.session.settings import FeatureSettings, stride_in_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones.loading import Backbone, JoinedBackbone
    from napari_hrdv2.session.tasks.context import TaskContext


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone in memory with the choices that it was loaded for."""

    name: str
    weights: str | None
    device: str
    backbone: Backbone | JoinedBackbone

    def serves(self, settings: FeatureSettings) -> bool:
        """Whether loading for these settings would give the same backbone."""
        return (self.name, self.weights, self.device) == (
            settings.backbone,
            settings.weights,
            settings.device,
        )


@dataclass(frozen=True)
class FeatureResult:
    """The features, what they were made with, and the backbone for the next request."""

    key: str
    generation: int
    features: Any
    settings: FeatureSettings
    loaded: LoadedBackbone


@dataclass(frozen=True)
class FeatureRequest:
    """Features of `image`, an (H, W) or (H, W, 3|4) array, are wanted.

    `key` names the picture that it belongs to, `partition` the (H, W) regions that a
    backbone with tokens of regions is to use in place of its own.
    """

    key: str
    generation: int
    image: NDArray[Any]
    settings: FeatureSettings
    loaded: LoadedBackbone | None = None
    partition: NDArray[Any] | None = None

    def answer(self, context: TaskContext) -> FeatureResult:
        """Load the backbone unless it is there, and compute the features."""
        from napari_hrdv2.core.features.compute import compute_features

        settings, loaded = self.settings, self.loaded
        if loaded is None or not loaded.serves(settings):
            loaded = _load(settings, context)
        features = compute_features(
            self.image,
            loaded.backbone,
            settings.transforms,
            stride_in_pixels(settings),
            partial(context.progress, "Computing features"),
            context.should_stop,
            value_range=settings.value_range,
            interpolation=settings.interpolation,
            debias=settings.debias,
            partition=self.partition,
        )
        return FeatureResult(self.key, self.generation, features, settings, loaded)


def _load(settings: FeatureSettings, context: TaskContext) -> LoadedBackbone:
    from napari_hrdv2.core.backbones.loading import load_backbone

    context.loading(0, 0)
    backbone = load_backbone(
        settings.backbone,
        weights=settings.weights,
        device=settings.device,
        progress=context.loading,
    )
    return LoadedBackbone(
        settings.backbone, settings.weights, settings.device, backbone
    )
