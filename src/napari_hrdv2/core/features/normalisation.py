"""Whose grey levels become mean 0 and deviation 1, in a series of images.

A backbone that standardises images takes a mean and a deviation of grey levels. Those
of the image itself make it blind to brightness and contrast; but where one image has
other fractions of the classes than those that were painted, equal materials are not
equal to it. So they can be those of the painted images instead (shared), or, where the
exposure may have changed, be found (matched): the gain and the offset under which the
grey levels of the new image are most likely as a mixture of the grey levels of the
classes, with fractions that are free.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.backbones.filters.kernels import gaussian
from napari_hrdv2.core.fingerprints import image_fingerprint

from .tiles import runs

Grey = NDArray[np.float64]
Levels = tuple[float, float]
"""Mean and deviation of grey levels, in those of the image itself.

The deviation is below 0 where light and dark are exchanged.
"""

SMOOTHING = 1.0  # px, of the grey levels that are matched: less of noise, all of edges
REACH, BINS = 6.0, 240  # of densities of grey level, in deviations about the mean
BLUR = 2.0  # bins
LEAST_DENSITY = 1e-4  # grey levels that nobody has painted happen
LEAST_PIXELS = 50  # of a class, for a density
# Before an image is seen: deviations by which its offset, and the logarithm of its
# gain, differ from the labelled images'; and how many of their pixels fractions are
# known from. An image tells as much as so many independent pixels.
OFFSET, GAIN, KNOWN_FRACTIONS, INDEPENDENT_PIXELS = 1.0, 0.3, 3.0, 50.0
OFFSETS, GAINS = 3.0, 0.9  # that are tried, both ways
ROUNDS = 20  # of expectation and maximisation
LEAST_GAIN, MOST_GAIN = 0.5, 2.0  # of a labelled image, against its own deviation
# Of the grey levels of classes in two labelled images, from which on light and dark are
# taken as exchanged: their correlation, and their covariance in deviations of both.
INVERTED_CORRELATION, INVERTED_COVARIANCE = -0.5, -0.05
WINDOW = 512  # px along a side of what is seen of images that are not read as a whole


def grey_plane(image: ArrayLike) -> Grey:
    """Return the grey levels of an (H, W) or (H, W, 3|4) image, the mean of colours."""
    array = np.asarray(image)
    if array.ndim == 3:
        return np.asarray(array[..., :3].mean(axis=2, dtype=np.float64))
    return array.astype(np.float64)


def image_levels(
    images: Sequence[ArrayLike], exclusion: Sequence[ArrayLike | None] | None = None
) -> Levels:
    """Return the mean and the deviation of one or more images, their colours as one.

    >>> image_levels([np.array([[0, 2]]), np.array([[4, 6]])])
    (3.0, 2.23606797749979)
    """
    masks = exclusion or [None] * len(images)
    parts = []
    for image, mask in zip(images, masks, strict=True):
        array = np.asarray(image)
        array = array[..., :3] if array.ndim == 3 else array
        kept = array if mask is None else array[~np.asarray(mask, bool)]
        parts.append(kept.astype(np.float64).ravel())
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("images: there is no grey level that is a number")
    return float(values.mean()), float(values.std())


def windows_of(shape: Sequence[int], most: int) -> list[tuple[slice, slice]]:
    """Return windows from all over an image, at most so many along each side.

    It is one, of all of it, where it is not much larger.
    """
    if max(shape[:2]) <= most * WINDOW:
        return [(slice(0, shape[0]), slice(0, shape[1]))]
    starts = (np.linspace(0, max(n - WINDOW, 0), most).astype(int) for n in shape[:2])
    tops, lefts = ([slice(i, i + WINDOW) for i in each.tolist()] for each in starts)
    return list(product(tops, lefts))


def mosaic(array: Any, windows: Sequence[tuple[slice, slice]]) -> Any:
    """Return windows of an image below each other; None of None."""
    if array is None:
        return None
    seen = [np.asarray(array[window]) for window in windows]
    return np.concatenate(seen) if len(seen) > 1 else seen[0]


def painted(image: Any, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the labelled pixels of an image, (N, 1[, C]), and their labels.

    Only rows near labels are read.
    """
    rows = [each for each in runs(0, len(labels), WINDOW) if labels[each].any()]
    pixels = [np.asarray(image[each])[labels[each] > 0] for each in rows]
    drawn = [labels[each][labels[each] > 0] for each in rows]
    return np.concatenate(pixels)[:, None], np.concatenate(drawn)[:, None]


