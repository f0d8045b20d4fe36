"""SPiT's superpixels: from single pixels, level by level, to regions of 256."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_hrdv2.core.backbones.superpixels.merging import merged, pixels_as_regions
from napari_hrdv2.core.backbones.superpixels.pixels import (
    pixel_features,
    vertex_features,
)

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 4
COMPACTNESS = 0.1


def superpixels(
    image: Tensor, *, compactness: float = COMPACTNESS, levels: int = LEVELS
) -> Tensor:
    """Return SPiT's superpixels of an image.

    Parameters
    ----------
    image : (3, H, W) float32 tensor
        In 0..1.
    compactness : float
        0 to 1: how much regions are kept from spreading over areas of little contrast.
    levels : int
        Each makes regions about four times larger; 4 give about 256 px.

    Returns
    -------
    (H, W) int64 tensor
        0 to n - 1. The same on every run, with any number of threads.

    Raises
    ------
    ValueError
        If an argument is not of these kinds.

    Examples
    --------
    >>> import torch
    >>> image = torch.zeros(3, 32, 48)
    >>> image[:, :, 20:] = 1
    >>> labels = superpixels(image)
    >>> bool((labels[:, 19] == labels[:, 20]).any())
    False
    """
    return hierarchy(
        vertex_features(pixel_features(image)), compactness=compactness, levels=levels
    )[-1]


def hierarchy(
    features: Tensor,
    *,
    compactness: float = COMPACTNESS,
    levels: int = LEVELS,
    shuffle_ties: bool = True,
) -> list[Tensor]:
    """Return the label map after each level of merging.

    Parameters
    ----------
    features : (4, H, W) float32 tensor
        From `vertex_features`.
    compactness, levels
        As for `superpixels`.
    shuffle_ties : bool
        Among neighbours that are alike to the same degree, whether a hash decides; if
        not, the larger label does, as in the reference, and flat areas become one
        region whatever the compactness.

    Returns
    -------
    list of (H, W) int64 tensor
    """
    if not 0 <= compactness <= 1:
        raise ValueError(f"compactness: {compactness} is not a number from 0 to 1")
    if levels < 1:
        raise ValueError(f"levels: {levels} is not a number of at least 1")
    regions = pixels_as_regions(features)
    maps: list[Tensor] = []
    for _ in range(levels):
        labels, regions = merged(
            regions, compactness=compactness, shuffle_ties=shuffle_ties
        )
        last = labels if not maps else labels[maps[-1]]
        maps.append(last.view(features.shape[1:]))
    return maps
