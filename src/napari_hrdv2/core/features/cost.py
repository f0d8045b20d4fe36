"""What features cost, from the registry alone: no weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.devices import bytes_text, choose_device

if TYPE_CHECKING:
    import torch

    from napari_hrdv2.core.backbones import BackboneSpec, JoinedBackbone

    from .options import FeatureOptions

SUPPOSED_CHANNELS = 768  # of a Hub id, of which nothing is known yet: a ViT-B's
ON_DEMAND = "computed where you look and paint"
REMEDY_OF_PATCHES = "choose fewer transforms, a larger stride, or a smaller backbone."


@dataclass(frozen=True)
class Cost:
    """What computing the features takes."""

    passes: int
    kept_bytes: int
    peak_bytes: int
    available_bytes: int
    remedy: str = "choose a smaller backbone or crop the image."
    block: int = 0  # side in pixels of the blocks that are computed one by one, if so

    @property
    def fits(self) -> bool:
        """Whether the memory there is suffices."""
        return self.peak_bytes <= self.available_bytes

    def brief(self) -> str:
        """Return the cost in few words."""
        return self._told("")

    def text(self) -> str:
        """Return the cost in words."""
        kept, free = map(bytes_text, (self.kept_bytes, self.available_bytes))
        return self._told(f" of memory needed, {kept} kept ({free} free)")

    def _told(self, memory: str) -> str:
        passes = "1 pass" if self.passes == 1 else f"{self.passes} passes"
        text = f"{passes}, {bytes_text(self.peak_bytes)}{memory}"
        return f"up to {text}; {ON_DEMAND}" if self.block else text

    def as_dict(self) -> dict[str, int]:
        """Return the numbers under the names that the command line gives them."""
        names = "passes", "peak_bytes", "kept_bytes"
        return {name: getattr(self, name) for name in names}

    def refused_in_blocks(self, error: ValueError) -> Cost:
        """Return it with the reason why blocks do not help."""
        return replace(self, remedy=f"{self.remedy} By blocks: {error}.")

    def refusal(self) -> str:
        """Return the sentence that says why this cannot be computed here."""
        needed, free = map(bytes_text, (self.peak_bytes, self.available_bytes))
        return (
            f"These features need {needed} of memory and {free} are free: {self.remedy}"
        )


@dataclass(frozen=True)
class _Outline:
    """A backbone as far as its cost goes: its row of the registry, on a device."""

    spec: BackboneSpec
    device: torch.device
    dtype: torch.dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self.spec, name)

    def channels_for(self, image_channels: int) -> int:
        return self.spec.channels_for(image_channels) or SUPPOSED_CHANNELS

    def tokens(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        raise NotImplementedError("an outline computes nothing")


def outline_of(options: FeatureOptions) -> JoinedBackbone:
    """Return a backbone as far as its cost goes; loads no weights."""
    from napari_hrdv2.core.backbones import JoinedBackbone, LoadOptions, backbone_info

    device = choose_device(options.device)
    dtype = LoadOptions(None, device).token_dtype
    parts: Any = [_Outline(backbone_info(n), device, dtype) for n in options.parts]
    return JoinedBackbone(tuple(parts))


def estimate_cost(
    image_shape: tuple[int, ...], options: FeatureOptions, block: int | None = None
) -> Cost:
    """Return what the features of an image of this shape cost; loads no weights.

    Of the whole at once, or in blocks of about so many pixels a side; resized first if
    the options have a `pixel_ratio`.
    """
    from napari_hrdv2.core.devices import available_memory

    from .blocks.grid import plan_blocks
    from .memory import estimate_of, make_plans
    from .resampled import resampling_factors, resized_shape

    backbone = outline_of(options)
    factors = resampling_factors(options.pixel_ratio)
    height, width = resized_shape(image_shape[:2], factors)
    shape, channels = (height, width), 3 if image_shape[2:] else 1
    given = shape, channels, backbone, options.transforms, options
    if block is not None:
        needed = plan_blocks(*given, block)[1]
    else:
        needed = estimate_of(make_plans(*given))
    free = available_memory(backbone.device)
    if backbone.device.type == "cuda":
        # What does not fit on the device is kept, or computed, in main memory.
        free += available_memory(choose_device("cpu"))
    cost = Cost(needed.passes, needed.token_bytes, needed.peak_bytes, free)
    has_patches = any(part.patch_size > 1 for part in backbone.parts)
    return replace(cost, remedy=REMEDY_OF_PATCHES) if has_patches else cost
