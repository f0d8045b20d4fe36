"""The small convolutional network whose features the package brings along.

A U-Net [1]_ over five resolutions, run on the image and on smaller copies of it, so
that it knows at every scale what it has learnt at one, and sees farther. The finest
resolution that it computes on, and puts out, is half that of what it is given, where a
3 × 3 convolution costs a quarter. Only plain convolutions, which are what CPUs are
fast at, and nothing that looks at the whole image at once, so that a tile with what is
around it gives what the image gives.

References
----------
.. [1] O. Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image
   Segmentation", MICCAI 2015, arXiv:1505.04597.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_hrdv2.core.backbones.base import Inside, cut
from napari_hrdv2.core.backbones.checkpoint import (
    fingerprint,
    weights_file,
    write_tensors,
)
from napari_hrdv2.core.backbones.filters import filter_names
from napari_hrdv2.core.errors import WeightsError

BUNDLED = Path(__file__).with_name("embedded.safetensors")
FORMER = Path(__file__).with_name("embedded-0.1.safetensors")  # of version 0.1
STRIDE = 2  # pixels between features, along each axis
TILE = 1088  # features along a tile's side
HALO = 144  # features around it that are computed too: as far as the network looks
# Tiles and parts must begin on the coarsest grid of the network, one of 16 features.
COARSEST = 16
# Around a part of an image, at each scale: about 100 px of it from the core of a block,
# whose margin is a smaller part of that the coarser the scale. What is farther away
# changes features by a thousandth of their deviation, two labels in a million.
AROUND = (16, 32, 48)


@dataclass(frozen=True)
class ConvNetConfig:
    """The shape of a `ConvNet`."""

    stem: int = 16  # channels of the convolution at full resolution
    widths: tuple[int, ...] = (48, 64, 96, 128, 128)  # at 1/2, 1/4, 1/8 … of it
    outputs: int = 48  # channels of the features of one scale
    scales: int = 3  # copies of the image, each half as large as the one before

    @property
    def channels(self) -> int:
        """Channels of the features of all scales."""
        return self.scales * self.outputs

    @property
    def multiple(self) -> int:
        """What the sides of an image must be a multiple of for `at_every_scale`."""
        return STRIDE << (self.scales - 1)


class _Unit(nn.Module):
    """A convolution, batch normalisation and, where asked for, a ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, size, stride=stride, padding=size // 2, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, planes: Tensor) -> Tensor:
        planes = self.norm(self.conv(planes))
        return functional.relu(planes, inplace=True) if self.relu else planes

    def fold(self) -> None:
        """Let the convolution do the work of the normalisation."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class _Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Unit(channels, channels)
        self.second = _Unit(channels, channels, relu=False)

    def forward(self, planes: Tensor) -> Tensor:
        # In place: planes of a large tile are most of the memory that there is need of.
        change: Tensor = self.second(self.first(planes))
        return functional.relu(change.add_(planes), inplace=True)


class ConvNet(nn.Module):
    """From pixels to features at half the resolution."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = _Unit(3, config.stem)
        steps = pairwise((config.stem, *widths))
        self.down = nn.ModuleList(_Unit(fine, wide, stride=2) for fine, wide in steps)
        self.encoder = nn.ModuleList(_Block(width) for width in widths)
        self.up = nn.ModuleList(
            _Unit(coarse, fine, 1, relu=False) for fine, coarse in pairwise(widths)
        )
        self.decoder = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], config.outputs, 1)

    @property
    def steps(self) -> int:
        """How often `forward` calls ``tick``."""
        return len(self.encoder) + len(self.decoder)

    def forward(
        self, images: Tensor, tick: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Return the features of one scale of standardised images of even sides."""
        height, width = (length // STRIDE for length in images.shape[2:])
        planes = self.stem(padded(images, 1 << len(self.down)))
        levels = []
        for down, block in zip(self.down, self.encoder, strict=True):
            planes = down(planes)  # so that what it came from is gone within the block
            planes = block(planes)
            levels.append(planes)
            tick()
        planes = levels.pop()
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            planes = _enlarged(up(planes), 2).add_(levels.pop())
            planes = block(planes)
            tick()
        features: Tensor = self.head(planes[..., :height, :width])
        return features

    def folded(self) -> ConvNet:
        """Return this network with the normalisation folded into its convolutions."""
        folded = copy.deepcopy(self).eval()
        for module in folded.modules():
            if isinstance(module, _Unit):
                module.fold()
        return folded


def at_every_scale(
    network: ConvNet, images: Tensor, inside: Inside, tick: Callable[[], None]
) -> Iterator[Tensor]:
    """Yield the features of an image and of smaller copies of it, on one grid.

    Each copy is half as large as the one before; H and W of the (B, 1|3, H, W) image
    are multiples of ``2**scales``. Of the grid the rows and columns `inside` come back.
    """
    for factor, axes in at_scales(images.shape[2:], inside, network.config.scales):
        window = cut(images, (_in_pixels(axis.seen, factor) for axis in axes))
        if factor > 1:
            window = functional.avg_pool2d(window, factor)
        rows, columns = (_within(axis.kept, axis.seen) for axis in axes)
        window = window.expand(-1, 3, -1, -1)
        large = _enlarged(tiled(network, window, (rows, columns), tick), factor)
        starts = (axis.kept.start * factor for axis in axes)
        spans = zip(inside, starts, strict=True)
        yield cut(large, (slice(s.start - n, s.stop - n) for s, n in spans))


class Stretch(NamedTuple):
    """One axis of a copy of an image, in features: what is read, and what is used."""

    seen: slice
    kept: slice


def at_scales(
    shape: Sequence[int], inside: Inside, scales: int
) -> Iterator[tuple[int, tuple[Stretch, Stretch]]]:
    """Yield by how much each copy is smaller, and what a part of the grid takes of it.

    A copy is enlarged between features, so one more is used at each side.
    """
    for scale in range(scales):
        factor, around = 2**scale, AROUND[min(scale, len(AROUND) - 1)]
        found = []
        for span, pixels in zip(inside, shape, strict=True):
            length = pixels // factor // STRIDE
            start = max(span.start // factor - 1, 0) // COARSEST * COARSEST
            stop = min(-(-span.stop // factor) + 1, length)
            seen = slice(max(start - around, 0), min(stop + around, length))
            found.append(Stretch(seen, slice(start, stop)))
        yield factor, (found[0], found[1])


def padded(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples."""
    rows, columns = (-length % multiple for length in images.shape[2:])
    return functional.pad(images, (0, columns, 0, rows), mode="replicate")


def _enlarged(planes: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return planes
    return functional.interpolate(planes, scale_factor=factor, mode="bilinear")


# --- Images of any size, tile by tile -------------------------------------------------
def tiled(
    network: ConvNet, images: Tensor, inside: Inside, tick: Callable[[], None]
) -> Tensor:
    """Return the features `inside` that the network makes of images, tile by tile."""
    lengths = [length // STRIDE for length in images.shape[2:]]
    tiles = list(product(*map(_spans, inside, lengths)))
    shape = len(images), network.config.outputs, *(s.stop - s.start for s in inside)
    features = images.new_empty(shape)
    for axes in tiles:
        window = cut(images, (_in_pixels(axis.seen) for axis in axes))
        tile = network(window.contiguous(memory_format=torch.channels_last), tick)
        inner = cut(tile, (_within(axis.kept, axis.seen) for axis in axes))
        if len(tiles) == 1:
            return inner
        cut(features, map(_within, (axis.kept for axis in axes), inside)).copy_(inner)
    return features


def tile_count(spans: Iterable[slice]) -> int:
    """Return how many tiles there are of a part of a grid."""
    return math.prod(len(list(_spans(span, span.stop))) for span in spans)


def _spans(inside: slice, length: int) -> Iterator[Stretch]:
    """Yield the stretches of a grid that are computed one by one."""
    for start in range(inside.start, inside.stop, TILE):
        end = min(start + TILE, inside.stop)
        seen = slice(max(start - HALO, 0), min(end + HALO, length))
        yield Stretch(seen, slice(start, end))


def _in_pixels(span: slice, factor: int = 1) -> slice:
    return slice(span.start * STRIDE * factor, span.stop * STRIDE * factor)


def _within(kept: slice, seen: slice) -> slice:
    return slice(kept.start - seen.start, kept.stop - seen.start)


# --- The file -------------------------------------------------------------------------
_UNFIT = (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class EmbeddedWeights:
    """What training made."""

    network: ConvNet  # with the normalisation folded into the convolutions
    channel_weights: Tensor  # (C,), of the network and of the filter bank on RGB images
    hash: str  # the fingerprint of both


def is_of_embedded(source: str | os.PathLike[str] | None) -> bool:
    """Return whether a file says that it is one of the embedded backbone."""
    if source is None:
        return False
    try:
        with safe_open(Path(source).expanduser(), framework="pt") as file:
            return "config" in (file.metadata() or {}) and "trust" in file.keys()  # noqa: SIM118
    except _UNFIT:
        return False


def load_weights(source: str | os.PathLike[str] | None = None) -> EmbeddedWeights:
    """Return weights ready to compute with, or raise WeightsError.

    They are those of the package, of a file that `save_weights` wrote, or ``"random"``.
    """
    if source == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ConvNet(ConvNetConfig()).folded().requires_grad_(False)
        ones = torch.ones(network.config.channels + len(filter_names(3)))
        return EmbeddedWeights(network, ones, "random")
    path = BUNDLED if source is None else Path(source).expanduser()
    path = weights_file(path) if path.is_dir() else path
    try:
        with safe_open(path, framework="pt") as file:
            shape = json.loads((file.metadata() or {})["config"])
            config = ConvNetConfig(**{**shape, "widths": tuple(shape["widths"])})
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - it has no other way
        network = ConvNet(config).folded().requires_grad_(False)
        weights_hash, channel_weights = fingerprint(state), state.pop("trust")
        network.load_state_dict(state)
        fits = channel_weights.shape == (config.channels + len(filter_names(3)),)
        if not fits or not (channel_weights > 0).all():
            raise ValueError("it is not one positive weight for each channel")
    except _UNFIT as error:
        raise WeightsError(
            f"weights: {path} is not a file of the embedded backbone, which "
            "training/train.py writes"
        ) from error
    return EmbeddedWeights(network, channel_weights, weights_hash)


def save_weights(
    network: ConvNet, channel_weights: Tensor, path: Path, *, trained: str
) -> None:
    """Write a network that was trained, in float16, with a word on how."""
    tensors = network.folded().half().state_dict() | {"trust": channel_weights.half()}
    config = json.dumps(asdict(network.config))
    write_tensors(path, tensors, {"config": config, "trained": trained})
