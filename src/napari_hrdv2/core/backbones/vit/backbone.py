"""A frozen Vision Transformer as a backbone: from pixels in 0..1 to tokens."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Self

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.base import IN_FLOAT32, GridBackbone, LoadOptions, Tick
from napari_hrdv2.core.backbones.checkpoint import Weights, frozen

from .model import Facet, VisionTransformer, ViTConfig


class ViTBackbone(GridBackbone):
    """A frozen Vision Transformer; see `GridBackbone`.

    Facets are taken of the blocks, side by side as channels, in place of the tokens
    after the last.
    """

    def __init__(
        self,
        name: str,
        config: ViTConfig,
        weights: Weights,
        options: LoadOptions = IN_FLOAT32,
        *,
        facets: tuple[Facet, ...] = (),
    ) -> None:
        self.name = name
        self.patch_size = config.patch_size
        self._take(facets, config)
        self.weights_hash = weights.hash
        self.dtype = options.token_dtype
        self.model = frozen(partial(VisionTransformer, config), weights)
        self._move(options.device, options.dtype)

    def _take(self, facets: tuple[Facet, ...], config: ViTConfig) -> None:
        self.facets = facets
        self.channels = channels_of(facets, config)
        self.activations = activations_of(facets, config)
        self.steps = 1 + max((f.block for f in facets), default=config.depth - 1)

    def with_facets(self, facets: tuple[Facet, ...]) -> Self:
        """Return this backbone with other facets, on the same weights in memory."""
        config = self.model.config
        blocks = range(config.depth)
        facets = tuple(f._replace(block=blocks[f.block]) for f in facets)
        other = copy.copy(self)
        text = ",".join(f"{f.kind[0]}{f.block}" for f in facets)
        other.name = self.name.partition("@")[0] + (f"@{text}" if facets else "")
        other._take(facets, config)
        return other

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.model.to(device=device, dtype=dtype)
        config = self.model.config
        pixels = torch.tensor([config.pixel_mean, config.pixel_deviation])
        self._mean, self._deviation = pixels.view(2, 3, 1, 1).to(device)

    # Not inference_mode: no gradient can be computed from its tensors later, and it
    # saves microseconds in a pass of seconds.
    @torch.no_grad()
    def tokens(
        self, images: Tensor, *, stride: int, tick: Tick | None = None
    ) -> Tensor:
        """Return the tokens of the last block, or facets; see `GridBackbone`."""
        self._check_batch(images)
        pixels = (images - self._mean) / self._deviation  # (B, 3, H, W), grey or not
        pixels = pixels.to(self.model.norm.weight.dtype)
        maps: Tensor = self.model(pixels, stride=stride, facets=self.facets, tick=tick)
        return maps.to(self.dtype)


def channels_of(facets: tuple[Facet, ...], config: ViTConfig) -> int:
    """Return the channels of facets side by side, or of a token without any."""
    return sum(facet.channels(config) for facet in facets) or config.embed_dim


def activations_of(facets: tuple[Facet, ...], config: ViTConfig) -> int:
    """Return `activations` of a pass: in units of the facets, if any are taken."""
    if not facets:
        return GridBackbone.activations
    # All of them are there beside what the block needs.
    needed = GridBackbone.activations * config.embed_dim
    return math.ceil(needed / channels_of(facets, config)) + 1
