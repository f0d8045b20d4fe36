"""The backbones that have a name: their sources, licences and state."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from napari_hrdv2.core.backbones.spit.entries import SPIT_SPECS
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.entries import VIT_SPECS
from napari_hrdv2.core.backbones.vit.model import Facet

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.spec import BackboneSpec

DEFAULT_BACKBONE = "embedded"
_BUNDLED = ("embedded", "filters")
State = Literal["ready", "cached", "download", "gated", "file"]
STATES: tuple[State, ...] = ("ready", "cached", "download", "gated", "file")

# Other kinds of networks add their entries here and their loaders in `backbones`.
SPECS: Mapping[str, BackboneSpec] = {**VIT_SPECS, **SPIT_SPECS}


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
        The commit of the repository that is downloaded; None for the newest.
    default_transforms : str
        The transform set that "auto" stands for.
    absolute_levels : bool
        Whether features change with the brightness and contrast of the image.
    conditions : str
        What must be done to have the weights, or "".
    blocks : int
        Of how many blocks facets can be taken; 0 where there are no facets.
    """

    name: str
    channels: int
    patch_size: int
    licence: str
    source: str = ""
    download_bytes: int = 0
    revision: str | None = None
    default_transforms: str = ViTBackbone.default_transforms
    absolute_levels: bool = True
    conditions: str = ""
    blocks: int = 0

    @property
    def bundled(self) -> bool:
        """Whether the package brings along all that it needs."""
        return self.name in _BUNDLED


class HubSource(NamedTuple):
    """Where on the Hub weights are; revision and file name None for the usual ones."""

    repository: str
    revision: str | None = None
    filename: str | None = None


def backbone_names() -> tuple[str, ...]:
    """Return the names to choose from, the default first.

    `load_backbone` knows more: variants of these, after a colon, and facets, after @.
    """
    return (*_BUNDLED, *(name for name, entry in SPECS.items() if entry.listed))


def backbone_variants(name: str) -> tuple[str, ...]:
    """Return the names of a backbone's variants, such as neco-small:dinov2-teacher."""
    return tuple(other for other in SPECS if other.startswith(f"{name}:"))


def backbone_info(name: str) -> BackboneInfo:
    """Return what there is to know about a backbone before it is loaded.

    Of a Hub id that the registry does not name, little: no channels, no size, and the
    patch size of DINOv2.
    """
    base, facets = split_facets(name)
    if is_unnamed_hub_id(base):
        return BackboneInfo(name, 0, 14, "see its page on the Hub", source=base)
    require_known(name)
    if base in _BUNDLED:
        return _bundled_info(base)
    entry = spec_of(base)
    return BackboneInfo(
        name=name,
        channels=entry.channels_of(facets),
        patch_size=entry.patch_size,
        licence=entry.licence,
        source=entry.repository,
        download_bytes=entry.download_bytes,
        revision=entry.revision,
        default_transforms=entry.default_transforms,
        conditions=entry.conditions,
        blocks=entry.blocks,
    )


@cache
def _bundled_info(name: str) -> BackboneInfo:
    from napari_hrdv2.core.backbones.embedded import EmbeddedBackbone
    from napari_hrdv2.core.backbones.filters.bank import FilterBank

    own = EmbeddedBackbone if name == "embedded" else FilterBank
    return BackboneInfo(
        name,
        bundled_channels(name, 1),
        own.patch_size,
        "BSD-3-Clause",
        default_transforms=own.default_transforms,
        absolute_levels=own.absolute_levels,
    )


def bundled_channels(name: str, image_channels: int) -> int:
    """Return the channels of a backbone that the package brings along, unloaded."""
    from napari_hrdv2.core.backbones.embedded.network import ConvNetConfig
    from napari_hrdv2.core.backbones.filters.bank import filter_names

    learned = ConvNetConfig().channels if name == "embedded" else 0
    return learned + len(filter_names(image_channels))


