"""SPiT as a backbone: regions that follow the edges of the image, one token each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from napari_hrdv2.core.backbones.spit.attribution import attention_flow
from napari_hrdv2.core.backbones.spit.encoder import (
    SpitConfig,
    SpitEncoder,
    density,
    operations,
)
from napari_hrdv2.core.backbones.spit.tokens import BINS, region_tokens
from napari_hrdv2.core.backbones.superpixels import (
    COMPACTNESS,
    hierarchy,
    numbered,
    pca_tree,
    pixel_features,
    squares,
    vertex_features,
)
from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.features.high_resolution import check_choice
from napari_hrdv2.core.features.image import check_grey_or_rgb
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures
from napari_hrdv2.core.features.transforms import (
    BOUNDARIES,
    TransformSet,
    parse_transforms,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_hrdv2.core.backbones.vit.weights import Weights
    from napari_hrdv2.core.features.options import PartOptions

log = logging.getLogger(__name__)


class SpitBackbone:
    """A frozen encoder of regions; see `Backbone` for the attributes.

    Parameters
    ----------
    name : str
        What it was loaded as.
    config : SpitConfig
    weights : Weights
        From `load_weights` or `random_weights`.
    device : torch.device
    dtype : torch.dtype
        The number format of the encoder's pass; regions are always found in float32.
    token_dtype : torch.dtype, optional
        The number format in which tokens are kept; that of the pass by default.
    compactness : float
        See `superpixels`. The networks with gradient features were trained at 0, where
        areas of little contrast, as micrographs have, become a few large regions.
    """

    equivariant = False
    default_transforms = "identity"
    absolute_levels = True
    patch_size = BINS  # about the side of a region
    has_regions = True
    activations = 14  # as a ViT's
    context_cell = 0

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
        self.channels = config.embed_dim
        self.steps = config.depth + 1
        self.weights_hash = weights.hash
        self.dtype = token_dtype or dtype
        self.compactness = compactness
        with torch.device("meta"):
            self.encoder = SpitEncoder(config)
        self.encoder.load_state_dict(weights.state, assign=True)
        self.encoder.eval().requires_grad_(False)
        self._move(torch.device(device), dtype)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.encoder.to(device=device, dtype=dtype)
        # Apple's GPUs have no float64, in which some of the arithmetic is done.
        self._finder = torch.device("cpu") if device.type == "mps" else device

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token; grey and RGB images have the same."""
        check_grey_or_rgb(self.name, image_channels)
        return self.channels

    @property
    def pass_dtype(self) -> torch.dtype:
        """The number format of the encoder's pass."""
        return self.encoder.norm.weight.dtype

    @property
    def density(self) -> float:
        """How many regions an image has for each square of 16 px, about."""
        return density(self.config)

    def operations(self, *, tokens: int, pixels: int) -> int:
        """Return the floating-point operations of a pass over so many regions."""
        return operations(self.config, tokens)

    def channel_weights_for(self, image_channels: int) -> None:
        """Return that all channels are trusted alike."""
        return

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself; a half precision pass stays fast."""
        device = torch.device(device)
        half = self.dtype is not torch.float32
        self._move(device, choose_precision(device) if half else torch.float32)
        return self

    @torch.no_grad()
    def features(
        self,
        image: Tensor,
        transforms: str | TransformSet = "identity",
        *,
        boundary: str = "periodic",
        partition: ArrayLike | None = None,
        options: PartOptions | None = None,
        tick: Callable[[], None] | None = None,
    ) -> SuperpixelFeatures:
        """Return the features of an image.

        Parameters
        ----------
        image : (1 or 3, H, W) float32 tensor
            Nominally in 0..1, of any size. A grey image serves as red, green and blue.
        transforms : str or TransformSet
            Copies of the image to average over, each divided into regions by itself.
        boundary : {"periodic", "reflect"}
            What a shifted image shows at its border.
        partition : (H, W) array of int, optional
            Regions to use in place of the backbone's own. Each value is one region, 0
            as well, and need not hang together.
        options : PartOptions, optional
            What the features say of how they were made.
        tick : callable, optional
            Called `steps` times for each copy. What it raises ends the computation.

        Returns
        -------
        SuperpixelFeatures

        Raises
        ------
        ValueError
            If an argument does not fit.
        """
        check_choice("boundary", boundary, BOUNDARIES)
        image = self._rgb(image)
        chosen = parse_transforms(transforms, self.patch_size)
        given = None if partition is None else _given(partition, image)
        tables, maps = [], []
        for copy in chosen.copies:
            seen = copy.transform.apply(image, boundary)
            own = None if given is None else copy.transform.apply(given, boundary)
            tokens, labels = self.tokens(seen, partition=own, tick=tick)
            tables.append(tokens)
            maps.append(labels)
        log.info(
            "%s: %d regions of %.0f px on average",
            self.name,
            len(tables[0]),
            maps[0].numel() / len(tables[0]),
        )
        return SuperpixelFeatures(
            tables, maps, chosen, boundary=boundary, options=options
        )

    @torch.no_grad()
    def tokens(
        self,
        image: Tensor,
        *,
        partition: Tensor | None = None,
        tick: Callable[[], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of one image and the regions that they stand for.

        Parameters
        ----------
        image : (3, H, W) float32 tensor
            In 0..1.
        partition : (H, W) integer tensor, optional
            Regions to use in place of the backbone's own.
        tick : callable, optional

        Returns
        -------
        (n, C) tensor of `dtype`
        (H, W) int64 tensor
            Which token each pixel belongs to.
        """
        raw, labels = self._raw_tokens(image, partition)
        if tick is not None:
            tick()
        return self.encoder(raw, tick=tick)[1:].to(self.dtype), labels

    @torch.no_grad()
    def saliency(self, image: Tensor, *, partition: ArrayLike | None = None) -> Tensor:
        """Return how much each region counts for the class token.

        Parameters
        ----------
        image : (1 or 3, H, W) float32 tensor
        partition : (H, W) array of int, optional
            As for `features`.

        Returns
        -------
        (H, W) float32 tensor
            The attention flow of the region, from 0 to 1.
        """
        image = self._rgb(image)
        given = None if partition is None else _given(partition, image)
        raw, labels = self._raw_tokens(image, given)
        return attention_flow(self.encoder, raw).to(labels.device)[labels]

    def _rgb(self, image: Tensor) -> Tensor:
        self.channels_for(len(image))
        return image.to(self._finder, torch.float32).expand(3, -1, -1)

    def _raw_tokens(
        self, image: Tensor, partition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what the encoder is given, and the label map."""
        features = pixel_features(image)
        labels = self._regions(features) if partition is None else numbered(partition)
        config = self.config
        raw = region_tokens(
            features, labels, sigma=config.sigma, gradients=config.gradients
        )
        return raw.to(self.device, self.pass_dtype), labels

    def _regions(self, features: Tensor) -> Tensor:
        _, height, width = features.shape
        if self.config.partition == "squares":
            return squares((height, width)).to(features.device)
        if self.config.partition == "pca-tree":
            return pca_tree((height, width)).to(features.device)
        return hierarchy(vertex_features(features), compactness=self.compactness)[-1]


def _given(partition: ArrayLike, image: Tensor) -> Tensor:
    labels = np.asarray(partition)
    if labels.shape != image.shape[1:] or labels.dtype.kind not in "biu":
        raise ValueError(
            f"partition: {labels.dtype} of shape {labels.shape} does not fit an image "
            f"of shape {tuple(image.shape[1:])}; whole numbers of that shape are needed"
        )
    return torch.from_numpy(labels.astype(np.int64)).to(image.device)
