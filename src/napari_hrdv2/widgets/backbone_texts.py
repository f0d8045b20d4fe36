"""What the window says about backbones, from the registry alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from napari_hrdv2.core.backbones import (
    BackboneSpec,
    backbone_info,
    backbone_names,
    backbone_state,
    backbone_variants,
    sources_of,
)
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.session import FeatureOptions, bytes_text

_ON_THE_HUB = ("download", "gated")
_BUNDLED = ("embedded", "filters")  # the better one first
_STATES = {"ready": "ready", "cached": "in cache", "file": "from a file"}


# Families of backbones by the first letters of their names, as they are listed.
_GROUPS = {
    "embedded": "In the package",
    "filters": "In the package",
    "dinov2": "DINOv2",
    "dinov3": "DINOv3",
    "dino": "DINO",
    "neco": "NeCo",
    "deit": "DeiT",
    "vit": "ViT, supervised",
    "spit": "Superpixels",
    "rvit": "Superpixels",
}
_OTHERS = "Others"


def groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names of backbones by the family that they are listed under."""
    found: dict[str, list[str]] = {}
    for name in names:
        titles = (title for start, title in _GROUPS.items() if name.startswith(start))
        found.setdefault(next(titles, _OTHERS), []).append(name)
    return found


def recommended(shape: tuple[int, ...] | None) -> str:
    """Return the backbone to begin with on this machine, for an image of a shape."""
    first, *others = _BUNDLED
    if shape is None:
        return first
    fitting = (n for n in _BUNDLED if estimate_cost(shape, FeatureOptions(n)).fits)
    return next(fitting, others[-1])


def item_text(name: str, *, is_recommended: bool = False) -> str:
    """Return the name with what it takes to have it."""
    if is_recommended:
        return f"{name} (recommended)"
    state = backbone_state(name)
    if state not in _ON_THE_HUB:
        return f"{name} ({_STATES[state]})"
    sizes = [info.download_bytes for info in _infos(name) if not info.bundled]
    size = bytes_text(sum(sizes)) if all(sizes) else "from the Hub"
    return f"{name} ({size}{', gated' * (state == 'gated')})"


def takes_weights(name: str) -> bool:
    """Whether a weights file makes sense for this backbone."""
    return any(info.takes_weights for info in _infos(name))


def needs_no_download(options: FeatureOptions) -> bool:
    """Whether all parts of the backbone are in the package."""
    return all(info.bundled for info in _infos(options.backbone))


def has_patches(name: str) -> bool:
    """Whether transforms and stride make a difference to this backbone."""
    return any(info.patch_size > 1 for info in _infos(name))


def stride(options: FeatureOptions) -> str:
    """Return the stride as a word where there is one, else in pixels."""
    if options.stride is None:
        return "auto"
    patch = options.patch_size
    words = {max(patch // 2, 1): "half", patch: "patch"}
    return words.get(options.stride, str(options.stride))


def levels(options: FeatureOptions) -> str:
    """Return the grey levels that a loaded classifier asks for, as a sentence."""
    if options.value_range is None:
        return ""
    told = ", ".join(f"{one[0]:g} to {one[1]:g}" for one in options.ranges if one)
    return f". Grey levels {told}, as in the loaded classifier."


def forms(name: str) -> list[str]:
    """Return a backbone, its variants, facets of the last and middle block, joins."""
    base = name.partition("@")[0].partition(":")[0]
    if "+" in name or base not in backbone_names():
        return [name]
    info = backbone_info(base)
    facets = [f"{base}@{kind}{info.blocks - 1}" for kind in "kqva" if info.blocks]
    facets += [f"{base}@t{info.blocks // 2}"] if info.blocks else []
    others = [n for n in backbone_names() if backbone_info(n).bundled]
    joined = [f"{base}+{other}" for other in others if not info.bundled]
    return [base, *backbone_variants(base), *facets, *joined]


def detail(name: str, weights: str | None = None) -> str:
    """Return channels, patch, licence, and where the weights come from."""
    lines, sources = [], sources_of(name, weights)
    for info in _infos(name):
        source = sources[info.name]
        given = None if source is None else Path(source).name
        if info.bundled:
            around = " and context features" if info.context_cell else ""
            kind = f", {info.description}" if info.description else ""
            origin = given or "no download"
            lines.append(f"{info.channels} channels{around}{kind}; {origin}")
            continue
        state = backbone_state(info.name)
        origin = info.source or "the file of its weights is chosen under More choices"
        if given is not None:
            origin = given
        elif state in _ON_THE_HUB:
            origin = f"{_size(info)} to download from {info.source}"
        shape = f"{info.channels} channels per {info.patch_size} px patch"
        if not info.channels:
            shape = "its channels and patches are known once it is loaded"
        lines.append(f"{shape}; {info.licence}; {origin}")
        if given is None and info.conditions and state != "cached":
            lines.append(info.conditions[:1].upper() + info.conditions[1:])
    return "\n".join(lines)


def compute_button(options: FeatureOptions, *, again: bool = False) -> tuple[str, str]:
    """Return what the button says, and its tooltip: size, place and licence.

    `again`: features by these very options are there.
    """
    sources = sources_of(options.backbone, options.weights)
    missing = [
        info
        for info in _infos(options.backbone)
        if sources[info.name] is None and backbone_state(info.name) in _ON_THE_HUB
    ]
    if again:
        return "Compute again", "The features are ready; compute them once more"
    if not missing:
        return "Compute features", "Run the backbone over the image, in the background"
    size = " and ".join(map(_size, missing))
    if all(info.download_bytes for info in missing):
        size = bytes_text(sum(info.download_bytes for info in missing))
    origins = "; ".join(f"{info.source}, licence {info.licence}" for info in missing)
    return f"Download {size} and compute", f"{size} from {origins}"


def _size(info: BackboneSpec) -> str:
    return bytes_text(info.download_bytes) if info.download_bytes else "its files"


@cache
def _infos(name: str) -> tuple[BackboneSpec, ...]:
    return tuple(backbone_info(part) for part in name.split("+"))
