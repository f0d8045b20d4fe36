"""The Vision Transformers that have a name, and how one is loaded.

Commits of Hub repositories are pinned where they are known for certain; of the others
the newest is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import torch

from napari_hrdv2.core.backbones.base import BackboneSpec, Loader, LoadOptions
from napari_hrdv2.core.backbones.hub import download_weights

from .backbone import ViTBackbone, activations_of, channels_of
from .model import Facet, VisionTransformer, ViTConfig
from .weights import load_weights, random_weights


def load_vit(spec: ViTSpec, options: LoadOptions) -> ViTBackbone:
    """Return the Vision Transformer of a row."""
    if options.weights == "random":
        weights = random_weights(spec.config)
    else:
        file = options.weights
        weights = load_weights(
            download_weights(spec, options.progress) if file is None else file,
            spec.config,
            known=_known_networks(spec.name),
            teacher=spec.teacher,
        )
    return ViTBackbone(
        spec.name,
        spec.config,
        weights,
        facets=spec.facets,
        **options.formats,
    )


def _known_networks(name: str) -> dict[str, ViTConfig]:
    """Return the networks to suggest in place of one, those of its family first."""
    family = name.split("-")[0]
    names = sorted(VIT_SPECS, key=lambda other: other.split("-")[0] != family)
    return {other: VIT_SPECS[other].config for other in names}


# --- Facets ---------------------------------------------------------------------------
_Kind = Literal["token", "query", "key", "value", "attention"]
_KINDS: Mapping[str, _Kind] = {kind[0]: kind for kind in get_args(_Kind)}


def parse_facets(name: str, text: str) -> tuple[Facet, ...]:
    """Return the facets that a name asks for: of "dino-small-8@k9,k11" two."""
    facets = []
    for part in text.split(","):
        match = re.fullmatch(r"([tqkva])(\d+)", part)
        if match is None:
            raise ValueError(
                f"backbone: {part!r} in {name!r} is not a facet; write t (tokens), q, "
                "k, v or a (attention) with the number of a block, 0 for the first, "
                "such as @k9 or @t8,k11"
            )
        facets.append(Facet(_KINDS[match[1]], int(match[2])))
    return tuple(facets)


# --- Rows -----------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class ViTSpec(BackboneSpec):
    """A Vision Transformer; what follows from its shape is filled in."""

    config: ViTConfig
    unused: int = 0  # numbers in the file that features do not need, such as heads
    teacher: bool = False  # which to take of a file with a student and a teacher
    facets: tuple[Facet, ...] = ()  # in place of the tokens of the last block
    loader: Loader = load_vit  # type: ignore[assignment]
    has_attention: bool = True
    channels: int = field(init=False)
    patch_size: int = field(init=False)
    blocks: int = field(init=False)
    activations: int = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        for key, value in (
            ("channels", channels_of(self.facets, config)),
            ("patch_size", config.patch_size),
            ("blocks", config.depth),
            ("activations", activations_of(self.facets, config)),
        ):
            object.__setattr__(self, key, value)

    def with_facets(self, name: str, facets: str) -> Self:
        """Return the row under a full name, with facets such as "k9,k11" or ""."""
        if not facets:
            return replace(self, name=name)
        taken = parse_facets(name, facets)
        last = max(facet.block for facet in taken)
        if last >= self.blocks:
            raise ValueError(
                f"backbone: {name!r} asks for block {last}; its blocks are 0 to "
                f"{self.blocks - 1}"
            )
        return replace(self, name=name, facets=taken)

    @property
    def download_bytes(self) -> int:
        """Size of the file, in float32."""
        with torch.device("meta"):  # one block is enough: all are of one size
            model = VisionTransformer(replace(self.config, depth=1))
        count = sum(parameter.numel() for parameter in model.parameters())
        block = sum(parameter.numel() for parameter in model.blocks.parameters())
        return 4 * (count + (self.config.depth - 1) * block + self.unused)


_SIZES: Mapping[str, ViTConfig] = {
    "small": ViTConfig(),
    "base": ViTConfig(embed_dim=768, heads=12),
    "large": ViTConfig(embed_dim=1024, depth=24, heads=16),
    "giant": ViTConfig(embed_dim=1536, depth=40, heads=24, feed_forward="swiglu"),
}

_DINOV2_PAPER = (
    "M. Oquab et al., DINOv2: Learning robust visual features without supervision, "
    "arXiv:2304.07193 (2023)."
)
_REGISTERS = (
    "T. Darcet et al., Vision transformers need registers, arXiv:2309.16588 (2023).",
)
_PAPERS: Mapping[str, tuple[str, ...]] = {
    "dinov2": (_DINOV2_PAPER,),
    "dinov3": ("O. Siméoni et al., DINOv3, arXiv:2508.10104 (2025).",),
    "dino": (
        "M. Caron et al., Emerging properties in self-supervised vision transformers, "
        "arXiv:2104.14294 (2021).",
    ),
    "deit": (
        "H. Touvron et al., Training data-efficient image transformers & distillation "
        "through attention, arXiv:2012.12877 (2020).",
    ),
    "vit": (
        "A. Dosovitskiy et al., An image is worth 16x16 words: Transformers for image "
        "recognition at scale, arXiv:2010.11929 (2020).",
        "A. Steiner et al., How to train your ViT? Data, augmentation, and "
        "regularization in vision transformers, arXiv:2106.10270 (2021).",
    ),
    "neco": (
        "V. Pariza et al., Near, far: Patch-ordering enhances vision foundation "
        "models' scene understanding, arXiv:2408.11054 (2024).",
        _DINOV2_PAPER,
    ),
}


# --- DINOv2 -------------------------------------------------------------------------
# The commits of the repositories: every user gets the same numbers.
_DINOV2 = {
    "small": "ed25f3a31f01632728cabb09d1542f84ab7b0056",
    "base": "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    "large": "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
    "giant": "611a9d42f2335e0f921f1e313ad3c1b7178d206d",
    "small-reg": "0d9846e56b43a21fa46d7f3f5070f0506a5795a9",
    "base-reg": "a1d738ccfa7ae170945f210395d99dde8adb1805",
    "large-reg": "e4c89a4e05589de9b3e188688a303d0f3c04d0f3",
    "giant-reg": "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb",
}


def _dinov2() -> Iterator[ViTSpec]:
    for name, revision in _DINOV2.items():
        size, _, registers = name.partition("-")
        config = _SIZES[size]
        if registers:
            config = replace(
                config, registers=4, position_offset=0.0, position_antialias=True
            )
        yield ViTSpec(
            name=f"dinov2-{name}",
            source=f"facebook/dinov2-{'with-registers-' * bool(registers)}{size}",
            revision=revision,
            references=_PAPERS["dinov2"] + _REGISTERS * bool(registers),
            config=config,
            unused=config.embed_dim,
        )


# --- DINO, DeiT, ViT ----------------------------------------------------------------
def _older(size: str, patch_size: int = 16, image_size: int = 224) -> ViTConfig:
    return replace(
        _SIZES[size], patch_size=patch_size, image_size=image_size, layer_scale=False
    )


def _dino() -> Iterator[ViTSpec]:
    for size in ("small", "base"):
        for patch_size in (8, 16):
            yield ViTSpec(
                name=f"dino-{size}-{patch_size}",
                source=f"facebook/dino-vit{size[0]}{patch_size}",
                references=_PAPERS["dino"],
                config=_older(size, patch_size),
            )


# Both are at home in timm, which resamples positions to a size, with antialiasing.
_SUPERVISED = (
    ("deit-small", "deit_small_patch16_224.fb_in1k"),
    ("deit-base", "deit_base_patch16_224.fb_in1k"),
    ("deit-base:384", "deit_base_patch16_384.fb_in1k"),
    ("deit-small:distilled", "deit_small_distilled_patch16_224.fb_in1k"),
    ("deit-base:distilled", "deit_base_distilled_patch16_224.fb_in1k"),
    ("deit-base:distilled-384", "deit_base_distilled_patch16_384.fb_in1k"),
    ("vit-small", "vit_small_patch16_224.augreg_in21k_ft_in1k"),
    ("vit-small:384", "vit_small_patch16_384.augreg_in21k_ft_in1k"),
    ("vit-base", "vit_base_patch16_224.augreg_in21k_ft_in1k"),
    ("vit-base:384", "vit_base_patch16_384.augreg_in21k_ft_in1k"),
)
_HALF = (0.5, 0.5, 0.5)


def _supervised() -> Iterator[ViTSpec]:
    for name, model in _SUPERVISED:
        size = "small" if "small" in name else "base"
        distilled = ":distilled" in name  # one token more, with a head and a position
        config = replace(
            _older(size, image_size=384 if name.endswith("384") else 224),
            position_offset=0.0,
            position_antialias=True,
            registers=int(distilled),
        )
        if name.startswith("vit"):
            config = replace(config, pixel_mean=_HALF, pixel_deviation=_HALF)
        C = config.embed_dim
        classes = 1000 * (C + 1)  # of ImageNet
        yield ViTSpec(
            name=name,
            source=f"timm/{model}",
            references=_PAPERS[name.partition("-")[0]],
            config=config,
            unused=2 * classes + C if distilled else classes,
            listed=":" not in name,
        )


# --- DINOv3 -------------------------------------------------------------------------
def _dinov3() -> Iterator[ViTSpec]:
    for name, model in (("small", "s"), ("small-plus", "s"), ("base", "b")):
        plus = name == "small-plus"
        config = replace(
            _SIZES[name.removesuffix("-plus")],
            patch_size=16,
            registers=4,
            positions="rotary",
            epsilon=1e-5,
            feed_forward="swiglu" if plus else "mlp",
            feed_forward_ratio=6.0 if plus else 4.0,
        )
        model = f"vit{model}16{'plus' if plus else ''}"
        yield ViTSpec(
            name=f"dinov3-{name}",
            source=f"facebook/dinov3-{model}-pretrain-lvd1689m",
            licence="DINOv3 License (gated)",
            gated=True,
            references=_PAPERS["dinov3"],
            config=config,
            # the file has a mask token and no biases of keys
            unused=config.embed_dim * (1 - config.depth),
        )


# --- NeCo ---------------------------------------------------------------------------
# What it was trained on, and the patch size; XR: DINOv2 with registers, without them.
# Registers or not, positions are resampled by the rule it was trained with.
_NECO = {
    "dinov2": 14,
    "dinov2r": 14,
    "dinov2r-xr": 14,
    "dino": 16,
    "timetuning": 16,
    "leopart": 16,
}
_NECO_DEFAULT = "dinov2r-xr"


def _neco() -> Iterator[ViTSpec]:
    for size in ("small", "base"):
        yield _neco_row(f"neco-{size}", size, _NECO_DEFAULT)
        for source, patch_size in _NECO.items():
            if patch_size == 16 and size == "base":
                continue
            for end in ("", "-teacher"):
                yield _neco_row(f"neco-{size}:{source}{end}", size, source)


def _neco_row(name: str, size: str, source: str) -> ViTSpec:
    teacher = name.endswith("-teacher")
    patch_size = _NECO[source]
    config = _SIZES[size] if patch_size == 14 else _older(size)
    if source == "dinov2r":
        config = replace(config, registers=4)
    C = config.embed_dim
    head = (C + 1) * 2048 + 2049 * 2048 + 2049 * 256
    folder = "dinov2" if patch_size == 14 else "dino"
    which = "teacher" if teacher else "model"
    return ViTSpec(
        name=name,
        source="FunAILab/NeCo",
        filename=(
            f"vit-{size}/{folder}-architectures/"
            f"neco_on_{source.replace('-', '_')}_vit{patch_size}_{which}.ckpt"
        ),
        licence="MIT, Apache-2.0",
        references=_PAPERS["neco"] + _REGISTERS * ("dinov2r" in name),
        config=config,
        unused=head + (C if patch_size == 14 else 0),
        teacher=teacher,
        listed=":" not in name,
    )


VIT_SPECS: Mapping[str, ViTSpec] = {
    spec.name: spec
    for family in (_dinov2(), _dinov3(), _dino(), _neco(), _supervised())
    for spec in family
}
