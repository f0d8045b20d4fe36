"""How features are made: what a user asks for, and what became of each part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from napari_hrdv2.core.checks import check_choice

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, BackboneSpec, JoinedBackbone
    from napari_hrdv2.core.backbones.base import Progress

ValueRange = tuple[float, float] | tuple[tuple[float, float], ...]
"""Grey levels that become 0 and 1, or those of each channel."""

STRIDE_WORDS = ("auto", "patch", "half")
TRANSFORM_CHOICES = (
    *("auto", "identity", "shift:1", "shift:1,2", "shift:1,2:neumann", "lattice:2"),
    *("lattice:4", "flip", "shift:1,2*flip", "rotate", "published"),
)
OWN_TRANSFORMS = ("auto", "published")  # each part's own: now, and in HR-Dv2's article
DEBIAS_CHOICES = ("none", "mean", "project")
NORMALISATION_CHOICES = ("auto", "image", "shared", "matched")


NO_CHOICES = (
    "backbone",
    "device",
    "weights",
    "levels",
    "normalisation",
    "planes",
    "pixel_size",
    "resamples",
    "pixel_ratio",
)
"""Those of `FeatureOptions` that `compute_features` takes otherwise, or not at all."""


@dataclass(frozen=True)
class PartOptions:
    """How one part of some features was made: by one backbone, all choices resolved."""

    backbone: str  # registry name or Hub id
    weights_hash: str  # fingerprint of the weights, empty where there are none
    transforms: str
    stride: int
    channels: int
    boundary: str = "periodic"
    interpolation: str = "bilinear"
    compat: str = "corrected"
    precision: str = "float32"
    value_range: tuple[float, float] = (0.0, 1.0)  # grey levels that became 0 and 1
    debias: str = "none"
    partition: str = "own"  # or "given": regions that are not the backbone's own
    levels: tuple[float, float] | None = None  # became mean 0, deviation 1; None: own
    channel: str = ""  # of the image that it sees; "" for all that it has
    planes: str = "z"  # of a volume, see `VolumeFeatures`

    @property
    def patch_size(self) -> int:
        """Side of the backbone's patches in pixels."""
        return _info(self.backbone).patch_size

    @property
    def absolute_levels(self) -> bool:
        """Whether the grey levels that become 0 and 1 make a difference."""
        return _info(self.backbone).absolute_levels


