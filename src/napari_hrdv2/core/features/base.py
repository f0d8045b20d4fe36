"""Features: a (C, H, W) map that can be read without existing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .sample_cache import SampleCache, background_pixels, finite_rows
from .tiles import LinearModel, Region, Stop, Tile, checked_region, paste

if TYPE_CHECKING:
    from .options import PartOptions


class Features(ABC):
    """A (C, H, W) feature map that can be read without existing.

    Attributes
    ----------
    shape : tuple of int
        (C, H, W) of the map it stands for.
    part_options : tuple of PartOptions
        How each part was made, in the order of the channels; empty if unknown.
    channel_weights : (C,) float32 tensor or None
        Weight of each standardised channel before anything is labelled; None is 1.
    """

    shape: tuple[int, int, int]
    part_options: tuple[PartOptions, ...] = ()
    channel_weights: Tensor | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape}, {self.nbytes / 1e6:.0f} MB)"

    @property
    def recipes(self) -> tuple[PartOptions, ...]:
        """The former name of `part_options`, which exported scripts of 0.1.0 use."""
        return self.part_options

    @property
    @abstractmethod
    def own_nbytes(self) -> int:
        """Bytes of memory that the features take without `samples`."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the features and what was read of them take."""
        cache: SampleCache | None = self.__dict__.get("_samples")
        return self.own_nbytes + (0 if cache is None else cache.nbytes)

    @property
    def samples(self) -> SampleCache:
        """Feature vectors that were read so far: a second fit reads only new ones."""
        if "_samples" not in self.__dict__:
            # One cache, also if two threads come here at once.
            self.__dict__.setdefault("_samples", self._new_samples())
        return cast("SampleCache", self.__dict__["_samples"])

    def _new_samples(self) -> SampleCache:
        return SampleCache(self)

    def background_pixels(self, count: int | None = None) -> NDArray[np.int64]:
        """Return the flat indices of the first `count` pixels of the background sample.

        They are from all over the image, and always the same.
        """
        return background_pixels(self.shape[1:], count)

    def at_hand(self, row: int, column: int) -> Tile:
        """Return what can be read around a pixel at no more cost than the pixel."""
        return checked_region(None, self.shape[1:])

    def apart(self, pixels: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """Return flat indices in parts, of so many at most, that are `at_hand`."""
        return np.array_split(pixels, -(-len(pixels) // most))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache out: a copy has its own."""
        return {k: v for k, v in self.__dict__.items() if k != "_samples"}

    @abstractmethod
    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:
        """Return the feature vectors of N pixels, (N, C) float32."""

    @abstractmethod
    def materialize(self) -> NDArray[np.float32]:
        """Return the (C, H, W) float32 map, the slow obvious way."""

    @abstractmethod
    def planes(
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield the model by `tiles_of` an area, as (rows, K, columns) tensors.

        Values outside the area mean nothing.
        """

    def project(
        self,
        weight: ArrayLike,
        bias: ArrayLike,
        *,
        region: Region | None = None,
        should_stop: Stop = None,
        softmax: bool = False,
    ) -> NDArray[np.float32]:
        """Return a linear model at every pixel, (K, H, W) float32.

        Parameters
        ----------
        weight, bias : (K, C) and (K,) arrays
        region : tuple of two slices, optional
            Rows and columns to read, as in ``image[region]``; all by default. Equals
            that part of the whole, bit for bit.
        should_stop : callable, optional
            Asked between blocks of work; `Cancelled` is raised when it says so.
        softmax : bool
            Whether to return probabilities of the K, by the softmax.
        """
        model = self.linear_model(weight, bias)
        area = checked_region(region, self.shape[1:])
        output = np.empty((len(model.bias), *area.shape), np.float32)
        for tile, block in self.planes(model, area, should_stop):
            planes = block.movedim(1, 0)  # (K, rows, columns)
            planes = planes.softmax(0) if softmax else planes
            paste(output, tile, planes.cpu().numpy(), area)
        return output

    def argmax(
        self,
        weight: ArrayLike,
        bias: ArrayLike,
        values: Sequence[int] | None = None,
        *,
        region: Region | None = None,
        should_stop: Stop = None,
    ) -> NDArray[Any]:
        """Return which function is the largest at every pixel, the first among equals.

        `values` stand for the K functions, 0 … K - 1 by default: ascending, none below
        0. The rest is as for `project`. The (H, W) array is uint8 if they fit, else
        int64.
        """
        model = self.linear_model(weight, bias)
        values = list(range(len(model.bias)) if values is None else values)
        if values != sorted(values) or values[0] < 0:
            raise ValueError(f"values: {values} are not ascending from 0 or more")
        dtype = torch.uint8 if values[-1] <= 255 else torch.int64
        area = checked_region(region, self.shape[1:])
        output = torch.full(area.shape, values[0], dtype=dtype)
        if len(values) > 1:
            for tile, block in self.planes(model.against(0), area, should_stop):
                paste(output, tile, _largest(block, values, dtype), area)
        return output.numpy()

    def linear_model(self, weight: ArrayLike, bias: ArrayLike) -> LinearModel:
        """Return the model, or raise ValueError if it does not fit the channels."""
        weight = torch.as_tensor(np.asarray(weight, np.float32))
        bias = torch.as_tensor(np.asarray(bias, np.float32))
        if weight.ndim != 2 or weight.shape[1] != self.shape[0]:
            raise ValueError(
                f"weight: shape {tuple(weight.shape)} does not fit features of "
                f"{self.shape[0]} channels; (K, {self.shape[0]}) is needed"
            )
        if bias.shape != weight.shape[:1] or not len(bias):
            raise ValueError(
                f"bias: shape {tuple(bias.shape)} does not fit a weight of shape "
                f"{tuple(weight.shape)}; ({weight.shape[0]},) is needed"
            )
        return LinearModel(weight, bias)

    def _pixels(self, rows: ArrayLike, cols: ArrayLike) -> tuple[Tensor, Tensor]:
        pixels = []
        both = zip(("rows", "cols"), (rows, cols), self.shape[1:], strict=True)
        for name, values, length in both:
            index = np.atleast_1d(np.asarray(values))
            if index.size and index.dtype.kind not in "iu":
                raise TypeError(
                    f"{name}: {index.dtype} are not pixel indices; integers are needed"
                )
            index = index.astype(np.int64)
            if index.size and not 0 <= index.min() <= index.max() < length:
                raise ValueError(
                    f"{name}: pixels {index.min()}..{index.max()} are not all inside "
                    f"an image of shape {self.shape[1:]}"
                )
            pixels.append(torch.from_numpy(index))
        if pixels[0].shape != pixels[1].shape or pixels[0].ndim != 1:
            raise ValueError(
                f"rows, cols: shapes {tuple(pixels[0].shape)} and "
                f"{tuple(pixels[1].shape)} differ; two (N,) arrays are needed"
            )
        return pixels[0], pixels[1]


class JoinedFeatures(Features):
    """Feature maps of one image, of one (H, W), side by side: channels are joined.

    A linear model of it is a sum of models of its parts.
    """

    def __init__(self, parts: Sequence[Features]) -> None:
        self.parts = tuple(parts)
        sizes = {part.shape[1:] for part in self.parts}
        if len(sizes) != 1:
            raise ValueError(f"parts: shapes {sorted(sizes)} differ or are missing")
        self.shape = (sum(part.shape[0] for part in self.parts), *sizes.pop())
        if all(part.part_options for part in self.parts):
            self.part_options = sum((part.part_options for part in self.parts), ())
        if any(part.channel_weights is not None for part in self.parts):
            self.channel_weights = torch.cat([channel_weights(p) for p in self.parts])

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the parts take."""
        return sum(part.nbytes for part in self.parts)

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        return np.concatenate([part.sample(rows, cols) for part in self.parts], 1)

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        weights = torch.split(model.weight, [p.shape[0] for p in self.parts], 1)
        biases = [model.bias, *[torch.zeros_like(model.bias)] * len(weights[1:])]
        models = zip(self.parts, map(LinearModel, weights, biases), strict=True)
        streams = [part.planes(one, area, stop) for part, one in models]
        for blocks in zip(*streams, strict=True):
            total = blocks[0][1]
            for _, block in blocks[1:]:
                total = total + block.to(total.device)
            yield blocks[0][0], total

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        return np.concatenate([part.materialize() for part in self.parts])


class StoredPixels(Features):
    """The feature vectors of training pixels and of the background sample, no others.

    `pixels` are ascending flat indices into (H, W). The features that they are read
    from are not kept.
    """

    def __init__(self, features: Features, pixels: NDArray[np.int64]) -> None:
        self.shape, self.part_options = features.shape, features.part_options
        self.channel_weights = features.channel_weights
        self._background_pixels = features.background_pixels()
        both = (np.divmod(x, self.shape[2]) for x in (pixels, self._background_pixels))
        rows, self._background = (features.sample(*each) for each in both)
        is_finite = finite_rows(rows)
        self._stored, self._rows = pixels[is_finite], rows[is_finite]

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the rows take."""
        return self._rows.nbytes + self._background.nbytes

    def _new_samples(self) -> SampleCache:
        return SampleCache(self, (self._stored, self._rows, self._background))

    def background_pixels(self, count: int | None = None) -> NDArray[np.int64]:
        """Return those of the features that they were read from."""
        return self._background_pixels[:count]

    def knows(self, pixels: NDArray[np.int64]) -> bool:
        """Whether all of these flat indices are training pixels."""
        return bool(np.isin(pixels, self._stored).all())

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:
        """Return the feature vectors at some of the training pixels."""
        wanted = np.asarray(rows, np.int64) * self.shape[2] + np.asarray(cols, np.int64)
        if not self.knows(wanted):
            self._refuse()
        return self._rows[np.searchsorted(self._stored, wanted)]

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(
            "features: only those of painted pixels were kept of this image; compute "
            "its features again"
        )

    materialize = planes = _refuse  # there is no map any more


def channel_weights(features: Features) -> Tensor:
    """Return the weight of each channel, 1 where nothing is said of them."""
    found = features.channel_weights
    return torch.ones(features.shape[0]) if found is None else found


def _largest(block: Tensor, values: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return values[argmax over axis 1] of (rows, K - 1, W) behind a plane of zeros."""
    # Several times faster than torch's argmax or filling by mask.
    planes = block.unbind(1)
    best = planes[0].clamp(min=0)
    index = _as_values(planes[0] > 0, values[1], dtype).clamp_(min=values[0])
    for number, plane in enumerate(planes[1:], start=2):
        # Values ascend, so a later winner replaces an earlier one.
        won = _as_values(plane > best, values[number], dtype)
        torch.maximum(index, won, out=index)
        if number < len(planes):
            torch.maximum(best, plane, out=best)
    return index


def _as_values(mask: Tensor, value: int, dtype: torch.dtype) -> Tensor:
    """Return a value where a mask is true and 0 elsewhere; the mask is used up."""
    numbers = mask.view(torch.uint8) if dtype == torch.uint8 else mask.to(dtype)
    return numbers.mul_(value)
