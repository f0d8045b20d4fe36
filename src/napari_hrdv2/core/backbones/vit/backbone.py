"""A frozen Vision Transformer as a backbone: from pixels in 0..1 to tokens."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.vit.model import (
    Facet,
    VisionTransformer,
    ViTConfig,
    ViTOutput,
)
from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.features.image import check_grey_or_rgb
from napari_hrdv2.core.features.pace import vit_operations

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.weights import Weights


class ViTBackbone:
    """A frozen Vision Transformer; see `Backbone` for the attributes.

    Parameters
    ----------
    name : str
        What it was loaded as.
    config : ViTConfig
    weights : Weights
        A state dict that fits the configuration, with its fingerprint.
    device : torch.device
    dtype : torch.dtype
        The number format of the pass.
    token_dtype : torch.dtype, optional
        The number format in which tokens are handed out; that of the pass by default.
    facets : tuple of Facet, optional
        What to take of the blocks, side by side as channels; by default the tokens
        after the last.
    """

    equivariant = False
    default_transforms = "shift:1,2"
    absolute_levels = True
    # Of one block, in units of its tokens: the residual stream, its norm, q, k, v, the
    # attention's output and the hidden layer.
    activations = 14
    context_cell = 0

    def __init__(
        self,
        name: str,
        config: ViTConfig,
        weights: Weights,
        *,
        device: torch.device,
        dtype: torch.dtype,
        token_dtype: torch.dtype | None = None,
        facets: tuple[Facet, ...] = (),
    ) -> None:
        self.name = name
        self.patch_size = config.patch_size
        self._take(facets, config)
        self.weights_hash = weights.hash
        self.dtype = token_dtype or dtype
        with torch.device("meta"):
            self.model = VisionTransformer(config)
        self.model.load_state_dict(weights.state, assign=True)
        self.model.eval().requires_grad_(False)
        self._move(device, dtype)

    def _take(self, facets: tuple[Facet, ...], config: ViTConfig) -> None:
        self.facets = facets
        taken = sum(facet.channels(config) for facet in facets) if facets else None
        self.channels = config.embed_dim if taken is None else taken
        self.activations = self.activations_for(taken, config.embed_dim)
        self.steps = 1 + max((f.block for f in facets), default=config.depth - 1)

    @classmethod
    def activations_for(cls, facet_channels: int | None, embed_dim: int) -> int:
        """Return `activations` of a pass: in units of the facets, if any are taken."""
        if facet_channels is None:
            return cls.activations
        # All of them are there beside what the block needs.
        return math.ceil(cls.activations * embed_dim / facet_channels) + 1

    def with_facets(self, facets: tuple[Facet, ...]) -> Self:
        """Return this backbone with other facets, on the same weights in memory.

        Parameters
        ----------
        facets : tuple of Facet
            Of blocks that it has; -1 is the last.
        """
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
        self._mean = torch.tensor(config.pixel_mean, device=device).view(3, 1, 1)
        deviation = torch.tensor(config.pixel_deviation, device=device)
        self._deviation = deviation.view(3, 1, 1)

    # Not inference_mode: no gradient can be computed from its tensors later, and it
    # saves microseconds in a pass of seconds.
    @torch.no_grad()
    def tokens(
        self,
        images: Tensor,
        *,
        stride: int,
        tick: Callable[[], None] | None = None,
    ) -> Tensor:
        """Return the normalised patch tokens of the last block, or the facets.

        Parameters
        ----------
        images : (B, 1 or 3, H, W) float32 tensor
            Nominally in 0..1. A grey image serves as red, green and blue.
        stride : int
            Pixels between tokens, up to the patch size.
        tick : callable, optional
            Called after each block. What it raises ends the pass.

        Returns
        -------
        (B, h, w, C) tensor of `dtype`
            h = 1 + (H - patch_size) // stride, w likewise.
        """
        if images.ndim != 4:
            raise ValueError(
                f"images: the shape is {tuple(images.shape)}; it must be (B, C, H, W)"
            )
        self.channels_for(images.shape[1])
        pixels = (images - self._mean) / self._deviation  # (B, 3, H, W), grey or not
        pixels = pixels.to(self.pass_dtype)
        if self.facets:
            maps = self.model.facets(pixels, self.facets, stride=stride, tick=tick)
            return torch.cat(maps, dim=-1).to(self.dtype)
        output: ViTOutput = self.model(pixels, stride=stride, tick=tick)
        return output.tokens.to(self.dtype)

    @property
    def pass_dtype(self) -> torch.dtype:
        """The number format of the pass."""
        return self.model.norm.weight.dtype

    def operations(self, *, tokens: int, pixels: int) -> int:
        """Return the floating-point operations of a pass over one image."""
        return vit_operations(self.model.config, self.steps, tokens)

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token; grey and RGB images have the same."""
        check_grey_or_rgb(self.name, image_channels)
        return self.channels

    def channel_weights_for(self, image_channels: int) -> None:
        """Return that all channels are trusted alike."""
        return

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself.

        Tokens keep their `dtype`. A pass in half precision goes over to the format
        that is fast on the new device.
        """
        device = torch.device(device)
        half = self.dtype is not torch.float32
        self._move(device, choose_precision(device) if half else torch.float32)
        return self
