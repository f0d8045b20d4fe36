"""How features are to be made outside of the window: every choice, in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_hrdv2.session import recipes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones.loading import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.high_resolution import Features
    from napari_hrdv2.session.tasks.context import ShouldStop


@dataclass(frozen=True)
class FeatureOptions:
    """The arguments of `load_backbone` and `compute_features`."""

    backbone: str
    transforms: str = "auto"
    stride: int | None = None
    device: str = "auto"
    weights: str | None = None
    value_range: tuple[float, float] | None = None
    boundary: str = "periodic"
    interpolation: str = "bilinear"
    compat: str = "corrected"
    debias: str = "none"

    def load(self, progress: Any = None) -> Backbone | JoinedBackbone:
        """Return the backbone; ``progress(done, total)`` hears of a download."""
        from napari_hrdv2.core.backbones.loading import load_backbone

        return load_backbone(
            self.backbone, weights=self.weights, device=self.device, progress=progress
        )

    def features_of(
        self,
        image: NDArray[Any],
        backbone: Backbone | JoinedBackbone,
        progress: Any = None,
        should_stop: ShouldStop | None = None,
    ) -> Features:
        """Return the features of an image by a backbone that was loaded."""
        from napari_hrdv2.core.features.compute import compute_features

        return compute_features(
            image,
            backbone,
            self.transforms,
            self.stride,
            progress,
            should_stop,
            value_range=self.value_range,
            boundary=self.boundary,
            interpolation=self.interpolation,
            compat=self.compat,
            debias=self.debias,
        )


def options_of(
    classifier: PixelClassifier, device: str = "auto", weights: str | None = None
) -> FeatureOptions:
    """Return how the features were made that a classifier was trained on.

    Raises
    ------
    ValueError
        If it does not say.
    """
    made = classifier.recipes
    if not made:
        raise ValueError(
            "classifier: its file does not say which features it was trained on; "
            "train it again with `segment --save-classifier`"
        )
    main = recipes.main_of(made)
    return FeatureOptions(
        backbone="+".join(recipe.backbone for recipe in made),
        transforms=recipes.transforms_of(made),
        stride=recipes.stride_of(made),
        device=device,
        weights=weights,
        value_range=recipes.value_range(classifier),
        boundary=main.boundary,
        interpolation=main.interpolation,
        compat=main.compat,
        debias=recipes.debias_of(made),
    )
