"""Taking out of tokens what tells where they are rather than what they show.

A Vision Transformer knows the position of each patch, and some of it stays in its
tokens: an even surface gets a gradient. What noise images have in common is position
alone, so the mean of their tokens is a map of this bias. It is subtracted, and its
leading directions can be projected out besides. Both act on each token by itself and
are linear (with an offset), so a linear model still commutes with upsampling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, GridBackbone

NOISE_IMAGES = 8
# From an even surface to a grainy one: what a position adds depends on the contrast.
FAINTEST, STRONGEST = 0.02, 0.12  # standard deviations, where white is 1
DIRECTIONS = 8
MAPS_KEPT = 4


@dataclass(frozen=True)
class PositionBias:
    """What the positions of a grid add to its tokens."""

    map: Tensor  # (h, w, C) float32, of mean 0
    directions: Tensor  # (C, D), orthonormal: along which the map varies most, if any

    def removed_from(self, tokens: Tensor) -> Tensor:
        """Return (B, h, w, C) tokens without the bias, in the type they have."""
        even = tokens.float() - self.map.to(tokens.device)
        directions = self.directions.to(tokens.device)
        return (even - (even @ directions) @ directions.T).to(tokens.dtype)


Key = tuple[object, ...]
POSITION_BIASES: OrderedDict[Key, PositionBias] = OrderedDict()
"""What positions add, by `bias_key`; the `MAPS_KEPT` used last stay."""


def bias_key(backbone: Backbone, image_shape: tuple[int, int, int], stride: int) -> Key:
    """Return what a position bias depends on; images are (channels, H, W)."""
    return backbone.name, backbone.weights_hash, backbone.dtype, image_shape, stride


def position_bias(
    backbone: GridBackbone,
    image_shape: tuple[int, int, int],
    stride: int,
    *,
    debias: str,
    tick: Callable[[], None],
) -> PositionBias:
    """Return the bias of a backbone on (channels, H, W) images of whole patches.

    With ``debias="project"`` it has the directions along which the map varies most
    [1]_. `tick` is called ``NOISE_IMAGES * backbone.steps`` times unless the map is
    there; what it raises ends the computation.

    References
    ----------
    .. [1] "INSID3: training-free in-context segmentation with DINOv3", CVPR 2026,
       which takes the leading right singular vectors of a constant image's map.
    """
    key = bias_key(backbone, image_shape, stride)
    if key not in POSITION_BIASES:
        mean = _mean_of_noise(backbone, image_shape, stride, tick)
        even = mean - mean.mean((0, 1))  # the level of the tokens stays
        POSITION_BIASES[key] = PositionBias(even, _directions(even))
    POSITION_BIASES.move_to_end(key)
    while len(POSITION_BIASES) > MAPS_KEPT:
        POSITION_BIASES.popitem(last=False)
    bias = POSITION_BIASES[key]
    if debias == "project":
        return bias
    return replace(bias, directions=bias.directions[:, :0])


def _mean_of_noise(
    backbone: GridBackbone,
    image_shape: tuple[int, int, int],
    stride: int,
    tick: Callable[[], None],
) -> Tensor:
    """Return the mean of the tokens of seeded grey noise images, (h, w, C)."""
    channels, height, width = image_shape
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for deviation in np.geomspace(FAINTEST, STRONGEST, NOISE_IMAGES).tolist():
        noise = torch.randn(1, 1, height, width, generator=generator)
        grey = (0.5 + deviation * noise).clamp(0, 1)
        image = grey.expand(1, channels, height, width).to(backbone.device)
        total = (
            total + backbone.tokens(image, stride=stride, tick=tick)[0].float().cpu()
        )
    return total / NOISE_IMAGES


def _directions(bias: Tensor) -> Tensor:
    """Return the leading right singular vectors of a (h, w, C) map, (C, D)."""
    table = bias.reshape(-1, bias.shape[-1])
    count = min(DIRECTIONS, table.shape[1] // 2)  # so that something is left
    vectors: Tensor = torch.linalg.eigh(table.T @ table)[1]  # the leading ones last
    return vectors[:, table.shape[1] - count :]
