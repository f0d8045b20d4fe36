"""What computing features will take, told before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from napari_hrdv2.session.progress import bytes_text
from napari_hrdv2.session.settings import FeatureSettings, stride_in_pixels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cost:
    """What computing the features takes.

    Attributes
    ----------
    passes : int
        How often the backbone sees the image.
    kept_bytes, peak_bytes, available_bytes : int
        Memory kept afterwards, needed meanwhile, and there on this machine.
    """

    passes: int
    kept_bytes: int
    peak_bytes: int
    available_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the memory there is suffices."""
        return self.peak_bytes <= self.available_bytes

    def text(self) -> str:
        """Return the cost in words."""
        passes = "1 pass" if self.passes == 1 else f"{self.passes} passes"
        return (
            f"{passes}, {bytes_text(self.peak_bytes)} of memory needed, "
            f"{bytes_text(self.kept_bytes)} kept ({bytes_text(self.available_bytes)} "
            "free)"
        )

    def refusal(self) -> str:
        """Return the sentence that says why this cannot be computed here."""
        return (
            f"These features need {bytes_text(self.peak_bytes)} of memory and "
            f"{bytes_text(self.available_bytes)} are free: choose fewer transforms, a "
            "larger stride, a smaller backbone or a smaller image."
        )


@dataclass(frozen=True)
class _Outline:
    """A backbone as far as its cost goes, without its weights."""

    name: str
    patch_size: int
    channels: int
    dtype: torch.dtype
    default_transforms: str
    activations: int
    equivariant: bool = False

    def channels_for(self, image_channels: int) -> int:
        return self.channels

    def tokens(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        raise NotImplementedError("an outline computes nothing")


def estimate_cost(image_shape: tuple[int, ...], settings: FeatureSettings) -> Cost:
    """Return what the features of an image of this shape cost; loads no weights."""
    from napari_hrdv2.core.backbones import JoinedBackbone
    from napari_hrdv2.core.devices import available_memory, choose_device
    from napari_hrdv2.core.plan import estimate

    device = choose_device(settings.device)
    parts = tuple(_outline(name, device) for name in settings.backbone.split("+"))
    needed = estimate(
        (image_shape[0], image_shape[1]),
        JoinedBackbone(parts),
        settings.transforms,
        stride_in_pixels(settings),
        image_channels=3 if len(image_shape) == 3 else 1,
        interpolation=settings.interpolation,
        debias=settings.debias,
    )
    available = available_memory(device)
    if device.type == "cuda":
        # What does not fit on the device is kept, or computed, in main memory.
        available += available_memory(choose_device("cpu"))
    return Cost(needed.passes, needed.token_bytes, needed.peak_bytes, available)


def _outline(name: str, device: torch.device) -> Any:
    from napari_hrdv2.core.backbones import ViTBackbone, backbone_info
    from napari_hrdv2.core.devices import choose_precision

    info = backbone_info(name)
    if info.bundled:
        return _bundled(name)
    return _Outline(
        name,
        info.patch_size,
        info.channels,
        choose_precision(device),
        info.default_transforms,
        ViTBackbone.activations,
    )


@cache
def _bundled(name: str) -> Any:
    """Return a backbone that costs nothing to load."""
    from napari_hrdv2.core.embedded import EmbeddedBackbone
    from napari_hrdv2.core.filters import FilterBank

    return EmbeddedBackbone() if name == "embedded" else FilterBank()
