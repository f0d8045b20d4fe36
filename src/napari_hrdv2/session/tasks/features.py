"""Features of one image: their cost, the request and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .context import bytes_text

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, BackboneSpec, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.session.planes import PlaneKey

    from .context import TaskContext


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
    dtype: torch.dtype
    activations: int

    @classmethod
    def of(cls, name: str, device: torch.device) -> _Outline:
        """Return the outline of a backbone of the registry; loads no weights."""
        from napari_hrdv2.core.backbones import LoadOptions, backbone_info

        spec, options = backbone_info(name), LoadOptions(None, device)
        half, is_whole = spec.half_activations, options.dtype.itemsize == 4
        activations = spec.activations if is_whole or half is None else half
        return cls(spec, device, options.token_dtype, activations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.spec, name)

    def channels_for(self, image_channels: int) -> int:
        return self.spec.channels_for(image_channels) or _SUPPOSED_CHANNELS

    def tokens(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        raise NotImplementedError("an outline computes nothing")


def estimate_cost(image_shape: tuple[int, ...], options: FeatureOptions) -> Cost:
    """Return what the features of an image of this shape cost; loads no weights."""
    from napari_hrdv2.core.backbones import JoinedBackbone
    from napari_hrdv2.core.devices import available_memory, choose_device
    from napari_hrdv2.core.features.memory import estimate

    device = choose_device(options.device)
    names = options.backbone.split("+")
    parts: Any = tuple(_Outline.of(name, device) for name in names)
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
    return Cost(needed.passes, needed.token_bytes, needed.peak_bytes, available)


@dataclass(frozen=True)
class FeatureSource:
    """A backbone in memory, and the options that it was loaded for."""

    options: FeatureOptions
    backbone: Backbone | JoinedBackbone

    @classmethod
    def load(cls, options: FeatureOptions, context: TaskContext) -> FeatureSource:
        """Load the backbone that the options name."""
        context.loading(0, 0)
        return cls(options, options.load(context.loading))

    def serves(self, options: FeatureOptions) -> bool:
        """Whether loading for these options would give the same backbone."""
        names = "backbone", "weights", "device"
        return all(getattr(self.options, n) == getattr(options, n) for n in names)

    def features(
        self,
        image: ArrayLike,
        context: TaskContext,
        *,
        reports: bool = True,
        partition: NDArray[Any] | None = None,
    ) -> Any:
        """Return the features of an (H, W) or (H, W, 3|4) array."""
        from napari_hrdv2.core.features.compute import compute_features

        progress = partial(context.progress, "Computing features")
        return compute_features(
            image,
            self.backbone,
            progress=progress if reports else None,
            should_stop=context.should_stop,
            partition=partition,
            **self.options.choices,
        )


@dataclass(frozen=True)
class FeatureResult:
    """The features, and the backbone and options that they were made with."""

    key: PlaneKey
    version: int
    features: Any
    source: FeatureSource


@dataclass(frozen=True)
class FeatureRequest:
    """Features of `image`, an (H, W) or (H, W, 3|4) array, are wanted.

    `key` names the image entry, `version` the request, `partition` the (H, W) regions
    that a backbone with tokens of regions is to use in place of its own.
    """

    key: PlaneKey
    version: int
    image: NDArray[Any]
    options: FeatureOptions
    source: FeatureSource | None = None
    partition: NDArray[Any] | None = None

    def answer(self, context: TaskContext) -> FeatureResult:
        """Load the backbone unless it is there, and compute the features."""
        options, source = self.options, self.source
        if source is None or not source.serves(options):
            source = FeatureSource.load(options, context)
        source = replace(source, options=options)
        features = source.features(self.image, context, partition=self.partition)
        return FeatureResult(self.key, self.version, features, source)
