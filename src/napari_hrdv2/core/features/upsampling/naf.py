"""The network of NAF: an encoder of the image alone, whose weights any backbone shares.

NAF [1]_ upsamples by neighbourhood attention: a pixel takes from the 9 × 9 tokens about
it, by how much the image at the pixel is like the image at the token. Here is the part
that looks at the image; `naf_upsampling` applies it. Parameters have the names of the
authors' file, which is loaded strictly.

References
----------
.. [1] L. Chambon et al., "NAF: Zero-Shot Feature Upsampling via Neighborhood Attention
   Filtering", 2025.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_hrdv2.core.backbones.checkpoint import (
    fingerprint,
    read_checkpoint,
    weights_file,
)
from napari_hrdv2.core.backbones.hub import SHARED_FOLDER
from napari_hrdv2.core.backbones.vit.model import IMAGENET_DEVIATION, IMAGENET_MEAN
from napari_hrdv2.core.errors import WeightsError

FILE = "naf_release.pth"
PAGE = "https://github.com/valeoai/NAF/releases"
VARIABLE = "NAPARI_HRDV2_NAF"
STRIP = 128  # rows that are convolved at a time


@dataclass(frozen=True)
class NafConfig:
    """The shape of the network; the default is that of the released weights.

    Attributes
    ----------
    channels : int
        Of the encoder: a half each of its two branches.
    heads : int
        Of the attention, and of the rotary positions.
    layers : int
        Blocks of a branch.
    groups : int
        Of the normalisation.
    base : float
        Longest period of the rotary positions.
    """

    channels: int = 256
    heads: int = 4
    layers: int = 2
    groups: int = 8
    base: float = 100.0


class _Convolution(nn.Conv2d):
    """A convolution that mirrors the image at its border and works in strips."""

    def forward(self, planes: Tensor) -> Tensor:
        reach = self.kernel_size[0] // 2
        _, _, height, width = planes.shape
        output = planes.new_empty(1, self.out_channels, height, width)
        for start in range(0, height, STRIP):
            rows = torch.arange(start - reach, min(start + STRIP, height) + reach)
            rows = (height - 1) - ((height - 1) - rows.abs()).abs()
            strip = planes[:, :, rows.to(planes.device)]
            if reach:
                strip = functional.pad(strip, (reach, reach, 0, 0), "reflect")
            output[:, :, start : start + STRIP] = super().forward(strip)
        return output


class _Block(nn.Module):
    """Normalisation, SiLU and convolution, twice."""

    def __init__(self, config: NafConfig, size: int) -> None:
        super().__init__()
        width = config.channels // 2
        self.norm1 = nn.GroupNorm(config.groups, width)
        self.conv1 = _Convolution(width, width, size)
        self.norm2 = nn.GroupNorm(config.groups, width)
        self.conv2 = _Convolution(width, width, size)

    def forward(self, planes: Tensor) -> Tensor:
        for norm, conv in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            _activate(planes, norm)
            planes = conv(planes)
        return planes


class _Rotation(nn.Module):
    """Holds the periods of the rotary positions."""

    def __init__(self, config: NafConfig) -> None:
        super().__init__()
        quarter = config.channels // config.heads // 4
        steps = torch.arange(quarter, dtype=torch.float32) / quarter
        self.register_buffer("periods", config.base**steps)
        self.periods: Tensor


class _Encoder(nn.Module):
    def __init__(self, config: NafConfig) -> None:
        super().__init__()
        self.encoder, self.sem_encoder = (
            nn.Sequential(
                _Convolution(3, config.channels // 2, size),
                *(_Block(config, size) for _ in range(config.layers)),
            )
            for size in (1, 3)
        )
        self.rope = _Rotation(config)


class NafNetwork(nn.Module):
    """What NAF sees in an image.

    Parameters
    ----------
    config : NafConfig
    """

    def __init__(self, config: NafConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = _Encoder(config)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return what queries and keys are made of.

        Parameters
        ----------
        image : (1 or 3, H, W) float32 tensor
            Nominally in 0..1. A grey image serves as red, green and blue.

        Returns
        -------
        (H, W, channels) float16 tensor
            Turned by the rotary positions; all channels of a head side by side.
        """
        mean, deviation = (
            image.new_tensor(values).view(3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        pixels = ((image - mean) / deviation)[None]  # (1, 3, H, W), grey or not
        _, _, height, width = pixels.shape
        half = self.config.channels // 2
        output = pixels.new_empty(
            height, width, self.config.channels, dtype=torch.float16
        )
        branches = self.image_encoder.encoder, self.image_encoder.sem_encoder
        for number, branch in enumerate(branches):
            planes = pixels
            for part in branch:
                planes = part(planes)
            output[..., number * half : (number + 1) * half] = planes[0].movedim(0, -1)
            del planes
        self._turn(output)
        return output

    def _turn(self, features: Tensor) -> None:
        """Turn pairs of channels of each head by where the pixel is, in place."""
        height, width, channels = features.shape
        angles = [
            (2 * (torch.arange(length) + 0.5) / length - 1).to(features.device)[:, None]
            * (2 * math.pi / self.image_encoder.rope.periods)
            for length in (height, width)
        ]
        heads = self.config.heads
        for row, angle in zip(features, angles[0], strict=True):
            turn = torch.cat([angle.expand(width, -1), angles[1]], dim=1)  # (W, dim/2)
            cosine, sine = turn.cos()[:, None], turn.sin()[:, None]
            pairs = row.float().view(width, heads, 2, channels // heads // 2)
            first, second = pairs.unbind(2)
            turned = [first * cosine - second * sine, second * cosine + first * sine]
            row.copy_(torch.stack(turned, 2).view(width, channels))


def _activate(planes: Tensor, norm: nn.GroupNorm) -> None:
    """Apply a normalisation and a SiLU in place: these are the largest buffers."""
    groups = planes.view(norm.num_groups, -1)
    deviation, mean = torch.std_mean(groups, dim=1, correction=0, keepdim=True)
    groups.sub_(mean).div_((deviation.square() + norm.eps).sqrt())
    planes.mul_(norm.weight[:, None, None]).add_(norm.bias[:, None, None])
    functional.silu(planes, inplace=True)


@dataclass(frozen=True)
class Naf:
    """The network with its weights, and their fingerprint."""

    network: NafNetwork
    hash: str


def load_naf(path: str | os.PathLike[str], config: NafConfig | None = None) -> Naf:
    """Return the network with the weights of a file, matched strictly.

    Raises
    ------
    WeightsError
        If there is no such file, or it does not hold exactly the tensors of the
        network, or numbers that are not finite.
    """
    file = weights_file(path)
    config = config or NafConfig()
    state = read_checkpoint(file)
    have = {name: tuple(x.shape) for name, x in state.items()}
    want = _shapes(config)
    if have != want:
        strange = [n for n in have if n not in want]
        missing = [n for n in want if n not in have]
        misshaped = [n for n in want if n in have and have[n] != want[n]]
        kinds = {"missing": missing, "unexpected": strange, "misshaped": misshaped}
        problems = "; ".join(
            f"{word} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
            for word, names in kinds.items()
            if names
        )
        raise WeightsError(f"weights: {file} does not fit NAF: {problems}")
    state = {name: state[name].float() for name in want}
    for name, x in state.items():
        if not torch.isfinite(x).all():
            raise WeightsError(
                f"weights: {file} holds NaN or infinite numbers in {name}; fetch it "
                "again"
            )
    return naf_from(state, fingerprint(state), config)


def naf_from(state: dict[str, Tensor], fingerprint: str, config: NafConfig) -> Naf:
    """Return the network with these tensors."""
    with torch.device("meta"):
        network = NafNetwork(config)
    network.load_state_dict(state, assign=True)
    return Naf(network.eval().requires_grad_(False), fingerprint)


def random_naf(config: NafConfig | None = None, *, seed: int = 0) -> Naf:
    """Return the network with seeded random weights, for tests and benchmarks."""
    config = config or NafConfig()
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in _shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("periods"):
            state[name] = _Rotation(config).periods
        elif len(shape) == 1:
            state[name] = 0.1 * noise + ("norm" in name and name.endswith("weight"))
        else:
            state[name] = noise / math.sqrt(math.prod(shape[1:]))
    return naf_from(state, "random" if seed == 0 else f"random-{seed}", config)


def _shapes(config: NafConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = NafNetwork(config).state_dict()
    return {name: tuple(x.shape) for name, x in state.items()}


# --- Where the weights are ----------------------------------------------------------
def naf_file() -> Path | None:
    """Return where this machine keeps the weights, or None.

    The file that the environment variable NAPARI_HRDV2_NAF names, else
    ``naf_release.pth`` in the folder that a lab shares, else in the Hub's cache.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    found = (folder / FILE for folder in _folders())
    return next((file for file in found if file.is_file()), None)


def naf_advice() -> str:
    """Return where to put the weights if they are not on this machine, else ""."""
    file = naf_file()
    if file is not None and file.is_file():
        return ""
    if file is not None:
        return f"{VARIABLE} names {file}, which is no file; let it name {FILE}"
    return (
        f"'naf' has weights of its own, and {FILE} is not on this machine; fetch it "
        f"(3 MB, Apache-2.0) from {PAGE} and put it into {_folders()[-1]}, or let "
        f"{VARIABLE} name it"
    )


def _folders() -> list[Path]:
    from huggingface_hub import constants

    shared = os.environ.get(SHARED_FOLDER)
    return [Path(folder) for folder in (shared, constants.HF_HUB_CACHE) if folder]


def installed_naf() -> Naf:
    """Return the network with the weights of this machine; kept once it is loaded.

    Raises
    ------
    WeightsError
        If there are none, or they do not fit.
    """
    file = naf_file()
    if file is None:
        raise WeightsError(f"interpolation: {naf_advice()}")
    try:
        changed = file.stat().st_mtime_ns
    except OSError as error:
        raise WeightsError(f"weights: there is no file {file}") from error
    return _loaded(file, changed)


@cache
def _loaded(file: Path, changed: int) -> Naf:
    return load_naf(file)
