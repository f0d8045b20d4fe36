"""The small convolutional network whose features the package brings along.

A U-Net over five resolutions. The finest it computes on, and puts out, is half that
of the image, where a 3 × 3 convolution costs a quarter and sees twice as far. Only
plain convolutions, which are what CPUs are fast at, and nothing that looks at the
whole image at once, so that a tile with its surroundings gives what the image gives.

References
----------
.. [1] O. Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image
   Segmentation", MICCAI 2015, arXiv:1505.04597.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDE = 2  # pixels between features, along each axis


@dataclass(frozen=True)
class ConvNetConfig:
    """The shape of a `ConvNet`.

    Attributes
    ----------
    stem : int
        Channels of the convolution at full resolution.
    widths : tuple of int
        Channels at 1/2, 1/4, 1/8 … of the resolution.
    outputs : tuple of int
        How many channels of the features come from each of the finest resolutions.
    """

    stem: int = 16
    widths: tuple[int, ...] = (48, 64, 96, 128, 128)
    outputs: tuple[int, ...] = (48, 32, 16)

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return sum(self.outputs)

    @property
    def multiple(self) -> int:
        """What the sides of an image must be a multiple of."""
        return 1 << len(self.widths)

    def to_json(self) -> str:
        """Return what a file of weights says of its network."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the shape that `to_json` wrote down."""
        content = json.loads(text)
        return cls(
            int(content["stem"]), tuple(content["widths"]), tuple(content["outputs"])
        )


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
        return functional.relu(planes + self.second(self.first(planes)))


class ConvNet(nn.Module):
    """From pixels to features at half the resolution.

    Parameters
    ----------
    config : ConvNetConfig
    """

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = _Unit(3, config.stem)
        self.down = nn.ModuleList(
            _Unit(inputs, outputs, stride=2)
            for inputs, outputs in zip((config.stem, *widths), widths, strict=False)
        )
        self.encoder = nn.ModuleList(_Block(width) for width in widths)
        self.up = nn.ModuleList(
            _Unit(coarse, fine, 1, relu=False) for fine, coarse in pairwise(widths)
        )
        self.decoder = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.heads = nn.ModuleList(
            nn.Conv2d(width, outputs, 1)
            for width, outputs in zip(widths, config.outputs, strict=False)
        )

    @property
    def steps(self) -> int:
        """How often `forward` calls ``tick``."""
        return len(self.encoder) + len(self.decoder)

    def forward(
        self, images: Tensor, tick: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Return the features of standardised images.

        Parameters
        ----------
        images : (B, 3, H, W) tensor
            H and W are multiples of ``config.multiple``.
        tick : callable, optional
            Called after each block. What it raises ends the pass.

        Returns
        -------
        (B, channels, H / 2, W / 2) tensor
        """
        planes = self.stem(images)
        levels = []
        for down, block in zip(self.down, self.encoder, strict=True):
            planes = block(down(planes))
            levels.append(planes)
            tick()
        decoded = [levels.pop()]
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            decoded.append(block(levels.pop() + _doubled(up(decoded[-1]))))
            tick()
        features = [
            _doubled(head(planes), times=level)
            for level, (head, planes) in enumerate(
                zip(self.heads, reversed(decoded), strict=False)
            )
        ]
        return torch.cat(features, dim=1)

    def folded(self) -> ConvNet:
        """Return this network with the normalisation folded into its convolutions."""
        folded = _copy(self).eval()
        for module in folded.modules():
            if isinstance(module, _Unit):
                module.fold()
        return folded


def _doubled(planes: Tensor, times: int = 1) -> Tensor:
    """Return planes at twice the resolution, that many times."""
    if times == 0:
        return planes
    return functional.interpolate(planes, scale_factor=2**times, mode="bilinear")


def _copy(network: ConvNet) -> ConvNet:
    copy = ConvNet(network.config)
    copy.load_state_dict(network.state_dict())
    return copy
