"""The backbones that have a name: their shapes, sources, licences and state."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch

from ._vit_backbone import ViTBackbone
from .vit import VisionTransformer, ViTConfig

DEFAULT_BACKBONE = "embedded"
_BUNDLED = ("embedded", "filters")
State = Literal["ready", "cached", "download"]


@dataclass(frozen=True)
class BackboneInfo:
    """What a list of backbones shows of one.

    Attributes
    ----------
    name : str
    channels : int
        Channels of a token; of the filter bank, for a grey image.
    patch_size : int
        Side in pixels of the square that a token stands for.
    licence : str
        Of the weights.
    source : str
        The Hub repository the weights come from, or "".
    download_bytes : int
        Size of the file to download.
    revision : str or None
        The commit of the repository that is downloaded.
    default_transforms : str
        The transform set that "auto" stands for.
    """

    name: str
    channels: int
    patch_size: int
    licence: str
    source: str = ""
    download_bytes: int = 0
    revision: str | None = None
    default_transforms: str = ViTBackbone.default_transforms

    @property
    def bundled(self) -> bool:
        """Whether the package brings along all that it needs."""
        return self.name in _BUNDLED


@dataclass(frozen=True)
class Entry:
    """A network of the registry and where its weights are."""

    config: ViTConfig
    repository: str
    revision: str


# Each size with the commits of its two Hub repositories, without and with registers:
# pinned, so that every user gets the same numbers.
_DINOV2 = (
    (
        "small",
        ViTConfig(),
        "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        "0d9846e56b43a21fa46d7f3f5070f0506a5795a9",
    ),
    (
        "base",
        ViTConfig(embed_dim=768, heads=12),
        "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        "a1d738ccfa7ae170945f210395d99dde8adb1805",
    ),
    (
        "large",
        ViTConfig(embed_dim=1024, depth=24, heads=16),
        "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        "e4c89a4e05589de9b3e188688a303d0f3c04d0f3",
    ),
    (
        "giant",
        ViTConfig(embed_dim=1536, depth=40, heads=24, feed_forward="swiglu"),
        "611a9d42f2335e0f921f1e313ad3c1b7178d206d",
        "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb",
    ),
)


def _with_registers(config: ViTConfig) -> ViTConfig:
    return replace(config, registers=4, position_offset=0.0, position_antialias=True)


ENTRIES: Mapping[str, Entry] = {
    f"dinov2-{size}": Entry(config, f"facebook/dinov2-{size}", plain)
    for size, config, plain, _ in _DINOV2
} | {
    f"dinov2-{size}-reg": Entry(
        _with_registers(config), f"facebook/dinov2-with-registers-{size}", registers
    )
    for size, config, _, registers in _DINOV2
}


def backbone_names() -> tuple[str, ...]:
    """Return the names that `load_backbone` knows, the default first."""
    return (*_BUNDLED, *ENTRIES)


def backbone_info(name: str) -> BackboneInfo:
    """Return what there is to know about a backbone before it is loaded.

    Of a Hub id that the registry does not name, little: no channels, no size, and the
    patch size that all published networks of the kinds that load have.
    """
    if is_hub_id(name) and entry_of_repository(name) is None:
        return BackboneInfo(name, 0, 14, "see its page on the Hub", source=name)
    if name in _BUNDLED:
        return _bundled_info(name)
    entry = _entry(name)
    return BackboneInfo(
        name=name,
        channels=entry.config.embed_dim,
        patch_size=entry.config.patch_size,
        licence="Apache-2.0",
        source=entry.repository,
        download_bytes=_download_bytes(entry.config),
        revision=entry.revision,
    )


@cache
def _bundled_info(name: str) -> BackboneInfo:
    from .embedded import EmbeddedBackbone
    from .filters import FilterBank

    own = EmbeddedBackbone() if name == "embedded" else FilterBank()
    return BackboneInfo(
        name,
        own.channels,
        own.patch_size,
        "BSD-3-Clause",
        default_transforms=own.default_transforms,
    )


def _download_bytes(config: ViTConfig) -> int:
    with torch.device("meta"):
        model = VisionTransformer(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    return 4 * (count + config.embed_dim)  # float32; the mask token is in the file


def backbone_state(name: str) -> State:
    """Return whether a backbone needs nothing, is in the cache or must be downloaded.

    A joined name ("a+b") has the state of the part that needs most. No network is
    touched.
    """
    order: tuple[State, ...] = ("ready", "cached", "download")
    return max((_state(part) for part in name.split("+")), key=order.index)


def _state(name: str) -> State:
    if name in _BUNDLED:
        return "ready"
    from .hub import cached_weights

    repository, revision = hub_source(name)
    cached = cached_weights(repository, revision=revision)
    return "download" if cached is None else "cached"


def hub_source(name: str) -> tuple[str, str | None]:
    """Return the Hub repository of a backbone, and the commit it is pinned to."""
    if is_hub_id(name) and entry_of_repository(name) is None:
        return name, None
    entry = _entry(name)
    return entry.repository, entry.revision


def entry_of_repository(repository: str) -> Entry | None:
    """Return the registry's entry for a Hub repository, or None."""
    found = (e for e in ENTRIES.values() if e.repository == repository)
    return next(found, None)


def _entry(name: str) -> Entry:
    entry = entry_of_repository(name)
    if entry is not None:
        return entry
    require_known(name)
    return ENTRIES[name]


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form owner/name."""
    return name.count("/") == 1 and all(name.split("/"))


def require_known(name: str) -> None:
    """Raise ValueError with what comes near unless the registry has the name."""
    names = backbone_names()
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=2)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ValueError(
        f"backbone: {name!r} is unknown{hint}; it can be {', '.join(names)}, a Hub id "
        "(owner/name), or several joined by +"
    )