@dataclass(frozen=True)
class FeatureOptions:
    """How features are to be made, in the words of `compute_features`.

    The window, the command line and projects use them too.
    """

    backbone: str = "embedded"  # registry name or Hub id; "a+b" joins two
    transforms: str = "auto"  # what suits the backbone
    stride: int | None = None  # in pixels; None is the patch size of each part
    device: str = "auto"
    weights: str | None = None  # a local file or folder
    value_range: ValueRange | None = None
    boundary: str = "periodic"
    interpolation: str = "auto"  # what suits the backbone
    compat: str = "corrected"
    debias: str = "none"
    levels: tuple[Any, ...] | None = None  # a pair, or that of each channel
    normalisation: str = "auto"  # whose levels, in a series; see `train_series`
    channels: str = ""  # names of an image's channels, joined like backbones: "BSE,Fe"
    planes: str = "z"  # of a volume: "z" or "xyz", and its context: "z+2", "z+1.5um"
    # Side of the pixels at which structures were learnt, and unit: images of others are
    # resized to them, if it `resamples`. `pixel_ratio` says by what, for one image.
    pixel_size: tuple[float | tuple[float, float], str] | None = None
    resamples: bool = True
    pixel_ratio: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", ",".join(self.channel_names))

    @classmethod
    def of(
        cls,
        parts: Sequence[PartOptions],
        device: str = "auto",
        weights: str | None = None,
    ) -> Self:
        """Return what makes such features again, from a classifier's `part_options`."""
        if not parts:
            raise ValueError(
                "classifier: its file does not say which features it was trained on; "
                "train it again with `segment --save-classifier`"
            )
        main = max(parts, key=lambda part: part.patch_size)
        # Where every pixel is a patch the backbone runs once, whatever was chosen.
        chosen = {part.transforms for part in parts if part.patch_size > 1}
        own_strides = all(part.stride == part.patch_size for part in parts)
        return cls(
            backbone="+".join(
                part.backbone for part in parts if part.channel == parts[0].channel
            ),
            transforms=_joint_transforms(parts) if len(chosen) > 1 else main.transforms,
            stride=None if own_strides else max(part.stride for part in parts),
            device=device,
            weights=weights,
            value_range=absolute_range(parts),
            boundary=main.boundary,
            interpolation=main.interpolation,
            compat=main.compat,
            # A part that does not know positions has "none", whatever was chosen.
            debias=next((p.debias for p in parts if p.debias != "none"), "none"),
            channels=",".join(dict.fromkeys(part.channel for part in parts)),
            planes=main.planes,
        )

    @property
    def choices(self) -> dict[str, Any]:
        """What `compute_features` takes of them for any image, by its names."""
        chosen = asdict(self).items()
        return {name: value for name, value in chosen if name not in NO_CHOICES}

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the backbones that are joined."""
        return tuple(self.backbone.split("+"))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels that are joined; none for an image that is one picture."""
        return tuple(filter(None, map(str.strip, self.channels.split(","))))

    @property
    def ranges(self) -> tuple[tuple[float, float] | None, ...]:
        """The grey levels that become 0 and 1: of each channel, or of the picture."""
        return self._of_each("value_range")

    def levels_of(self, channel: str) -> tuple[float, float] | None:
        """Return the `levels` of a channel, "" for those of the picture."""
        place = self.channel_names.index(channel) if channel else 0
        found: tuple[float, float] | None = self._of_each("levels")[place]
        return found

    def _of_each(self, name: str) -> tuple[Any, ...]:
        given, count = getattr(self, name), max(len(self.channel_names), 1)
        if given is None or not isinstance(given[0], (tuple, list)):
            return (given,) * count
        if len(given) != count:
            raise ValueError(f"{name}: {given} has {len(given)} for {count} channels")
        return tuple(given)

    @property
    def patch_size(self) -> int:
        """The largest patch of the backbone's parts, in pixels."""
        return max(info.patch_size for info in self._infos)

    @property
    def _infos(self) -> list[BackboneSpec]:
        return [_info(name) for name in self.parts]

    @property
    def transform_sets(self) -> tuple[str, ...]:
        """The transform sets, where a word stands for each part's own."""
        parts, sets = self._infos, sets_of(self._infos, self.transforms)
        moving = [s for p, s in zip(parts, sets, strict=True) if p.patch_size > 1]
        return tuple(dict.fromkeys(moving or sets))

    @property
    def resolved_transforms(self) -> str:
        """The `transforms` that stay what they are, whatever words come to mean."""
        sets = sets_of(self._infos, self.transforms)
        return "+".join(sets if len(set(sets)) > 1 else sets[:1])

    @property
    def upsampling(self) -> str:
        """How tokens become pixels, where "auto" stands for what suits the parts."""
        return interpolation_of(self._infos, self.interpolation, self.compat)

    def check(self) -> None:
        """Raise ValueError, in one sentence, for a choice that cannot work."""
        from .transforms import BOUNDARIES, COMPATS, parse_transforms
        from .upsampling.sharpening import check_upsampling, parse_interpolation

        patch = self.patch_size
        if self.stride is not None and not 1 <= self.stride <= patch:
            raise _bad_stride(self.stride, patch)
        sides = self.pixel_size[0] if self.pixel_size else 1.0
        both = (sides,) if isinstance(sides, (int, float)) else sides
        if not all(0 < side < math.inf for side in both):
            raise ValueError(f"pixel_size: {self.pixel_size}: sides above 0 are needed")
        check_choice("debias", self.debias, DEBIAS_CHOICES)
        check_choice("normalisation", self.normalisation, NORMALISATION_CHOICES)
        check_choice("boundary", self.boundary, BOUNDARIES)
        check_choice("compat", self.compat, COMPATS)
        stride = self.stride or patch
        upsampling = parse_interpolation(self.upsampling)
        for spec in self.transform_sets:
            chosen = parse_transforms(spec, stride, compat=self.compat)
            if patch > 1:
                check_upsampling(upsampling, chosen.shifts(), stride)

    def load(
        self, progress: Progress | None = None, **about: Any
    ) -> Backbone | JoinedBackbone:
        """Return the backbone; ``progress(done, total)`` hears of a download."""
        from napari_hrdv2.core.backbones import load_backbone

        chosen = {"weights": self.weights, "device": self.device, **about}
        return load_backbone(self.backbone, progress=progress, **chosen)

    def difference(self, wanted: FeatureOptions) -> tuple[str, str] | None:
        """Return both in words where they would give other features, or None."""
        if self.backbone != wanted.backbone:
            return self.backbone, wanted.backbone
        unset = {"weights": "as published", "channels": "none"}
        names, patch = list(unset), self.patch_size
        if patch > 1:  # else every pixel is seen, whatever the options say
            names += ["transforms", "stride", "interpolation", "debias"]
            names += ["boundary", "compat"]
        before, after = (
            vars(x)
            | {"stride": x.stride or patch, "interpolation": x.upsampling}
            | {"transforms": " and ".join(x.transform_sets)}
            for x in (self, wanted)
        )
        differing = [n for n in names if before[n] != after[n]]
        made, other = (
            ", ".join(f"{n} {one[n] or unset.get(n)}" for n in differing)
            for one in (before, after)
        )
        return (f"{self.backbone} with {made}", other) if differing else None


