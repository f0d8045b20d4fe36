"""The Vision Transformers that have a name, and how one is loaded.

Commits of Hub repositories are pinned where they are known for certain; of the others
the newest is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Self, get_args

from napari_hrdv2.core.backbones.base import BackboneSpec, Loader, LoadOptions
from napari_hrdv2.core.backbones.hub import download_weights

from .backbone import ViTBackbone, activations_of, channels_of
from .model import Facet, FacetKind, ViTConfig
from .weights import load_weights, random_weights


def load_vit(spec: ViTSpec, options: LoadOptions) -> ViTBackbone:
    """Return the Vision Transformer of a row."""
    config, file = spec.config, options.weights
    if file == "random":
        weights = random_weights(config)
    else:
        # Those of its family are suggested first in place of one that does not fit.
        family = spec.name.split("-")[0]
        names = sorted(VIT_SPECS, key=lambda name: name.split("-")[0] != family)
        known = {name: VIT_SPECS[name].config for name in names}
        file = download_weights(spec, options.progress) if file is None else file
        weights = load_weights(file, config, known=known, teacher=spec.teacher)
    return ViTBackbone(spec.name, config, weights, options, facets=spec.facets)


# --- Facets ---------------------------------------------------------------------------
_KINDS: Mapping[str, FacetKind] = {kind[0]: kind for kind in get_args(FacetKind)}


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
    teacher: bool = False  # which to take of a file with a student and a teacher
    facets: tuple[Facet, ...] = ()  # in place of the tokens of the last block
    loader: Loader = load_vit  # type: ignore[assignment]
    has_attention: bool = True
    channels: int = field(init=False)
    patch_size: int = field(init=False)
    blocks: int = field(init=False)
    activations: int = field(init=False)

    def __post_init__(self) -> None:
        channels = channels_of(self.facets, self.config)
        activations = activations_of(self.facets, self.config)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "patch_size", self.config.patch_size)
        object.__setattr__(self, "blocks", self.config.depth)
        object.__setattr__(self, "activations", activations)

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


_SIZES: Mapping[str, ViTConfig] = {
    "small": ViTConfig(),
    "base": ViTConfig(embed_dim=768, heads=12),
    "large": ViTConfig(embed_dim=1024, depth=24, heads=16),
    "giant": ViTConfig(embed_dim=1536, depth=40, heads=24, feed_forward="swiglu"),
}
# As DINOv2 with registers and timm resample positions: to a size, with antialiasing.
_RESIZED: Mapping[str, Any] = {"position_offset": 0.0, "position_antialias": True}

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
# The commits of the repositories, so that every user gets the same numbers.
_DINOV2 = (
    ("small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", 88_226_304),
    ("base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", 346_321_920),
    ("large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", 1_217_474_560),
    ("giant", "611a9d42f2335e0f921f1e313ad3c1b7178d206d", 4_545_923_072),
    ("small-reg", "0d9846e56b43a21fa46d7f3f5070f0506a5795a9", 88_232_448),
    ("base-reg", "a1d738ccfa7ae170945f210395d99dde8adb1805", 346_334_208),
    ("large-reg", "e4c89a4e05589de9b3e188688a303d0f3c04d0f3", 1_217_490_944),
    ("giant-reg", "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb", 4_545_947_648),
)


def _dinov2() -> Iterator[ViTSpec]:
    for name, revision, download_bytes in _DINOV2:
        size, _, registers = name.partition("-")
        config = _SIZES[size]
        if registers:
            config = replace(config, registers=4, **_RESIZED)
        yield ViTSpec(
            name=f"dinov2-{name}",
            source=f"facebook/dinov2-{'with-registers-' * bool(registers)}{size}",
            revision=revision,
            references=_PAPERS["dinov2"] + _REGISTERS * bool(registers),
            config=config,
            download_bytes=download_bytes,
        )


# --- DINOv3 -------------------------------------------------------------------------
_DINOV3 = (
    ("small", "vits16", 86_386_176),
    ("small-plus", "vits16plus", 114_771_456),
    ("base", "vitb16", 342_641_664),
)


def _dinov3() -> Iterator[ViTSpec]:
    for name, model, download_bytes in _DINOV3:
        size, _, plus = name.partition("-")
        yield ViTSpec(
            name=f"dinov3-{name}",
            source=f"facebook/dinov3-{model}-pretrain-lvd1689m",
            licence="DINOv3 License (gated)",
            gated=True,
            references=_PAPERS["dinov3"],
            config=replace(
                _SIZES[size],
                patch_size=16,
                registers=4,
                positions="rotary",
                epsilon=1e-5,
                feed_forward="swiglu" if plus else "mlp",
                feed_forward_ratio=6.0 if plus else 4.0,
            ),
            download_bytes=download_bytes,
        )


# --- DINO, NeCo ---------------------------------------------------------------------
_DINO = (
    ("small", 8, 86_681_088),
    ("small", 16, 86_662_656),
    ("base", 8, 343_231_488),
    ("base", 16, 343_194_624),
)


def _older(size: str, patch_size: int = 16, image_size: int = 224) -> ViTConfig:
    return replace(
        _SIZES[size], patch_size=patch_size, image_size=image_size, layer_scale=False
    )


def _dino() -> Iterator[ViTSpec]:
    for size, patch_size, download_bytes in _DINO:
        yield ViTSpec(
            name=f"dino-{size}-{patch_size}",
            source=f"facebook/dino-vit{size[0]}{patch_size}",
            references=_PAPERS["dino"],
            config=_older(size, patch_size),
            download_bytes=download_bytes,
        )


# What NeCo was trained on, the patch size, and the bytes of small and base. XR: DINOv2
# with registers, without them.
_NECO: Mapping[str, tuple[int, dict[str, int]]] = {
    "dinov2": (14, {"small": 110_263_808, "base": 371_505_152}),
    "dinov2r": (14, {"small": 110_269_952, "base": 371_517_440}),
    "dinov2r-xr": (14, {"small": 110_263_808, "base": 371_505_152}),
    "dino": (16, {"small": 108_700_160}),
    "timetuning": (16, {"small": 108_700_160}),
    "leopart": (16, {"small": 108_700_160}),
}


def _neco() -> Iterator[ViTSpec]:
    for size in ("small", "base"):
        yield _neco_row(f"neco-{size}", size, "dinov2r-xr")
        for source in (source for source in _NECO if size in _NECO[source][1]):
            for end in ("", "-teacher"):
                yield _neco_row(f"neco-{size}:{source}{end}", size, source)


def _neco_row(name: str, size: str, source: str) -> ViTSpec:
    teacher = name.endswith("-teacher")
    patch_size, sizes = _NECO[source]
    # Registers or not, positions are resampled by the rule it was trained with.
    config = _SIZES[size] if patch_size == 14 else _older(size)
    if source == "dinov2r":
        config = replace(config, registers=4)
    return ViTSpec(
        name=name,
        source="FunAILab/NeCo",
        filename=(
            f"vit-{size}/{'dinov2' if patch_size == 14 else 'dino'}-architectures/"
            f"neco_on_{source.replace('-', '_')}_vit{patch_size}_"
            f"{'teacher' if teacher else 'model'}.ckpt"
        ),
        licence="MIT, Apache-2.0",
        references=_PAPERS["neco"] + _REGISTERS * ("dinov2r" in name),
        config=config,
        download_bytes=sizes[size],
        teacher=teacher,
        listed=":" not in name,
    )


# --- DeiT, ViT ----------------------------------------------------------------------
_SUPERVISED = (
    ("deit-small", "deit_small_patch16_224", 88_202_656),
    ("deit-base", "deit_base_patch16_224", 346_270_624),
    ("deit-base:384", "deit_base_patch16_384", 347_437_984),
    ("deit-small:distilled", "deit_small_distilled_patch16_224", 89_745_728),
    ("deit-base:distilled", "deit_base_distilled_patch16_224", 349_352_768),
    ("deit-base:distilled-384", "deit_base_distilled_patch16_384", 350_520_128),
    ("vit-small", "vit_small_patch16_224", 88_202_656),
    ("vit-small:384", "vit_small_patch16_384", 88_786_336),
    ("vit-base", "vit_base_patch16_224", 346_270_624),
    ("vit-base:384", "vit_base_patch16_384", 347_437_984),
)
_HALF = (0.5, 0.5, 0.5)


def _supervised() -> Iterator[ViTSpec]:
    for name, model, download_bytes in _SUPERVISED:
        family, size = model.split("_")[:2]
        config = replace(_older(size, image_size=int(model[-3:])), **_RESIZED)
        if "distilled" in model:  # a token with a head and a position
            config = replace(config, registers=1)
        if family == "vit":
            config = replace(config, pixel_mean=_HALF, pixel_deviation=_HALF)
        training = "fb_in1k" if family == "deit" else "augreg_in21k_ft_in1k"
        yield ViTSpec(
            name=name,
            source=f"timm/{model}.{training}",
            references=_PAPERS[family],
            config=config,
            download_bytes=download_bytes,
            listed=":" not in name,
        )


_FAMILIES = chain(_dinov2(), _dinov3(), _dino(), _neco(), _supervised())
VIT_SPECS: dict[str, ViTSpec] = {spec.name: spec for spec in _FAMILIES}
