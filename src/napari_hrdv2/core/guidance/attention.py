"""Looking at what a backbone looks at: attention, and the regions it works with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from napari_hrdv2.core.backbones.base import RegionBackbone
from napari_hrdv2.core.backbones.registry import backbone_info
from napari_hrdv2.core.backbones.superpixels import borders
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import Facet
from napari_hrdv2.core.checks import prepare_image
from napari_hrdv2.core.features.compute import compute_features
from napari_hrdv2.core.features.memory import parts_of
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures
from napari_hrdv2.core.features.transforms import Transform

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.transforms import TransformSet


def shows_attention(name: str) -> bool:
    """Whether a backbone of this name can tell what its class token attends to."""
    return any(backbone_info(part).has_attention for part in name.split("+"))


def divides_into_regions(name: str) -> bool:
    """Whether a backbone of this name has one token for each region."""
    return any(backbone_info(part).has_regions for part in name.split("+"))


def attention_maps(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    block: int = -1,
    interpolation: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Return how much the class token attends to each pixel, one map for each head.

    Parameters
    ----------
    image : (H, W) or (H, W, 3|4) array
    backbone : Backbone
        A Vision Transformer, or a joined backbone with one.
    transforms, stride, progress, should_stop, interpolation, value_range
        As for :func:`~napari_hrdv2.compute_features`.
    block : int
        0 for the first; -1 counts from the last.

    Returns
    -------
    (heads, H, W) float32 array
        1 where the class token attends as to all tokens alike.

    Raises
    ------
    Cancelled
        When `should_stop` returned True.
    ValueError
        If no part of the backbone has a class token, or it has no such block.
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
    return compute_features(
        image,
        vit.with_facets((Facet("attention", block),)),
        transforms,
        stride,
        progress,
        should_stop,
        interpolation=interpolation,
        value_range=value_range,
    ).materialize()


def attention_flow_map(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    *,
    partition: ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Return how much each region of an image counts for the class token of SPiT.

    Parameters
    ----------
    image : (H, W) or (H, W, 3|4) array
    backbone : Backbone
        A network of SPiT, or a joined backbone with one.
    partition : (H, W) array of int, optional
        Regions to use in place of the backbone's own.
    value_range
        As for :func:`~napari_hrdv2.compute_features`.

    Returns
    -------
    (H, W) float32 array
        From 0 to 1, on a logarithmic scale; see `attention_flow`.

    Raises
    ------
    ValueError
        If no part of the backbone divides images into regions.
    """
    found = (p for p in parts_of(backbone) if isinstance(p, RegionBackbone))
    spit = next(found, None)
    if spit is None:
        raise ValueError(
            f"backbone: {backbone.name} does not divide images into regions; choose "
            "one that does, such as spit-small"
        )
    prepared = prepare_image(image, value_range=value_range)
    pixels = torch.from_numpy(prepared.pixels)
    flow: NDArray[np.float32] = spit.saliency(pixels, partition=partition).cpu().numpy()
    return flow


def region_labels(features: Features) -> NDArray[np.int32]:
    """Return which region of the image as it is, not of a copy, each pixel is in.

    Parameters
    ----------
    features : Features
        Of a backbone that divides images into regions, or joined with such.

    Returns
    -------
    (H, W) int32 array
        From 1 on, as a Labels layer wants them.

    Raises
    ------
    ValueError
        If the features have no regions.
    """
    found = _with_regions(features)
    if found is None:
        raise ValueError(
            "features: they stand for a grid of patches, not for regions; compute them "
            "with a backbone such as spit-small"
        )
    own = found.label_maps[_plain_copy(found)]
    labels: NDArray[np.int32] = (own - (own.min() - 1)).cpu().numpy()
    return labels


def region_count(features: Features) -> int:
    """Return how many regions the image as it is has, 0 for a grid of patches."""
    found = _with_regions(features)
    return 0 if found is None else found.counts[_plain_copy(found)]


def _with_regions(features: Features) -> SuperpixelFeatures | None:
    parts = getattr(features, "parts", (features,))
    return next((p for p in parts if isinstance(p, SuperpixelFeatures)), None)


def _plain_copy(features: SuperpixelFeatures) -> int:
    """Return which copy is the image as it is, or the first."""
    copies = features.transforms.copies
    plain = (n for n, copy in enumerate(copies) if copy.transform == Transform())
    return next(plain, 0)


def region_borders(features: Features) -> NDArray[np.bool_]:
    """Return where one region of `region_labels` ends and another begins, (H, W)."""
    return borders(region_labels(features))
