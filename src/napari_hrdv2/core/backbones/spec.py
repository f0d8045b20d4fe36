"""What the registry knows of every network whose weights are downloaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.model import Facet


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(ABC):
    """A network of the registry; a subclass for each kind of network.

    Attributes
    ----------
    repository : str
        The Hub repository with its weights.
    revision : str or None
        The commit it is pinned to; None for the newest.
    filename : str or None
        The file in the repository; by default the usual names are tried.
    licence : str
        Of the weights.
    gated : bool
        Whether the repository asks to accept its conditions before a download.
    listed : bool
        Whether lists of backbones show it; variants of others are left out.
    loader : str
        The key of the function that loads it, see `load_backbone`.
    default_transforms : str
        The transform set that "auto" stands for.
    """

    repository: str
    revision: str | None = None
    filename: str | None = None
    licence: str = "Apache-2.0"
    gated: bool = False
    listed: bool = True
    loader: ClassVar[str]
    default_transforms: ClassVar[str] = "shift:1,2"

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of a token."""

    @abstractmethod
    def operations(self, *, tokens: int, facets: tuple[Facet, ...] = ()) -> int:
        """Return the floating-point operations of a pass over so many tokens."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side in pixels of the square that a token stands for."""

    @property
    def blocks(self) -> int:
        """How many blocks facets can be taken of; 0 where there are no facets."""
        return 0

    def channels_of(self, facets: tuple[Facet, ...]) -> int:
        """Return the channels of facets side by side, or of a token without any."""
        return self.channels

    @property
    def conditions(self) -> str:
        """What must be done to have the weights, or ""."""
        if not self.gated:
            return ""
        licence = self.licence.removesuffix(" (gated)")
        return (
            f"The weights have terms of their own, the {licence}: read and accept them "
            f"at https://huggingface.co/{self.repository} and log in with `hf auth "
            "login`"
        )

    @property
    @abstractmethod
    def download_bytes(self) -> int:
        """Size of the file to download."""
