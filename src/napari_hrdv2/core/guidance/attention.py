"""Looking at what a backbone looks at: attention, and the regions it works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.backbones.base import RegionBackbone
from napari_hrdv2.core.backbones.registry import backbone_info
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import Facet
from napari_hrdv2.core.checks import prepare_image
from napari_hrdv2.core.features.compute import compute_features
from napari_hrdv2.core.features.memory import parts_of
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.base import Features


def shows_attention(name: str) -> bool:
    """Whether a backbone of this name can tell what its class token attends to."""
    return any(backbone_info(part).has_attention for part in name.split("+"))


def divides_into_regions(name: str) -> bool:
    """Whether a backbone of this name has one token for each region."""
    return any(backbone_info(part).has_regions for part in name.split("+"))


def attention_maps(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    *arguments: Any,
    block: int = -1,
    **options: Any,
) -> NDArray[np.float32]:
    """Return how much the class token attends to each pixel, (heads, H, W).

    1 where it attends as to all tokens alike.

    Parameters
    ----------
    image : (H, W) or (H, W, 3|4) array
    backbone : Backbone
        A Vision Transformer, or a joined backbone with one.
    block : int
        0 for the first; -1 counts from the last.
    *arguments, **options
        The other ones of :func:`~napari_hrdv2.compute_features`.
    """
    vit = next((p for p in parts_of(backbone) if isinstance(p, ViTBackbone)), None)
    if vit is None:
        raise ValueError(
            f"backbone: {backbone.name} has no class token whose attention could be "
            "shown; choose a Vision Transformer such as dino-small-8"
        )
    depth = vit.model.config.depth
    if not -depth <= block < depth:
        raise ValueError(
            f"block: {block} is none of {vit.name}; its blocks are 0 to {depth - 1}, "
            "or -1 for the last"
        )
    inner = vit.with_facets((Facet("attention", block),))
    return compute_features(image, inner, *arguments, **options).materialize()


def attention_flow_map(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    *,
    partition: ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Return how much each region counts for the class token of SPiT, (H, W) in 0..1.

    On a logarithmic scale; see `attention_flow`.

    Parameters
    ----------
    image : (H, W) or (H, W, 3|4) array
    backbone : Backbone
        A network of SPiT, or a joined backbone with one.
    partition : (H, W) array of int, optional
        Regions to use in place of the backbone's own.
    value_range
        As for :func:`~napari_hrdv2.compute_features`.
    """
    spit = next((p for p in parts_of(backbone) if isinstance(p, RegionBackbone)), None)
    if spit is None:
        raise ValueError(
            f"backbone: {backbone.name} does not divide images into regions; choose "
            "one that does, such as spit-small"
        )
    prepared = prepare_image(image, value_range=value_range)
    pixels = torch.from_numpy(prepared.pixels)
    return np.asarray(spit.saliency(pixels, partition=partition).cpu())


def region_labels(features: Features) -> NDArray[np.int32]:
    """Return which region of the image as it is each pixel is in, (H, W) from 1 on."""
    regions = _regions_of(features)
    if regions is None:
        raise ValueError(
            "features: they stand for a grid of patches, not for regions; compute them "
            "with a backbone such as spit-small"
        )
    own = regions.label_maps[0]
    return np.asarray((own - (own.min() - 1)).cpu())


def region_count(features: Features) -> int:
    """Return how many regions the image as it is has, 0 for a grid of patches."""
    regions = _regions_of(features)
    return 0 if regions is None else regions.counts[0]


def _regions_of(features: Features) -> SuperpixelFeatures | None:
    """Return the part with regions, if any; its first copy is the image as it is."""
    parts = getattr(features, "parts", (features,))
    return next((part for part in parts if isinstance(part, SuperpixelFeatures)), None)
