"""SPiT as a backbone: regions that follow the edges of the image, one token each.

The files of its authors are not on the Hub: a user fetches and gives them.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from napari_hrdv2.core.backbones import base, checkpoint, superpixels
from napari_hrdv2.core.backbones.superpixels.pixels import (
    pixel_features,
    vertex_features,
)
from napari_hrdv2.core.checks import checked_partition
from napari_hrdv2.core.errors import WeightsError

from .encoder import BINS, SpitConfig, SpitEncoder, attention_flow, region_tokens

PAGE = "https://github.com/dsb-ifi/SPiT"


class SpitBackbone(base.RegionBackbone):
    """A frozen encoder of regions; see `RegionBackbone`.

    Regions are always found in float32. The networks with gradient features were
    trained at compactness 0, where areas of little contrast, as micrographs have,
    become a few large regions.
    """

    patch_size = BINS  # about the side of a region

    def __init__(
        self,
        name: str,
        config: SpitConfig,
        weights: checkpoint.Weights,
        options: base.LoadOptions = base.IN_FLOAT32,
        *,
        compactness: float = superpixels.COMPACTNESS,
    ) -> None:
        self.name, self.config = name, config
        self.channels, self.density = config.embed_dim, config.density
        self.steps = config.depth + 1
        self.weights_hash = weights.hash
        self.dtype = options.token_dtype
        self.compactness = compactness
        self.encoder = checkpoint.frozen(partial(SpitEncoder, config), weights)
        self._move(options.device, options.dtype)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.encoder.to(device=device, dtype=dtype)
        # Apple's GPUs have no float64, in which some of the arithmetic is done.
        self._finder = torch.device("cpu") if device.type == "mps" else device

    @torch.no_grad()
    def tokens(
        self,
        image: Tensor,
        *,
        partition: ArrayLike | Tensor | None = None,
        tick: base.Tick | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of the regions, (n, C), and where they are, (H, W)."""
        raw, labels = self._raw_tokens(image, partition)
        if tick is not None:
            tick()
        return self.encoder(raw, tick=tick)[1:].to(self.dtype), labels

    @torch.no_grad()
    def saliency(self, image: Tensor, *, partition: ArrayLike | None = None) -> Tensor:
        """Return the attention flow of each region, from 0 to 1, as (H, W) float32."""
        raw, labels = self._raw_tokens(image, partition)
        return attention_flow(self.encoder, raw).to(labels.device)[labels]

    def _raw_tokens(
        self, image: Tensor, partition: ArrayLike | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what the encoder is given, and the label map."""
        self.channels_for(len(image))
        image = image.to(self._finder, torch.float32).expand(3, -1, -1)
        features = pixel_features(image)
        if partition is None:
            labels = self._regions(features)
        else:
            given = torch.from_numpy(checked_partition(partition, image.shape[1:]))
            labels = superpixels.numbered(given.to(image.device))
        sigma, gradients = self.config.sigma, self.config.gradients
        raw = region_tokens(features, labels, sigma=sigma, gradients=gradients)
        return raw.to(self.device, self.encoder.norm.weight.dtype), labels

    def _regions(self, features: Tensor) -> Tensor:
        if self.config.partition == "superpixels":
            seen = vertex_features(features)
            return superpixels.hierarchy(seen, compactness=self.compactness)[-1]
        is_tree = self.config.partition == "pca-tree"
        divide = superpixels.pca_tree if is_tree else superpixels.squares
        _, height, width = features.shape
        return divide((height, width)).to(features.device)


# --- Loading --------------------------------------------------------------------------
def load_spit(spec: SpitSpec, options: base.LoadOptions) -> SpitBackbone:
    """Return the network of a row, of the authors' file or with random weights."""
    if options.weights is None:
        raise WeightsError(f"weights: {spec.name}: {spec.conditions}")
    if options.weights == "random":
        weights = random_weights(spec.config)
    else:
        path = checkpoint.weights_file(options.weights)
        _require_same_network(spec, path)
        weights = load_weights(path, spec.config)
    return SpitBackbone(
        spec.name, spec.config, weights, options, compactness=spec.compactness
    )


def _require_same_network(spec: SpitSpec, path: Path) -> None:
    """Refuse the file of another network, whose tensors have the same shapes."""
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    known = next((other for other in SPIT_SPECS.values() if other.md5 == md5), spec)
    if known.md5 != spec.md5:
        raise WeightsError(
            f"weights: {path} is {known.file}, not {spec.file or spec.name}; load "
            f"it as {known.name}"
        )


# What the checkpoints call the tensors, and what we do.
_NAMES = (
    (r"^embedder\.cls_token$", "cls_token"),
    (r"^embedder\.embedder\.linear\.", "embed."),
    (r"\.lambda_$", ".gamma"),
    (r"\.att\.(qkv|proj)\.linear\.", r".attn.\1."),
    (r"\.mlp\.L([12])\.linear\.", r".mlp.fc\1."),
)
_CLASSIFIER = "head."  # of ImageNet's classes; no feature needs it


def load_weights(
    path: str | os.PathLike[str], config: SpitConfig
) -> checkpoint.Weights:
    """Return the weights of a checkpoint, or of the one in a folder."""
    file, want = checkpoint.weights_file(path), _shapes(config)
    state: dict[str, Tensor] = {}
    for name, x in checkpoint.read_checkpoint(file).items():
        if name.startswith(_CLASSIFIER):
            continue
        name = checkpoint.renamed(name, _NAMES)
        state[name] = x
        if name.endswith(".attn.qkv.weight"):  # the reference does without a bias
            state[name.removesuffix("weight") + "bias"] = torch.zeros(len(x))
    return checkpoint.matched(state, want, file, lambda have: _misfit(have, want))


def random_weights(config: SpitConfig, *, seed: int = 0) -> checkpoint.Weights:
    """Return seeded random weights; see `random_state`."""
    return checkpoint.random_state(_shapes(config), seed)


def _shapes(config: SpitConfig) -> checkpoint.Shapes:
    return checkpoint.shapes_of(partial(SpitEncoder, config))


def _misfit(have: checkpoint.Shapes, want: checkpoint.Shapes) -> str:
    """Say in a few words what is wrong with the tensors of a file."""
    if "embed.weight" not in have:
        return "it is no checkpoint of SPiT, whose tensors include embedder.embedder"
    columns, wanted = have["embed.weight"][-1], want["embed.weight"][-1]
    if columns != wanted:
        return (
            f"its tokens have {columns} numbers and {wanted} are needed; 1280 are of a "
            "network with gradient features, 1024 of one without"
        )
    return checkpoint.misfit(have, want)


# --- Rows -----------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class SpitSpec(base.BackboneSpec):
    """A network of SPiT's authors."""

    config: SpitConfig
    file: str = ""  # what the authors call it; "" where they published no weights
    md5: str = ""  # of it: the tensors alone don't tell the networks apart
    compactness: float = superpixels.COMPACTNESS  # see `superpixels`
    loader: base.Loader = load_spit  # type: ignore[assignment]
    licence: str = "MIT"
    references: tuple[str, ...] = (
        "M. Aasan et al., A spitting image: Modular superpixel tokenization in vision "
        "transformers, arXiv:2408.07680 (2024).",
    )
    has_attention: bool = True
    has_regions: bool = True
    default_transforms: str = base.RegionBackbone.default_transforms
    patch_size: int = BINS  # about the side of a region
    channels: int = field(init=False)
    density: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", self.config.embed_dim)
        object.__setattr__(self, "density", self.config.density)

    def with_facets(self, name: str, facets: str) -> Self:
        """Return the row; there are no facets of regions."""
        if facets:
            raise ValueError(
                f"backbone: {name!r} asks for {facets}; facets are of networks with "
                f"square patches, and {self.name} gives the tokens of its regions "
                "alone: leave out what follows @"
            )
        return self

    @property
    def conditions(self) -> str:
        """Where the file is to be had."""
        if not self.file:
            return "no weights of it were published; give a file of your own"
        return (
            f"its weights cannot be downloaded from here; fetch {self.file} by the "
            f"link at {PAGE} and give the file"
        )


_FILES = {"superpixels": "SPiT", "pca-tree": "RViT", "squares": "ViT"}
# Channels, heads, and the bytes of a file without gradient features and of one with.
_SIZES = {
    "small": (384, 6, (88_274_848, 88_668_064)),
    "base": (768, 12, (346_415_008, 347_201_440)),
}


def _row(name: str, md5: str, **shape: Any) -> SpitSpec:
    """Return the row of a network, which the authors' name of its file describes."""
    size = "small" if "small" in name else "base"
    width, heads, file_sizes = _SIZES[size]
    config = SpitConfig(embed_dim=width, heads=heads, **shape)
    kind, end = _FILES[config.partition], " (w. grad.)" * config.gradients
    return SpitSpec(
        name=name,
        config=config,
        file=f"{kind}-{size[0].upper()}16{end}" if md5 else "",
        md5=md5,
        download_bytes=file_sizes[config.gradients],
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
