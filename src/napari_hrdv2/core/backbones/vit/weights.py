"""Where weights come from: a file or a folder, read safely and matched strictly.

A checkpoint either has exactly the tensors of the network or is refused with a sentence
that names what is wrong. Three homes of the same weights use three sets of names: the
original repositories (those of DINO, DeiT and DINOv2 are ours; DINOv3 has some of its
own), Hugging Face transformers (4.x in files, 5.x in its modules) and timm. One table
undoes them all; what it does not know keeps its name, and is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from napari_hrdv2.core.backbones import checkpoint
from napari_hrdv2.core.errors import WeightsError

from .model import VisionTransformer, ViTConfig, rotary_periods

State = Mapping[str, Tensor]

_PERIODS = "rope_embed.periods"


def load_weights(
    path: str | os.PathLike[str],
    config: ViTConfig,
    *,
    known: Mapping[str, ViTConfig] | None = None,
    teacher: bool = False,
) -> checkpoint.Weights:
    """Return the weights of a checkpoint or of the one in a folder, matched strictly.

    Where they do not fit, the error names a network of the known ones that they fit.
    Of a file with a student and a teacher, the teacher is taken where it is asked for.
    """
    file, want = checkpoint.weights_file(path), _shapes(config)
    state = _original_names(checkpoint.read_checkpoint(file), teacher=teacher)
    if config.positions == "rotary" and "pos_embed" not in state:
        # Only DINOv3's repository keeps them in its files; others compute them.
        state.setdefault(_PERIODS, rotary_periods(config))

    def explain(have: checkpoint.Shapes) -> str:
        return checkpoint.misfit(have, want) + _advice(have, config, known or {})

    return checkpoint.matched(state, want, file, explain)


def random_weights(config: ViTConfig, *, seed: int = 0) -> checkpoint.Weights:
    """Return seeded random weights; see `random_state`."""
    rotary = config.positions == "rotary"
    known = {_PERIODS: rotary_periods(config)} if rotary else {}
    return checkpoint.random_state(_shapes(config), seed, known)


def _shapes(config: ViTConfig) -> checkpoint.Shapes:
    return checkpoint.shapes_of(partial(VisionTransformer, config))


def _advice(
    have: checkpoint.Shapes, config: ViTConfig, known: Mapping[str, ViTConfig]
) -> str:
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


# --- Names --------------------------------------------------------------------------
# In front of the names. A file with a student and a teacher gives the student, as the
# evaluation of its authors does, unless the teacher is asked for.
STUDENTS, TEACHER = ("model.", "student."), "teacher."
PREFIXES = (
    "module.",
    *STUDENTS,
    TEACHER,
    "backbone.",
    "dinov2_with_registers.",
    "dinov2.",
    "dinov3_vit.",
    "deit.",
    "vit.",
)
# Not needed for features: heads of the training, the token of masked patches, and the
# norm of DINOv3's small training crops.
_EXTRAS = re.compile(
    r"(embeddings\.)?mask_token$"
    r"|(projection_head|head|head_dist|(cls_|distillation_)?classifier|dino_head|ibot_head|dino_loss|ibot_patch_loss"
    r"|pooler|local_cls_norm)\."
)
_ROOTS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
)

_NAMES = (
    # Hugging Face, outside the blocks
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.(cls_token|register_tokens)$", r"\1"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^layernorm\.", "norm."),
    # and inside: DINOv2 and DINOv3, then ViT
    (r"^(encoder\.layer|(model\.)?layer|layers)\.(\d+)\.", r"blocks.\3."),
    (r"\.attention\.attention\.query\.", ".attn.q_proj."),
    (r"\.attention\.attention\.key\.", ".attn.k_proj."),
    (r"\.attention\.attention\.value\.", ".attn.v_proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    # timm, DINOv3's repository, and sharded trainings
    (r"^(reg_token|storage_tokens)$", "register_tokens"),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.mlp\.(fc1_g|w1)\.", ".mlp.gate_proj."),
    (r"\.mlp\.(fc1_x|w2)\.", ".mlp.up_proj."),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
)


def _original_names(state: State, *, teacher: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint under the names of our network, no extras."""
    bare = _without_prefixes(state, teacher=teacher)
    bare = {name: x for name, x in bare.items() if not _EXTRAS.match(name)}
    renamed: dict[str, Tensor] = {}
    for name, x in bare.items():
        known = checkpoint.renamed(name, _NAMES)
        # Two tensors of one name are not the same network: the second is refused.
        renamed[name if known in renamed else known] = x
    if "reg_token" in bare and "pos_embed" in renamed:
        # timm adds the class token's position to the class token itself.
        none = torch.zeros_like(renamed["pos_embed"][:, :1])
        renamed["pos_embed"] = torch.cat([none, renamed["pos_embed"]], dim=1)
    if "dist_token" in renamed and "pos_embed" in renamed:
        # A second class token, with a position of its own: a register, once they are
        # added up.
        positions = renamed["pos_embed"]
        renamed["register_tokens"] = renamed.pop("dist_token") + positions[:, 1:2]
        renamed["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
    if "pos_embed" not in renamed:
        renamed = _without_key_biases(renamed)
    return _feed_forward(_joined(renamed))


def _without_prefixes(state: State, *, teacher: bool) -> dict[str, Tensor]:
    bare = dict(state)
    order = (TEACHER, *PREFIXES) if teacher else PREFIXES
    while not any(root in bare for root in _ROOTS):
        found = (p for p in order if any(name.startswith(p) for name in bare))
        if (prefix := next(found, None)) is None:
            break
        if teacher and prefix in STUDENTS:
            raise WeightsError(
                "weights: the teacher is wanted and the checkpoint holds the student "
                f"alone (all names begin with {prefix!r}); choose the name without "
                "-teacher, or give the other file"
            )
        # Siblings of the chosen prefix are other networks of the same training.
        bare = {
            name.removeprefix(prefix): x
            for name, x in bare.items()
            if name.startswith(prefix) or not name.startswith(PREFIXES)
        }
    return bare


def _without_key_biases(state: State) -> dict[str, Tensor]:
    """Return the state with all biases of queries, keys and values, some of them 0."""
    # DINOv3 trained without biases of keys: its repository masks them, transformers and
    # timm leave them out, and timm leaves out the others too where they are 0.
    masks = {n: x for n, x in state.items() if n.endswith("attn.qkv.bias_mask")}
    result = {n: x for n, x in state.items() if n not in masks}
    for name, mask in masks.items():
        bias = name.removesuffix("_mask")
        if bias in result:
            result[bias] = result[bias] * mask.to(result[bias].dtype)
    # A checkpoint that has some of its biases and lacks others is damaged.
    kinds = {name.partition(".attn.")[2] for name in result}
    if "k_proj.bias" not in kinds:
        for name in [n for n in result if n.endswith("attn.q_proj.bias")]:
            key = name.replace("q_proj", "k_proj")
            result[key] = torch.zeros_like(result[name])
    if not kinds & {"qkv.bias", "q_proj.bias", "k_proj.bias", "v_proj.bias"}:
        for name in [n for n in result if n.endswith("attn.qkv.weight")]:
            bias = name.replace("weight", "bias")
            result[bias] = torch.zeros_like(result[name][:, 0])
    return result


_STACKS = (
    ("attn.qkv", ("attn.q_proj", "attn.k_proj", "attn.v_proj")),
    ("mlp.w12", ("mlp.gate_proj", "mlp.up_proj")),
)


def _joined(state: State) -> dict[str, Tensor]:
    """Stack tensors that we keep as one, wherever all the parts are there."""
    result = dict(state)
    for target, parts in _STACKS:
        for name in state:
            if f".{parts[0]}." not in name:
                continue
            names = [name.replace(parts[0], part) for part in parts]
            if all(part in state for part in names):
                stacked = torch.cat([result.pop(part) for part in names])
                result[name.replace(parts[0], target)] = stacked
    return result


def _feed_forward(state: State) -> dict[str, Tensor]:
    """Return the layers of each feed-forward as fc1 and fc2, or w12 and w3 if gated."""
    result: dict[str, Tensor] = {}
    for name, x in state.items():
        match = re.match(
            r"^(blocks\.\d+\.mlp)\.(fc1|fc2|up_proj|down_proj)\.(weight|bias)$", name
        )
        if match:
            first = match[2] in ("fc1", "up_proj")
            gated = _is_gated(match[1], state)
            layer = ("w12" if first else "w3") if gated else ("fc1" if first else "fc2")
            name = f"{match[1]}.{layer}.{match[3]}"
        result[name] = x
    return result


def _is_gated(block: str, state: State) -> bool:
    """Tell by a stacked first layer, or one twice as wide as the second takes."""
    if f"{block}.w12.weight" in state:
        return True
    first, second = (state.get(f"{block}.{layer}.weight") for layer in ("fc1", "fc2"))
    if first is None or second is None or first.ndim != 2 or second.ndim != 2:
        return False
    return first.shape[0] == 2 * second.shape[1]


# --- Configurations in files --------------------------------------------------------
def read_config(path: Path) -> ViTConfig | None:
    """Return the configuration that a Hugging Face ``config.json`` describes.

    None if that is another type of model. How pixels are normalised may be in a
    ``preprocessor_config.json`` beside it.
    """
    beside = path.parent / "preprocessor_config.json"
    pixels = checkpoint.read_json(beside) if beside.is_file() else {}
    return config_from({**pixels, **checkpoint.read_json(path)}, source=str(path))


def tells_normalisation(path: Path) -> bool:
    """Return whether the type of model in a ``config.json`` says how it normalises."""
    # The supervised ones are normalised in different ways.
    return checkpoint.read_json(path).get("model_type") in set(_TYPES) - {"vit", "deit"}


def config_from(content: Mapping[str, Any], *, source: str) -> ViTConfig | None:
    """Return the configuration that the content of a ``config.json`` describes."""
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        return None
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