def aligned_levels(
    images: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    levels: Sequence[Levels] | None = None,
    *,
    exchanges: bool = True,
) -> list[Levels]:
    """Return levels for each labelled image that bring its classes to those of all.

    Least squares on the mean grey level of each class; classes that one image alone has
    count for nothing. `levels` are the images' own, where these are parts of them. If
    it `exchanges` light and dark, the deviation is below 0 where what is light in most
    images is clearly dark.
    """
    own = np.array(levels or [image_levels([image]) for image in images])
    planes = map(grey_plane, images)
    means = list(map(_class_means, planes, map(np.asarray, labels)))
    ids = sorted({label for each in means for label in each})
    table = np.array([[each.get(label, np.nan) for label in ids] for each in means])
    standardised = (table - own[:, :1]) / np.maximum(own[:, 1:], np.finfo(float).tiny)
    common = np.isfinite(table).sum(0) > 1
    if not common.any():
        return [(float(mean), float(deviation)) for mean, deviation in own]
    signs = np.ones(len(own))
    if exchanges:
        signs = _signs(standardised[:, common])
    target = np.nanmean(signs[:, None] * standardised[:, common], axis=0)
    # Of the negative of an image, light and dark are as in the others.
    straight = own * np.stack([signs, np.ones_like(signs)], 1)
    given = zip(straight.tolist(), signs[:, None] * table[:, common], strict=True)
    result = []
    for (mean, deviation), row in given:
        known = np.isfinite(row)
        if known.any():
            there, here = target[known], row[known]
            apart = there - there.mean()
            gain = deviation
            if (spread := apart @ apart) > 0:
                fitted = float((here - here.mean()) @ apart / spread)
                gain = min(max(fitted, LEAST_GAIN * deviation), MOST_GAIN * deviation)
            mean, deviation = float(here.mean() - gain * there.mean()), gain
        result.append((mean, deviation))
    return [
        levels if sign > 0 else negative_of(levels)
        for levels, sign in zip(result, signs, strict=True)
    ]


def negative_of(levels: Levels) -> Levels:
    """Return the levels of an image, from those of its negative.

    >>> negative_of((-100.0, 20.0))
    (100.0, -20.0)
    """
    return -levels[0], -levels[1]


def _signs(rows: Grey) -> Grey:
    """Return 1, or -1 where light and dark are not as in most of the images, (N,).

    `rows` are the (N, K) grey levels of classes, NaN where an image has none of one.
    """
    count, known = len(rows), np.isfinite(rows)
    signs, values = np.zeros(count), np.where(known, rows, 0.0)
    signs[0] = 1
    # By those before it, and again, by what was found of all others.
    for number in (*range(1, count), *range(count)):
        weights = np.where(np.arange(count) == number, 0.0, signs)
        images = np.abs(weights) @ known
        both = known[number] & (images > 0)
        here = rows[number, both]
        signs[number] = 1
        if len(here) > 1 and _is_negative(
            here, (weights @ values)[both] / images[both]
        ):
            signs[number] = -1
    return signs if signs.sum() >= 0 else -signs


def _is_negative(some: Grey, others: Grey) -> bool:
    """Return whether grey levels of the same classes are clearly the other way."""
    some, others = some - some.mean(), others - others.mean()
    covariance = float((some * others).mean())
    product = float(some.std() * others.std())
    return covariance < INVERTED_COVARIANCE and (
        covariance < INVERTED_CORRELATION * product
    )


