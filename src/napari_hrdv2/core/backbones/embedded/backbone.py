"""The backbone that the package brings along: nothing to download, good at once.

A small convolutional network, trained on generated micrographs so that a linear
classifier on a few scribbles segments the rest, beside the classical filter bank, as
channels of one grid of half the image's resolution. Both see the image with mean 0 and
deviation 1, so brightness and contrast don't matter: its own, or those of a series.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import chain, product
from typing import Self

import torch
from torch import Tensor

from napari_hrdv2.core.backbones import base
from napari_hrdv2.core.backbones.filters import REACH as FILTER_REACH
from napari_hrdv2.core.backbones.filters import STEPS as FILTER_STEPS
from napari_hrdv2.core.backbones.filters import filter_names, filter_planes
from napari_hrdv2.core.devices import choose_precision

from . import network as networks

BANK_SPAN = 5.0  # deviations of an image that the filter bank sees as 0..1
LEAST_DEVIATION = 1e-6
NETWORK_STEPS = 256  # so that large images can be given up soon


def standardised(images: Tensor, levels: tuple[float, float] | None = None) -> Tensor:
    """Return (B, C, H, W) images with mean 0 and deviation 1, all channels as one.

    Mean and deviation are each image's own if `levels` gives none; with a deviation
    below 0 light and dark are exchanged.
    """
    if levels is not None:
        unit = math.copysign(max(abs(levels[1]), LEAST_DEVIATION), levels[1])
        return (images - levels[0]) / unit
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / deviation.clamp_min(LEAST_DEVIATION)


def bank_planes(
    images: Tensor,
    *,
    stride: int = networks.STRIDE,
    tick: base.Tick | None = None,
    inside: base.Inside | None = None,
) -> Tensor:
    """Return the filter bank's means over patches of standardised images."""
    return filter_planes(
        0.5 + images / BANK_SPAN,
        patch_size=networks.STRIDE,
        stride=stride,
        tick=tick,
        inside=inside,
    )


class EmbeddedBackbone(base.GridBackbone):
    """A small network and the filter bank as one; see `GridBackbone`.

    The dtype is that of the network's pass. Features are kept in float16.
    """

    name = "embedded"
    patch_size = networks.STRIDE
    default_transforms = "identity"
    absolute_levels = False
    activations = 1  # of a tile's pass and of the filters; measured
    context_cell = 16
    alignment = networks.STRIDE * networks.COARSEST << (
        networks.ConvNetConfig.scales - 1
    )
    reach = max(
        FILTER_REACH,
        (networks.AROUND[-1] + networks.COARSEST) * networks.STRIDE
        << (len(networks.AROUND) - 1),
    )
    dtype = torch.float16

    def __init__(self, options: base.LoadOptions = base.IN_FLOAT32) -> None:
        loaded = networks.load_weights(options.weights)
        self._loaded, self._channel_weights = loaded.network, loaded.channel_weights
        self.weights_hash = loaded.hash
        self.steps = NETWORK_STEPS + FILTER_STEPS
        self._move(options.device, options.dtype)
        self.channels = self.channels_for(1)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.precision = device, dtype
        # A copy, so that weights which were rounded once are never what is moved next.
        self.network = copy.deepcopy(self._loaded).to(device=device, dtype=dtype)
        # Other layouts are slow on a CPU; torch does not declare this keyword.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token for grey (1) or RGB (3) images."""
        return self.network.config.channels + len(filter_names(image_channels))

    def channel_weights_for(self, image_channels: int) -> Tensor:
        """Return the weights that training found for the standardised channels."""
        return self._channel_weights[: self.channels_for(image_channels)]

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself; tokens stay in float16."""
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
        tick: base.Tick | None = None,
        levels: tuple[float, float] | None = None,
        inside: base.Inside | None = None,
    ) -> Tensor:
        """Return the features of every patch of 2 × 2 pixels; see `GridBackbone`.

        Images may have any grey levels: each is brought to mean 0 and deviation 1, or
        by the mean and the deviation that `levels` gives. The stride is 2, or 1 for
        patches that overlap.
        """
        config = self.network.config
        learned = config.channels
        images = standardised(images, levels)
        grid = [1 + (length - self.patch_size) // stride for length in images.shape[2:]]
        wanted = inside or (slice(0, grid[0]), slice(0, grid[1]))
        size = [span.stop - span.start for span in wanted]
        shape = (len(images), *size, self.channels_for(images.shape[1]))
        tokens = images.new_empty(shape, dtype=self.dtype)
        bank = bank_planes(images, stride=stride, tick=tick, inside=inside)
        tokens[..., learned:] = bank.movedim(1, -1)
        del bank
        pixels = images.to(self.precision)
        # Patches may overlap: the network runs once for each pixel they can start at.
        starts = range(0, self.patch_size, stride)
        count = len(starts)
        runs = []
        for begin in product(starts, starts):
            seen = networks.padded(pixels[..., begin[0] :, begin[1] :], config.multiple)
            own, places = [], []  # in the grid of this run, and of its tokens in all
            for by, span in zip(begin, wanted, strict=True):
                ends = by - span.start, by - span.stop
                start, stop = (-(distance // count) for distance in ends)
                own.append(slice(start, stop))
                places.append(slice(start * count + by - span.start, None, count))
            runs.append((seen, (own[0], own[1]), tokens[:, *places, :learned]))
        step = self._step(tick, [(seen.shape[2:], own) for seen, own, _ in runs])
        for seen, spans, part_of in runs:
            scales = networks.at_every_scale(self.network, seen, spans, step)
            channels = torch.split(part_of, config.outputs, dim=-1)
            for target, features in zip(channels, scales, strict=True):
                target.copy_(features.movedim(1, -1))
        return tokens

    def _step(
        self, tick: base.Tick | None, runs: list[tuple[torch.Size, base.Inside]]
    ) -> base.Tick:
        """Return what the network calls after each block of each tile."""
        scales = self.network.config.scales
        parts = chain.from_iterable(networks.at_scales(*run, scales) for run in runs)
        tiles = sum(networks.tile_count(x.kept for x in axes) for _, axes in parts)
        return base.evenly(tick, tiles * self.network.steps, NETWORK_STEPS)


EMBEDDED = base.BackboneSpec.of(
    EmbeddedBackbone,
    loader=lambda spec, options: EmbeddedBackbone(options),
    channels=226,
    rgb_channels=241,
    description="learned and classical",
    licence="BSD-3-Clause",
    bundled=True,
    recognises=networks.is_of_embedded,
)


class _Former(EmbeddedBackbone):
    """The same with the network of version 0.1, for what was trained on it."""

    name = "embedded:0.1"

    def __init__(self, options: base.LoadOptions = base.IN_FLOAT32) -> None:
        super().__init__(replace(options, weights=networks.FORMER))


EMBEDDED_0_1 = replace(
    EMBEDDED,
    name=_Former.name,
    loader=lambda spec, options: _Former(options),
    description="as in version 0.1",
    recognises=None,
    listed=False,
    former_hash="06f29b4ad5077344",
)
