"""The geometry and the cost of a backbone's run over an image, before it starts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch

from napari_hrdv2.core.backbones.base import JoinedBackbone
from napari_hrdv2.core.checks import check_choice
from napari_hrdv2.core.devices import available_memory

from .debias import NOISE_IMAGES
from .high_resolution import tokens_per_cell
from .options import DEBIAS_CHOICES, FeatureOptions, interpolation_of, sets_of
from .transforms import TransformSet, parse_transforms
from .upsampling import sharpening
from .upsampling.featup import jbu_cost
from .upsampling.separable import padded_length, token_count

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

MAXIMUM_BATCH = 16
PLANES = 20  # float32 planes of the padded image that a run works with
REGION_PLANES = 90  # those that dividing an image into regions works with


@dataclass(frozen=True)
class Estimate:
    """What computing features will take."""

    passes: int  # of the backbone, those over noise included that `debias` asks for
    token_bytes: int  # memory that the features keep
    peak_bytes: int  # needed while they are computed, the kept ones included


@dataclass(frozen=True)
class Plan:
    """One backbone's run over an image."""

    transforms: TransformSet  # the identity alone where it moves along with the image
    stride: int
    padded: tuple[int, int]  # (H', W') of the image, padded to whole patches
    grid: tuple[int, int]  # (h, w) of its tokens
    channels: int
    debias: str = "none"  # also where the backbone does not know positions
    noise_shapes: tuple[tuple[int, int], ...] = ()  # of the noise images for debias
    token_bytes: int = 0  # memory that is kept
    working_bytes: int = 0  # memory on top while the backbone runs

    @property
    def passes(self) -> int:
        """Runs of the backbone, those over noise included."""
        return len(self.transforms) + NOISE_IMAGES * len(self.noise_shapes)


def make_plan(
    image_shape: tuple[int, int],
    image_channels: int,
    backbone: Backbone,
    transforms: str | TransformSet,
    options: FeatureOptions,
) -> Plan:
    """Return the plan of a run; raise ValueError if an option does not fit."""
    check_choice("debias", options.debias, DEBIAS_CHOICES)
    upsampling = sharpening.parse_interpolation(options.interpolation)
    patch_size = backbone.patch_size
    stride = _checked_stride(options.stride, backbone)
    chosen = parse_transforms(transforms, stride, compat=options.compat)
    if backbone.equivariant:
        chosen = parse_transforms("identity", stride, compat=options.compat)
    if on_grid(backbone):
        sharpening.check_upsampling(upsampling, chosen.shifts(), stride)
    height, width = image_shape
    if min(image_shape) < patch_size:
        raise ValueError(
            f"image: {height} × {width} px is smaller than one patch of "
            f"{backbone.name}; at least {patch_size} × {patch_size} px are needed"
        )
    channels = backbone.channels_for(image_channels)
    if _has_regions(backbone):
        return _plan_of_regions(backbone, chosen, image_shape, channels)
    padded, grid = (
        (of_length(height, patch_size, stride), of_length(width, patch_size, stride))
        for of_length in (padded_length, token_count)
    )
    plan = Plan(chosen, stride, padded, grid, channels)
    if options.debias != "none" and not backbone.equivariant:
        turned = (copy.transform.transpose for copy in chosen.copies)
        shapes = tuple({padded[::-1] if turn else padded for turn in turned})
        plan = replace(plan, debias=options.debias, noise_shapes=shapes)
    kept, working = _memory_of(plan, backbone, image_shape, image_channels, upsampling)
    return replace(plan, token_bytes=kept, working_bytes=working)


