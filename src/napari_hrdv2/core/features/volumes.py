"""Features of a volume: of its slices along one axis or all three, and of neighbours.

They are means of features of slices, so that a linear model of them is the mean of what
it makes of each slice: the features of one are there at once, and of those around it no
more than their decision values.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.checks import missing_pixels
from napari_hrdv2.core.devices import available_memory, choose_device
from napari_hrdv2.core.errors import stop_if

from .base import Features, channel_weights
from .blocks import block_features
from .blocks.statistics import bands_in, read_statistics
from .compute import compute_features
from .high_resolution import CONTEXT_WEIGHT
from .options import FeatureOptions, ValueRange
from .sample_cache import BACKGROUND_PIXELS
from .tiles import LinearModel, Stop, Tile

SLAB = 16  # slices across the planes of a file, which are read together
REACH = 2  # deviations of the Gaussian along an axis
# Slices along each axis that cross in the background sample, by the number of axes
# whose features count.
SAMPLED = {1: (5, 20, 20), 3: (13, 13, 13)}
PROBE = 64  # px of an image that tells how many channels there are

Kept = dict[int, NDArray[np.float32]]
"""Decision values of slices, by their numbers along an axis."""


def any_features(
    image: Any,
    backbone: Any,
    pixel_ratio: tuple[float, float] | None = None,
    **options: Any,
) -> Features:
    """Return those of `block_features`, or of `volume_features`, as they are."""
    if hasattr(image, "volume_shape"):
        return volume_features(image, backbone, **options)
    return block_features(image, backbone, pixel_ratio=pixel_ratio, **options)


def context_bytes(volume: Any, count: int) -> int:
    """Return the bytes that neighbouring slices take, by `count` decision values."""
    reach, size = math.ceil(REACH * volume.width), volume.volume_shape
    lengths = size if volume.planes.startswith("xyz") else size[:1]
    share = max(min((2 * reach + 1) / length, 1) for length in lengths)
    return int(8 * count * math.prod(size) * share) if reach else 0


def check_context(volume: Any, count: int) -> None:
    """Raise MemoryError where so many decision values of its slices do not fit."""
    needed, free = context_bytes(volume, count), available_memory(choose_device("cpu"))
    if needed > free:
        raise MemoryError(
            f"planes: {volume.planes} keeps {needed / 1e9:.1f} GB of slices in memory, "
            f"and {free / 1e9:.1f} GB are free; take a narrower context"
        )


def volume_features(
    volume: Any,
    backbone: Any,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Stop = None,
    *,
    levels: tuple[Any, ...] | None = None,
    value_range: ValueRange | None = None,
    channels: str = "",
    **options: Any,
) -> VolumeFeatures:
    """Return the features of a volume, once it was read for its grey levels.

    All slices have those of the volume, or the `levels` that are given. A slice whose
    features do not fit into memory goes by blocks. The rest is as for
    `compute_features`; `progress` also hears of slices across the planes.
    """

    def tick(done: int, total: int) -> None:
        stop_if(should_stop, "reading the volume")
        if progress is not None:
            progress(done, total)

    asked = FeatureOptions(channels=channels, value_range=value_range)
    bands = zip(bands_in(volume, asked.channel_names), asked.ranges, strict=True)
    known = [read_statistics(b, r, [(0, 0)], warn=False, tick=tick) for b, r in bands]
    ranges, own = tuple(one.value_range for one in known), []
    for (low, high), one in zip(ranges, known, strict=True):
        mean, deviation = (each * (high - low) for each in one.levels[0, 0])
        own.append((low + mean, max(deviation, 1e-9)))
    fill = np.concatenate([[0] if one.fill is None else one.fill for one in known])
    about = {**options, "channels": channels}
    about["levels"] = levels or (tuple(own) if channels else own[0])
    about["value_range"] = ranges if channels else ranges[0]

    def computed(pixels: NDArray[Any], stop: Stop) -> Features:
        stop = stop or should_stop
        if missing_pixels(pixels) is not None:
            shown = pixels.reshape(*pixels.shape[:2], -1)[..., : len(fill)]
            shown = np.where(np.isfinite(shown), shown, fill.astype(pixels.dtype))
            pixels = shown[..., 0] if pixels.ndim == 2 else shown
        try:
            return compute_features(pixels, backbone, should_stop=stop, **about)
        except MemoryError:
            return block_features(pixels, backbone, should_stop=stop, **about)

    return VolumeFeatures(volume, computed, tick)


class VolumeFeatures(Features):
    """Features of the voxels of a volume, which is read slice by slice.

    They are given as those of an image of Z · Y rows, plane below plane: so are labels.

    Parameters
    ----------
    volume : (Z · Y, X) or (Z · Y, X, bands) array_like
        With a `volume_shape`, (Z, Y, X). Its `planes` are "z...": the features of a
        voxel are those in its plane; or "xyz...": the mean of those in the three slices
        through it. Its `width`: beside each channel is its mean over neighbouring
        slices along the same axis, by a Gaussian of this standard deviation in slices;
        0 for none. What lies beyond the ends weighs nothing.
    compute : callable
        Returns the features of a slice, an (H, W[, bands]) array; ends if its second
        says so.
    progress : callable, optional
        Called as ``progress(done, total)`` for slices across the planes.

    Attributes
    ----------
    folder : Path or None
        Where decision values of slices across the planes are kept, to be gone on with.
    """

    pixels_at_once = BACKGROUND_PIXELS  # else each few of them need all slices again
    folder: Path | None = None

    def __init__(
        self,
        volume: Any,
        compute: Callable[[NDArray[Any], Stop], Features],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.volume, self._compute, self._progress = volume, compute, progress
        self.axes = (0, 1, 2) if volume.planes.startswith("xyz") else (0,)
        self.size: tuple[int, int, int] = volume.volume_shape
        self._slab: tuple[tuple[int, int], NDArray[Any]] | None = None
        self._model: LinearModel | None = None
        self._kept: Kept = {}
        check_context(volume, 1)  # of two classes, before anything is computed
        probe = compute(volume[: min(PROBE, self.size[1]), :PROBE], None)
        self._own, width = probe.shape[0], volume.width
        channels = self._own * (2 if width else 1)
        self.shape = channels, self.size[0] * self.size[1], self.size[2]
        changed: dict[str, Any] = {"channels": channels, "planes": volume.planes}
        self.part_options = tuple(replace(p, **changed) for p in probe.part_options)
        self.channel_weights = probe.channel_weights
        if width:
            weights = channel_weights(probe)
            self.channel_weights = torch.cat([weights, CONTEXT_WEIGHT * weights])

    @property
    def own_nbytes(self) -> int:
        """The bytes of decision values that are kept for the next plane."""
        return sum(each.nbytes for each in self._kept.values())

    def slice_features(self, axis: int, index: int, stop: Stop = None) -> Features:
        """Return the features of one slice by itself."""
        rows, start = self.size[1], index - index % SLAB
        if axis == 0:
            return self._compute(self.volume[index * rows : (index + 1) * rows], stop)
        if self._slab is None or self._slab[0] != (axis, start):
            cut = (slice(None),) * (axis - 1) + (slice(start, start + SLAB),)
            planes = (self.volume[z : z + rows] for z in range(0, self.shape[1], rows))
            self._slab = (axis, start), np.stack([one[cut].copy() for one in planes])
        pixels = np.take(self._slab[1], index - start, axis)
        return self._compute(np.ascontiguousarray(pixels), stop)

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        row, column = (each.numpy() for each in self._pixels(rows, cols))
        places = (*np.divmod(row, self.size[1]), column)
        total = np.zeros((len(row), self.shape[0]), np.float32)
        for axis in self.axes:
            where, others = places[axis], [*places[:axis], *places[axis + 1 :]]
            around = {i: self._around(axis, i) for i in np.unique(where).tolist()}
            every = sorted({near for each in around.values() for near in each})
            for number, index in enumerate(every):
                self._progress(number, len(every))
                share = np.array([around[i].get(index, 0) for i in where.tolist()])
                points = np.flatnonzero(share)
                features = self.slice_features(axis, index)
                found = features.sample(*(place[points] for place in others))
                found /= len(self.axes)
                total[points, : self._own] += found * (where[points, None] == index)
                if self.volume.width:
                    total[points, self._own :] += found * share[points, None]
        return total

    def materialize(self) -> NoReturn:  # noqa: D102 - inherited
        raise ValueError("features: those of a volume do not fit; use `sample`")

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        rows = self.size[1]
        if self._model is None or not all(map(torch.equal, self._model, model)):
            self._model, self._kept = model, {}
            check_context(self.volume, len(model.bias))
        for z in range(area.rows.start // rows, -(-area.rows.stop // rows)):
            total, self._kept = self._values(0, z, model, self._kept, stop)
            for axis in self.axes[1:]:
                total += self._across(axis, z, model, stop)
            tile = Tile(slice(z * rows, (z + 1) * rows), slice(0, self.size[2]))
            yield tile, torch.from_numpy(total).movedim(0, 1)

    def background_pixels(self, count: int | None = None) -> NDArray[np.int64]:
        """Return the pixels of the background sample; see `Features`.

        They are where some slices of all three axes cross, so that few are computed.
        """
        random = np.random.default_rng(0)
        most = zip(self.size, SAMPLED[len(self.axes)], strict=True)
        some = [random.choice(n, min(n, many), replace=False) for n, many in most]
        crossings = np.ravel_multi_index(np.ix_(*some), self.size).ravel()
        return random.permutation(crossings)[:BACKGROUND_PIXELS][:count]

    def _values(
        self, axis: int, index: int, model: LinearModel, kept: Kept, stop: Stop
    ) -> tuple[NDArray[np.float32], Kept]:
        """Return the share of a slice in a model, and what to keep for the next one."""
        count, parts = len(model.bias), torch.split(model.weight, self._own, 1)
        both = torch.cat(parts) / len(self.axes)
        bias = torch.zeros(len(both))
        bias[:count] = model.bias / len(self.axes)
        near = self._around(axis, index)
        kept = {other: kept[other] for other in near if other in kept}
        for other in near:
            stop_if(stop, "segmenting a volume")
            if other not in kept:
                made = self.slice_features(axis, other, stop)
                kept[other] = made.project(both, bias, should_stop=stop)
        total = kept[index][:count].copy()
        for other, share in near.items() if self.volume.width else ():
            total += np.float32(share) * kept[other][count:]
        return total, kept

    def _across(
        self, axis: int, z: int, model: LinearModel, stop: Stop
    ) -> NDArray[np.float32]:
        """Return the share of slices along another axis in a plane, (K, Y, X)."""
        if self.folder is None:
            self._temporary = tempfile.TemporaryDirectory()
            self.folder = Path(self._temporary.name)
        self.folder.mkdir(exist_ok=True)
        key = zlib.crc32(torch.cat([model.weight, model.bias[:, None]], 1).numpy().data)
        length, parts = self.size[axis], []
        for start in range(0, length, SLAB):
            path = self.folder / f"{key:x}-{axis}-{start}.npy"
            if not path.exists():
                values: list[NDArray[np.float32]] = []
                kept: Kept = {}
                for index in range(start, min(start + SLAB, length)):
                    self._progress(index, length)
                    found, kept = self._values(axis, index, model, kept, stop)
                    values.append(found)
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.save(file, np.stack(values, 1 + axis))
            parts.append(np.load(path, mmap_mode="r")[:, z])
        return np.concatenate(parts, axis)

    def _around(self, axis: int, index: int) -> dict[int, float]:
        """Return what slices along an axis weigh in the mean around one of them."""
        width = self.volume.width
        if not width:
            return {index: 1.0}
        reach = math.ceil(REACH * width)
        near = np.arange(max(index - reach, 0), min(index + reach + 1, self.size[axis]))
        weights = np.exp(-0.5 * ((near - index) / width) ** 2)
        return dict(zip(near.tolist(), (weights / weights.sum()).tolist(), strict=True))
