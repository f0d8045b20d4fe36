"""A new backbone: grey level and the two derivatives of each pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_hrdv2.core.backbones import BackboneSpec, LoadOptions


class GradientBackbone:
    """Three channels for each pixel; see `GridBackbone` for the attributes."""

    name = "gradient"
    channels = 3
    patch_size = 1
    equivariant = False
    default_transforms = "identity"
    absolute_levels = True
    activations = 2
    context_cell = 0
    weights_hash = ""
    steps = 1
    dtype = torch.float16

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def channels_for(self, image_channels: int) -> int:
        return self.channels

    def channel_weights_for(self, image_channels: int) -> None:
        return None

    def to(self, device: str | torch.device) -> GradientBackbone:
        self.device = torch.device(device)
        return self

    def tokens(self, images: Tensor, *, stride: int, tick=None) -> Tensor:
        grey = images.mean(1)  # (B, H, W)
        rows, columns = torch.gradient(grey, dim=(1, 2))
        if tick is not None:
            tick()
        return torch.stack([grey, columns.abs(), rows.abs()], -1).to(self.dtype)


def load(spec: BackboneSpec, options: LoadOptions) -> GradientBackbone:
    return GradientBackbone(options.device)


GRADIENT = BackboneSpec(
    name="gradient",
    loader=load,
    channels=3,
    patch_size=1,
    description="grey level and its derivatives",
    licence="BSD-3-Clause",
    references=("I. Sobel, An isotropic 3x3 image gradient operator (1990).",),
    bundled=True,
    default_transforms="identity",
    activations=2,
)
