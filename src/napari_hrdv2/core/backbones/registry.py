"""The table of backbones: one row for each, how names are read, and loading by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, get_args

from napari_hrdv2.core.devices import choose_device
from napari_hrdv2.core.errors import is_out_of_memory

from .base import (
    Backbone,
    BackboneSpec,
    JoinedBackbone,
    Loader,
    LoadOptions,
    Progress,
    Source,
)
from .embedded.backbone import EMBEDDED, EMBEDDED_0_1
from .filters import FILTERS
from .hub import PREPROCESSORS, cached_weights, fetch, fetch_config
from .spit.backbone import SPIT_SPECS
from .transformers import load_transformers
from .vit.specs import VIT_SPECS, ViTSpec, load_vit, parse_facets
from .vit.weights import read_config, tells_normalisation

DEFAULT_BACKBONE = "embedded"
State = Literal["ready", "cached", "download", "gated", "file"]  # needs ever more

SPECS: dict[str, BackboneSpec] = {
    spec.name: spec for spec in (EMBEDDED, EMBEDDED_0_1, FILTERS)
}
SPECS |= VIT_SPECS
SPECS |= SPIT_SPECS


def register(spec: BackboneSpec) -> None:
    """Add a backbone: window, command line, projects and scripts then know it."""
    if spec.name in SPECS:
        raise ValueError(f"name: there is a backbone {spec.name} already")
    if not spec.name or set(spec.name) & set("+@/"):
        raise ValueError(f"name: {spec.name!r} is empty or has one of + @ / in it")
    SPECS[spec.name] = spec


def backbone_names() -> tuple[str, ...]:
    """Return the names to choose from, the default first.

    `load_backbone` knows more: variants of these, after a colon, and facets, after @.
    """
    return tuple(name for name, spec in SPECS.items() if spec.listed)


def backbone_variants(name: str) -> tuple[str, ...]:
    """Return the names of a backbone's variants, such as neco-small:dinov2-teacher."""
    return tuple(other for other in SPECS if other.startswith(f"{name}:"))


def name_for(name: str, weights_hash: str) -> str:
    """Return the name that weights have now; those of a former version are a variant's.

    Examples
    --------
    >>> name_for("embedded", "06f29b4ad5077344"), name_for("filters", "")
    ('embedded:0.1', 'filters')
    """
    variants = map(SPECS.__getitem__, backbone_variants(name))
    kept = (s.name for s in variants if s.former_hash and s.former_hash == weights_hash)
    return next(kept, name)


def backbone_info(name: str) -> BackboneSpec:
    """Return what there is to know of a name, not a joined one, before it is loaded.

    Of a Hub id that the registry does not name, little is known: no channels, no size,
    and the patch size of DINOv2.
    """
    base, at, facets = name.partition("@")
    if at and not facets:
        parse_facets(name, facets)  # which refuses it
    return _row(base).with_facets(name, facets)


def _row(name: str) -> BackboneSpec:
    """Return the row of a name without facets, or what stands for one of a Hub id."""
    if name in SPECS:
        return SPECS[name]
    if name.count("/") == 1 and all(name.split("/")):
        rows = (s for s in SPECS.values() if s.source == name and s.filename is None)
        return next(rows, HubSpec(name=name, source=name))
    family = name.partition(":")[0]
    if variants := backbone_variants(family):
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


def backbone_state(name: str) -> State:
    """Return what a backbone still needs; no network is touched.

    ``"ready"`` needs nothing and ``"cached"`` is on this machine. ``"download"`` is
    fetched when it is first used, ``"gated"`` likewise, once its owner's conditions are
    accepted. The weights of ``"file"`` are not on the Hub: a file must be given. A
    joined name ("a+b") has the state of the part that needs most.
    """
    if "+" in name:
        return max(map(backbone_state, name.split("+")), key=get_args(State).index)
    spec = backbone_info(name)
    if spec.bundled:
        return "ready"
    if not spec.source:
        return "file"
    if cached_weights(spec) is not None:
        return "cached"
    return "gated" if spec.gated else "download"


