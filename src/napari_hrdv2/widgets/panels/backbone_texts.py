"""What the panel says about backbones and devices."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from napari_hrdv2.core.backbones import (
    BackboneSpec,
    backbone_info,
    backbone_names,
    backbone_state,
    backbone_variants,
)
from napari_hrdv2.core.devices import device_names
from napari_hrdv2.session import FeatureOptions, bytes_text

_JOINED = ("dinov2-small+filters",)
_ON_THE_HUB = ("download", "gated")


def offered() -> tuple[str, ...]:
    """Return the names to choose from."""
    return (*backbone_names(), *_JOINED)


def devices() -> tuple[str, ...]:
    """Return the devices to choose from."""
    return ("auto", *device_names())


def item_text(name: str) -> str:
    """Return the name with what it takes to have it."""
    return f"{name} ({_state(name)})"


def takes_weights(name: str) -> bool:
    """Whether a weights file makes sense for this backbone."""
    return any(not info.bundled for info in _infos(name))


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
    low, high = options.value_range
    return f". Grey levels {low:g} to {high:g}, as in the loaded classifier."


def forms(name: str) -> list[str]:
    """Return a backbone, its variants and, of a ViT, some facets of its last block."""
    base = name.partition("@")[0].partition(":")[0]
    if "+" in name or base not in backbone_names():
        return [name]
    blocks = backbone_info(base).blocks
    facets = [f"{base}@{kind}{blocks - 1}" for kind in "kqva"] if blocks else []
    return [base, *backbone_variants(base), *facets]


def detail(options: FeatureOptions) -> str:
    """Return channels, patch, licence, and where the weights come from."""
    return _detail(options.backbone, options.weights)


def item_tip(name: str) -> str:
    """Return the same of a backbone in the list, before it is chosen."""
    return _detail(name, None)


def _detail(name: str, weights: str | None) -> str:
    lines = []
    for info in _infos(name):
        if info.bundled:
            around = " and context features" if info.context_cell else ""
            kind = f", {info.description}" if info.description else ""
            lines.append(f"{info.channels} channels{around}{kind}; no download")
            continue
        state = backbone_state(info.name)
        origin = info.source or "the file of its weights is chosen under More choices"
        if weights is not None:
            origin = Path(weights).name
        elif state in _ON_THE_HUB:
            origin = f"{_size(info)} to download from {info.source}"
        shape = f"{info.channels} channels per {info.patch_size} px patch"
        if not info.channels:
            shape = "its channels and patches are known once it is loaded"
        lines.append(f"{shape}; {info.licence}; {origin}")
        if weights is None and info.conditions and state != "cached":
            lines.append(info.conditions[:1].upper() + info.conditions[1:])
    return "\n".join(lines)


def compute_button(options: FeatureOptions) -> tuple[str, str]:
    """Return what the button says, and its tool tip: what is downloaded, if anything.

    The tool tip names the size, the place and the licence of the weights.
    """
    missing = [
        info
        for info in _infos(options.backbone)
        if options.weights is None and backbone_state(info.name) in _ON_THE_HUB
    ]
    if not missing:
        return "Compute features", "Run the backbone over the image, in the background"
    size = " and ".join(map(_size, missing))
    if all(info.download_bytes for info in missing):
        size = bytes_text(sum(info.download_bytes for info in missing))
    origins = "; ".join(f"{info.source}, licence {info.licence}" for info in missing)
    return f"Download {size} and compute", f"{size} from {origins}"


def needs_no_download(options: FeatureOptions) -> bool:
    """Whether all parts of the backbone are in the package."""
    return all(info.bundled for info in _infos(options.backbone))


def _state(name: str) -> str:
    state = backbone_state(name)
    if state in _ON_THE_HUB:
        sizes = [info.download_bytes for info in _infos(name) if not info.bundled]
        size = bytes_text(sum(sizes)) if all(sizes) else "from the Hub"
        return f"{size}, gated" if state == "gated" else size
    return {"ready": "ready", "cached": "in cache", "file": "from a file"}[state]


def _size(info: BackboneSpec) -> str:
    return bytes_text(info.download_bytes) if info.download_bytes else "its files"


@cache
def _infos(name: str) -> tuple[BackboneSpec, ...]:
    return tuple(backbone_info(part) for part in name.split("+"))
