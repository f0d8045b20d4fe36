"""From the name of a Vision Transformer to the backbone, with its weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from napari_hrdv2.core.backbones import registry as _registry
from napari_hrdv2.core.backbones.files.downloads import download_weights
from napari_hrdv2.core.backbones.registry import (
    hub_source,
    is_unnamed_hub_id,
    require_blocks,
    spec_of,
    split_facets,
)
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.entries import ViTSpec
from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.errors import is_out_of_memory

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.model import ViTConfig
    from napari_hrdv2.core.backbones.vit.weights import Weights

Source = str | os.PathLike[str] | None
Progress = Callable[[int, int], None]


def load_vit(
    name: str,
    weights: Source,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> ViTBackbone:
    """Return the Vision Transformer of that name; see `load_backbone`."""
    dtype = choose_precision(device, precision)
    # Tokens are kept in half precision even where passes are faster in float32.
    keep_half = precision == "auto" and dtype is torch.float32
    _, facets = split_facets(name)
    config = _config(name, weights)
    require_blocks(name, facets, config.depth)
    try:
        found = _weights(name, config, weights, progress)
        return ViTBackbone(
            name,
            config,
            found,
            device=device,
            dtype=dtype,
            token_dtype=torch.float16 if keep_half else dtype,
            facets=facets,
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"backbone: the weights of {name} do not fit into the memory there is for "
            f"{device}; choose a smaller backbone or another device"
        ) from error


def _config(name: str, weights: Source) -> ViTConfig:
    """Return a named shape, or the one in the config.json beside the weights."""
    from napari_hrdv2.core.backbones.vit.weights import read_config

    entry = _vit_entry(name)
    return read_config(config_file(name, weights)) if entry is None else entry.config


def config_file(name: str, weights: Source) -> Path:
    """Return the config.json of a Hub id: beside the weights, or of the repository.

    What prepares its images lies beside it wherever the model needs that.
    """
    from napari_hrdv2.core.backbones.files.hub import fetch_config, fetch_preprocessor
    from napari_hrdv2.core.backbones.vit.weights import tells_normalisation

    if weights not in (None, "random"):
        path = Path(weights).expanduser()
        beside = (path if path.is_dir() else path.parent) / "config.json"
        if beside.is_file():
            return beside
    source = hub_source(name)
    path = fetch_config(source.repository, revision=source.revision)
    if not tells_normalisation(path):
        fetch_preprocessor(source.repository, revision=source.revision)
    return path


def _vit_entry(name: str) -> ViTSpec | None:
    base, _ = split_facets(name)
    if is_unnamed_hub_id(base):
        return None
    entry = spec_of(base)
    assert isinstance(entry, ViTSpec)
    return entry


def _weights(
    name: str, config: ViTConfig, weights: Source, progress: Progress | None
) -> Weights:
    from napari_hrdv2.core.backbones.vit.weights import load_weights, random_weights

    if weights == "random":
        return random_weights(config)
    entry = _vit_entry(name)
    return load_weights(
        download_weights(name, progress) if weights is None else weights,
        config,
        known=_known(name),
        teacher=entry is not None and entry.teacher,
    )


def _known(name: str) -> dict[str, ViTConfig]:
    """Return the networks to suggest in place of one, those of its family first."""

    def strangeness(other: str) -> bool:
        return other.split("-")[0] != name.split("-")[0]

    entries = _registry.SPECS
    return {
        other: entry.config
        for other in sorted(entries, key=strangeness)
        if isinstance(entry := entries[other], ViTSpec)
    }
