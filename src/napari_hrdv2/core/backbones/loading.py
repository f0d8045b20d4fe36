"""A name gives a backbone: what turns a batch of images into a grid of tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import torch

from napari_hrdv2.core.backbones.files.downloads import HubFile, download_files
from napari_hrdv2.core.backbones.registry import (
    DEFAULT_BACKBONE,
    BackboneInfo,
    backbone_info,
    backbone_names,
    backbone_state,
    backbone_variants,
    is_unnamed_hub_id,
    require_known,
    spec_of,
    split_facets,
)
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
from napari_hrdv2.core.backbones.spit.loading import load_spit
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.loading import config_file, load_vit
from napari_hrdv2.core.devices import choose_device, choose_precision

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DEFAULT_BACKBONE",
    "Backbone",
    "BackboneInfo",
    "GridBackbone",
    "HubFile",
    "JoinedBackbone",
    "SpitBackbone",
    "ViTBackbone",
    "backbone_info",
    "backbone_names",
    "backbone_state",
    "backbone_variants",
    "download_files",
    "load_backbone",
]

Source = str | os.PathLike[str] | None
Progress = Callable[[int, int], None]


class GridBackbone(Protocol):
    """What turns a batch of images into a grid of tokens.

    Attributes
    ----------
    name : str
        The registry's name, or the Hub id.
    channels : int
        Channels of a token; see `channels_for`.
    patch_size : int
        Side of the square of pixels that a token stands for.
    equivariant : bool
        Whether shifting or flipping the image does the same to the tokens, so that
        transforms of the image add nothing.
    default_transforms : str
        The transform set that "auto" stands for.
    absolute_levels : bool
        Whether the tokens change with the brightness and contrast of an image.
    activations : int
        Memory that a pass needs, in units of that of its tokens.
    surroundings : int
        Side in pixels of the cells that means of the tokens are kept on beside them,
        see `SurroundedFeatures`; 0 for none.
    device, dtype : torch.device, torch.dtype
        Where the tokens are computed, and the number format they come in.
    weights_hash : str
        The fingerprint of the weights; empty where there are none.
    steps : int
        How often ``tick`` is called in one call of `tokens`.
    """

    name: str
    channels: int
    patch_size: int
    equivariant: bool
    default_transforms: str
    absolute_levels: bool
    activations: int
    context_cell: int
    device: torch.device
    dtype: torch.dtype
    weights_hash: str
    steps: int

    def tokens(
        self,
        images: Tensor,
        *,
        stride: int,
        tick: Callable[[], None] | None = None,
    ) -> Tensor:
        """Return the tokens of a batch of images.

        Parameters
        ----------
        images : (B, 1 or 3, H, W) float32 tensor
            Nominally in 0..1, on `device`; H and W are `patch_size` plus a whole
            number of strides.
        stride : int
            Pixels between tokens.
        tick : callable, optional
            Called `steps` times. What it raises ends the computation.

        Returns
        -------
        (B, h, w, C) tensor of `dtype`
            h = 1 + (H - patch_size) // stride, w likewise.
        """
        ...

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token for an image of that many channels."""
        ...

    def channel_weights_for(self, image_channels: int) -> Tensor | None:
        """Return how much to trust each channel, see `Features`; None for all alike."""
        ...

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself; tokens keep their number format."""
        ...


# One that divides images by itself gives features in one go, not a grid of tokens.
Backbone = GridBackbone | SpitBackbone


@dataclass(frozen=True)
class JoinedBackbone:
    """Several backbones whose features stand side by side as channels.

    Each has its own grid of tokens, so tokens are asked of the parts.

    Attributes
    ----------
    parts : tuple of Backbone
    """

    parts: tuple[Backbone, ...]

    @property
    def name(self) -> str:
        """The names of the parts, joined by +."""
        return "+".join(part.name for part in self.parts)

    @property
    def channels(self) -> int:
        """The channels of all parts."""
        return sum(part.channels for part in self.parts)

    @property
    def device(self) -> torch.device:
        """The device of the first part; all are loaded to the same."""
        return self.parts[0].device

    @property
    def weights_hash(self) -> str:
        """The fingerprints of the parts, joined by +."""
        return "+".join(part.weights_hash for part in self.parts)

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of all parts for an image of that many channels."""
        return sum(part.channels_for(image_channels) for part in self.parts)

    def to(self, device: str | torch.device) -> JoinedBackbone:
        """Move every part to a device and return itself."""
        for part in self.parts:
            part.to(device)
        return self


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
        A mapping gives each part of a joined name its own.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    precision : str
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    progress : callable, optional
        Called with bytes done and bytes in all while weights are downloaded. What it
        raises ends the download.

    Raises
    ------
    MemoryError
        If the weights do not fit into the memory of the device.
    TypeError
        If an argument is not of these kinds.
    ValueError
        If the name is unknown, or its facets are of no such block.
    WeightsError
        If the weights cannot be had or do not fit.
    """
    for argument, value in (("name", name), ("device", device)):
        if not isinstance(value, str):
            raise TypeError(f"{argument}: {value!r} is not a string; give a name")
    names = name.split("+")
    sources = _sources(names, weights)
    # Before anything is downloaded: a misspelt second part should not cost the first.
    for part in names:
        require_known(part)
        _check_source(part, sources[part])
    chosen = choose_device(device)
    parts = tuple(
        _load(part, sources[part], chosen, precision, progress) for part in names
    )
    return parts[0] if len(parts) == 1 else JoinedBackbone(parts)


def _sources(
    names: list[str], weights: Source | Mapping[str, Source]
) -> dict[str, Source]:
    if not isinstance(weights, Mapping):
        joined = len(names) > 1
        own = ("embedded", "filters") if joined else ()  # they have what they need
        return {n: None if n in own else weights for n in names}
    strange = [key for key in weights if key not in names]
    if strange:
        raise ValueError(
            f"weights: {', '.join(map(repr, strange))} is no part of {'+'.join(names)}"
        )
    return {n: weights.get(n) for n in names}


def _check_source(name: str, weights: object) -> None:
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"weights: {weights!r} for {name} is not a path; give a file, a folder or "
            '"random"'
        )


def _load(
    name: str,
    weights: Source,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> Backbone:
    base, _ = split_facets(name)
    loader = "hub"
    if base in ("embedded", "filters"):
        loader = base
    elif not is_unnamed_hub_id(base):
        loader = spec_of(base).loader
    return _LOADERS[loader](name, weights, device, precision, progress)


def _load_embedded(
    name: str,
    weights: Source,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> Backbone:
    from napari_hrdv2.core.backbones.embedded import EmbeddedBackbone

    return EmbeddedBackbone(device, choose_precision(device, precision), weights)


def _load_filters(
    name: str,
    weights: Source,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> Backbone:
    from napari_hrdv2.core.backbones.filters.bank import FilterBank

    if weights not in (None, "random"):
        raise ValueError(f"weights: filters has none; {os.fspath(weights)!r} was given")
    if precision == "auto":
        return FilterBank(device)
    return FilterBank(device, choose_precision(device, precision))


def _load_hub_id(
    name: str,
    weights: Source,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> Backbone:
    """Load a repository's model as our own ViT if it is one, else by transformers."""
    from napari_hrdv2.core.backbones.vit.weights import knows_type

    path = config_file(name, weights)
    if knows_type(path):
        return load_vit(name, weights, device, precision, progress)
    from napari_hrdv2.core.backbones.transformers.loading import load_transformers

    if split_facets(name)[1]:
        raise ValueError(
            f"backbone: {name!r} asks for facets of a model that napari-hrdv2 does not "
            "know itself; leave out what follows @"
        )
    return load_transformers(name, path, weights, device, precision, progress)


# Another kind of network adds its loader here and its entries to the registry.
Loader = Callable[[str, Source, torch.device, str, Progress | None], Backbone]
_LOADERS: Mapping[str, Loader] = {
    "embedded": _load_embedded,
    "filters": _load_filters,
    "spit": load_spit,
    "hub": _load_hub_id,
    "vit": load_vit,
}