# --- Loading --------------------------------------------------------------------------
def load_backbone(
    name: str,
    weights: Source | Mapping[str, Source] = None,
    device: str = "auto",
    *,
    precision: str = "auto",
    progress: Progress | None = None,
) -> Backbone | JoinedBackbone:
    """Return the backbone of that name, ready to compute.

    Parameters
    ----------
    name : str
        A name of `backbone_names` or `backbone_variants`, a Hub id ("owner/name"), or
        several joined by "+". After @ come facets of a ViT in place of the tokens of
        its last block, side by side as channels: "dino-small-8@k9,k11" are the keys of
        blocks 9 and 11, t the tokens, q the queries, v the values and a the attention
        of the class token.
    weights : path-like or mapping of str to path-like, optional
        A local checkpoint or a folder with one; ``"random"`` for seeded random
        weights, for tests and benchmarks. By default the Hub's cache, or a download.
        Of a joined name, a file of the embedded backbone is for that part, and any
        other for those that the package does not bring along. A mapping gives each
        part its own.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    precision : str
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    progress : callable, optional
        Called with bytes done and bytes in all while weights are downloaded. What it
        raises ends the download.

    Raises
    ------
    ValueError
        If the name is unknown, or its facets are of no such block; as WeightsError if
        the weights cannot be had or do not fit.
    MemoryError
        If they do not fit into the memory of the device.
    """
    for argument, value in (("name", name), ("device", device)):
        if not isinstance(value, str):
            raise TypeError(f"{argument}: {value!r} is not a string; give a name")
    # Before anything is downloaded: a misspelt second part should not cost the first.
    specs = [backbone_info(part) for part in name.split("+")]
    sources = sources_of(name, weights)
    chosen = choose_device(device)
    parts: list[Backbone] = []
    for spec in specs:
        options = LoadOptions(sources[spec.name], chosen, precision, progress)
        try:
            parts.append(spec.load(options))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(
                f"backbone: the weights of {spec.name} do not fit into the memory "
                f"there is for {chosen}; choose a smaller backbone or another device"
            ) from error
    return parts[0] if len(parts) == 1 else JoinedBackbone(tuple(parts))


def sources_of(name: str, weights: Source | Mapping[str, Source]) -> dict[str, Source]:
    """Return where the weights of each part of a name come from; None: as published.

    `weights` as in `load_backbone`.
    """
    specs = [backbone_info(part) for part in name.split("+")]
    names = [spec.name for spec in specs]
    if isinstance(weights, Mapping):
        if strange := [key for key in weights if key not in names]:
            raise ValueError(
                f"weights: {', '.join(map(repr, strange))} is no part of "
                f"{'+'.join(names)}"
            )
        sources = {part: weights.get(part) for part in names}
    else:
        takers = _takers(specs, weights)
        sources = {s.name: weights if s in takers else None for s in specs}
    for part, source in sources.items():
        if source is not None and not isinstance(source, str | os.PathLike):
            raise TypeError(
                f"weights: {source!r} for {part} is not a path; give a file, a folder "
                'or "random"'
            )
    return sources


def _takers(specs: list[BackboneSpec], weights: Source) -> list[BackboneSpec]:
    """Return the parts that one file is for."""
    if len(specs) == 1:
        return specs
    known = [s for s in specs if s.recognises is not None and s.recognises(weights)]
    others = [s for s in specs if not s.bundled]
    return known or others or [s for s in specs if s.takes_weights]


# --- Repositories of the Hub that have no row -----------------------------------------
def load_hub_id(spec: HubSpec, options: LoadOptions) -> Backbone:
    """Load a repository's model as our own ViT if it is one, else by transformers."""
    path = _config_file(spec, options.weights)
    config = read_config(path)
    if config is not None:
        vit = ViTSpec(name=spec.name, source=spec.source, config=config)
        return load_vit(vit.with_facets(spec.name, spec.facets), options)
    if spec.facets:
        raise ValueError(
            f"backbone: {spec.name!r} asks for facets of a model that napari-hrdv2 "
            "does not know itself; leave out what follows @"
        )
    return load_transformers(spec, path, options)


def _config_file(spec: HubSpec, weights: Source) -> Path:
    """Return the config.json of a Hub id: beside the weights, or of the repository."""
    if weights not in (None, "random"):
        path = Path(weights).expanduser()
        beside = (path if path.is_dir() else path.parent) / "config.json"
        if beside.is_file():
            return beside
    path = fetch_config(spec)
    if not tells_normalisation(path):  # then it is in a file beside
        fetch(spec, PREPROCESSORS)
    return path


@dataclass(frozen=True, kw_only=True)
class HubSpec(BackboneSpec):
    """A repository of the Hub of which nothing is known yet."""

    loader: Loader = load_hub_id  # type: ignore[assignment]
    channels: int = 0
    patch_size: int = 14
    licence: str = "see its page on the Hub"
    listed: bool = False
    shape_from_hub: bool = True
    facets: str = ""

    def with_facets(self, name: str, facets: str) -> Self:
        """Return it under a full name; whether it has the blocks is seen later."""
        if facets:
            parse_facets(name, facets)
        return replace(self, name=name, facets=facets)