def sets_of(parts: Sequence[Backbone | BackboneSpec], transforms: str) -> list[str]:
    """Return the transform set of each part, of one text for all or of "a+b"."""
    given = transforms.split("+")
    if len(given) not in (1, len(parts)):
        raise ValueError(
            f"transforms: {transforms!r} has {len(given)} sets for {len(parts)} "
            "backbones; give one, or one for each"
        )
    given = given if len(given) > 1 else given * len(parts)
    return [transforms_of(part, own) for part, own in zip(parts, given, strict=True)]


def transforms_of(part: Backbone | BackboneSpec, transforms: str) -> str:
    """Return the transform set of one part, where words stand for what is its own."""
    if transforms not in OWN_TRANSFORMS:
        return transforms
    own = part.default_transforms
    return "shift:1,2" if (transforms, own) == ("published", "lattice:2") else own


def interpolation_of(
    parts: Sequence[Backbone | BackboneSpec], asked: str | None, compat: str
) -> str:
    """Return how tokens become pixels, where "auto" stands for what suits the parts.

    It is "bilateral" for a Vision Transformer alone; None is as in `compute_features`.
    """
    if asked is not None and asked != "auto":
        return asked
    if compat == "reference":
        return "nearest"
    coarse = [p.patch_size >= 8 and not getattr(p, "has_regions", False) for p in parts]
    return "bilateral" if asked and coarse == [True] else "bilinear"


def _joint_transforms(parts: Sequence[PartOptions]) -> str:
    """Return the word by which the parts have the transform sets that they have."""
    made = [(_info(p.backbone), p.transforms) for p in parts if p.patch_size > 1]
    former = all(transforms_of(info, "published") == own for info, own in made)
    return "published" if former else "auto"


def mapped_range(parts: Sequence[PartOptions]) -> ValueRange:
    """Return the grey levels that became 0 and 1, of each channel where it has some."""
    found = {part.channel: part.value_range for part in parts}
    return found.get("", tuple(found.values()))


def absolute_range(parts: Sequence[PartOptions]) -> ValueRange | None:
    """Return the grey levels that became 0 and 1; None where that does not matter."""
    absolute = [part for part in parts if part.absolute_levels]
    return mapped_range(absolute) if absolute else None


def alike(parts: Sequence[PartOptions]) -> list[PartOptions]:
    """Return the parts without what changes next to nothing, to be compared."""
    # The number format differs from machine to machine, levels from image to image.
    parts = [replace(part, precision="", levels=None) for part in parts]
    return [p if p.absolute_levels else replace(p, value_range=(0, 1)) for p in parts]


def upsampled_alike(some: Sequence[PartOptions], others: Sequence[PartOptions]) -> bool:
    """Whether tokens became pixels in one way, as far as that is known of both."""
    ways = [[part.interpolation for part in parts] for parts in (some, others)]
    return not all(ways) or ways[0] == ways[1]


def checked_levels(levels: Any) -> tuple[Any, ...] | None:
    """Return a mean and a deviation as floats, or those of channels; ValueError."""
    if levels is None:
        return None
    kinds = tuple, list
    if isinstance(levels, kinds) and levels and isinstance(levels[0], kinds):
        return tuple(map(checked_levels, levels))
    try:
        mean, deviation = (float(value) for value in levels)
    except (TypeError, ValueError):
        mean = deviation = math.nan
    if not (math.isfinite(mean) and 0 < abs(deviation) < math.inf):
        raise ValueError(
            f"levels: {levels} is no mean and deviation of grey levels; two numbers "
            "are needed, the second above 0, or below it to exchange light and dark"
        )
    return mean, deviation


def parse_stride(text: str, backbone: str) -> int | None:
    """Return the pixels of a stride that is one of `STRIDE_WORDS` or a number."""
    if text == "auto":
        return None
    if text.isdecimal():
        return int(text)
    patch = FeatureOptions(backbone).patch_size
    if text in STRIDE_WORDS:
        return patch if text == "patch" else max(patch // 2, 1)
    raise _bad_stride(text, patch)


def _bad_stride(stride: int | str, patch: int) -> ValueError:
    words = ", ".join(STRIDE_WORDS)
    return ValueError(
        f"stride: {stride!r} does not fit; choose {words} or 1 to {patch} pixels"
    )


def updated(former: Any) -> Any:
    """Return the JSON of options from that of a former version.

    In 0.1.0 strides were words, and "auto" was what "published" is now.
    """
    if not isinstance(former, dict):
        return former
    options = {"transforms": "auto", "interpolation": "bilinear", **former}
    if options["transforms"] == "auto":
        options["transforms"] = "published"
    stride = former.get("stride", "auto")
    try:
        pixels = parse_stride(str(stride), str(former.get("backbone", "embedded")))
    except ValueError:  # a backbone of the future, or no stride: the patch size is safe
        pixels = None
    return {**options, "stride": pixels}


def _info(name: str) -> BackboneSpec:
    from napari_hrdv2.core.backbones import backbone_info

    return backbone_info(name)
