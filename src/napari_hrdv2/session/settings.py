"""What to compute features with."""

from __future__ import annotations

from dataclasses import dataclass, replace

STRIDES = ("auto", "patch", "half")
"""Distance of the tokens: the library's choice, one patch, or half a patch."""

TRANSFORM_CHOICES = (
    "auto",
    "identity",
    "shift:1",
    "shift:1,2",
    "shift:1,2:neumann",
    "lattice:2",
    "lattice:4",
    "flip",
    "shift:1,2*flip",
    "rotate",
)

INTERPOLATION_CHOICES = (
    "nearest",
    "bilinear",
    "bilinear+1",
    "bilinear+2",
    "bicubic",
    "bicubic+1",
    "bicubic+2",
    "interleaved",
    "interleaved+1",
    "interleaved+2",
    "bilateral",
    "bilateral+1",
    "bilateral+2",
    "naf",
    "jbu",
)
"""Those of `core.upsampling`, here so that a window need not wait for it."""

DEBIAS_CHOICES = ("none", "mean", "project")
"""Those of `core.debias`, here for the same reason."""


@dataclass(frozen=True)
class FeatureSettings:
    """The user's choices for the next features.

    Attributes
    ----------
    backbone : str
        Registry name; ``"a+b"`` joins two.
    transforms : str
        A specification in the grammar of `core.transforms`, or "auto": what suits
        the backbone.
    stride : str
        One of `STRIDES`, or a number of pixels.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    weights : str, optional
        A local file or folder that holds the weights of the backbone.
    value_range : tuple of two float, optional
        Grey levels that become 0 and 1; taken over from a loaded classifier.
    interpolation : str
        How tokens become pixels: one of `INTERPOLATION_CHOICES`.
    debias : str
        What is taken out of tokens that tells where they are: one of `DEBIAS_CHOICES`.
    """

    backbone: str = "embedded"
    transforms: str = "auto"
    stride: str = "auto"
    device: str = "auto"
    weights: str | None = None
    value_range: tuple[float, float] | None = None
    interpolation: str = "bilinear"
    debias: str = "none"

    def check(self) -> None:
        """Raise ValueError, in one sentence, for a choice that cannot work."""
        from napari_hrdv2.core.features.transforms import parse_transforms
        from napari_hrdv2.core.features.upsampling.sharpening import (
            check_upsampling,
            parse_interpolation,
        )

        patch = patch_size(self)
        if self.stride not in STRIDES and not (
            self.stride.isdecimal() and 1 <= int(self.stride) <= patch
        ):
            raise ValueError(
                f"stride: {self.stride!r} does not fit; choose {', '.join(STRIDES)} or "
                f"1 to {patch} pixels"
            )
        if self.debias not in DEBIAS_CHOICES:
            raise ValueError(
                f"debias: {self.debias!r} is unknown; choose "
                f"{', '.join(DEBIAS_CHOICES)}"
            )
        stride = stride_in_pixels(self) or patch
        upsampling = parse_interpolation(self.interpolation)
        for spec in _transform_sets(self):
            chosen = parse_transforms(spec, stride)
            if patch > 1:
                check_upsampling(upsampling, chosen.shifts(), stride)


def difference(
    made: FeatureSettings, wanted: FeatureSettings
) -> tuple[str, str] | None:
    """Return both in words where they would give other features, or None."""
    if made.backbone != wanted.backbone:
        return made.backbone, wanted.backbone
    names = ["weights"]
    if patch_size(made) > 1:  # else every pixel is seen, whatever the settings say
        names += ["transforms", "stride", "interpolation", "debias"]
        made, wanted = (replace(s, transforms=transforms(s)) for s in (made, wanted))
    differing = [n for n in names if getattr(made, n) != getattr(wanted, n)]
    if not differing:
        return None
    before, after = (
        ", ".join(f"{n} {getattr(s, n) or 'as published'}" for n in differing)
        for s in (made, wanted)
    )
    return f"{made.backbone} with {before}", after


def patch_size(settings: FeatureSettings) -> int:
    """Return the largest patch of the backbone's parts, in pixels."""
    from napari_hrdv2.core.backbones.loading import backbone_info

    return max(backbone_info(name).patch_size for name in settings.backbone.split("+"))


def transforms(settings: FeatureSettings) -> str:
    """Return the transform sets in words, where "auto" stands for each part's own."""
    return " and ".join(_transform_sets(settings))


def _transform_sets(settings: FeatureSettings) -> list[str]:
    from napari_hrdv2.core.backbones.loading import backbone_info

    if settings.transforms != "auto":
        return [settings.transforms]
    parts = [backbone_info(name) for name in settings.backbone.split("+")]
    moving = [part for part in parts if part.patch_size > 1] or parts
    return list(dict.fromkeys(part.default_transforms for part in moving))


def stride_in_pixels(settings: FeatureSettings) -> int | None:
    """Return the stride to ask for; None leaves it to the library."""
    if settings.stride == "auto":
        return None
    if settings.stride.isdecimal():
        return int(settings.stride)
    patch = patch_size(settings)
    return patch if settings.stride == "patch" else max(patch // 2, 1)
