"""FeatUp's learned joint bilateral upsampler: its network, and its weights.

The network looks at the image alone: for every pixel of a grid twice as fine it says
how much to take of each of the 7 × 7 values about it [1]_, after bicubic interpolation.
Four such stages give a token 16 × 16 pixels.

What comes after the stages in the authors' code, a 1 × 1 convolution over the channels
of the one backbone that the weights were trained with, commutes with all that is done
to space. A readout that is trained can do it itself, so it is read but not applied.

References
----------
.. [1] S. Fu, M. Hamilton et al., "FeatUp: A Model-Agnostic Framework for Features at
   Any Resolution", ICLR 2024.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from napari_hrdv2.core.backbones.checkpoint import (
    fingerprint,
    read_checkpoint,
    weights_file,
)
from napari_hrdv2.core.backbones.hub import SHARED_FOLDER
from napari_hrdv2.core.errors import WeightsError

PATTERN = "*_jbu_stack_cocostuff.ckpt"
PAGE = "https://github.com/mhamilton723/FeatUp"
VARIABLE = "NAPARI_HRDV2_FEATUP"
STAGES, RADIUS, KEYS = 4, 3, 32
WIDTH = 2 * RADIUS + 1
_STRIP = 64  # rows whose kernels are computed at a time
_NEEDED = "upsampler."
# The files hold all that was trained together; these parts are not for upsampling.
_IGNORED = ("model.", "downsampler.", "scale_net.")
_STAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "range_temp": (),
    "range_proj.0.weight": (KEYS, 3, 1, 1),
    "range_proj.0.bias": (KEYS,),
    "range_proj.3.weight": (KEYS, KEYS, 1, 1),
    "range_proj.3.bias": (KEYS,),
    "fixup_proj.0.weight": (WIDTH**2, WIDTH**2 + 3, 1, 1),
    "fixup_proj.0.bias": (WIDTH**2,),
    "fixup_proj.3.weight": (WIDTH**2, WIDTH**2, 1, 1),
    "fixup_proj.3.bias": (WIDTH**2,),
    "sigma_spatial": (),
}


@dataclass(frozen=True)
class Featup:
    """The network's float32 tensors by the authors' names, and their fingerprint."""

    state: dict[str, Tensor]
    hash: str

    @torch.no_grad()
    def kernels(self, stage: int, guide: Tensor) -> Tensor:
        """Return how much each pixel takes of those about it.

        Parameters
        ----------
        stage : int
            From 1 to 4, the coarsest first.
        guide : (3, H, W) float32 tensor
            The image, standardised by ImageNet's mean and deviation, with the pixels
            of this stage. Both sides must be above 3.

        Returns
        -------
        (49, H, W) float16 tensor
            Row by row. Their sum is not exactly 1.
        """
        part = {
            name: self.state[f"up{stage}.{name}"].to(guide.device)
            for name in _STAGE_SHAPES
        }
        hidden = functional.gelu(_mixed(part, "range_proj.0", guide))
        keys = _mixed(part, "range_proj.3", hidden)  # (32, H, W)
        padded = functional.pad(keys[None], [RADIUS] * 4, "reflect")[0]
        _, height, width = guide.shape
        output = guide.new_empty((WIDTH**2, height, width), dtype=torch.float16)
        for start in range(0, height, _STRIP):
            rows = slice(start, min(start + _STRIP, height))
            around = padded[:, rows.start : rows.stop + 2 * RADIUS]
            output[:, rows] = _strip(part, keys[:, rows], around, guide[:, rows])
        return output


def _strip(
    part: dict[str, Tensor], keys: Tensor, around: Tensor, guide: Tensor
) -> Tensor:
    """Return the kernels of some rows, (49, rows, W)."""
    _, height, width = keys.shape
    scores = torch.stack(
        [
            (around[:, down : down + height, right : right + width] * keys).sum(0)
            for down in range(WIDTH)
            for right in range(WIDTH)
        ]
    )
    scores *= part["range_temp"].exp().clamp(1e-4, 1e4)
    steps = torch.linspace(-1, 1, WIDTH, device=keys.device).square()
    distances = (steps[:, None] + steps).flatten()
    near = torch.exp(-distances / (2 * part["sigma_spatial"].square()))
    kernels = scores.softmax(0) * near[:, None, None]
    kernels /= kernels.sum(0).clamp_min(1e-7)
    hidden = functional.gelu(_mixed(part, "fixup_proj.0", torch.cat([kernels, guide])))
    return kernels + 0.1 * _mixed(part, "fixup_proj.3", hidden)


def _mixed(part: dict[str, Tensor], name: str, planes: Tensor) -> Tensor:
    """Return planes after a 1 × 1 convolution."""
    weight, bias = part[f"{name}.weight"], part[f"{name}.bias"]
    return functional.conv2d(planes[None], weight, bias)[0]


def shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, by the authors' names."""
    found = {
        f"up{stage}.{name}": shape
        for stage in range(1, STAGES + 1)
        for name, shape in _STAGE_SHAPES.items()
    }
    found["fixup_proj.1.weight"] = (channels, channels, 1, 1)
    found["fixup_proj.1.bias"] = (channels,)
    return found


