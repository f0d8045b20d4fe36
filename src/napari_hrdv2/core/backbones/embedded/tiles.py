"""Running a network on an image of any size without holding all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.embedded.network import STRIDE, ConvNet

TILE = 1024  # features along a tile's side
HALO = 144  # features around it that are computed too: as far as the network looks
# Tiles must begin where the coarsest grid of the network has a place, so that
# STRIDE * (TILE - HALO) is a multiple of 32.


def tiled(network: ConvNet, images: Tensor, tick: Callable[[], None]) -> Tensor:
    """Return what the network makes of (B, 3, H, W) images, tile by tile.

    It equals what the network makes of the whole but for rounding.
    """
    rows, columns = (list(_spans(length // STRIDE)) for length in images.shape[2:])
    if len(rows) == len(columns) == 1:
        whole: Tensor = network(images, tick)
        return whole
    shape = len(images), network.config.outputs, rows[-1][1].stop, columns[-1][1].stop
    features = images.new_empty(shape)
    for (row, row_kept), (column, column_kept) in product(rows, columns):
        window = images[..., _in_pixels(row), _in_pixels(column)]
        tile = network(window.contiguous(memory_format=torch.channels_last), tick)
        inner = tile[..., _within(row_kept, row), _within(column_kept, column)]
        features[..., row_kept, column_kept] = inner
    return features


def tile_count(height: int, width: int) -> int:
    """Return how many tiles an image of so many pixels has."""
    return len(list(_spans(height // STRIDE))) * len(list(_spans(width // STRIDE)))


def _spans(length: int) -> Iterator[tuple[slice, slice]]:
    """Yield stretches of a grid to look at, and the part of each that is kept."""
    for start in range(0, length, TILE):
        end = min(start + TILE, length)
        yield slice(max(start - HALO, 0), min(end + HALO, length)), slice(start, end)


def _in_pixels(span: slice) -> slice:
    return slice(span.start * STRIDE, span.stop * STRIDE)


def _within(kept: slice, seen: slice) -> slice:
    return slice(kept.start - seen.start, kept.stop - seen.start)
