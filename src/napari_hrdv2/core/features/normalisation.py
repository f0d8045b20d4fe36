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
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.backbones.filters.kernels import gaussian
from napari_hrdv2.core.fingerprints import image_fingerprint

from .levels import Grey, Levels, grey_plane

SMOOTHING = 1.0  # px, of the grey levels that are matched: less of noise, all of edges
REACH, BINS = 6.0, 240  # of densities of grey level, in deviations about the mean
BLUR = 2.0  # bins
LEAST_DENSITY = 1e-4  # grey levels that nobody has painted happen
LEAST_PIXELS = 50  # of a class, for a density
LEAST_FRACTION = 1e-6  # of a class, in the labelled images
OWN_LEAD = 30.0  # of log-likelihood, that levels near the image's own ones need
# Before an image is seen: deviations by which its offset, and the logarithm of its
# gain, differ from the labelled images'; and how many of their pixels fractions are
# known from. An image tells as much as so many independent pixels.
OFFSET, GAIN, KNOWN_FRACTIONS, INDEPENDENT_PIXELS = 1.0, 0.3, 3.0, 50.0
OFFSETS, GAINS = 3.0, 0.9  # that are tried, both ways
ROUNDS = 20  # of expectation and maximisation


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

    def _found(self, values: Grey, known: Levels) -> tuple[Levels, float]:
        """Return the most likely levels, sought about others, and how likely."""
        own = float(values.mean()), float(values.std())
        if abs(own[0] - known[0]) > OFFSETS * known[1]:  # another detector, or depth
            return self._nearest(values, own)
        levels, likelihood = self._nearest(values, known)
        if abs(math.log(own[1] / (known[1] or own[1]))) < GAINS:
            return levels, likelihood
        # All of one class, or another depth with grey levels near 0?
        other, of_other = self._nearest(values, own)
        if of_other > likelihood + OWN_LEAD:
            return other, of_other
        return levels, likelihood

    def _nearest(self, values: Grey, about: Levels) -> tuple[Levels, float]:
        """Return the most likely levels near others, and the log of how likely."""
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
        # In grey levels, so that those near other levels compare.
        unit = math.log(max(deviation, np.finfo(float).tiny))
        return levels, float(scores.max()) - INDEPENDENT_PIXELS * unit

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
        prior = np.maximum(self.fractions, LEAST_FRACTION)[:, None]
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
