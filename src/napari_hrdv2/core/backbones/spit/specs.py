"""The networks of SPiT's authors, and how a file of theirs is loaded."""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.base import (
    BackboneSpec,
    Loader,
    LoadOptions,
    RegionBackbone,
)
from napari_hrdv2.core.backbones.checkpoint import (
    Shapes,
    Weights,
    matched,
    misfit,
    random_state,
    read_checkpoint,
    shapes_of,
    weights_file,
)
from napari_hrdv2.core.backbones.superpixels import COMPACTNESS
from napari_hrdv2.core.errors import WeightsError

from .backbone import SpitBackbone
from .encoder import BINS, SpitConfig, SpitEncoder

PAGE = "https://github.com/dsb-ifi/SPiT"
_CLASSES = 1000  # of the classifier in the files


# --- Loading --------------------------------------------------------------------------
def load_spit(spec: SpitSpec, options: LoadOptions) -> SpitBackbone:
    """Return the network of a row, of the authors' file or with random weights."""
    if options.weights is None:
        raise WeightsError(f"weights: {spec.name}: {spec.conditions}")
    if options.weights == "random":
        weights = random_weights(spec.config)
    else:
        path = weights_file(options.weights)
        _require_same_network(spec, path)
        weights = load_weights(path, spec.config)
    return SpitBackbone(
        spec.name,
        spec.config,
        weights,
        compactness=spec.compactness,
        **options.formats,
    )


def _require_same_network(spec: SpitSpec, path: Path) -> None:
    """Refuse the file of another network, whose tensors have the same shapes."""
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    known = [other for other in SPIT_SPECS.values() if other.md5 == md5]
    if known and spec.name not in [other.name for other in known]:
        raise WeightsError(
            f"weights: {path} is {known[0].file}, not {spec.file or spec.name}; load "
            f"it as {known[0].name}"
        )


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
    """Return the weights of a checkpoint, or of the one in a folder."""
    file, want = weights_file(path), _shapes(config)
    state = _our_names(read_checkpoint(file))
    return matched(state, want, file, lambda have: _misfit(have, want))


def random_weights(config: SpitConfig, *, seed: int = 0) -> Weights:
    """Return seeded random weights; see `random_state`."""
    return random_state(_shapes(config), seed)


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


def _shapes(config: SpitConfig) -> Shapes:
    return shapes_of(partial(SpitEncoder, config))


def _misfit(have: Shapes, want: Shapes) -> str:
    """Say in a few words what is wrong with the tensors of a file."""
    if "embed.weight" not in have:
        return "it is no checkpoint of SPiT, whose tensors include embedder.embedder"
    columns, wanted = have["embed.weight"][-1], want["embed.weight"][-1]
    if columns != wanted:
        return (
            f"its tokens have {columns} numbers and {wanted} are needed; 1280 are of a "
            "network with gradient features, 1024 of one without"
        )
    return misfit(have, want)


# --- Rows -----------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class SpitSpec(BackboneSpec):
    """A network of SPiT's authors. Their files are not on the Hub."""

    config: SpitConfig
    file: str = ""  # what the authors call it; "" where they published no weights
    md5: str = ""  # of it: the tensors alone don't tell the networks apart
    compactness: float = COMPACTNESS  # see `superpixels`
    loader: Loader = load_spit  # type: ignore[assignment]
    licence: str = "MIT"
    references: tuple[str, ...] = (
        "M. Aasan et al., A spitting image: Modular superpixel tokenization in vision "
        "transformers, arXiv:2408.07680 (2024).",
    )
    has_attention: bool = True
    has_regions: bool = True
    default_transforms: str = RegionBackbone.default_transforms
    patch_size: int = BINS  # about the side of a region
    channels: int = field(init=False)
    density: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", self.config.embed_dim)
        object.__setattr__(self, "density", self.config.density)

    @property
    def conditions(self) -> str:
        """Where the file is to be had."""
        if not self.file:
            return "no weights of it were published; give a file of your own"
        return (
            f"its weights cannot be downloaded from here; fetch {self.file} by the "
            f"link at {PAGE} and give the file"
        )

    @property
    def download_bytes(self) -> int:
        """Size of the file, in float32."""
        width = self.config.embed_dim
        count = sum(math.prod(shape) for shape in _shapes(self.config).values())
        absent = 3 * width * self.config.depth  # biases of the attention
        return 4 * (count - absent + (width + 1) * _CLASSES)


_FILES = {"superpixels": "SPiT", "pca-tree": "RViT", "squares": "ViT"}


def _row(name: str, md5: str, **shape: Any) -> SpitSpec:
    """Return the row of a network, which the authors' name of its file describes."""
    size = "S" if "small" in name else "B"
    width, heads = (384, 6) if size == "S" else (768, 12)
    config = SpitConfig(embed_dim=width, heads=heads, **shape)
    file = f"{_FILES[config.partition]}-{size}16{' (w. grad.)' * config.gradients}"
    return SpitSpec(
        name=name,
        config=config,
        file=file if md5 else "",
        md5=md5,
        listed=":" not in name,
    )


_ROWS = (
    _row("spit-small", "e49be7009c639c0ccda4bd68ed34e5af"),
    _row("spit-base", "9394072a5d488977b1af05c02aa0d13c", sigma=0.05),
    _row("rvit-small", "", partition="pca-tree"),  # of which there are no weights
    _row("rvit-base", "50d25403adfd5a12d7cb07f7ebfced97", partition="pca-tree"),
    _row("spit-small:grid", "b8e4f1f219c3baef47fc465eaef9e0d4", partition="squares"),
    _row("spit-base:grid", "1caa683ecd885347208b0db58118bf40", partition="squares"),
    _row(
        "spit-small:no-gradients", "8e899c846a75c51e1c18538db92efddf", gradients=False
    ),
    _row("spit-base:no-gradients", "9d3483a4c6fdaf603ee6528824d48803", gradients=False),
)
SPIT_SPECS = {spec.name: spec for spec in _ROWS}
# The same files, on regions as they were in training: of flat areas few and large ones.
for _spec in _ROWS[:2]:
    _loose = f"{_spec.name}:no-compactness"
    SPIT_SPECS[_loose] = replace(_spec, name=_loose, compactness=0.0, listed=False)
