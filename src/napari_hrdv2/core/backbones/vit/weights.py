"""Where weights come from: a file or a folder, read safely and matched strictly.

Nothing is unpickled: PyTorch files are read with ``weights_only=True``. A checkpoint
either has exactly the tensors of the network, under names that one of the key tables
knows, or it is refused with a sentence that names what is wrong.

The files of DINO, DINOv2 and DINOv3 on the Hugging Face Hub hold the same numbers as
those of their own repositories, only under other names.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.checkpoint import (
    Weights,
    matched,
    misfit,
    read_checkpoint,
    read_json,
    weights_file,
)
from napari_hrdv2.core.errors import WeightsError

from .key_names import original_names
from .model import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Colour,
    VisionTransformer,
    ViTConfig,
    rotary_periods,
)

_PERIODS = "rope_embed.periods"


def load_weights(
    path: str | os.PathLike[str],
    config: ViTConfig,
    *,
    known: Mapping[str, ViTConfig] | None = None,
    teacher: bool = False,
) -> Weights:
    """Return the weights of a checkpoint, matched strictly against a configuration.

    Parameters
    ----------
    path : path-like
        A checkpoint, or a folder that holds one.
    config : ViTConfig
    known : mapping of str to ViTConfig, optional
        Networks to suggest when the checkpoint fits one of them instead.
    teacher : bool
        Whether to take the teacher of a file that holds a student and a teacher.

    Raises
    ------
    WeightsError
        If there is no such file, it is no checkpoint, it is damaged, or it does not
        hold exactly the tensors of the network, or numbers that are not finite.
    """
    file = weights_file(path)
    state = original_names(read_checkpoint(file), teacher=teacher)
    if config.positions == "rotary" and "pos_embed" not in state:
        # Only DINOv3's repository keeps them in its files; others compute them.
        state.setdefault(_PERIODS, rotary_periods(config))
    _require_match(state, config, source=str(file), known=known or {})
    return matched(state, _shapes(config), file)


def random_weights(config: ViTConfig, *, seed: int = 0) -> Weights:
    """Return seeded random weights, the same on every call.

    Each layer keeps the variance of what it is given, and branches are added at a
    third, so that activations stay near 1 in every number format.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in _shapes(config).items():
        if name == _PERIODS:
            state[name] = rotary_periods(config)
        elif name.endswith("gamma"):
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
    raise WeightsError(
        f"weights: {source} does not fit: {misfit(have, want)}"
        f"{_advice(have, config, known)}"
    )


def _advice(
    have: Mapping[str, tuple[int, ...]],
    config: ViTConfig,
    known: Mapping[str, ViTConfig],
) -> str:
    """Say which network the checkpoint would fit, or how many registers it has."""
    registers = have.get("register_tokens", (1, 0, 0))[1]
    count = f"this file has {registers or 'no'} register tokens"
    stored = {name: shape for name, shape in have.items() if name != _PERIODS}
    for name, other in known.items():
        shapes = _shapes(other)
        shapes.pop(_PERIODS, None)  # which not every file of it has
        if shapes == stored:
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
    """Return the configuration that a Hugging Face ``config.json`` describes.

    How pixels are normalised is in ``preprocessor_config.json`` beside it; where there
    is none, the defaults are those of transformers.
    """
    path = Path(path)
    content = read_json(path)
    beside = path.parent / "preprocessor_config.json"
    pixels = read_json(beside) if beside.is_file() else {}
    return config_from({**pixels, **content}, source=str(path))


def tells_normalisation(path: str | os.PathLike[str]) -> bool:
    """Return whether the type of model in a ``config.json`` says it all.

    Supervised ViTs are normalised in different ways, and of models of other types
    nothing is known: their ``preprocessor_config.json`` is needed too.
    """
    supervised = ("vit", "deit")
    return knows_type(path) and read_json(Path(path))["model_type"] not in supervised


def knows_type(path: str | os.PathLike[str]) -> bool:
    """Return whether `read_config` knows the type of model in a ``config.json``."""
    return read_json(Path(path)).get("model_type") in _KINDS


def config_from(content: Mapping[str, Any], *, source: str) -> ViTConfig:
    """Return the configuration of a Hugging Face configuration's values."""
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise WeightsError(
            f"weights: {source} describes a model of type {kind!r}; "
            f"{', '.join(_KINDS)} can be loaded"
        )
    own, rest = _KINDS[kind]
    values = {**_DEFAULTS, **own, **content}
    width = int(values["hidden_size"])
    gated = bool(values.get("use_swiglu_ffn") or values.get("use_gated_mlp"))
    _require_supported(values, gated=gated, source=source)
    # Of a gated layer transformers gives the hidden channels after the two thirds.
    hidden = values.get("intermediate_size", 4 * width) * (1.5 if gated else 1.0)
    if kind.startswith("dinov2"):
        hidden = values["mlp_ratio"] * width
    return replace(
        rest,
        embed_dim=width,
        depth=int(values["num_hidden_layers"]),
        heads=int(values["num_attention_heads"]),
        patch_size=int(values["patch_size"]),
        image_size=int(values["image_size"]),
        registers=int(values["num_register_tokens"]),
        feed_forward="swiglu" if gated else "mlp",
        feed_forward_ratio=hidden / width,
        epsilon=float(values["layer_norm_eps"]),
        pixel_mean=_colour(values["image_mean"]),
        pixel_deviation=_colour(values["image_std"]),
    )


def _require_supported(values: Mapping[str, Any], *, gated: bool, source: str) -> None:
    """Raise WeightsError where the tensors would fit and the features be wrong."""
    # transformers applies the activation of the file but to DINOv2's gated layer.
    applied = gated and not values["model_type"].startswith("dinov2")
    activation = "silu" if applied else "gelu"
    for key, wanted in (("hidden_act", activation), ("rope_theta", 100.0)):
        if values[key] != wanted:
            raise WeightsError(
                f"weights: {source} has {key} {values[key]!r}; only {wanted!r} can be "
                "loaded"
            )


def _colour(values: list[float]) -> Colour:
    red, green, blue = map(float, values)
    return red, green, blue


# Defaults are those of transformers, which leaves them out of the file: of all, and of
# each type of model with the rest of its configuration.
_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "num_register_tokens": 0,
    "mlp_ratio": 4,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "rope_theta": 100.0,
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_DEVIATION,
}
_RESIZED = ViTConfig(position_offset=0.0, position_antialias=True)
_SUPERVISED: Mapping[str, Any] = {
    "intermediate_size": 3072,
    "patch_size": 16,
    "layer_norm_eps": 1e-12,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
_KINDS: Mapping[str, tuple[Mapping[str, Any], ViTConfig]] = {
    "dinov2": ({"patch_size": 14}, ViTConfig()),
    "dinov2_with_registers": ({"patch_size": 16, "num_register_tokens": 4}, _RESIZED),
    "dinov3_vit": (
        {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_attention_heads": 6,
            "patch_size": 16,
            "layer_norm_eps": 1e-5,
        },
        ViTConfig(positions="rotary"),
    ),
    "vit": (_SUPERVISED, ViTConfig(layer_scale=False, position_offset=0.0)),
    "deit": (
        {**_SUPERVISED, "num_register_tokens": 1},  # the token of the distillation
        ViTConfig(layer_scale=False, position_offset=0.0),
    ),
}
