"""The pixels of one feature map that were read so far, so that none is read twice."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.errors import Stop, stop_if

Rows = NDArray[np.float32]
Pixels = NDArray[np.int64]
BACKGROUND_PIXELS = 2000  # of one image
PIXELS_AT_ONCE = 50  # of the background: all over the image, more need most tokens
SPARE_ROWS = 10_000  # kept for an undo, beside twice what is asked for


class Readable(Protocol):
    """What `Features` are, as far as it matters here."""

    shape: tuple[int, int, int]

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> Rows:
        """Return the feature vectors at some pixels."""

    def background_pixels(self, count: int | None = None) -> Pixels:
        """Return the pixels of the background sample."""


class SampleCache:
    """Feature vectors of training pixels and of the background sample of `Features`.

    A scribble adds a few pixels to thousands that are known; only those are read. Rows
    that are no longer asked for go when they are more than those that are. Threads may
    share it: a fit that was given up can still run when the next begins. The features
    that own it are not kept alive. Those without a map any more give what they have,
    `stored`: pixels, their rows, and the background; that stays theirs, for good.
    """

    def __init__(
        self, features: Readable, stored: tuple[Pixels, Rows, Rows] | None = None
    ) -> None:
        self._features = weakref.ref(features)
        self._lock = Lock()
        self._is_stored = stored is not None
        none: Rows = np.empty((0, features.shape[0]), np.float32)
        # Flat indices, and in their order the rows, with room to grow.
        known = stored or (np.empty(0, np.int64), none, none)
        self._pixels, self._rows, self._background = known
        self._transform: Callable[[Tensor], Tensor] | None = None
        self._transformed = torch.empty(0, 0)  # the first rows

    @property
    def nbytes(self) -> int:
        """Bytes of memory that all it keeps takes, with the room to grow."""
        own = 0 if self._is_stored else self._rows.nbytes + self._background.nbytes
        return own + self._transformed.nbytes

    def rows(self, pixels: Pixels) -> tuple[Rows, Pixels]:
        """Return the (N, C) feature vectors of pixels, and the pixels in their order.

        `pixels` are flat indices into (H, W), without repetition. Both results are to
        be read only: they may be parts of the cache, and no later call changes them.
        """
        with self._lock:
            missing = np.setdiff1d(pixels, self._pixels, assume_unique=True)
            if missing.size:
                self._append(missing)
            if len(pixels) == len(self._pixels):
                return self._rows[: len(pixels)], self._pixels
            wanted = np.isin(self._pixels, pixels, assume_unique=True)
            rows, order = self._rows[: len(wanted)][wanted], self._pixels[wanted]
            is_long = len(wanted) > 2 * len(pixels) + SPARE_ROWS
            if is_long and not self._is_stored:
                self._rows, self._pixels, self._transform = rows, order, None
            return rows, order

    def transformed(
        self, order: Pixels, transform: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return what a transform makes of pixels, (k, N); to be read only.

        `order` is what `rows` gave. The transform takes (n, C) rows to (k, n), each
        column from its row alone; it is told of each pixel only once, as long as it is
        the one of the last call.
        """
        with self._lock:
            if self._transform is not transform:
                self._transform = transform
                self._transformed = transform(torch.from_numpy(self._rows[:0]))
            if (known := self._transformed.shape[1]) < len(self._pixels):
                new = transform(torch.from_numpy(self._rows[known : len(self._pixels)]))
                self._transformed = torch.cat([self._transformed, new], 1)
            if np.array_equal(order, self._pixels):
                return self._transformed
            wanted = np.flatnonzero(np.isin(self._pixels, order, assume_unique=True))
            if np.array_equal(order, self._pixels[wanted]):
                # Ten times faster than by a mask.
                return self._transformed.index_select(1, torch.from_numpy(wanted))
        # Another thread has let some of them go since.
        return transform(torch.from_numpy(self._read(order)))

    def background(self, count: int, should_stop: Stop = None) -> Rows:
        """Return the vectors of the first `count` of `background_pixels`, NaN included.

        If `should_stop` ends it, what was read by then is kept.
        """
        features = self._owner()
        at_once = getattr(features, "pixels_at_once", PIXELS_AT_ONCE)
        with self._lock:
            pixels = features.background_pixels(count)
            while (known := len(self._background)) < len(pixels):
                stop_if(should_stop, "the fit")
                new = self._read(pixels[known : known + at_once])
                self._background = np.concatenate([self._background, new])
            return self._background if known == count else self._background[:count]

    def _append(self, pixels: Pixels) -> None:
        """Read pixels; rows that were handed out stay where they are, unchanged."""
        count, sampled = len(self._pixels), self._read(pixels)
        if bad := len(sampled) - int(finite_rows(sampled).sum()):
            raise ValueError(
                f"features: {bad} of {len(sampled)} labelled pixels have NaN or "
                "infinite features; the backbone's weights may be damaged"
            )
        if count + len(sampled) > len(self._rows):
            room = np.empty((2 * (count + len(sampled)), sampled.shape[1]), np.float32)
            room[:count] = self._rows[:count]
            self._rows = room
        self._rows[count : count + len(sampled)] = sampled
        self._pixels = np.concatenate([self._pixels, pixels])

    def _read(self, pixels: Pixels) -> Rows:
        features = self._owner()
        return features.sample(*np.divmod(pixels, features.shape[2]))

    def _owner(self) -> Readable:
        features = self._features()
        assert features is not None, "a cache is asked through its features"
        return features


def finite_rows(table: Rows) -> NDArray[np.bool_]:
    """Return which of (N, C) rows have a sum that is a number."""
    return np.asarray(np.isfinite(torch.from_numpy(table).sum(1).numpy()))


def background_pixels(shape: tuple[int, ...], count: int | None = None) -> Pixels:
    """Return the flat indices of some pixels from all over an (H, W) image.

    They depend on its size alone. The first `count` are from all over, too.

    >>> len(background_pixels((30, 20))), len(background_pixels((300, 200)))
    (600, 2000)
    """
    return _background_pixels(math.prod(shape), BACKGROUND_PIXELS)[:count]


@lru_cache(maxsize=8)  # asked for again after every scribble
def _background_pixels(size: int, most: int) -> Pixels:
    rng = np.random.default_rng(0)
    if size <= most:
        pixels = rng.permutation(size)
    else:  # one of each of as many stretches of the image, in reading order
        edges = np.linspace(0, size, most + 1).astype(np.int64)
        pixels = rng.permutation(rng.integers(edges[:-1], edges[1:]))
    pixels.flags.writeable = False
    return pixels
