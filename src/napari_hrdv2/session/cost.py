"""What computing features will take, told before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_hrdv2.session.tasks.progress import bytes_text, duration_text

if TYPE_CHECKING:
    import torch

    from napari_hrdv2.core.backbones.spec import BackboneSpec
    from napari_hrdv2.core.backbones.vit.model import Facet
    from napari_hrdv2.core.features.options import FeatureOptions

_SUPPOSED_CHANNELS = 768  # of a Hub id, of which nothing is known yet: a ViT-B's
_POWERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True)
class Cost:
    """What computing the features takes.

    Attributes
    ----------
    passes : int
        How often the backbone sees the image.
    kept_bytes, peak_bytes, available_bytes : int
        Memory kept afterwards, needed meanwhile, and there on this machine.
    operations : int
        Floating-point operations of all passes; 0 where they are not known.
    seconds : float or None
        How long it takes on this machine, about: from the backbone's last run here,
        else from how fast matrices are multiplied; None where neither tells.
    """

    passes: int
    kept_bytes: int
    peak_bytes: int
    available_bytes: int
    operations: int = 0
    seconds: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the memory there is suffices."""
        return self.peak_bytes <= self.available_bytes

    def brief(self) -> str:
        """Return the cost in few words."""
        return ", ".join((*self._work(), bytes_text(self.peak_bytes)))

    def text(self) -> str:
        """Return the cost in words."""
        free = bytes_text(self.available_bytes)
        return (
            f"{', '.join(self._work())}, {bytes_text(self.peak_bytes)} of memory "
            f"needed, {bytes_text(self.kept_bytes)} kept ({free} free)"
        )

    def _work(self) -> list[str]:
        parts = ["1 pass" if self.passes == 1 else f"{self.passes} passes"]
        if self.operations:
            parts.append(operations_text(self.operations))
        if self.seconds is not None:
            parts.append(f"about {duration_text(self.seconds)}")
        return parts

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the numbers under the names that the command line gives them."""
        return {
            "passes": self.passes,
            "operations": self.operations or None,
            "seconds": self.seconds,
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


def operations_text(count: float) -> str:
    """Return a number of operations in words: ``"1.2 TFLOP"``, ``"850 GFLOP"``."""
    size, prefix = next((p for p in _POWERS if count >= p[0]), _POWERS[-1])
    number = count / size
    return f"{number:.1f} {prefix}FLOP" if number < 10 else f"{number:.0f} {prefix}FLOP"


@dataclass(frozen=True)
class _Outline:
    """A backbone as far as its cost goes, without its weights."""

    name: str
    device: torch.device
    dtype: torch.dtype
    patch_size: int
    default_transforms: str
    activations: int
    channels: int = 0
    entry: BackboneSpec | None = None
    facets: tuple[Facet, ...] = ()
    bundled: bool = False
    equivariant: bool = False
    context_cell: int = 0

    @property
    def has_regions(self) -> bool:
        return self.entry is not None and self.entry.loader == "spit"

    @property
    def density(self) -> float:
        return float(getattr(self.entry, "density", 1.0))

    def operations(self, *, tokens: int, pixels: int) -> int:
        if self.entry is None:  # a Hub id, of which nothing is known yet
            return 0
        return self.entry.operations(tokens=tokens, facets=self.facets)

    def channels_for(self, image_channels: int) -> int:
        from napari_hrdv2.core.backbones import registry as _registry

        if self.bundled:
            return _registry.bundled_channels(self.name, image_channels)
        return self.channels

    def tokens(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        raise NotImplementedError("an outline computes nothing")


def estimate_cost(image_shape: tuple[int, ...], options: FeatureOptions) -> Cost:
    """Return what the features of an image of this shape cost; loads no weights.

    The first time on a device, how fast it multiplies two matrices is measured.
    """
    from napari_hrdv2.core.backbones.loading import JoinedBackbone
    from napari_hrdv2.core.devices import available_memory, choose_device
    from napari_hrdv2.core.features.memory import estimate

    device = choose_device(options.device)
    parts = tuple(_outline(name, device) for name in options.backbone.split("+"))
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
        needed.operations,
        needed.seconds,
    )


def _outline(name: str, device: torch.device) -> Any:
    import torch

    from napari_hrdv2.core.backbones import registry as _registry
    from napari_hrdv2.core.backbones.loading import ViTBackbone, backbone_info
    from napari_hrdv2.core.devices import choose_precision

    if name in ("embedded", "filters"):
        return _bundled_outline(name, device)
    base, facets = _registry.split_facets(name)
    _registry.require_known(name)
    kept = choose_precision(device)
    if kept is torch.float32:  # tokens are kept in half precision all the same
        kept = torch.float16
    if _registry.is_unnamed_hub_id(base):
        info = backbone_info(name)
        return _Outline(
            name,
            device,
            kept,
            info.patch_size,
            info.default_transforms,
            ViTBackbone.activations,
            _SUPPOSED_CHANNELS,
        )
    entry = _registry.spec_of(base)
    channels = entry.channels_of(facets)
    return _Outline(
        name,
        device,
        kept,
        entry.patch_size,
        entry.default_transforms,
        ViTBackbone.activations_for(channels if facets else None, entry.channels),
        channels,
        entry,
        facets,
    )


def _bundled_outline(name: str, device: torch.device) -> _Outline:
    """Return the outline of what the package brings along."""
    import torch

    from napari_hrdv2.core.backbones.embedded import EmbeddedBackbone
    from napari_hrdv2.core.backbones.filters.bank import FilterBank
    from napari_hrdv2.core.devices import choose_precision

    own = EmbeddedBackbone if name == "embedded" else FilterBank
    plain = choose_precision(device) is torch.float32
    return _Outline(
        name,
        device,
        torch.float16,
        own.patch_size,
        own.default_transforms,
        own.activations if plain else own.activations // 2,
        context_cell=own.context_cell,
        bundled=True,
        equivariant=own.equivariant,
    )
