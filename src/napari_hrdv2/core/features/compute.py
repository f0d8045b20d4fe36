"""Running a backbone on transformed copies of an image and keeping the tokens."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_hrdv2.core.backbones.base import RegionBackbone
from napari_hrdv2.core.devices import available_memory
from napari_hrdv2.core.errors import Cancelled, is_out_of_memory
from napari_hrdv2.core.features.context import ContextFeatures
from napari_hrdv2.core.features.debias import (
    NOISE_IMAGES,
    POSITION_BIASES,
    PositionBias,
)
from napari_hrdv2.core.features.high_resolution import (
    Features,
    HighResFeatures,
    JoinedFeatures,
    check_choice,
)
from napari_hrdv2.core.features.image import PreparedImage, prepare_image
from napari_hrdv2.core.features.memory import Plan, make_plans, on_grid, parts_of
from napari_hrdv2.core.features.options import FeatureOptions, PartOptions
from napari_hrdv2.core.features.superpixels import region_features
from napari_hrdv2.core.features.transforms import (
    BOUNDARIES,
    COMPATS,
    Copy,
    TransformSet,
)
from napari_hrdv2.core.features.upsampling.naf_upsampling import with_fingerprint

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone

Progress = Callable[[int, int], None]
Job = tuple[int, Copy, float]  # number of the shift, copy, share

log = logging.getLogger(__name__)
MAXIMUM_BATCH = 16


def compute_features(
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    transforms: str | TransformSet = "auto",
    stride: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    boundary: str = "periodic",
    interpolation: str | None = None,
    debias: str = "none",
    compat: str = "corrected",
    channel_axis: int | None = None,
    value_range: tuple[float, float] | None = None,
    batch_size: int | None = None,
    partition: ArrayLike | None = None,
) -> Features:
    """Return the high-resolution features of an image.

    Parameters
    ----------
    image : (H, W) or (H, W, 3|4) array, or 3-D with `channel_axis`
        At least one patch large. Padded by reflection to whole patches, never resized.
    backbone : Backbone
        From :func:`load_backbone`.
    transforms : str or TransformSet
        See :func:`~napari_hrdv2.core.features.transforms.parse_transforms`; "auto" is
        "shift:1,2" for a ViT and "identity" for the embedded backbone, each part of a
        joined one as it suits it. A backbone whose
        features move along with the image, such as the filter bank, runs once.
    stride : int, optional
        Distance of neighbouring patches in pixels; the patch size by default.
    progress : callable, optional
        Called as ``progress(done, total)``.
    should_stop : callable, optional
        Asked often; once it returns True the computation ends.
    boundary : {"periodic", "reflect"}
        What a shifted image shows at its border.
    interpolation : str, optional
        How tokens are upsampled, see `HighResFeatures`; for instance "bilinear+2",
        "bilateral+2" or, with weights of its own, "naf". Bilinear, or nearest under
        ``compat="reference"``, by default.
    debias : {"none", "mean", "project"}
        What is taken out of tokens that tells where they are rather than what they
        show: the mean tokens of noise images, and with "project" also the directions
        along which that map varies most. Of use on even surfaces; a backbone that does
        not know positions is left as it is.
    compat : {"corrected", "reference"}
        ``"reference"`` reproduces HR-Dv2's published code, see `HighResFeatures`.
    channel_axis, value_range
        See :func:`~napari_hrdv2.core.features.image.prepare_image`.
    batch_size : int, optional
        Transformed copies run at once; by default what the device's memory allows.
    partition : (H, W) array of int, optional
        Regions for a backbone that has one token per region, in place of its own.

    Returns
    -------
    Features
        :class:`HighResFeatures`, or :class:`JoinedFeatures` for a joined backbone and
        for one that has surroundings.

    Raises
    ------
    Cancelled
        When `should_stop` returned True.
    MemoryError
        If the features would not fit into memory.
    TypeError, ValueError
        If an argument cannot be used.
    """
    check_choice("compat", compat, COMPATS)
    if interpolation is None:
        interpolation = "nearest" if compat == "reference" else "bilinear"
    if any(on_grid(part) for part in parts_of(backbone)):
        interpolation = with_fingerprint(interpolation)
    check_choice("boundary", boundary, BOUNDARIES)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} is not a number of at least 1")
    prepared = prepare_image(
        image,
        channel_axis=channel_axis,
        value_range=value_range,
        warn=any(part.absolute_levels for part in parts_of(backbone)),
    )
    channels, height, width = prepared.pixels.shape
    plans = make_plans(
        (height, width),
        channels,
        backbone,
        transforms,
        stride,
        compat=compat,
        interpolation=interpolation,
        debias=debias,
    )
    runs = [
        _Run(prepared, part, plan, boundary, interpolation, partition)
        for part, plan in zip(parts_of(backbone), plans, strict=True)
    ]
    if partition is not None and not any(run.takes_regions for run in runs):
        raise ValueError(
            f"partition: {backbone.name} has no tokens of regions; choose a backbone "
            "that has, such as spit-small"
        )
    _check_memory([run.plan for run in runs], (height, width), runs[0].backbone.device)
    clock = _Clock(sum(run.ticks for run in runs), progress, should_stop)
    features = [run.features(clock, batch_size) for run in runs]
    return features[0] if len(features) == 1 else JoinedFeatures(features)


def compute_with(
    options: FeatureOptions,
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    partition: ArrayLike | None = None,
) -> Features:
    """Return the features that `options` ask for, by a backbone that was loaded."""
    return compute_features(
        image,
        backbone,
        options.transforms,
        options.stride,
        progress,
        should_stop,
        boundary=options.boundary,
        interpolation=options.interpolation,
        debias=options.debias,
        compat=options.compat,
        value_range=options.value_range,
        partition=partition,
    )


def _check_memory(
    plans: list[Plan], shape: tuple[int, int], device: torch.device
) -> None:
    """Raise MemoryError before a run that cannot succeed."""
    needed = sum(plan.token_bytes for plan in plans)
    needed += max(plan.working_bytes for plan in plans)
    available = available_memory(torch.device("cpu"))
    if device.type == "cuda":
        available += available_memory(device)
    if needed > available:
        raise MemoryError(
            f"image: features of {shape[0]} × {shape[1]} px need about "
            f"{needed / 1e9:.1f} GB and {available / 1e9:.1f} GB are free; use fewer "
            "transforms, a larger stride or a part of the image"
        )


class _Clock:
    """Counts the steps of all passes, reports them and asks whether to stop."""

    def __init__(
        self,
        total: int,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.done, self.total = 0, total
        self.progress, self.should_stop = progress, should_stop
        self.tick(0)

    def tick(self, steps: int) -> None:
        self.done += steps
        if self.should_stop is not None and self.should_stop():
            raise Cancelled("computing features was cancelled")
        if self.progress is not None:
            self.progress(self.done, self.total)


class _Run:
    """One backbone over one image."""

    def __init__(
        self,
        image: PreparedImage,
        backbone: Backbone,
        plan: Plan,
        boundary: str,
        interpolation: str,
        partition: ArrayLike | None = None,
    ) -> None:
        self.partition = partition
        self.takes_regions = isinstance(backbone, RegionBackbone)
        self.image, self.backbone, self.plan = image, backbone, plan
        self.boundary, self.interpolation = boundary, interpolation
        known = [
            POSITION_BIASES.has(backbone, (len(image.pixels), *shape), plan.stride)
            for shape in plan.noise_shapes
        ]
        self.ticks = (plan.passes - NOISE_IMAGES * sum(known)) * backbone.steps

    def features(self, clock: _Clock, batch_size: int | None) -> Features:
        """Run every transform and return the features."""
        if isinstance(self.backbone, RegionBackbone):
            return region_features(
                self.backbone,
                torch.from_numpy(self.image.pixels),
                self.plan.transforms,
                boundary=self.boundary,
                partition=self.partition,
                options=self._options(),
                tick=lambda: clock.tick(1),
            )
        plan = self.plan
        shifts = plan.transforms.shifts()
        jobs = [
            (number, plan.transforms.copies[member], share)
            for number, copy in enumerate(shifts.copies)
            for member, share in plan.transforms.members(copy.shift)
        ]
        maps = self._maps(jobs, clock, batch_size or self._batch_that_fits())
        if len(jobs) == 1:  # the many planes of a filter bank are not copied
            tokens = next(maps)[2].unsqueeze(0)
        else:
            tokens = self._averaged(maps, len(shifts))
        _, height, width = self.image.pixels.shape
        features = HighResFeatures(
            tokens,
            shifts,
            (height, width),
            self.backbone.patch_size,
            plan.stride,
            self.interpolation,
            boundary=self.boundary,
            options=self._options(),
            channel_weights=self.backbone.channel_weights_for(
                self.image.pixels.shape[0]
            ),
            guide=self.image.pixels,
        )
        cell = self.backbone.context_cell
        if not cell:
            return features
        return ContextFeatures(features, cell, tick=lambda: clock.tick(0))

    def _averaged(
        self, maps: Iterator[tuple[int, float, Tensor]], shifts: int
    ) -> Tensor:
        """Return one map per shift, (shifts, h, w, C)."""
        tokens = self._empty((shifts, *self.plan.grid, self.plan.channels))
        for number, same_shift in groupby(maps, key=itemgetter(0)):
            total: Tensor | None = None
            for _, share, grid in same_shift:
                upright = grid.to(tokens.device)
                if share < 1:  # sums of half precision numbers are made in float32
                    upright = share * upright.float()
                total = upright if total is None else total.add_(upright)
            assert total is not None
            tokens[number] = total
        return tokens

    def _maps(
        self, jobs: list[Job], clock: _Clock, batch_size: int
    ) -> Iterator[tuple[int, float, Tensor]]:
        """Yield shift number, share and upright tokens of every job, in order."""
        padded = self._padded()
        while jobs:
            turned = [job[1].transform.transpose for job in jobs]
            alike = next((n for n, t in enumerate(turned) if t != turned[0]), len(jobs))
            batch = jobs[: min(batch_size, alike)]
            done = clock.done
            try:
                bias = self._bias(turned=turned[0], clock=clock)
                done = clock.done  # the bias is kept, whatever happens to the batch
                grids = self._tokens(padded, batch, clock)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                clock.done = done
                batch_size = self._after_running_out(len(batch))
                padded = self._padded()
                continue
            if bias is not None:  # it lies on the grid of the copy, not of the image
                grids = bias.removed_from(grids)
            for (number, copy, share), grid in zip(batch, grids, strict=True):
                yield number, share, copy.inverse.apply_symmetry(grid)
            jobs = jobs[len(batch) :]

    def _tokens(self, padded: Tensor, batch: list[Job], clock: _Clock) -> Tensor:
        images = [copy.transform.apply(padded, self.boundary) for _, copy, _ in batch]

        def tick() -> None:
            clock.tick(len(batch))

        assert not isinstance(self.backbone, RegionBackbone)
        return self.backbone.tokens(
            torch.stack(images), stride=self.plan.stride, tick=tick
        )

    def _bias(self, *, turned: bool, clock: _Clock) -> PositionBias | None:
        """Return what the positions add to the tokens of copies, turned or not."""
        plan = self.plan
        if plan.debias == "none":
            return None
        assert not isinstance(self.backbone, RegionBackbone)
        height, width = plan.padded[::-1] if turned else plan.padded
        return POSITION_BIASES.get(
            self.backbone,
            (len(self.image.pixels), height, width),
            plan.stride,
            debias=plan.debias,
            tick=lambda: clock.tick(1),
        )

    def _padded(self) -> Tensor:
        pixels = torch.from_numpy(self.image.pixels).to(self.backbone.device)
        _, height, width = pixels.shape
        extra = (0, self.plan.padded[1] - width, 0, self.plan.padded[0] - height)
        return torch.nn.functional.pad(pixels, extra, mode="reflect")

    def _batch_that_fits(self) -> int:
        device = self.backbone.device
        if device.type == "cpu":
            return 1  # larger batches are not faster there
        free = available_memory(device) - self.plan.token_bytes
        return max(1, min(MAXIMUM_BATCH, int(free / 2 // self.plan.working_bytes)))

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        device, dtype = self.backbone.device, self.backbone.dtype
        try:
            return torch.empty(shape, dtype=dtype, device=device)
        except torch.OutOfMemoryError:  # on a GPU
            log.warning("tokens do not fit on %s and are kept in main memory", device)
            return torch.empty(shape, dtype=dtype)

    def _after_running_out(self, batch_size: int) -> int:
        """Return a smaller batch size, moving to the CPU when even one is too many."""
        device = self.backbone.device
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if batch_size > 1:
            return batch_size // 2
        if device.type == "cpu":
            raise MemoryError(
                "image: the memory ran out while features were computed; use a larger "
                "stride or a part of the image"
            )
        warnings.warn(
            f"{device} has too little memory for one pass; going on on the CPU",
            stacklevel=2,
        )
        self.backbone.to("cpu")
        return 1

    @property
    def _takes_given(self) -> bool:
        return self.takes_regions and self.partition is not None

    def _options(self) -> PartOptions:
        return PartOptions(
            backbone=self.backbone.name,
            weights_hash=self.backbone.weights_hash,
            transforms=self.plan.transforms.spec,
            stride=self.plan.stride,
            channels=self.plan.channels,
            boundary=self.boundary,
            interpolation=self.interpolation,
            compat=self.plan.transforms.compat,
            precision=str(self.backbone.dtype).removeprefix("torch."),
            value_range=self.image.value_range,
            debias=self.plan.debias,
            partition="given" if self._takes_given else "own",
        )
