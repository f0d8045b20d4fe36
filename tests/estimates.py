"""What features are said to take, by the keywords that they are computed with."""

from napari_hrdv2.core.features.memory import Estimate, estimate_of, make_plans
from napari_hrdv2.core.features.options import FeatureOptions


def estimate(
    image_shape: tuple[int, int],
    backbone,
    transforms="auto",
    stride: int | None = None,
    *,
    image_channels: int = 1,
    interpolation: str = "bilinear",
    debias: str = "none",
) -> Estimate:
    """Return the passes and the memory of `compute_features`."""
    options = FeatureOptions(stride=stride, interpolation=interpolation, debias=debias)
    given = image_shape, image_channels, backbone, transforms, options
    return estimate_of(make_plans(*given))