class Match(NamedTuple):
    """The levels of an image, and the log of how likely they make its grey levels.

    The latter is NaN where nothing was to be found, as for a constant image.
    """

    levels: Levels | None
    likelihood: float = math.nan


@dataclass(frozen=True)
class Normalisation:
    """How the grey levels of an image are brought to those of the labelled images.

    `kind` is "image", "shared" or "matched"; `levels` are those of the labelled images,
    light and dark as in most of them;
    `densities` are (K, `BINS`), of the smoothed grey levels of each class within
    `REACH` deviations about the mean, and `fractions` the K classes' in the labelled
    images. `known` are the levels of the labelled images, by their fingerprints;
    `reason` says in words why it was chosen.
    """

    kind: str = "image"
    levels: Levels | None = None
    densities: tuple[tuple[float, ...], ...] = ()
    fractions: tuple[float, ...] = ()
    known: tuple[tuple[str, Levels | None], ...] = ()
    reason: str = ""

    @classmethod
    def matched(
        cls,
        images: Sequence[ArrayLike],
        levels: Sequence[Levels],
        segmentations: Sequence[NDArray[Any]],
        *,
        exclusion: Sequence[ArrayLike | None] | None = None,
    ) -> Self:
        """Return what matches new images to these, in which 0 is of no class."""
        masks = exclusion or [None] * len(images)
        tables: dict[int, list[Grey]] = defaultdict(list)
        shares: dict[int, list[float]] = defaultdict(list)
        ids = sorted({int(i) for each in segmentations for i in np.unique(each) if i})
        given = zip(images, levels, segmentations, masks, strict=True)
        for image, (mean, deviation), classes, mask in given:
            plane = (_smoothed(image) - mean) / (deviation or np.finfo(float).tiny)
            kept = classes if mask is None else np.where(np.asarray(mask), 0, classes)
            for label in ids:
                values = plane[(kept == label) & np.isfinite(plane)]
                shares[label].append(len(values) / max(kept.size, 1))
                if len(values) > LEAST_PIXELS:
                    tables[label].append(_density(values))
        known = [label for label in ids if label in tables]
        fractions = np.array([np.mean(shares[label]) for label in known])
        middles, deviations = np.array(levels).T
        straight = deviations >= 0
        middle = middles[straight if straight.any() else ~straight].mean()
        return cls(
            "matched",
            (float(middle), float(np.abs(deviations).mean())),
            tuple(tuple(np.mean(tables[i], axis=0).round(6).tolist()) for i in known),
            tuple((fractions / fractions.sum()).round(6).tolist()),
        )

    def known_levels(self, image: ArrayLike) -> tuple[bool, Levels | None]:
        """Return whether it is a labelled image, and the levels of one."""
        known = dict(self.known)
        fingerprint = image_fingerprint(image) if known else ""
        return fingerprint in known, known.get(fingerprint)

    def match(
        self,
        image: ArrayLike,
        exclusion: ArrayLike | None = None,
        *,
        inverted: bool = False,
    ) -> Match:
        """Return the levels of an image that is none of the labelled ones.

        None where they are to be its own; with light and dark exchanged if it is to be
        `inverted`.
        """
        if self.kind != "matched" or self.levels is None or not self.densities:
            return Match(self.levels if self.kind != "image" else None)
        plane = _smoothed(image)
        if exclusion is not None:
            plane = plane[~np.asarray(exclusion, bool)]
        values = plane[np.isfinite(plane)]
        if not len(values) or values.min() == values.max():
            return Match(self.levels)
        middle = 2 * float(values.mean())  # where the negative has the same mean
        sought = middle - values if inverted else values
        levels, likelihood = self._found(sought, self.levels)
        if inverted:
            levels = middle - levels[0], -levels[1]
        return Match(levels, likelihood)

    def _found(self, values: Grey, about: Levels) -> tuple[Levels, float]:
        """Return the most likely levels, sought about others, and how likely."""
        own = float(values.mean()), float(values.std())
        if abs(own[0] - about[0]) > OFFSETS * about[1]:  # another detector, or depth
            about = own
        counts, edges = np.histogram(values, 512)
        share, centres = counts / counts.sum(), (edges[1:] + edges[:-1]) / 2
        offsets = np.linspace(-OFFSETS, OFFSETS, 61)
        gains = np.linspace(-GAINS, GAINS, 19)
        for _ in range(2):  # then nearer by
            scores = np.stack(
                [self._scores(share, centres, offsets, gain, about) for gain in gains]
            )
            best, at = np.unravel_index(scores.argmax(), scores.shape)
            gain, offset = gains[best], offsets[at]
            steps = np.linspace(-1, 1, 11)
            gains = gain + steps * (gains[1] - gains[0])
            offsets = offset + steps * (offsets[1] - offsets[0])
        mean, deviation = about
        levels = float(mean + offset * deviation), float(deviation * np.exp(gain))
        return levels, float(scores.max())

    def _scores(
        self,
        share: Grey,
        centres: Grey,
        offsets: Grey,
        log_gain: float,
        about: Levels,
    ) -> Grey:
        """Return the log of the posterior probability of each offset at one gain.

        `share` is the histogram of an image at the (B,) grey levels `centres`; offset
        and gain are against the levels `about`.
        """
        mean, deviation = about
        means = mean + offsets[:, None] * deviation
        standardised = (centres - means) / (deviation * np.exp(log_gain))  # (m, B)
        bins = np.floor((standardised + REACH) * (BINS / (2 * REACH))).astype(int)
        density = self._table[:, np.clip(bins, 0, BINS - 1)]  # (K, m, B)
        prior = np.array(self.fractions)[:, None]
        fractions = np.repeat(prior, len(offsets), 1)
        for _ in range(ROUNDS):
            weighted = fractions[..., None] * density
            weighted *= share / weighted.sum(0)
            found = INDEPENDENT_PIXELS * weighted.sum(2) + KNOWN_FRACTIONS * prior
            fractions = found / (INDEPENDENT_PIXELS + KNOWN_FRACTIONS)
        mixture = np.log((fractions[..., None] * density).sum(0)) @ share - log_gain
        known = (prior * np.log(fractions)).sum(0)
        away = (log_gain / GAIN) ** 2 + (offsets / OFFSET) ** 2
        return np.asarray(
            INDEPENDENT_PIXELS * mixture + KNOWN_FRACTIONS * known - away / 2
        )

    @cached_property
    def _table(self) -> Grey:
        """The densities with what nobody has painted, (K, BINS)."""
        return np.array(self.densities) + LEAST_DENSITY


def _class_means(plane: Grey, labels: NDArray[Any]) -> dict[int, float]:
    """Return the mean grey level of the labelled pixels of each class."""
    ids, index = np.unique(labels, return_inverse=True)
    means = np.bincount(index.ravel(), plane.ravel()) / np.bincount(index.ravel())
    return {int(i): float(mean) for i, mean in zip(ids, means, strict=True) if i}


def _smoothed(image: ArrayLike) -> Grey:
    plane = torch.from_numpy(np.ascontiguousarray(grey_plane(image)))
    return np.asarray(gaussian(plane[None, None], SMOOTHING)[0, 0])


def _density(values: Grey) -> Grey:
    """Return the density of standardised grey levels, a little blurred, (BINS,)."""
    inside = np.clip(values, 1e-9 - REACH, REACH - 1e-9)
    counts, _ = np.histogram(inside, BINS, (-REACH, REACH))
    reach = int(4 * BLUR)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR) ** 2)
    blurred = np.convolve(counts, taps / taps.sum(), "same")
    return np.asarray(blurred / blurred.sum() * (BINS / (2 * REACH)))
