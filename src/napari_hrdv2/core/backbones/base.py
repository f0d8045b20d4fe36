"""What a backbone is, and the row that describes one in the registry."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from numpy.typing import ArrayLike

from napari_hrdv2.core.checks import check_grey_or_rgb
from napari_hrdv2.core.devices import choose_precision

if TYPE_CHECKING:
    from torch import Tensor

Inside = tuple[slice, slice]
Source = str | os.PathLike[str] | None
Progress = Callable[[int, int], None]
Tick = Callable[[], None]
_CPU = torch.device("cpu")


def cut(planes: Tensor, spans: Iterable[slice]) -> Tensor:
    """Return some rows and columns of (..., H, W) planes."""
    rows, columns = spans
    return planes[..., rows, columns]


def evenly(tick: Tick | None, calls: int, ticks: int) -> Tick:
    """Return what calls `tick` so often in all when it is called `calls` times."""
    done = 0

    def called() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            for _ in range(done * ticks // calls - (done - 1) * ticks // calls):
                tick()

    return called


# --- Backbones in memory --------------------------------------------------------------
class BackboneBase(ABC):
    """What there is to know of a loaded backbone, and what most of them do alike."""

    name: str  # the registry's, or the Hub id
    channels: int  # of a token; see `channels_for`
    patch_size: int  # side of the square of pixels that a token stands for
    # Whether shifting or flipping the image does the same to the tokens, so that
    # transforms of the image add nothing.
    equivariant: bool = False
    default_transforms: str = "lattice:2"  # the transform set that "auto" stands for
    # Whether brightness and contrast change the tokens. Where they do not, `tokens`
    # takes ``levels`` too: the mean and deviation that become 0 and 1, or None.
    absolute_levels: bool = True
    # Memory that a pass needs, in units of that of its tokens. In a block of a ViT: the
    # residual stream, its norm, q, k, v, the attention's output and the hidden layer.
    activations: int = 14
    context_cell: int = 0  # side of the cells that context features are means of
    # How many pixels around a part of the image its tokens depend on; None for all that
    # there are. Where it is known, `tokens` takes ``inside`` too: the rows and columns
    # of the grid that are wanted, and other images than whole ones, which begin at a
    # multiple of `alignment` pixels and have the reach around what is inside.
    reach: int | None = None
    alignment: int = 1
    device: torch.device  # where tokens are computed
    dtype: torch.dtype  # the number format they come in
    weights_hash: str  # the fingerprint of the weights; empty where there are none
    steps: int  # how often `tokens` calls ``tick``

    @abstractmethod
    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Put the network on a device, to run in a number format."""

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token for an image of that many channels."""
        check_grey_or_rgb(self.name, image_channels)
        return self.channels

    def channel_weights_for(self, image_channels: int) -> Tensor | None:
        """Return the weight of each channel, see `Features`; None for all alike."""
        return None

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself; tokens keep their number format.

        A pass in half precision goes on in the format that is fast there.
        """
        device = torch.device(device)
        half = self.dtype is not torch.float32
        self._move(device, choose_precision(device) if half else torch.float32)
        return self

    def _check_batch(self, images: Tensor) -> None:
        if images.ndim != 4:
            raise ValueError(
                f"images: the shape is {tuple(images.shape)}; it must be (B, C, H, W)"
            )
        self.channels_for(images.shape[1])


class GridBackbone(BackboneBase):
    """What turns a batch of images into a grid of tokens.

    Whatever has the same attributes and methods will do.
    """

    @abstractmethod
    def tokens(
        self, images: Tensor, *, stride: int, tick: Tick | None = None
    ) -> Tensor:
        """Return the (B, h, w, C) tokens of (B, 1 or 3, H, W) float32 images in 0..1.

        H and W are `patch_size` plus a whole number of strides, the pixels between
        tokens: h = 1 + (H - patch_size) // stride. `tick` is called `steps` times; what
        it raises ends the computation.
        """


