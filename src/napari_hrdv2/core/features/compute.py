"""Running a backbone on transformed copies of an image and keeping the tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from napari_hrdv2.core.backbones.base import Progress, RegionBackbone
from napari_hrdv2.core.checks import (
    PreparedImage,
    bands_of,
    check_choice,
    check_whole,
    prepare_image,
)
from napari_hrdv2.core.errors import Stop, is_out_of_memory, stop_if

from .base import Features, JoinedFeatures
from .debias import NOISE_IMAGES, POSITION_BIASES, PositionBias, bias_key, position_bias
from .high_resolution import HighResFeatures, with_context
from .memory import (
    Plan,
    batch_after_running_out,
    batch_that_fits,
    check_memory,
    make_plans,
    on_grid,
    parts_of,
)
from .options import (
    FeatureOptions,
    PartOptions,
    ValueRange,
    checked_levels,
    interpolation_of,
)
from .superpixels import region_features
from .transforms import BOUNDARIES, COMPATS, Copy, TransformSet, average_into
from .upsampling.featup import with_fingerprint

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone

    from .tiles import Tile

Job = tuple[int, Copy, float]  # number of the shift, copy, weight

log = logging.getLogger(__name__)


def compute_features(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    progress: Progress | None = None,
    should_stop: Stop = None,
    *,
    boundary: str = "periodic",
    interpolation: str | None = None,
    debias: str = "none",
    compat: str = "corrected",
    channel_axis: int | None = None,
    channels: str = "",
    value_range: ValueRange | None = None,
    levels: tuple[Any, ...] | None = None,
    batch_size: int | None = None,
    partition: ArrayLike | None = None,
) -> Features:
    """Return the high-resolution features of an image.

    Parameters
    ----------
    image : (H, W) or (H, W, 3|4) array, or 3-D with `channel_axis`
        At least one patch large; padded by reflection to whole patches, never resized.
    backbone : Backbone
        From :func:`load_backbone`.
    transforms : str or TransformSet
        See :func:`~napari_hrdv2.core.features.transforms.parse_transforms`; "auto" is
        what suits each part of the backbone, "a+b" has one for each. A backbone whose
        features move along with the image, such as the filter bank, runs once.
    stride : int, optional
        Distance of neighbouring patches in pixels; the patch size by default.
    progress, should_stop : callable, optional
        Called as ``progress(done, total)``; ends the computation by returning True.
    boundary : {"periodic", "reflect"}
        What a shifted image shows at its border.
    interpolation : str, optional
        How tokens are upsampled, see `HighResFeatures`: "auto" is what suits the
        backbone; bilinear by default, or nearest under ``compat="reference"``.
    debias : {"none", "mean", "project"}
        What is taken out of tokens that tells where they are: the mean tokens of noise
        images, and with "project" also the directions along which that map varies
        most. A backbone that does not know positions is left as it is.
    compat : {"corrected", "reference"}
        ``"reference"`` reproduces HR-Dv2's published code, see `HighResFeatures`.
    channels : str, optional
        The names of the channels along `channel_axis`, by default the last axis, as in
        "BSE,Fe": each passes the backbone by itself, and their features are joined.
    channel_axis, value_range
        See :func:`~napari_hrdv2.core.checks.prepare_image`.
    levels : tuple of two float, optional
        The mean and the deviation of grey levels, in those of the image, that a
        backbone which standardises images takes; by default the image's own, so that
        brightness and contrast make no difference; or a pair for each channel. With a
        deviation below 0 light and dark are exchanged. Others have `value_range`.
    batch_size : int, optional
        Transformed copies run at once; by default what the device's memory allows.
    partition : (H, W) array of int, optional
        Regions for a backbone that has one token per region, in place of its own.

    Raises
    ------
    Cancelled
        When `should_stop` returned True.
    MemoryError
        If the features would not fit into memory.
    """
    parts = parts_of(backbone)
    options = checked_options(
        parts,
        stride=stride,
        value_range=value_range,
        boundary=boundary,
        interpolation=interpolation,
        compat=compat,
        debias=debias,
        levels=levels,
        channels=channels,
    )
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    names, warn = options.channel_names, any(part.absolute_levels for part in parts)
    about: dict[str, Any] = {"channel_axis": None if names else channel_axis}
    bands = zip(bands_of(image, names, channel_axis), options.ranges, strict=True)
    prepared = [prepare_image(b, value_range=r, warn=warn, **about) for b, r in bands]
    count, *shape = prepared[0].pixels.shape
    plans = make_plans((shape[0], shape[1]), count, backbone, transforms, options)
    steps = Steps(progress, should_stop)
    seen = product(zip(prepared, names or ("",), strict=True), parts)
    runs = [
        Run(each, part, plan, options, steps, partition, batch_size, channel=name)
        for ((each, name), part), plan in zip(seen, plans, strict=True)
    ]
    if partition is not None and not any(isinstance(p, RegionBackbone) for p in parts):
        raise ValueError(
            f"partition: {backbone.name} has no tokens of regions; choose a backbone "
            "that has, such as spit-small"
        )
    check_memory(plans, shape, parts[0].device)
    steps.total = sum(run.length for run in runs)
    steps.count(0)
    features = [run.features() for run in runs]
    return features[0] if len(features) == 1 else JoinedFeatures(features)


def checked_options(
    parts: Sequence[Backbone],
    *,
    boundary: str = "periodic",
    interpolation: str | None = None,
    compat: str = "corrected",
    levels: tuple[Any, ...] | None = None,
    **others: Any,
) -> FeatureOptions:
    """Return the keywords of `compute_features` as options; raise ValueError."""
    check_choice("compat", compat, COMPATS)
    check_choice("boundary", boundary, BOUNDARIES)
    interpolation = interpolation_of(parts, interpolation, compat)
    if any(on_grid(part) for part in parts):
        interpolation = with_fingerprint(interpolation)
    others |= {"interpolation": interpolation, "levels": checked_levels(levels)}
    return FeatureOptions(boundary=boundary, compat=compat, **others)


@dataclass
class Steps:
    """Counts the steps of all passes, reports them and asks whether to stop."""

    progress: Progress | None
    should_stop: Stop
    done: int = 0
    total: int = 0

    def count(self, steps: int = 1) -> None:
        """Tell that so many more are done; raise Cancelled if it is to stop."""
        self.done += steps
        stop_if(self.should_stop, "computing features")
        if self.progress is not None:
            self.progress(self.done, self.total)


@dataclass
class Run:
    """One backbone over one image, or over a window of it.

    With a window the image is as much as can be seen around it, and the plan is that of
    the window; `padding` is by how much what is seen is mirrored at its ends, and
    `own_levels` are what a backbone that standardises takes, in 0..1.
    """

    image: PreparedImage
    backbone: Backbone
    plan: Plan
    options: FeatureOptions
    steps: Steps
    partition: ArrayLike | None = None
    batch_size: int | None = None
    window: Tile | None = None
    padding: tuple[int, int] | None = None
    own_levels: tuple[float, float] | None = None
    channel: str = ""

    @property
    def length(self) -> int:
        """How many steps the backbone takes; noise images that are known cost none."""
        shapes = [(len(self.image.pixels), *shape) for shape in self.plan.noise_shapes]
        keys = [bias_key(self.backbone, shape, self.plan.stride) for shape in shapes]
        known = sum(key in POSITION_BIASES for key in keys)
        return (self.plan.passes - NOISE_IMAGES * known) * self.backbone.steps

    def features(self) -> Features:
        """Run every transform and return the features."""
        if isinstance(self.backbone, RegionBackbone):
            return region_features(
                self.backbone,
                torch.from_numpy(self.image.pixels),
                self.plan.transforms,
                boundary=self.options.boundary,
                partition=self.partition,
                options=self._part_options(),
                tick=self.steps.count,
            )
        return self.features_of(self.tokens())

    def tokens(self) -> Tensor:
        """Run every transform and return the tokens of each shift, (T, h, w, C)."""
        plan, device = self.plan, self.backbone.device
        shifts, copies = plan.transforms.shifts(), plan.transforms.copies
        jobs = [(n, copies[m], w) for n, m, w in plan.transforms.members()]
        maps = self._maps(jobs, self.batch_size or batch_that_fits(device, plan))
        if len(jobs) == 1:  # the many planes of a filter bank are not copied
            return next(maps)[2].unsqueeze(0)
        return average_into(self._empty((len(shifts), *plan.grid, plan.channels)), maps)

    def features_of(self, tokens: Tensor, guide: Tensor | None = None) -> Features:
        """Return the features that the tokens stand for; a guide is the image."""
        features = HighResFeatures(
            tokens,
            self.plan.transforms.shifts(),
            self._shape,
            self.backbone.patch_size,
            self.plan.stride,
            self.options.interpolation,
            boundary=self.options.boundary,
            options=self._part_options(),
            channel_weights=self.backbone.channel_weights_for(len(self.image.pixels)),
            guide=self.image.pixels if guide is None else guide,
        )
        if cell := self.backbone.context_cell:
            return with_context(features, cell, tick=lambda: self.steps.count(0))
        return features

    def _maps(
        self, jobs: list[Job], batch_size: int
    ) -> Iterator[tuple[int, float, Tensor]]:
        """Yield shift number, weight and upright tokens of every job, in order."""
        padded: Tensor | None = None
        while jobs:
            turned = [job[1].transform.transpose for job in jobs]
            alike = next((n for n, t in enumerate(turned) if t != turned[0]), len(jobs))
            batch = jobs[: min(batch_size, alike)]
            done = self.steps.done
            try:
                padded = self._padded() if padded is None else padded
                bias = self._bias(turned=turned[0])
                done = self.steps.done  # the bias is kept whatever happens
                grids = self._tokens(padded, batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.steps.done = done
                batch_size = batch_after_running_out(self.backbone, len(batch))
                padded = None
                continue
            if bias is not None:  # it lies on the grid of the copy, not of the image
                grids = bias.removed_from(grids)
            for (number, copy, weight), grid in zip(batch, grids, strict=True):
                yield number, weight, copy.inverse.apply_symmetry(grid)
            jobs = jobs[len(batch) :]

    def _tokens(self, padded: Tensor, batch: list[Job]) -> Tensor:
        boundary = self.options.boundary
        images = [copy.transform.apply(padded, boundary) for _, copy, _ in batch]
        assert not isinstance(self.backbone, RegionBackbone)
        given: dict[str, Any] = {}
        if self._levels is not None:
            low, high = self.image.value_range
            mean, deviation = self._levels
            given["levels"] = (mean - low) / (high - low), deviation / (high - low)
        elif self.own_levels is not None:
            given["levels"] = self.own_levels
        # All of an image is worked on as such.
        stride, grid = self.plan.stride, self.plan.grid
        if self.window and self._shape != self.image.pixels.shape[1:]:
            starts = [span.start // stride for span in self.window]
            given["inside"] = tuple(
                slice(n, n + count) for n, count in zip(starts, grid, strict=True)
            )
        given["tick"] = lambda: self.steps.count(len(batch))
        return self.backbone.tokens(torch.stack(images), stride=stride, **given)

    @property
    def _levels(self) -> tuple[float, float] | None:
        """The levels that were given, for a backbone that takes any."""
        known = self.options.levels_of(self.channel)
        return None if self.backbone.absolute_levels else known

    def _bias(self, *, turned: bool) -> PositionBias | None:
        """Return what the positions add to the tokens of copies, turned or not."""
        plan = self.plan
        if plan.debias == "none":
            return None
        assert not isinstance(self.backbone, RegionBackbone)
        height, width = plan.padded[::-1] if turned else plan.padded
        return position_bias(
            self.backbone,
            (len(self.image.pixels), height, width),
            plan.stride,
            debias=plan.debias,
            tick=self.steps.count,
        )

    def _padded(self) -> Tensor:
        pixels = torch.from_numpy(self.image.pixels).to(self.backbone.device)
        (height, width), (down, across) = self._shape, self.plan.padded
        below, beside = self.padding or (down - height, across - width)
        return torch.nn.functional.pad(pixels, (0, beside, 0, below), mode="reflect")

    @property
    def _shape(self) -> tuple[int, int]:
        """(H, W) of what the features are of."""
        return self.window.shape if self.window else self.image.pixels.shape[1:]

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        device, dtype = self.backbone.device, self.backbone.dtype
        try:
            return torch.empty(shape, dtype=dtype, device=device)
        except torch.OutOfMemoryError:  # on a GPU
            log.warning("tokens do not fit on %s and are kept in main memory", device)
            return torch.empty(shape, dtype=dtype)

    def _part_options(self) -> PartOptions:
        own = self.partition is None or not isinstance(self.backbone, RegionBackbone)
        return PartOptions(
            backbone=self.backbone.name,
            weights_hash=self.backbone.weights_hash,
            transforms=self.plan.transforms.spec,
            stride=self.plan.stride,
            channels=self.plan.channels,
            boundary=self.options.boundary,
            interpolation=self.options.interpolation,
            compat=self.plan.transforms.compat,
            precision=str(self.backbone.dtype).removeprefix("torch."),
            value_range=self.image.value_range,
            levels=self._levels,
            debias=self.plan.debias,
            partition="own" if own else "given",
            channel=self.channel,
        )