def backbone_state(name: str) -> State:
    """Return what a backbone still needs; no network is touched.

    ``"ready"`` needs nothing and ``"cached"`` is on this machine. ``"download"`` is
    fetched when it is first used, ``"gated"`` likewise, once its owner's conditions are
    accepted. The weights of ``"file"`` are not on the Hub: a file must be given. A
    joined name ("a+b") has the state of the part that needs most.
    """
    return max((_state(part) for part in name.split("+")), key=STATES.index)


def _state(name: str) -> State:
    require_known(name)
    if name in _BUNDLED:
        return "ready"
    from napari_hrdv2.core.backbones.files.hub import cached_weights

    source = hub_source(name)
    if not source.repository:  # its files are not on the Hub
        return "file"
    cached = cached_weights(
        source.repository, revision=source.revision, filename=source.filename
    )
    if cached is not None:
        return "cached"
    base, _ = split_facets(name)
    gated = not is_unnamed_hub_id(base) and spec_of(base).gated
    return "gated" if gated else "download"


def hub_source(name: str) -> HubSource:
    """Return where on the Hub the weights of a backbone are."""
    base, _ = split_facets(name)
    if is_unnamed_hub_id(base):
        return HubSource(base)
    entry = spec_of(base)
    return HubSource(entry.repository, entry.revision, entry.filename)


# --- Names ----------------------------------------------------------------------------
_FACETS: Mapping[str, Literal["token", "query", "key", "value", "attention"]] = {
    "t": "token",
    "q": "query",
    "k": "key",
    "v": "value",
    "a": "attention",
}


def split_facets(name: str) -> tuple[str, tuple[Facet, ...]]:
    """Return a name without its facets, and those: "dino-small-8@k9,k11" has two."""
    base, at, text = name.partition("@")
    facets = []
    for part in text.split(",") if at else ():
        match = re.fullmatch(r"([tqkva])(\d+)", part)
        if match is None:
            raise ValueError(
                f"backbone: {part!r} in {name!r} is not a facet; write t (tokens), q, "
                "k, v or a (attention) with the number of a block, 0 for the first, "
                "such as @k9 or @t8,k11"
            )
        facets.append(Facet(_FACETS[match[1]], int(match[2])))
    return base, tuple(facets)


def spec_of_repository(repository: str) -> BackboneSpec | None:
    """Return the registry's entry for a Hub repository of one network, or None."""
    found = (
        entry
        for entry in SPECS.values()
        if entry.repository == repository and entry.filename is None
    )
    return next(found, None)


def spec_of(name: str) -> BackboneSpec:
    """Return the registry's entry for a name, without facets, or a Hub id."""
    entry = spec_of_repository(name)
    if entry is not None:
        return entry
    require_known(name)
    return SPECS[name]


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form owner/name."""
    return name.count("/") == 1 and all(name.split("/"))


def is_unnamed_hub_id(name: str) -> bool:
    """Return whether it is the id of a repository that no entry has."""
    return is_hub_id(name) and spec_of_repository(name) is None


def require_known(name: str) -> None:
    """Raise ValueError with what comes near unless the registry has the name."""
    base, facets = split_facets(name)
    if not is_hub_id(base):
        _require_name(base)
    if facets and not is_unnamed_hub_id(base):
        require_blocks(name, facets, 0 if base in _BUNDLED else spec_of(base).blocks)


def _require_name(name: str) -> None:
    if name in _BUNDLED or name in SPECS:
        return
    family = name.partition(":")[0]
    variants = backbone_variants(family)
    if variants:
        raise ValueError(
            f"backbone: {family} has no variant {name.removeprefix(family)!r}; its "
            f"variants are {', '.join(variants)}"
        )
    names = backbone_names()
    near = difflib.get_close_matches(name, names, n=2)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ValueError(
        f"backbone: {name!r} is unknown{hint}; it can be {', '.join(names)}, a Hub id "
        "(owner/name), or several joined by +"
    )


def require_blocks(name: str, facets: tuple[Facet, ...], blocks: int) -> None:
    """Raise ValueError unless a network of so many blocks has the facets."""
    last = max((facet.block for facet in facets), default=-1)
    if last < blocks:
        return
    has = f"its blocks are 0 to {blocks - 1}" if blocks else "it has no blocks"
    raise ValueError(f"backbone: {name!r} asks for block {last}; {has}")