def _memory_of(
    plan: Plan,
    backbone: Backbone,
    image_shape: tuple[int, int],
    image_channels: int,
    upsampling: sharpening.Upsampling,
) -> tuple[int, int]:
    """Return the bytes that are kept, and those on top while the backbone runs."""
    shifts, stride = plan.transforms.shifts(), plan.stride
    tokens, pixels = math.prod(plan.grid), math.prod(plan.padded)
    token_bytes = plan.channels * backbone.dtype.itemsize  # of one token
    map_bytes, patch_size = tokens * token_bytes, backbone.patch_size
    kept_bytes, kept_maps, kept_stride = len(shifts) * map_bytes, len(shifts), stride
    working_bytes = (
        (map_bytes if len(plan.transforms) > 1 else 0)
        + backbone.activations * map_bytes
        + (PLANES + image_channels) * 4 * pixels
    )
    fine = sharpening.stride_of_one_grid(shifts, stride)
    if on_grid(backbone) and (upsampling.needs_one_grid or upsampling.steps):
        # The tokens as they were are there until the new ones are finished.
        before = kept_bytes
        if upsampling.needs_one_grid:
            count = math.prod((n - patch_size) // fine + 1 for n in plan.padded)
            kept_bytes, kept_maps, kept_stride = count * token_bytes, 1, fine
            before += kept_bytes if upsampling.steps else 0
        if upsampling.method == "bilateral":
            kept_bytes += image_channels * pixels
        working_bytes = max(working_bytes, before)
    if backbone.context_cell:
        per_cell = tokens_per_cell(backbone.context_cell, kept_stride)
        counts = [token_count(n, patch_size, kept_stride) for n in image_shape]
        cells = math.prod(-(-n // per_cell) for n in counts)
        kept_bytes += kept_maps * cells * token_bytes
    if on_grid(backbone) and upsampling.method == sharpening.FEATUP:
        kernels, working = jbu_cost(pixels, fine)
        kept_bytes += kernels
        working_bytes = max(working_bytes, working)
    # In float32: the map of each shape, and the sum or the tokens that it is taken off.
    maps = len(plan.noise_shapes) + 1 if plan.noise_shapes else 0
    return kept_bytes, working_bytes + maps * 4 * tokens * plan.channels


def on_grid(backbone: Backbone) -> bool:
    """Return whether tokens are those of patches, which are upsampled to pixels."""
    return backbone.patch_size > 1 and not _has_regions(backbone)


def reach_of(backbone: Backbone) -> int | None:
    """Return how far around a part of an image its tokens look; None: everywhere."""
    return getattr(backbone, "reach", None)  # also of one that knows nothing of it


def check_can_be_cut(parts: Sequence[Backbone], options: FeatureOptions) -> None:
    """Raise ValueError for what needs all of an image at once."""
    method = sharpening.parse_interpolation(options.interpolation).method
    for part in parts:
        if _has_regions(part):
            raise ValueError(
                f"backbone: {part.name} divides the whole image into regions, which "
                "cannot be done block by block; choose one of the others"
            )
    asked = 'compat="reference"' if options.compat == "reference" else method
    if asked != method or method == sharpening.FEATUP:
        raise ValueError(
            f"interpolation: {asked} needs the whole image, which is cut into blocks "
            "here; choose bilinear"
        )


def _has_regions(backbone: Backbone) -> bool:
    return getattr(backbone, "has_regions", False)  # also of one that is not loaded


def _plan_of_regions(
    backbone: Backbone, chosen: TransformSet, shape: tuple[int, int], channels: int
) -> Plan:
    """Return the plan of a backbone that divides each copy of the image by itself."""
    squares = [-(-length // backbone.patch_size) for length in shape]
    count = round(getattr(backbone, "density", 1.0) * math.prod(squares))
    map_bytes = count * channels * backbone.dtype.itemsize
    plane_bytes = 4 * math.prod(shape)  # of a label map as well
    working = backbone.activations * count * channels * 4 + PLANES * plane_bytes
    return Plan(
        chosen,
        backbone.patch_size,
        shape,
        (count, 1),
        channels,
        token_bytes=len(chosen) * (map_bytes + plane_bytes),
        working_bytes=max(REGION_PLANES * plane_bytes, working),
    )


def estimate_of(plans: Sequence[Plan]) -> Estimate:
    """Return what the runs of all parts take together."""
    kept = sum(plan.token_bytes for plan in plans)
    return Estimate(
        passes=sum(plan.passes for plan in plans),
        token_bytes=kept,
        peak_bytes=kept + max(plan.working_bytes for plan in plans),
    )


def make_plans(
    image_shape: tuple[int, int],
    image_channels: int,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet,
    options: FeatureOptions,
) -> list[Plan]:
    """Return the plan of each part of a backbone.

    Each takes the transform set that suits it if "auto" is asked for, and its own patch
    size where that is smaller than the stride. With channels all come for each of them.
    """
    parts, stride = parts_of(backbone), options.stride
    count = len(options.channel_names)
    how = interpolation_of(parts, options.interpolation, options.compat)
    sets: list[Any] = [transforms] * len(parts)
    if isinstance(transforms, str):
        sets = sets_of(parts, transforms)
    if stride is not None:
        _checked_stride(stride, max(parts, key=lambda part: part.patch_size))
    plans = []
    for part, chosen in zip(parts, sets, strict=True):
        own = stride and min(stride, part.patch_size)
        given = replace(options, interpolation=how, stride=own)
        channels = 1 if count else image_channels
        plans.append(make_plan(image_shape, channels, part, chosen, given))
    return plans * max(count, 1)


def check_memory(plans: list[Plan], shape: Sequence[int], device: torch.device) -> None:
    """Raise MemoryError before a run that cannot succeed."""
    check_available(estimate_of(plans).peak_bytes, shape, device)


def check_available(
    needed: int,
    shape: Sequence[int],
    device: torch.device,
    remedy: str = "a part of the image",
) -> None:
    """Raise MemoryError if there are fewer bytes than are needed."""
    available = free_bytes(device)
    if needed > available:
        raise MemoryError(
            f"image: features of {shape[0]} × {shape[1]} px need about "
            f"{needed / 1e9:.1f} GB and {available / 1e9:.1f} GB are free; use fewer "
            f"transforms, a larger stride or {remedy}"
        )


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device and beside it."""
    available = available_memory(torch.device("cpu"))
    return available + (available_memory(device) if device.type == "cuda" else 0)


def batch_that_fits(device: torch.device, plan: Plan) -> int:
    """Return how many copies of an image are run at once."""
    if device.type == "cpu":
        return 1  # larger batches are not faster there
    free = available_memory(device) - plan.token_bytes
    return max(1, min(MAXIMUM_BATCH, int(free / 2 // plan.working_bytes)))


def batch_after_running_out(backbone: Backbone, batch_size: int) -> int:
    """Return a smaller batch size, moving to the CPU when even one is too many."""
    device = backbone.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if batch_size > 1:
        return batch_size // 2
    if device.type == "cpu":
        raise MemoryError(
            "image: the memory ran out while features were computed; use a larger "
            "stride or a part of the image"
        )
    text = f"{device} has too little memory for one pass; going on on the CPU"
    warnings.warn(text, stacklevel=2)
    backbone.to("cpu")
    return 1


def parts_of(backbone: Backbone | JoinedBackbone) -> tuple[Backbone, ...]:
    """Return the backbones that a joined one consists of, or the one itself."""
    parts = backbone.parts if isinstance(backbone, JoinedBackbone) else (backbone,)
    for part in parts:
        if not callable(getattr(part, "tokens", None)):
            raise TypeError(
                f"backbone: {part!r} is not a backbone; give what load_backbone returns"
            )
    return parts


def _checked_stride(stride: int | None, backbone: Backbone) -> int:
    if stride is None or backbone.equivariant or _has_regions(backbone):
        return backbone.patch_size
    whole = isinstance(stride, Integral) and not isinstance(stride, bool)
    if not whole or not 1 <= stride <= backbone.patch_size:
        raise ValueError(
            f"stride: {stride!r} does not fit {backbone.name}; give whole pixels from "
            f"1 to {backbone.patch_size}"
        )
    return int(stride)
