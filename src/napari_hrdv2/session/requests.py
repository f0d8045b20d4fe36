"""What the session asks to be computed, and what comes back.

Requests and results are frozen snapshots: a worker thread reads nothing else. Each
carries the generation of the state it was made from, so that the session can drop an
answer that comes too late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier import PixelClassifier, SampleCache
    from napari_hrdv2.session.settings import FeatureSettings

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


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
class FeatureRequest:
    """Features of `image`, an (H, W) or (H, W, 3|4) array, are wanted."""

    generation: int
    image: NDArray[Any]
    settings: FeatureSettings
    loaded: LoadedBackbone | None = None


@dataclass(frozen=True)
class FeatureResult:
    """The features, what they were made with, and the backbone for the next request."""

    generation: int
    features: Any
    settings: FeatureSettings
    loaded: LoadedBackbone


@dataclass(frozen=True)
class TrainRequest:
    """A segmentation from `labels`, or by `classifier` as it is when they are None.

    Attributes
    ----------
    labels : (H, W) int array or None
        A snapshot of the scribbles; 0 is not labelled.
    digest : bytes
        Names the scribbles that the answer belongs to.
    classifier : PixelClassifier or None
        The last fit, to start from. It is not changed.
    samples : SampleCache
        Rows of pixels that were labelled before.
    """

    generation: int
    features: Any
    labels: NDArray[Any] | None
    digest: bytes
    classifier: PixelClassifier | None
    samples: SampleCache | None


@dataclass(frozen=True)
class TrainResult:
    """The classifier, its (H, W) segmentation by label ids, and the share of each."""

    generation: int
    digest: bytes
    classifier: PixelClassifier
    segmentation: NDArray[np.integer[Any]]
    fractions: dict[int, float]
