"""The passes and the memory that computing features will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .tasks.context import bytes_text

if TYPE_CHECKING:
    import torch

    from napari_hrdv2.core.backbones import BackboneSpec, LoadOptions
    from napari_hrdv2.core.features.options import FeatureOptions

_SUPPOSED_CHANNELS = 768  # of a Hub id, of which nothing is known yet: a ViT-B's


@dataclass(frozen=True)
class Cost:
    """What computing the features takes."""

    passes: int
    kept_bytes: int
    peak_bytes: int
    available_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the memory there is suffices."""
        return self.peak_bytes <= self.available_bytes

    def brief(self) -> str:
        """Return the cost in few words."""
        return f"{self._passes()}, {bytes_text(self.peak_bytes)}"

    def text(self) -> str:
        """Return the cost in words."""
        free = bytes_text(self.available_bytes)
        return (
            f"{self._passes()}, {bytes_text(self.peak_bytes)} of memory "
            f"needed, {bytes_text(self.kept_bytes)} kept ({free} free)"
        )

    def _passes(self) -> str:
        return "1 pass" if self.passes == 1 else f"{self.passes} passes"

    def as_dict(self) -> dict[str, int]:
        """Return the numbers under the names that the command line gives them."""
        return {
            "passes": self.passes,
            "peak_bytes": self.peak_bytes,
            "kept_bytes": self.kept_bytes,
        }

    def refusal(self) -> str:
        """Return the sentence that says why this cannot be computed here."""
        return (
            f"These features need {bytes_text(self.peak_bytes)} of memory and "
            f"{bytes_text(self.available_bytes)} are free: choose fewer transforms, a "
            "larger stride, a smaller backbone or a smaller image."
        )


@dataclass(frozen=True)
class _Outline:
    """A backbone as far as its cost goes: its row of the registry, on a device."""

    spec: BackboneSpec
    device: torch.device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.spec, name)

    @property
    def dtype(self) -> torch.dtype:
        return self._options.token_dtype

    @property
    def activations(self) -> int:
        whole = self._options.dtype.itemsize == 4
        half = self.spec.half_activations
        return self.spec.activations if whole or half is None else half

    @property
    def _options(self) -> LoadOptions:
        from napari_hrdv2.core.backbones import LoadOptions

        return LoadOptions(None, self.device)

    def channels_for(self, image_channels: int) -> int:
        return self.spec.channels_for(image_channels) or _SUPPOSED_CHANNELS

    def tokens(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        raise NotImplementedError("an outline computes nothing")


def estimate_cost(image_shape: tuple[int, ...], options: FeatureOptions) -> Cost:
    """Return what the features of an image of this shape cost; loads no weights."""
    from napari_hrdv2.core.backbones import JoinedBackbone, backbone_info
    from napari_hrdv2.core.devices import available_memory, choose_device
    from napari_hrdv2.core.features.memory import estimate

    device = choose_device(options.device)
    names = options.backbone.split("+")
    parts: Any = tuple(_Outline(backbone_info(name), device) for name in names)
    needed = estimate(
        (image_shape[0], image_shape[1]),
        JoinedBackbone(parts),
        options.transforms,
        options.stride,
        image_channels=3 if len(image_shape) == 3 else 1,
        interpolation=options.interpolation,
        debias=options.debias,
    )
    available = available_memory(device)
    if device.type == "cuda":
        # What does not fit on the device is kept, or computed, in main memory.
        available += available_memory(choose_device("cpu"))
    return Cost(
        needed.passes,
        needed.token_bytes,
        needed.peak_bytes,
        available,
    )
