"""The backbone that the package brings along: nothing to download, good at once.

A small convolutional network, trained on generated micrographs so that a linear
classifier on a few strokes segments the rest, beside the classical filter bank, as
channels of one grid of half the image's resolution. Both see the image with mean 0 and
deviation 1, so brightness and contrast don't matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from types import EllipsisType
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.filters import STEPS as FILTER_STEPS
from napari_hrdv2.core.filters import filter_names, filter_planes
from napari_hrdv2.core.ticks import evenly

from .network import STRIDE
from .weights import load_weights

BANK_SPAN = 5.0  # deviations of an image that the filter bank sees as 0..1
TILE = 1024  # features along a tile's side
HALO = 144  # features around it that the network sees as well: as far as it looks
NETWORK_STEPS = 32


def standardised(images: Tensor) -> Tensor:
    """Return (B, C, H, W) images with mean 0 and deviation 1, all channels as one."""
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / deviation.clamp_min(1e-6)


def bank_planes(
    images: Tensor, *, stride: int = STRIDE, tick: Callable[[], None] | None = None
) -> Tensor:
    """Return the filter bank's means over patches of standardised images."""
    return filter_planes(
        0.5 + images / BANK_SPAN, patch_size=STRIDE, stride=stride, tick=tick
    )


class EmbeddedBackbone:
    """A small network and the filter bank as one; see `Backbone` for the attributes.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        The number format of the network's pass. Features are kept in float16.
    weights : path-like or "random", optional
        Another file than the one that the package brings along.
    """

    name = "embedded"
    patch_size = STRIDE
    equivariant = False
    default_transforms = "identity"
    activations = 5
    dtype = torch.float16

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        loaded = load_weights(weights)
        self.network, self._trust = loaded.network, loaded.trust
        self.weights_hash = loaded.hash
        self.steps = NETWORK_STEPS + FILTER_STEPS
        self.channels = self.channels_for(1)
        self._move(torch.device(device), dtype)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.precision = device, dtype
        self.network.to(device=device, dtype=dtype)
        # Other layouts are slow on a CPU; torch does not declare this keyword.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token for grey (1) or RGB (3) images."""
        return self.network.config.channels + len(filter_names(image_channels))

    def trust_for(self, image_channels: int) -> Tensor:
        """Return how much training found each channel, standardised, to be worth."""
        return self._trust[: self.channels_for(image_channels)]

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself."""
        device = torch.device(device)
        half = self.precision is not torch.float32
        self._move(device, choose_precision(device) if half else torch.float32)
        return self

    @torch.no_grad()
    def tokens(
        self,
        images: Tensor,
        *,
        stride: int,
        tick: Callable[[], None] | None = None,
    ) -> Tensor:
        """Return the features of every patch of 2 × 2 pixels.

        Parameters
        ----------
        images : (B, 1 or 3, H, W) float32 tensor
            Of any grey levels; each image is brought to mean 0 and deviation 1.
        stride : int
            2, or 1 for patches that overlap.
        tick : callable, optional
            Called `steps` times. What it raises ends the pass.

        Returns
        -------
        (B, h, w, C) float16 tensor
            h = 1 + (H - 2) // stride, w likewise.
        """
        learned = self.network.config.channels
        images = standardised(images)
        grid = [1 + (length - self.patch_size) // stride for length in images.shape[2:]]
        shape = (len(images), *grid, self.channels_for(images.shape[1]))
        tokens = images.new_empty(shape, dtype=self.dtype)
        bank = bank_planes(images, stride=stride, tick=tick)
        tokens[..., learned:] = bank.movedim(1, -1)
        del bank
        pixels = images.expand(-1, 3, -1, -1).to(self.precision)
        # Patches may overlap: the network runs once for each place they can start at.
        starts = range(0, self.patch_size, stride)
        jobs = [
            (
                pixels[..., row:, column:],
                tokens[:, row :: len(starts), column :: len(starts), :learned],
            )
            for row, column in product(starts, starts)
        ]
        count = sum(1 for _, part in jobs for _ in _tiles(part))
        step = evenly(tick, self.network.steps * count, NETWORK_STEPS)
        for seen, part in jobs:
            for window, margin, kept in _tiles(part):
                tile = self.network(
                    _padded(seen[window], self.network.config.multiple), tick=step
                )
                part[kept] = tile[margin].movedim(1, -1)
        return tokens


Window = tuple[slice | EllipsisType, ...]


def _tiles(grid: Tensor) -> Iterator[tuple[Window, Window, Window]]:
    """Yield what the network sees of an image, what of its output is kept, and where.

    The first is in pixels, the others on the (B, h, w, C) grid of features.
    """
    rows, columns = (list(_spans(length)) for length in grid.shape[1:3])
    for (row, row_kept), (column, column_kept) in product(rows, columns):
        window = (..., _scaled(row, STRIDE), _scaled(column, STRIDE))
        margin = (..., _within(row_kept, row), _within(column_kept, column))
        yield window, margin, (slice(None), row_kept, column_kept)


def _spans(length: int) -> Iterator[tuple[slice, slice]]:
    """Yield stretches of a grid to look at, and the part of each that is kept."""
    for start in range(0, length, TILE):
        end = min(start + TILE, length)
        yield slice(max(start - HALO, 0), min(end + HALO, length)), slice(start, end)


def _scaled(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def _within(kept: slice, seen: slice) -> slice:
    return slice(kept.start - seen.start, kept.stop - seen.start)


def _padded(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples."""
    rows, columns = (-length % multiple for length in images.shape[2:])
    return functional.pad(images, (0, columns, 0, rows), mode="replicate")
