"""A name and a file give a network of SPiT."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from napari_hrdv2.core.backbones.files.checkpoint import weights_file
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
from napari_hrdv2.core.backbones.spit.entries import SPIT_SPECS, SpitSpec
from napari_hrdv2.core.backbones.spit.weights import load_weights, random_weights
from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.errors import WeightsError

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.weights import Weights


def load_spit(
    name: str,
    weights: str | os.PathLike[str] | None,
    device: torch.device,
    precision: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> SpitBackbone:
    """Return the network of that name.

    Parameters
    ----------
    name : str
        A key of `SPIT_SPECS`.
    weights : path-like or "random"
        The authors' file, or seeded random weights.
    device : torch.device
    precision : str
        See `load_backbone`.
    progress : callable, optional
        Not called: nothing is downloaded.

    Raises
    ------
    WeightsError
        If there is no file, or it is that of another network.
    """
    entry = SPIT_SPECS[name]
    dtype = choose_precision(device, precision)
    # Tokens are kept in half precision even where passes are faster in float32.
    keep_half = precision == "auto" and dtype is torch.float32
    return SpitBackbone(
        name,
        entry.config,
        _weights(name, weights),
        device=device,
        dtype=dtype,
        token_dtype=torch.float16 if keep_half else dtype,
        compactness=entry.compactness,
    )


def _weights(name: str, source: str | os.PathLike[str] | None) -> Weights:
    entry = SPIT_SPECS[name]
    if source == "random":
        return random_weights(entry.config)
    if source is None:
        raise WeightsError(f"weights: {name}: {entry.conditions}")
    path = weights_file(source)
    _require_same_network(name, entry, path)
    return load_weights(path, entry.config)


def _require_same_network(name: str, entry: SpitSpec, path: Path) -> None:
    """Refuse the file of another network, whose tensors have the same shapes."""
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    known = [other for other, one in SPIT_SPECS.items() if one.md5 == md5]
    if known and name not in known:
        other = known[0]
        raise WeightsError(
            f"weights: {path} is {SPIT_SPECS[other].file}, not "
            f"{entry.file or name}; load it as {other}"
        )
