"""The geometry and the cost of a backbone's run over an image, before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from napari_hrdv2.core.backbones.base import JoinedBackbone
from napari_hrdv2.core.features.context import tokens_per_cell
from napari_hrdv2.core.features.debias import (
    DEBIAS,
    NOISE_IMAGES,
    has_positions,
    has_regions,
)
from napari_hrdv2.core.features.transforms import TransformSet, parse_transforms
from napari_hrdv2.core.features.upsampling.axis import padded_length, token_count
from napari_hrdv2.core.features.upsampling.featup_upsampling import jbu_cost
from napari_hrdv2.core.features.upsampling.naf_upsampling import (
    KEPT_BYTES,
    WORKING_BYTES,
)
from napari_hrdv2.core.features.upsampling.sharpening import (
    FEATUP,
    LEARNED,
    check_upsampling,
    parse_interpolation,
    stride_of_one_grid,
)

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

PLANES = 8  # float32 planes of the padded image that a run works with
REGION_PLANES = 90  # those that dividing an image into regions works with


@dataclass(frozen=True)
class Estimate:
    """What computing features will take.

    Attributes
    ----------
    passes : int
        Runs of the backbone, those over noise included that `debias` asks for.
    tokens : int
        Tokens of one run.
    token_bytes : int
        Memory that the features keep.
    peak_bytes : int
        Memory needed while they are computed, the kept ones included.
    """

    passes: int
    tokens: int
    token_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Plan:
    """One backbone's run over an image.

    Attributes
    ----------
    transforms : TransformSet
        The identity alone where the backbone moves along with the image.
    stride : int
    padded, grid : tuple of int
        (H', W') of the image padded to whole patches, (h, w) of its tokens.
    channels : int
    debias : str
        "none" where the backbone does not know positions.
    noise_shapes : tuple of (H', W')
        Of the noise images whose tokens tell the position bias.
    token_bytes, working_bytes : int
        Memory that is kept, and what comes on top while the backbone runs.
    """

    transforms: TransformSet
    stride: int
    padded: tuple[int, int]
    grid: tuple[int, int]
    channels: int
    debias: str
    noise_shapes: tuple[tuple[int, int], ...]
    token_bytes: int
    working_bytes: int

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return math.prod(self.grid)

    @property
    def passes(self) -> int:
        """Runs of the backbone, those over noise included."""
        return len(self.transforms) + NOISE_IMAGES * len(self.noise_shapes)


def make_plan(
    image_shape: tuple[int, int],
    image_channels: int,
    backbone: Backbone,
    transforms: str | TransformSet,
    stride: int | None,
    *,
    compat: str = "corrected",
    interpolation: str = "bilinear",
    debias: str = "none",
) -> Plan:
    """Return the plan of a run; raise ValueError if an argument does not fit."""
    if debias not in DEBIAS:
        raise ValueError(f"debias: {debias!r} is unknown; use {' or '.join(DEBIAS)}")
    upsampling = parse_interpolation(interpolation)
    patch_size = backbone.patch_size
    tokens_are_patches = on_grid(backbone)
    stride = _checked_stride(stride, backbone)
    chosen = parse_transforms(transforms, stride, compat=compat)
    if backbone.equivariant:
        chosen = parse_transforms("identity", stride, compat=compat)
    shifts = chosen.shifts()
    if tokens_are_patches:
        check_upsampling(upsampling, shifts, stride)
    height, width = image_shape
    if min(image_shape) < patch_size:
        raise ValueError(
            f"image: {height} × {width} px is smaller than one patch of "
            f"{backbone.name}; at least {patch_size} × {patch_size} px are needed"
        )
    padded = (
        padded_length(height, patch_size, stride),
        padded_length(width, patch_size, stride),
    )
    grid = (
        token_count(height, patch_size, stride),
        token_count(width, patch_size, stride),
    )
    channels = backbone.channels_for(image_channels)
    if has_regions(backbone):
        return _plan_of_regions(backbone, chosen, image_shape, channels)
    debias = debias if has_positions(backbone) else "none"
    noise_shapes = _noise_shapes(padded, chosen) if debias != "none" else ()
    map_bytes = math.prod(grid) * channels * backbone.dtype.itemsize
    plane_bytes = 4 * math.prod(padded)
    token_bytes = len(shifts) * map_bytes
    kept_maps, kept_stride = len(shifts), stride
    working_bytes = (
        (map_bytes if len(chosen) > 1 else 0)
        + backbone.activations * map_bytes
        + (PLANES + image_channels) * plane_bytes
    )
    if tokens_are_patches and upsampling.changes_tokens:
        # The tokens as they were are there until the new ones are finished.
        before = token_bytes
        if upsampling.needs_one_grid:
            fine = stride_of_one_grid(shifts, stride)
            count = math.prod((length - patch_size) // fine + 1 for length in padded)
            token_bytes = count * channels * backbone.dtype.itemsize
            kept_maps, kept_stride = 1, fine
        if upsampling.steps and upsampling.needs_one_grid:
            before += token_bytes
        if upsampling.method == "bilateral":
            token_bytes += image_channels * math.prod(padded)
        working_bytes = max(working_bytes, before)
    if backbone.context_cell:
        per_cell = tokens_per_cell(backbone.context_cell, kept_stride)
        cells = math.prod(
            -(-token_count(length, patch_size, kept_stride) // per_cell)
            for length in image_shape
        )
        token_bytes += kept_maps * cells * channels * backbone.dtype.itemsize
    if tokens_are_patches and upsampling.method in (LEARNED, FEATUP):
        pixels = math.prod(padded)
        fine = stride_of_one_grid(shifts, stride)
        kept, working = (
            jbu_cost(pixels, fine)
            if upsampling.method == FEATUP
            else (KEPT_BYTES * pixels, WORKING_BYTES * pixels)
        )
        token_bytes += kept
        working_bytes = max(working_bytes, working)
    # In float32: the map of each shape, and the sum or the tokens that it is taken off.
    maps = len(noise_shapes) + 1 if noise_shapes else 0
    working_bytes += maps * 4 * math.prod(grid) * channels
    return Plan(
        chosen,
        stride,
        padded,
        grid,
        channels,
        debias,
        noise_shapes,
        token_bytes,
        working_bytes,
    )


def on_grid(backbone: Backbone) -> bool:
    """Return whether tokens are those of patches, which are upsampled to pixels."""
    return backbone.patch_size > 1 and not has_regions(backbone)


def _plan_of_regions(
    backbone: Backbone, chosen: TransformSet, shape: tuple[int, int], channels: int
) -> Plan:
    """Return the plan of a backbone that divides each copy of the image by itself."""
    squares = [-(-length // backbone.patch_size) for length in shape]
    count = round(getattr(backbone, "density", 1.0) * math.prod(squares))
    map_bytes = count * channels * backbone.dtype.itemsize
    plane_bytes = 4 * math.prod(shape)  # of a label map as well
    return Plan(
        chosen,
        backbone.patch_size,
        shape,
        (count, 1),
        channels,
        "none",
        (),
        len(chosen) * (map_bytes + plane_bytes),
        max(
            REGION_PLANES * plane_bytes,
            backbone.activations * count * channels * 4 + PLANES * plane_bytes,
        ),
    )


def estimate(
    image_shape: tuple[int, int],
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    *,
    image_channels: int = 1,
    interpolation: str = "bilinear",
    debias: str = "none",
) -> Estimate:
    """Return the passes and the memory of computing features, which it does not do.

    Parameters
    ----------
    image_shape : tuple of int
        (H, W).
    backbone, transforms, stride
        As for :func:`~napari_hrdv2.compute_features`.
    image_channels : int
    interpolation, debias : str
        As for :func:`~napari_hrdv2.compute_features`.

    Raises
    ------
    ValueError
        Where :func:`~napari_hrdv2.compute_features` would.
    """
    plans = make_plans(
        image_shape,
        image_channels,
        backbone,
        transforms,
        stride,
        interpolation=interpolation,
        debias=debias,
    )
    kept = sum(plan.token_bytes for plan in plans)
    return Estimate(
        passes=sum(plan.passes for plan in plans),
        tokens=max(plan.tokens for plan in plans),
        token_bytes=kept,
        peak_bytes=kept + max(plan.working_bytes for plan in plans),
    )


def make_plans(
    image_shape: tuple[int, int],
    image_channels: int,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet,
    stride: int | None,
    **options: str,
) -> list[Plan]:
    """Return the plan of each part of a backbone.

    Of a joined backbone, each part takes the transform set that suits it if "auto" is
    asked for, and its own patch size where that is smaller than the stride.
    """
    parts = parts_of(backbone)
    if stride is not None:
        _checked_stride(stride, max(parts, key=lambda part: part.patch_size))
    return [
        make_plan(
            image_shape,
            image_channels,
            part,
            part.default_transforms if transforms == "auto" else transforms,
            stride if stride is None else min(stride, part.patch_size),
            **options,
        )
        for part in parts
    ]


def parts_of(backbone: Backbone | JoinedBackbone) -> tuple[Backbone, ...]:
    """Return the backbones that a joined one consists of, or the one itself."""
    parts = backbone.parts if isinstance(backbone, JoinedBackbone) else (backbone,)
    for part in parts:
        if not callable(getattr(part, "tokens", None)):
            raise TypeError(
                f"backbone: {part!r} is not a backbone; give what load_backbone returns"
            )
    return parts


def _noise_shapes(
    padded: tuple[int, int], transforms: TransformSet
) -> tuple[tuple[int, int], ...]:
    """Return the shapes that the copies of an image have, each once."""
    turned = (copy.transform.transpose for copy in transforms.copies)
    return tuple(dict.fromkeys(padded[::-1] if t else padded for t in turned))


def _checked_stride(stride: int | None, backbone: Backbone) -> int:
    own = backbone.equivariant or has_regions(backbone)
    if stride is None or own:
        return backbone.patch_size
    whole = isinstance(stride, Integral) and not isinstance(stride, bool)
    if not whole or not 1 <= stride <= backbone.patch_size:
        raise ValueError(
            f"stride: {stride!r} does not fit {backbone.name}; give whole pixels from "
            f"1 to {backbone.patch_size}"
        )
    return int(stride)
