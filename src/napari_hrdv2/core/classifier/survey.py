"""Surveys: pixels from all over images, which tell what these hold.

A classifier learns from them what is large and what is small in its features, and what
there is beside the strokes. Which pixels they are depends on the size of an image
alone, so the same image gives the same classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_hrdv2.core.checks import checked_mask

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.classifier.sample_cache import SampleCache

SURVEY_PIXELS = 2000  # of one image, or of several together
LEAST_SURVEYED = 100  # of each of many images


@dataclass(frozen=True)
class BackgroundSample:
    """Pixels from all over one or more images.

    Attributes
    ----------
    rows : (M, C) float32 array
        Their feature vectors, all of them numbers.
    is_free : (M,) bool array
        Whether they are not labelled.
    """

    rows: NDArray[np.float32]
    is_free: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        caches: Sequence[SampleCache],
        labels: Sequence[NDArray[Any]],
        exclusion: Sequence[ArrayLike | None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> BackgroundSample:
        """Return the survey of some images; they share its pixels.

        Parameters
        ----------
        caches : sequence of SampleCache
        labels : sequence of (H, W) arrays of int
            0 is not labelled.
        exclusion : sequence of (H, W) bool arrays or None, optional
            Where an image shows no material. It is left out.
        should_stop : callable, optional
            Asked between blocks of pixels.
        """
        masks = masks_for(len(caches), exclusion)
        parts = []
        for cache, array, mask in zip(caches, labels, masks, strict=True):
            pixels = background_pixels(array.shape, share_of_survey(len(caches)))
            rows = cache.background(len(pixels), should_stop)
            keep = finite_rows(rows)
            if (excluded := checked_mask(mask, array.shape)) is not None:
                keep &= ~excluded.ravel()[pixels]
            if not keep.all():
                pixels, rows = pixels[keep], rows[keep]
            parts.append((rows, array.ravel()[pixels] == 0))
        if len(parts) == 1:
            return cls(*parts[0])
        return cls(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def with_labelled(self, rows: NDArray[np.float32]) -> BackgroundSample:
        """Return it with labelled pixels where it alone is next to nothing."""
        if len(self.rows) >= LEAST_SURVEYED:
            return self
        known = np.zeros(len(rows), bool)
        return BackgroundSample(
            np.concatenate([self.rows, rows]), np.concatenate([self.is_free, known])
        )


def finite_rows(table: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of (N, C) rows have a sum that is a number."""
    sums: NDArray[np.float32] = torch.from_numpy(table).sum(1).numpy()
    return np.isfinite(sums)


def masks_for(
    images: int, exclusion: Sequence[ArrayLike | None] | None
) -> list[ArrayLike | None]:
    """Return one mask, or None, for each image; raise ValueError for other numbers."""
    masks: list[ArrayLike | None] = [None] * images
    if exclusion is not None:
        masks = list(exclusion)
    if len(masks) != images:
        raise ValueError(
            f"exclusion: {len(masks)} masks for {images} images; one for each is "
            "needed, or None"
        )
    return masks


def share_of_survey(images: int) -> int:
    """Return how many pixels of each image are surveyed.

    Examples
    --------
    >>> share_of_survey(1), share_of_survey(4), share_of_survey(1000)
    (2000, 500, 100)
    """
    return max(SURVEY_PIXELS // images, LEAST_SURVEYED)


def background_pixels(
    shape: tuple[int, ...], count: int | None = None
) -> NDArray[np.int64]:
    """Return the flat indices of some pixels from all over an (H, W) image.

    Parameters
    ----------
    shape : (int, int)
    count : int, optional
        Fewer than the survey of one image has are its first ones, from all over, too.

    Examples
    --------
    >>> len(survey_pixels((30, 20))), len(survey_pixels((300, 200)))
    (600, 2000)
    """
    return _survey_pixels(math.prod(shape), SURVEY_PIXELS)[:count]


@lru_cache(maxsize=8)  # asked for again after every stroke
def _survey_pixels(size: int, most: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    if size <= most:
        pixels = rng.permutation(size)
    else:  # one of each of as many stretches of the image, in reading order
        edges = np.linspace(0, size, most + 1).astype(np.int64)
        pixels = rng.permutation(rng.integers(edges[:-1], edges[1:]))
    pixels.flags.writeable = False
    return pixels
