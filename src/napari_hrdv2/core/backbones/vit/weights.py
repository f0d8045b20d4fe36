"""Where weights come from: a file or a folder, read safely and matched strictly.

Nothing is unpickled: PyTorch files are read with ``weights_only=True``. A checkpoint
either has exactly the tensors of the network, under names that one of the key tables
knows, or it is refused with a sentence that names what is wrong.

The files of DINO, DINOv2 and DINOv3 on the Hugging Face Hub hold the same numbers as
those of their own repositories, only under other names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari_hrdv2.core.backbones.checkpoint import (
    Shapes,
    Weights,
    matched,
    misfit,
    random_state,
    read_checkpoint,
    read_json,
    shapes_of,
    weights_file,
)
from napari_hrdv2.core.errors import WeightsError

from .key_names import original_names
from .model import (
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
    """Return the weights of a checkpoint or of the one in a folder, matched strictly.

    Where they do not fit, the error names a network of the known ones that they fit.
    Of a file with a student and a teacher, the teacher is taken where it is asked for.
    """
    file, want = weights_file(path), _shapes(config)
    state = original_names(read_checkpoint(file), teacher=teacher)
    if config.positions == "rotary" and "pos_embed" not in state:
        # Only DINOv3's repository keeps them in its files; others compute them.
        state.setdefault(_PERIODS, rotary_periods(config))
    return matched(
        state,
        want,
        file,
        lambda have: misfit(have, want) + _advice(have, config, known or {}),
    )


def random_weights(config: ViTConfig, *, seed: int = 0) -> Weights:
    """Return seeded random weights; see `random_state`."""
    rotary = config.positions == "rotary"
    known = {_PERIODS: rotary_periods(config)} if rotary else {}
    return random_state(_shapes(config), seed, known)


def _shapes(config: ViTConfig) -> Shapes:
    return shapes_of(partial(VisionTransformer, config))


def _advice(have: Shapes, config: ViTConfig, known: Mapping[str, ViTConfig]) -> str:
    """Say which network the checkpoint would fit, or how many registers it has."""
    registers = have.get("register_tokens", (1, 0, 0))[1]
    count = f"this file has {registers or 'no'} register tokens"
    stored = {name: shape for name, shape in have.items() if name != _PERIODS}
    for name, other in known.items():
        shapes = dict(_shapes(other))
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

    How pixels are normalised may be in a ``preprocessor_config.json`` beside it.
    """
    path = Path(path)
    content = read_json(path)
    beside = path.parent / "preprocessor_config.json"
    pixels = read_json(beside) if beside.is_file() else {}
    return config_from({**pixels, **content}, source=str(path))


def tells_normalisation(path: str | os.PathLike[str]) -> bool:
    """Return whether the type of model in a ``config.json`` says how it normalises."""
    supervised = ("vit", "deit")  # in different ways
    return knows_type(path) and read_json(Path(path))["model_type"] not in supervised


def knows_type(path: str | os.PathLike[str]) -> bool:
    """Return whether `read_config` knows the type of model in a ``config.json``."""
    return read_json(Path(path)).get("model_type") in _TYPES


def config_from(content: Mapping[str, Any], *, source: str) -> ViTConfig:
    """Return the configuration that the content of a ``config.json`` describes."""
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise WeightsError(
            f"weights: {source} describes a model of type {kind!r}; "
            f"{', '.join(_TYPES)} can be loaded"
        )
    default = _TYPES[kind]
    given = {
        ours: _as(getattr(default, ours), content[theirs])
        for ours, theirs in _KEYS.items()
        if theirs in content
    }
    config = replace(default, **given)
    gated = bool(content.get("use_swiglu_ffn") or content.get("use_gated_mlp"))
    _require_supported(content, gated=gated, source=source)
    if kind.startswith("dinov2"):
        ratio = content.get("mlp_ratio", 4)
    else:  # of a gated layer transformers gives the channels after the two thirds
        hidden = content.get("intermediate_size", 4 * default.embed_dim)
        ratio = hidden * (1.5 if gated else 1.0) / config.embed_dim
    feed_forward: Literal["swiglu", "mlp"] = "swiglu" if gated else "mlp"
    return replace(config, feed_forward=feed_forward, feed_forward_ratio=float(ratio))


def _as(default: Any, value: Any) -> Any:
    """Return a value of a file in the kind of the default: int, float or a colour."""
    if isinstance(default, tuple):
        return tuple(map(float, value))
    return type(default)(value)


def _require_supported(content: Mapping[str, Any], *, gated: bool, source: str) -> None:
    """Raise WeightsError where the tensors would fit and the features be wrong."""
    # transformers applies the activation of the file but to DINOv2's gated layer.
    applied = gated and not content["model_type"].startswith("dinov2")
    activation = "silu" if applied else "gelu"
    for key, usual, wanted in (
        ("hidden_act", "gelu", activation),
        ("rope_theta", 100.0, 100.0),
    ):
        found = content.get(key, usual)
        if found != wanted:
            raise WeightsError(
                f"weights: {source} has {key} {found!r}; only {wanted!r} can be loaded"
            )


_KEYS = {
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "patch_size": "patch_size",
    "image_size": "image_size",
    "registers": "num_register_tokens",
    "epsilon": "layer_norm_eps",
    "pixel_mean": "image_mean",
    "pixel_deviation": "image_std",
}
# Of each type of model, with the defaults of transformers, which leaves them out of
# the file.
_DINOV2 = ViTConfig(embed_dim=768, heads=12, image_size=224)
_RESIZED = replace(_DINOV2, position_offset=0.0, position_antialias=True)
_HALF = (0.5, 0.5, 0.5)
_VIT = replace(
    _DINOV2,
    patch_size=16,
    layer_scale=False,
    position_offset=0.0,
    epsilon=1e-12,
    pixel_mean=_HALF,
    pixel_deviation=_HALF,
)
_TYPES: Mapping[str, ViTConfig] = {
    "dinov2": _DINOV2,
    "dinov2_with_registers": replace(_RESIZED, patch_size=16, registers=4),
    "dinov3_vit": ViTConfig(
        patch_size=16, image_size=224, epsilon=1e-5, positions="rotary"
    ),
    "vit": _VIT,
    "deit": replace(_VIT, registers=1),  # the token of the distillation
}