class RegionBackbone(BackboneBase):
    """What divides an image into regions of any shape and gives a token for each."""

    has_regions = True
    default_transforms = "identity"
    density: float  # regions for each square of `patch_size`, about

    @abstractmethod
    def tokens(
        self,
        image: Tensor,
        *,
        partition: ArrayLike | Tensor | None = None,
        tick: Tick | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the (n, C) tokens of a (1 or 3, H, W) image, and each pixel's, (H, W).

        The image is in 0..1, of any size. Each value of a partition, (H, W) whole
        numbers, is one region, 0 as well, and need not hang together; by default
        regions are the backbone's own. `tick` is as for `GridBackbone`.
        """

    @abstractmethod
    def saliency(self, image: Tensor, *, partition: ArrayLike | None = None) -> Tensor:
        """Return how much each region counts for the class token, (H, W) in 0..1."""


Backbone = GridBackbone | RegionBackbone


@dataclass(frozen=True)
class JoinedBackbone:
    """Several backbones whose features stand side by side as channels.

    Each has its own grid of tokens, so tokens are asked of the parts.
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


# --- Backbones in the registry --------------------------------------------------------
@dataclass(frozen=True)
class LoadOptions:
    """How a backbone is to be loaded; see `load_backbone`."""

    weights: Source = None
    device: torch.device = _CPU
    precision: str = "auto"
    progress: Progress | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The number format of a pass."""
        return choose_precision(self.device, self.precision)

    @property
    def token_dtype(self) -> torch.dtype:
        """The number format of tokens: half even where passes are faster in float32."""
        keep_half = self.precision == "auto" and self.dtype is torch.float32
        return torch.float16 if keep_half else self.dtype


IN_FLOAT32 = LoadOptions(precision="float32")
Loader = Callable[["BackboneSpec", LoadOptions], Backbone]


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """A row of the registry: all there is to know of a backbone before it is loaded."""

    name: str
    loader: Loader  # called with this row and `LoadOptions`
    channels: int  # of a token, for a grey image; 0: not known before it is loaded
    patch_size: int
    rgb_channels: int | None = None  # for an RGB image, where they are not the same
    description: str = ""  # what the channels are, in a few words
    licence: str = "Apache-2.0"  # of the weights
    source: str = ""  # the Hub repository with the weights, or ""
    revision: str | None = None  # the commit it is pinned to; None for the newest
    filename: str | None = None  # in the repository; None for the usual ones
    download_bytes: int = 0  # size of that file; 0 where it is not known
    gated: bool = False  # whether conditions must be accepted before a download
    bundled: bool = False  # whether the package brings along all that it needs
    # Whether a file can stand for what is bundled; None if none can.
    recognises: Callable[[Source], bool] | None = None
    references: tuple[str, ...] = ()  # what a paper that uses it cites
    listed: bool = True  # whether lists show it; variants of others are not listed
    former_hash: str = ""  # of weights that its base came with in a former version
    shape_from_hub: bool = False  # whether it is in the repository's config.json
    blocks: int = 0  # of how many blocks facets can be taken; 0: there are no facets
    has_attention: bool = False  # whether it can show what its class token attends to
    has_regions: bool = False  # whether it has one token for each region
    density: float = 1.0  # regions for each square of `patch_size`, about
    # The rest as in `GridBackbone`.
    default_transforms: str = "lattice:2"
    absolute_levels: bool = True
    equivariant: bool = False
    context_cell: int = 0
    reach: int | None = None
    alignment: int = 1
    activations: int = BackboneBase.activations

    @classmethod
    def of(cls, kind: type[GridBackbone], **others: Any) -> Self:
        """Return the row of a kind of backbone, with what its class says of it."""
        same = ["name", "patch_size", "default_transforms", "absolute_levels"]
        same += ["equivariant", "context_cell", "reach", "alignment", "activations"]
        return cls(**{field: getattr(kind, field) for field in same}, **others)

    @property
    def takes_weights(self) -> bool:
        """Whether a file of weights can be given for it."""
        return not self.bundled or self.recognises is not None

    @property
    def conditions(self) -> str:
        """What must be done to have the weights, or ""."""
        if not self.gated:
            return ""
        return (
            f"The weights have terms of their own, the "
            f"{self.licence.removesuffix(' (gated)')}: read and accept them at "
            f"https://huggingface.co/{self.source} and log in with `hf auth login`"
        )

    def with_facets(self, name: str, facets: str) -> Self:
        """Return the row under a full name, with facets such as "k9,k11" or ""."""
        if facets:
            raise ValueError(f"backbone: {name!r} asks for {facets}; it has no blocks")
        return replace(self, name=name)

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token for an image of that many channels."""
        grey = image_channels == 1 or self.rgb_channels is None
        return self.channels if grey else int(self.rgb_channels or 0)

    def load(self, options: LoadOptions) -> Backbone:
        """Return the backbone, ready to compute."""
        return self.loader(self, options)
