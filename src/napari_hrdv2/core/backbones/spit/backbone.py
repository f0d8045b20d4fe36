"""SPiT as a backbone: regions that follow the edges of the image, one token each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.base import RegionBackbone, Tick
from napari_hrdv2.core.backbones.checkpoint import Weights, frozen
from napari_hrdv2.core.backbones.superpixels import (
    COMPACTNESS,
    hierarchy,
    numbered,
    pca_tree,
    pixel_features,
    squares,
    vertex_features,
)
from napari_hrdv2.core.checks import checked_partition

from .encoder import BINS, SpitConfig, SpitEncoder, attention_flow, region_tokens

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class SpitBackbone(RegionBackbone):
    """A frozen encoder of regions; see `RegionBackbone`.

    Regions are always found in float32. The networks with gradient features were
    trained at compactness 0, where areas of little contrast, as micrographs have,
    become a few large regions.
    """

    patch_size = BINS  # about the side of a region

    def __init__(
        self,
        name: str,
        config: SpitConfig,
        weights: Weights,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        token_dtype: torch.dtype | None = None,
        compactness: float = COMPACTNESS,
    ) -> None:
        self.name, self.config = name, config
        self.channels, self.density = config.embed_dim, config.density
        self.steps = config.depth + 1
        self.weights_hash = weights.hash
        self.dtype = token_dtype or dtype
        self.compactness = compactness
        self.encoder = frozen(partial(SpitEncoder, config), weights)
        self._move(torch.device(device), dtype)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.encoder.to(device=device, dtype=dtype)
        # Apple's GPUs have no float64, in which some of the arithmetic is done.
        self._finder = torch.device("cpu") if device.type == "mps" else device

    @torch.no_grad()
    def tokens(
        self,
        image: Tensor,
        *,
        partition: ArrayLike | Tensor | None = None,
        tick: Tick | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of the regions, (n, C), and where they are, (H, W)."""
        raw, labels = self._raw_tokens(image, partition)
        if tick is not None:
            tick()
        return self.encoder(raw, tick=tick)[1:].to(self.dtype), labels

    @torch.no_grad()
    def saliency(self, image: Tensor, *, partition: ArrayLike | None = None) -> Tensor:
        """Return the attention flow of each region, from 0 to 1, as (H, W) float32."""
        raw, labels = self._raw_tokens(image, partition)
        return attention_flow(self.encoder, raw).to(labels.device)[labels]

    def _raw_tokens(
        self, image: Tensor, partition: ArrayLike | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what the encoder is given, and the label map."""
        self.channels_for(len(image))
        image = image.to(self._finder, torch.float32).expand(3, -1, -1)
        features = pixel_features(image)
        if partition is None:
            labels = self._regions(features)
        else:
            given = torch.from_numpy(checked_partition(partition, image.shape[1:]))
            labels = numbered(given.to(image.device))
        config = self.config
        raw = region_tokens(
            features, labels, sigma=config.sigma, gradients=config.gradients
        )
        return raw.to(self.device, self.encoder.norm.weight.dtype), labels

    def _regions(self, features: Tensor) -> Tensor:
        _, height, width = features.shape
        if self.config.partition == "squares":
            return squares((height, width)).to(features.device)
        if self.config.partition == "pca-tree":
            return pca_tree((height, width)).to(features.device)
        return hierarchy(vertex_features(features), compactness=self.compactness)[-1]
