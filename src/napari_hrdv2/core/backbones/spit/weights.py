"""The checkpoints of SPiT's authors, matched strictly against a configuration."""

from __future__ import annotations

import math
import os
import re

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.files.checkpoint import read_checkpoint, weights_file
from napari_hrdv2.core.backbones.spit.encoder import SpitConfig, SpitEncoder
from napari_hrdv2.core.backbones.vit.weights import Weights, fingerprint
from napari_hrdv2.core.errors import WeightsError

# What the checkpoints call the tensors, and what we do.
_NAMES = (
    (re.compile(r"^embedder\.cls_token$"), "cls_token"),
    (re.compile(r"^embedder\.embedder\.linear\."), "embed."),
    (re.compile(r"\.lambda_$"), ".gamma"),
    (re.compile(r"\.att\.(qkv|proj)\.linear\."), r".attn.\1."),
    (re.compile(r"\.mlp\.L([12])\.linear\."), r".mlp.fc\1."),
)
_CLASSIFIER = "head."  # of ImageNet's classes; no feature needs it


def load_weights(path: str | os.PathLike[str], config: SpitConfig) -> Weights:
    """Return the weights of a checkpoint for a configuration.

    Parameters
    ----------
    path : path-like
        A checkpoint, or a folder that holds one.
    config : SpitConfig

    Raises
    ------
    WeightsError
        If there is no such file, or it does not hold exactly the tensors of the
        network, or numbers that are not finite.
    """
    file = weights_file(path)
    state = _our_names(read_checkpoint(file))
    shapes = shapes_of(config)
    have = {name: tuple(x.shape) for name, x in state.items()}
    if have != shapes:
        raise WeightsError(f"weights: {file} does not fit: {_misfit(have, shapes)}")
    state = {name: state[name].float() for name in shapes}
    for name, x in state.items():
        if not torch.isfinite(x).all():
            raise WeightsError(
                f"weights: {file} holds NaN or infinite numbers in {name}; fetch it "
                "again, or take another checkpoint"
            )
    return Weights(state, fingerprint(state))


def random_weights(config: SpitConfig, *, seed: int = 0) -> Weights:
    """Return seeded random weights, the same on every call."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: _random(name, shape, generator)
        for name, shape in shapes_of(config).items()
    }
    return Weights(state, "random" if seed == 0 else f"random-{seed}")


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith("gamma"):
        return torch.full(shape, 1 / 3)
    if name.endswith("bias"):
        return torch.zeros(shape)
    if name == "cls_token":
        return 0.2 * torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) / math.sqrt(shape[1])


def _our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename; and add the bias that the reference's attention does without."""
    ours: dict[str, Tensor] = {}
    for name, x in state.items():
        if name.startswith(_CLASSIFIER):
            continue
        for pattern, replacement in _NAMES:
            name = pattern.sub(replacement, name)
        ours[name] = x
        if name.endswith(".attn.qkv.weight"):
            ours[name.removesuffix("weight") + "bias"] = torch.zeros(len(x))
    return ours


def shapes_of(config: SpitConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the network, by name."""
    with torch.device("meta"):
        state = SpitEncoder(config).state_dict()
    return {name: tuple(x.shape) for name, x in state.items()}


def _misfit(have: dict[str, tuple[int, ...]], want: dict[str, tuple[int, ...]]) -> str:
    """Say in a few words what is wrong with the tensors of a file."""
    if "embed.weight" not in have:
        return "it is no checkpoint of SPiT, whose tensors include embedder.embedder"
    columns, wanted = have["embed.weight"][-1], want["embed.weight"][-1]
    if columns != wanted:
        return (
            f"its tokens have {columns} numbers and {wanted} are needed; 1280 are of a "
            "network with gradient features, 1024 of one without"
        )
    missing = [name for name in want if name not in have]
    unexpected = [name for name in have if name not in want]
    misshaped = [n for n in want if n in have and have[n] != want[n]]
    problems = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    return "; ".join(
        f"{word} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
        for word, names in problems.items()
        if names
    )
