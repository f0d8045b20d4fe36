"""The backbones that can be trained on: how each is run, and what its file is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_hrdv2.core.backbones.checkpoint import write_tensors
from napari_hrdv2.core.backbones.embedded.backbone import EmbeddedBackbone, standardised
from napari_hrdv2.core.backbones.embedded.network import (
    STRIDE,
    at_every_scale,
    padded,
    save_weights,
)
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone


@dataclass(frozen=True, kw_only=True)
class Adaptable:
    """A copy of a backbone's network, and what is asked of it to train it on."""

    network: nn.Module
    patch_size: int
    side: int  # of a view, in pixels, where images are as large
    multiple: int  # of a view's side
    rate: float  # of learning, at its peak
    channel_weights: Tensor  # (C,), what each channel counts for a classifier
    # (C, H, W) pixels in 0..1 as the network takes them.
    prepared: Callable[[Tensor], Tensor]
    # (B, h, w, C) tokens of (B, 3, S, S) views, with their gradient.
    tokens: Callable[[Any, Tensor], Tensor]
    # Writes the weights of a network, with a word on how they came about.
    save: Callable[[Any, Path, str], None]


def adaptable(backbone: Any) -> Adaptable:
    """Return what trains a backbone on, or raise ValueError."""
    if isinstance(backbone, EmbeddedBackbone):
        return _embedded(backbone)
    if isinstance(backbone, ViTBackbone):
        return _vit(backbone)
    raise ValueError(
        f"backbone: {backbone.name} cannot be adapted; choose embedded or a Vision "
        "Transformer, one at a time"
    )


def _embedded(backbone: EmbeddedBackbone) -> Adaptable:
    """The convolutional network; the filter bank beside it stays as it is."""
    config, weights = backbone.network.config, backbone.channel_weights_for(3)

    def tokens(network: Any, images: Tensor) -> Tensor:
        images = padded(images, config.multiple)
        images = images.contiguous(memory_format=torch.channels_last)
        rows, columns = (slice(0, length // STRIDE) for length in images.shape[2:])
        scales = at_every_scale(network, images, (rows, columns), lambda: None)
        return torch.cat(list(scales), 1).movedim(1, -1)

    return Adaptable(
        network=copy.deepcopy(backbone.network).float().requires_grad_(),
        patch_size=backbone.patch_size,
        side=128,
        multiple=16,
        rate=1e-4,
        channel_weights=weights[: config.channels].float(),
        prepared=lambda pixels: standardised(pixels.unsqueeze(0)).squeeze(0),
        tokens=tokens,
        save=lambda network, path, trained: save_weights(
            copy.deepcopy(network).cpu(), weights, path, trained=trained
        ),
    )


def _vit(backbone: ViTBackbone) -> Adaptable:
    """A Vision Transformer; its position embedding stays as it is."""
    config = backbone.model.config
    levels = torch.tensor([config.pixel_mean, config.pixel_deviation])[..., None, None]
    return Adaptable(
        network=copy.deepcopy(backbone.model).float().requires_grad_(),
        patch_size=config.patch_size,
        side=16 * config.patch_size,
        multiple=config.patch_size,
        rate=1e-5,
        channel_weights=torch.ones(backbone.channels),
        prepared=lambda pixels: (pixels - levels[0]) / levels[1],
        tokens=lambda network, images: network(images, facets=backbone.facets),
        save=lambda network, path, trained: write_tensors(
            path, network.state_dict(), {"trained": trained}
        ),
    )