def load_featup(path: str | os.PathLike[str]) -> Featup:
    """Return the weights of a file; WeightsError unless they match strictly."""
    file = weights_file(path)
    state = {
        name.removeprefix(_NEEDED): x.float()
        for name, x in read_checkpoint(file).items()
        if not name.startswith(_IGNORED)
    }
    bias = state.get("fixup_proj.1.bias")
    want = shapes(0 if bias is None else len(bias))
    have = {name: tuple(x.shape) for name, x in state.items()}
    wrong = [name for name in {**want, **have} if have.get(name) != want.get(name)]
    if wrong:
        raise WeightsError(
            f"weights: {file} does not fit FeatUp's upsampler: missing, unexpected or "
            f"misshaped {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}"
        )
    for name, x in state.items():
        if not torch.isfinite(x).all():
            raise WeightsError(
                f"weights: {file} holds NaN or infinite numbers in {name}; fetch it "
                "again"
            )
    return Featup(state, fingerprint(state))


def random_featup(channels: int = 8, *, seed: int = 0) -> Featup:
    """Return seeded random weights, for tests and benchmarks."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(channels).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("sigma_spatial"):
            state[name] = torch.tensor(0.8)
        else:
            fan = shape[1] if len(shape) == 4 else 9
            state[name] = noise / fan**0.5
    return Featup(state, "random" if seed == 0 else f"random-{seed}")


def featup_file() -> Path | None:
    """Return where this machine keeps the weights, or None.

    The file that the environment variable NAPARI_HRDV2_FEATUP names, else the only one
    of the authors' names in the folder that a lab shares or in the Hub's cache;
    WeightsError if there are several, each trained with a backbone of its own.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    for folder in _folders():
        found = sorted(folder.glob(PATTERN))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise WeightsError(
                f"interpolation: {folder} holds {names}; let {VARIABLE} name the one "
                "to use for 'jbu'"
            )
        if found:
            return found[0]
    return None


def featup_advice() -> str:
    """Return what to do for the weights if they are not on this machine, else ""."""
    file = featup_file()
    if file is not None and file.is_file():
        return ""
    if file is not None:
        return f"{VARIABLE} names {file}, which is no file; let it name a checkpoint"
    return (
        "'jbu' has weights of its own, and none are on this machine; fetch a "
        f"checkpoint of its JBU, named {PATTERN}, by way of {PAGE} and put it into "
        f"{_folders()[-1]}, or let {VARIABLE} name it"
    )


def _folders() -> list[Path]:
    from huggingface_hub import constants

    shared = os.environ.get(SHARED_FOLDER)
    return [Path(folder) for folder in (shared, constants.HF_HUB_CACHE) if folder]


def installed_featup() -> Featup:
    """Return the weights of this machine; WeightsError if there are none that fit."""
    advice, file = featup_advice(), featup_file()
    if advice or file is None:
        raise WeightsError(f"interpolation: {advice}")
    return _loaded(file, file.stat().st_mtime_ns)


@cache
def _loaded(file: Path, changed: int) -> Featup:
    return load_featup(file)
