"""The networks of SPiT's authors: shapes, and where their weights are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_hrdv2.core.backbones.spec import BackboneSpec
from napari_hrdv2.core.backbones.spit.encoder import SpitConfig, density, operations
from napari_hrdv2.core.backbones.spit.tokens import BINS
from napari_hrdv2.core.backbones.spit.weights import shapes_of
from napari_hrdv2.core.backbones.superpixels import COMPACTNESS

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.model import Facet

PAGE = "https://github.com/dsb-ifi/SPiT"
_CLASSES = 1000  # of the classifier in the files


@dataclass(frozen=True, kw_only=True)
class SpitSpec(BackboneSpec):
    """A network of SPiT's authors. Their files are not on the Hub.

    Attributes
    ----------
    config : SpitConfig
    file : str
        What the authors call it; "" where they published no weights.
    md5 : str
        Of the file, as they give it: the tensors alone don't tell the networks apart.
    compactness : float
        See `superpixels`.
    """

    config: SpitConfig
    file: str = ""
    md5: str = ""
    compactness: float = COMPACTNESS
    repository: str = ""
    licence: str = "MIT"
    loader = "spit"
    default_transforms = "identity"

    @property
    def channels(self) -> int:
        """Channels of a token."""
        return self.config.embed_dim

    @property
    def patch_size(self) -> int:
        """About the side of a region in pixels."""
        return BINS

    @property
    def density(self) -> float:
        """How many regions an image has for each square of 16 px, about."""
        return density(self.config)

    def operations(self, *, tokens: int, facets: tuple[Facet, ...] = ()) -> int:
        """Return the operations of the encoder."""
        return operations(self.config, tokens)

    @property
    def conditions(self) -> str:
        """Where the file is to be had."""
        if not self.file:
            return "no weights of it were published; give a file of your own"
        return (
            f"its weights cannot be downloaded from here; fetch {self.file} by the "
            f"link at {PAGE} and give the file"
        )

    @property
    def download_bytes(self) -> int:
        """Size of the file, in float32."""
        width = self.config.embed_dim
        count = sum(math.prod(shape) for shape in shapes_of(self.config).values())
        absent = 3 * width * self.config.depth  # biases of the attention
        return 4 * (count - absent + (width + 1) * _CLASSES)


_SMALL = SpitConfig()
_BASE = SpitConfig(embed_dim=768, heads=12)

_ENTRIES: Mapping[str, SpitSpec] = {
    "spit-small": SpitSpec(
        config=_SMALL,
        file="SPiT-S16 (w. grad.)",
        md5="e49be7009c639c0ccda4bd68ed34e5af",
    ),
    "spit-base": SpitSpec(
        config=replace(_BASE, sigma=0.05),
        file="SPiT-B16 (w. grad.)",
        md5="9394072a5d488977b1af05c02aa0d13c",
    ),
    "rvit-small": SpitSpec(config=replace(_SMALL, partition="pca-tree")),
    "rvit-base": SpitSpec(
        config=replace(_BASE, partition="pca-tree"),
        file="RViT-B16 (w. grad.)",
        md5="50d25403adfd5a12d7cb07f7ebfced97",
    ),
    "spit-small:grid": SpitSpec(
        config=replace(_SMALL, partition="squares"),
        file="ViT-S16 (w. grad.)",
        md5="b8e4f1f219c3baef47fc465eaef9e0d4",
        listed=False,
    ),
    "spit-base:grid": SpitSpec(
        config=replace(_BASE, partition="squares"),
        file="ViT-B16 (w. grad.)",
        md5="1caa683ecd885347208b0db58118bf40",
        listed=False,
    ),
    "spit-small:no-gradients": SpitSpec(
        config=replace(_SMALL, gradients=False),
        file="SPiT-S16",
        md5="8e899c846a75c51e1c18538db92efddf",
        listed=False,
    ),
    "spit-base:no-gradients": SpitSpec(
        config=replace(_BASE, gradients=False),
        file="SPiT-B16",
        md5="9d3483a4c6fdaf603ee6528824d48803",
        listed=False,
    ),
}

# The same files, on regions as they were in training: of flat areas few and large ones.
_AS_TRAINED: Mapping[str, SpitSpec] = {
    f"{name}:no-compactness": replace(_ENTRIES[name], compactness=0.0, listed=False)
    for name in ("spit-small", "spit-base")
}
SPIT_SPECS: Mapping[str, SpitSpec] = {**_ENTRIES, **_AS_TRAINED}
