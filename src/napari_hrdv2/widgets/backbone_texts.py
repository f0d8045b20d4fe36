"""What the panel says about backbones and devices."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from napari_hrdv2.core.backbones import (
    BackboneInfo,
    backbone_info,
    backbone_names,
    backbone_state,
)
from napari_hrdv2.core.devices import device_names
from napari_hrdv2.session import FeatureSettings, bytes_text

_BUNDLED = {"embedded": "learned and classical", "filters": "classical filters"}
_JOINED = ("dinov2-small+filters",)


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


def levels(settings: FeatureSettings) -> str:
    """Return the grey levels that a loaded classifier asks for, as a sentence."""
    if settings.value_range is None:
        return ""
    low, high = settings.value_range
    return f". Grey levels {low:g} to {high:g}, as in the loaded classifier."


def detail(settings: FeatureSettings) -> str:
    """Return channels, patch, licence, and where the weights come from."""
    lines = []
    for info in _infos(settings.backbone):
        if info.bundled:
            lines.append(
                f"{info.channels} channels, {_BUNDLED[info.name]}; no download"
            )
            continue
        origin = info.source or "the file of its weights is chosen under More choices"
        if settings.weights is not None:
            origin = Path(settings.weights).name
        elif info.source and backbone_state(info.name) == "download":
            size = bytes_text(info.download_bytes)
            origin = f"{size} to download from {info.source}"
        lines.append(
            f"{info.channels} channels per {info.patch_size} px patch; "
            f"{info.licence}; {origin}"
        )
        if info.conditions and backbone_state(info.name) == "download":
            lines.append(info.conditions)
    return "\n".join(lines)


def compute_button(settings: FeatureSettings) -> tuple[str, str]:
    """Return what the button says, and its tool tip: what is downloaded, if anything.

    The tool tip names the size, the place and the licence of the weights.
    """
    missing = [
        info
        for info in _infos(settings.backbone)
        if settings.weights is None
        and info.source
        and backbone_state(info.name) == "download"
    ]
    if not missing:
        return "Compute features", "Run the backbone over the image, in the background"
    size = bytes_text(sum(info.download_bytes for info in missing))
    origins = "; ".join(f"{info.source}, licence {info.licence}" for info in missing)
    return f"Download {size} and compute", f"{size} from {origins}"


def needs_no_download(settings: FeatureSettings) -> bool:
    """Whether all parts of the backbone are in the package."""
    return all(info.bundled for info in _infos(settings.backbone))


def _state(name: str) -> str:
    state = backbone_state(name)
    if state == "download" and not all(i.source or i.bundled for i in _infos(name)):
        return "from a file"
    if state == "download":
        size = sum(i.download_bytes for i in _infos(name))
        return bytes_text(size)
    return "in cache" if state == "cached" else "ready"


@cache
def _infos(name: str) -> tuple[BackboneInfo, ...]:
    return tuple(backbone_info(part) for part in name.split("+"))
