"""What checkpoints call the tensors of a Vision Transformer, and how to undo it.

Three homes of the same weights use three sets of names: the original repositories
(ours), Hugging Face transformers (4.x in files, 5.x in its modules) and timm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]

# Under these a training run wraps its dictionaries; the first that is there is taken.
WRAPPERS = ("state_dict", "model", "teacher")
# In front of the names. A file with a student and a teacher gives the student, as the
# evaluation of its authors does.
PREFIXES = (
    "module.",
    "model.",
    "student.",
    "teacher.",
    "backbone.",
    "dinov2_with_registers.",
    "dinov2.",
)
# Not needed for features: heads of the training, and the token of masked patches.
_EXTRAS = re.compile(
    r"(embeddings\.)?mask_token$"
    r"|(projection_head|head|classifier|dino_head|ibot_head|dino_loss|ibot_patch_loss)\."
)
_ROOTS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")


def original_names(state: State) -> dict[str, Tensor]:
    """Return the tensors under the names of the original repository, without extras.

    Names that no table knows are kept as they are, for the caller to refuse.
    """
    bare = _without_prefixes(state)
    bare = {name: x for name, x in bare.items() if not _EXTRAS.match(name)}
    if _ROOTS[1] in bare:
        return _from_hugging_face(bare)
    return _from_timm({_unchunked(name): x for name, x in bare.items()})


def _without_prefixes(state: State) -> dict[str, Tensor]:
    bare = dict(state)
    while not any(root in bare for root in _ROOTS):
        found = [p for p in PREFIXES if any(name.startswith(p) for name in bare)]
        if not found:
            break
        prefix = found[0]
        # Siblings of the chosen prefix are other networks of the same training.
        bare = {
            name.removeprefix(prefix): x
            for name, x in bare.items()
            if name.startswith(prefix) or not name.startswith(PREFIXES)
        }
    return bare


def _unchunked(name: str) -> str:
    """Return blocks.0.7.norm1 of a sharded training as blocks.7.norm1."""
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)


# --- Hugging Face -----------------------------------------------------------------
_HUGGING_FACE = (
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.(cls_token|register_tokens)$", r"\1"),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.(q|k|v)_proj\.", r".attn.\1_proj."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.w3."),
)
_JOINED = (
    ("attn.qkv", ("attn.query", "attn.key", "attn.value")),
    ("attn.qkv", ("attn.q_proj", "attn.k_proj", "attn.v_proj")),
    ("mlp.w12", ("mlp.gate_proj", "mlp.up_proj")),
)


def _from_hugging_face(state: State) -> dict[str, Tensor]:
    renamed = {_renamed(name): x for name, x in state.items()}
    for target, parts in _JOINED:
        renamed = _joined(renamed, target, parts)
    return renamed


def _renamed(name: str) -> str:
    for pattern, replacement in _HUGGING_FACE:
        name = re.sub(pattern, replacement, name)
    return name


def _joined(state: State, target: str, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Stack tensors that we keep as one, wherever all the parts are there."""
    result = dict(state)
    for name in state:
        if f".{parts[0]}." not in name:
            continue
        names = [name.replace(parts[0], part) for part in parts]
        if all(part in state for part in names):
            stacked = torch.cat([result.pop(part) for part in names])
            result[name.replace(parts[0], target)] = stacked
    return result


# --- timm -------------------------------------------------------------------------
def _from_timm(state: State) -> dict[str, Tensor]:
    result = dict(state)
    if "reg_token" in result:
        # timm adds the class token's position to the class token itself.
        result["register_tokens"] = result.pop("reg_token")
        if "pos_embed" in result:
            none = torch.zeros_like(result["pos_embed"][:, :1])
            result["pos_embed"] = torch.cat([none, result["pos_embed"]], dim=1)
    return {_swiglu_name(name, state): x for name, x in result.items()}


def _swiglu_name(name: str, state: State) -> str:
    """Return fc1 and fc2 of a block as w12 and w3 where their widths say SwiGLU."""
    match = re.match(r"^(blocks\.\d+\.mlp)\.(fc1|fc2)\.(weight|bias)$", name)
    if match is None or not _is_swiglu(match[1], state):
        return name
    return f"{match[1]}.{'w12' if match[2] == 'fc1' else 'w3'}.{match[3]}"


def _is_swiglu(block: str, state: State) -> bool:
    first, second = (state.get(f"{block}.{layer}.weight") for layer in ("fc1", "fc2"))
    if first is None or second is None or first.ndim != 2 or second.ndim != 2:
        return False
    return first.shape[0] == 2 * second.shape[1]
