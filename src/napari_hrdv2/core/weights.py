"""Where weights come from: a file or a folder, read safely and matched strictly.

Nothing is unpickled: PyTorch files are read with ``weights_only=True``. A checkpoint
either has exactly the tensors of the network, under names that one of the key tables
knows, or it is refused with a sentence that names what is wrong.

The files of DINOv2 on the Hugging Face Hub hold the same numbers as those of its own
repository, only under other names, so features are equal whichever is loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._checkpoint import read_checkpoint, weights_file
from ._key_tables import original_names
from .errors import WeightsError
from .vit import VisionTransformer, ViTConfig


@dataclass(frozen=True)
class Weights:
    """The tensors of a network and their fingerprint.

    Attributes
    ----------
    state : dict of str to tensor
        A state dict for `VisionTransformer`, on the CPU.
    hash : str
        The first 16 hexadecimal digits of a sha256 of the tensors: the same whatever
        the file was and however it named them.
    """

    state: dict[str, Tensor]
    hash: str


def load_weights(
    path: str | os.PathLike[str],
    config: ViTConfig,
    *,
    known: Mapping[str, ViTConfig] | None = None,
) -> Weights:
    """Return the weights of a checkpoint, matched strictly against a configuration.

    Parameters
    ----------
    path : path-like
        A checkpoint, or a folder that holds one.
    config : ViTConfig
        The network the weights are for.
    known : mapping of str to ViTConfig, optional
        Networks to suggest when the checkpoint fits one of them instead.

    Raises
    ------
    WeightsError
        If there is no such file, it is no checkpoint, it is damaged, or it does not
        hold exactly the tensors of the network, or numbers that are not finite.
    """
    file = weights_file(path)
    state = original_names(read_checkpoint(file))
    _require_match(state, config, source=str(file), known=known or {})
    wanted = {name: state[name].float() for name in _shapes(config)}
    for name, x in wanted.items():
        if not torch.isfinite(x).all():
            raise WeightsError(
                f"weights: {file} holds NaN or infinite numbers in {name}; fetch it "
                "again, or take another checkpoint"
            )
    return Weights(wanted, fingerprint(wanted))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and float32 numbers."""
    digest = hashlib.sha256()
    for name, x in state.items():
        digest.update(f"{name} {tuple(x.shape)}\n".encode())
        digest.update(x.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def random_weights(config: ViTConfig, *, seed: int = 0) -> Weights:
    """Return seeded random weights, the same on every call.

    Each layer keeps the variance of what it is given, and branches are added at a
    third, so that activations stay near 1 in every number format.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in _shapes(config).items():
        if name.endswith("gamma"):
            state[name] = torch.full(shape, 1 / 3)
        elif name.endswith("bias"):
            state[name] = torch.zeros(shape)
        elif len(shape) == 1:
            state[name] = torch.ones(shape)
        else:
            tokens = name in ("cls_token", "register_tokens", "pos_embed")
            scale = 0.2 if tokens else 1 / math.sqrt(math.prod(shape[1:]))
            state[name] = scale * torch.randn(shape, generator=generator)
    return Weights(state, "random" if seed == 0 else f"random-{seed}")


# --- Matching -----------------------------------------------------------------------
def _shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = VisionTransformer(config).state_dict()
    return {name: tuple(x.shape) for name, x in state.items()}


def _require_match(
    state: Mapping[str, Tensor],
    config: ViTConfig,
    *,
    source: str,
    known: Mapping[str, ViTConfig],
) -> None:
    have = {name: tuple(x.shape) for name, x in state.items()}
    want = _shapes(config)
    if have == want:
        return
    misshaped = [
        f"{name} (is {have[name]}, must be {want[name]})"
        for name in want
        if name in have and have[name] != want[name]
    ]
    problems = [
        _listing("missing", [name for name in want if name not in have]),
        _listing("unexpected", [name for name in have if name not in want]),
        _listing("misshaped", misshaped),
    ]
    raise WeightsError(
        f"weights: {source} does not fit: {'; '.join(p for p in problems if p)}"
        f"{_advice(have, config, known)}"
    )


def _listing(word: str, names: list[str], show: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return f"{word} {', '.join(names[:show])}{more}"


def _advice(
    have: Mapping[str, tuple[int, ...]],
    config: ViTConfig,
    known: Mapping[str, ViTConfig],
) -> str:
    """Say which network the checkpoint would fit, or how many registers it has."""
    registers = have.get("register_tokens", (1, 0, 0))[1]
    count = f"this file has {registers or 'no'} register tokens"
    for name, other in known.items():
        if _shapes(other) == have:
            reason = count if registers != config.registers else "this file fits it"
            return f"; {reason}: choose {name}"
    if "cls_token" not in have or "patch_embed.proj.weight" not in have:
        return "; it is no Vision Transformer whose tensor names are known"
    blocks = {n.split(".")[1] for n in have if n.startswith("blocks.")}
    return (
        f"; it has {have['cls_token'][-1]} channels, {len(blocks)} blocks and "
        f"{registers} registers, where {config.embed_dim}, {config.depth} and "
        f"{config.registers} are needed"
    )


# --- Configurations in files --------------------------------------------------------
def read_config(path: str | os.PathLike[str]) -> ViTConfig:
    """Return the configuration that a Hugging Face ``config.json`` describes."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"weights: {path} is not a readable config.json") from error
    if not isinstance(content, dict):
        raise WeightsError(f"weights: {path} is not a readable config.json")
    return config_from(content, source=str(path))


def config_from(content: Mapping[str, Any], *, source: str) -> ViTConfig:
    """Return the configuration of a Hugging Face configuration's values."""
    kind = content.get("model_type")
    if kind not in ("dinov2", "dinov2_with_registers"):
        raise WeightsError(
            f"weights: {source} describes a model of type {kind!r}; dinov2 and "
            "dinov2_with_registers can be loaded"
        )
    # Defaults are those of transformers, which leaves them out of the file.
    with_registers = kind == "dinov2_with_registers"
    return ViTConfig(
        embed_dim=int(content.get("hidden_size", 768)),
        depth=int(content.get("num_hidden_layers", 12)),
        heads=int(content.get("num_attention_heads", 12)),
        patch_size=int(content.get("patch_size", 16 if with_registers else 14)),
        image_size=int(content.get("image_size", 224)),
        registers=int(content.get("num_register_tokens", 4)) if with_registers else 0,
        feed_forward="swiglu" if content.get("use_swiglu_ffn") else "mlp",
        position_offset=0.0 if with_registers else 0.1,
        position_antialias=with_registers,
    )
