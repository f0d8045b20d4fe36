"""The background sample: pixels from all over the images, and coordinates from them.

Channels of deep features are of very different size, and strongly correlated. What
counts as large is told by the images, not by the few pixels that were painted: the
background sample gives the scale of each channel and the principal directions.
Directions of next to no variance are dropped, which makes fits several times faster. A
penalty on coefficients in these coordinates is the classifier's prior. The more places
were painted, the less it favours those of large variance over fine distinctions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hrdv2.core.features.base import Features, channel_weights
from napari_hrdv2.core.features.sample_cache import BACKGROUND_PIXELS, finite_rows
from napari_hrdv2.core.features.tiles import LinearModel

if TYPE_CHECKING:
    from napari_hrdv2.core.errors import Stop

    from .samples import LabelledImage

LEAST_PIXELS = 100  # of each of many images
KEPT_VARIANCE = 0.998  # of the standardised channels
FEW_PLACES = 4  # of a class: up to so many, what varies most is trusted most
WHITENING, MOST_WHITENING = 0.2, 0.5  # for each doubling of the places
PLAIN_WHITENING = 0.15  # where they do not count
LEAST_VARIANCE = 1e-6  # that a penalty tells from none, against the mean
MISSED = 0.3  # of how far a class lies from the others: more must not be dropped
NEGLIGIBLE = 1e-6  # deviation of a channel, against its mean or against 1


def pixels_per_image(images: int) -> int:
    """Return how many pixels of each image are in the background sample.

    >>> pixels_per_image(1), pixels_per_image(4), pixels_per_image(1000)
    (2000, 500, 100)
    """
    return max(BACKGROUND_PIXELS // images, LEAST_PIXELS)


def read_background(
    features: Features,
    exclusion: NDArray[np.bool_] | None,
    images: int = 1,
    should_stop: Stop = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return pixels from all over one of some images, and their vectors, all numbers.

    `exclusion` is a checked (H, W) mask.
    """
    pixels = features.background_pixels(pixels_per_image(images))
    rows = features.samples.background(len(pixels), should_stop)
    keep = finite_rows(rows)
    if exclusion is not None:
        keep &= ~exclusion.ravel()[pixels]
    return (pixels, rows) if keep.all() else (pixels[keep], rows[keep])


def whitening(places: NDArray[np.intp] | None) -> float:
    """Return how far the penalty makes up for the variances of directions, 0 to 1.

    `places` says how many of each class were painted, if that counts. With 0 directions
    of large variance are the easiest to use, as the classes of an image mostly differ
    along them; with 1 all are alike, which only many places are enough for.

    >>> [round(whitening(np.array([n, n])), 2) for n in (1, 4, 8, 16, 1000)]
    [0.0, 0.0, 0.2, 0.4, 0.5]
    """
    if places is None:
        return PLAIN_WHITENING
    doublings = np.log2(places / FEW_PLACES).mean()
    return float(np.clip(WHITENING * doublings, 0, MOST_WHITENING))


@dataclass(frozen=True, eq=False)
class PCACoordinates:
    """An affine map from C channels to k ≤ C coordinates, and its way back.

    Channels are scaled by (C,) `mean` and `scale`, which is 1 for those that never
    vary; the (C, k) `directions` are orthonormal, and `variances` are (k,) those along
    them, against their mean.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    variances: Tensor

    @classmethod
    def of(
        cls,
        table: Tensor,
        channel_weights: Tensor | None = None,
        *,
        kept: float = KEPT_VARIANCE,
    ) -> Self:
        """Return coordinates from (M, C) feature vectors from all over an image.

        `channel_weights` are factors on the standardised channels: the penalty weighs
        less on those above 1. `kept` is the fraction of the variance that the
        directions hold.
        """
        mean = table.mean(0)
        centred = table - mean
        scale = torch.linalg.vector_norm(centred, dim=0) / len(table) ** 0.5
        # What hardly varies is rounding, which must not be blown up to weigh like the
        # rest.
        scale[scale <= NEGLIGIBLE * mean.abs().clamp_min(1)] = 1
        if channel_weights is not None:
            scale = scale / channel_weights
        centred /= scale
        covariance = (centred.T @ centred / len(table)).double()
        variances, directions = torch.linalg.eigh(covariance)
        variances, directions = variances.flip(0).clamp_min(0), directions.flip(1)
        held = variances.cumsum(0)
        count = 1 + int((held < kept * held[-1]).sum())
        variances, directions = variances[:count], directions[:, :count]
        if held[-1] > 0:
            variances = (variances / variances.mean()).clamp_min(LEAST_VARIANCE)
        else:
            variances = torch.ones_like(variances)
        return cls(mean, scale, directions.float().contiguous(), variances.float())

    def including(self, table: Tensor, classes: Tensor) -> Self:
        """Return these coordinates, or more of them if they hide what sets a class off.

        They may if the background sample missed the class because it is rare. `table`
        is (N, C); `classes` are 0 … K - 1, each of which occurs.
        """
        members = torch.arange(int(classes.max()) + 1)[:, None] == classes
        means = (members / members.sum(1, keepdim=True)) @ table / self.scale
        apart = (means - means.mean(0)).T  # (C, K)
        rest = apart - self.directions @ (self.directions.T @ apart)
        if (rest.norm(dim=0) <= MISSED * apart.norm(dim=0)).all():
            return self
        new, lengths, _ = torch.linalg.svd(rest, full_matrices=False)
        new = new[:, lengths > MISSED * lengths.max()]
        variances = self.variances.min().expand(new.shape[1])
        return replace(
            self,
            directions=torch.cat([self.directions, new], 1),
            variances=torch.cat([self.variances, variances]),
        )

    def __call__(self, table: Tensor) -> Tensor:
        """Return the coordinates of (N, C) rows as (k + 1, N), the last of them ones.

        Coordinate by coordinate, which is twice as fast to fit to.
        """
        result = torch.empty(len(self.variances) + 1, len(table))
        matrix = self._matrix.T
        origin = -(matrix @ self.mean)[:, None]
        torch.addmm(origin, matrix, table.T, out=result[:-1])
        result[-1] = 1
        return result

    def model_of(self, solution: Tensor) -> LinearModel:
        """Return what (K, k + 1) coefficients mean for features as they are."""
        weight = solution[:, :-1] @ self._matrix.T
        bias = solution[:, -1] - weight @ self.mean
        return LinearModel(weight, bias)

    def solution_of(self, model: LinearModel) -> Tensor:
        """Return the coefficients, as near as they come, of a linear model."""
        inner = (model.weight * self.scale) @ self.directions
        bias = model.bias + model.weight @ self.mean
        return torch.cat([inner, bias[:, None]], 1)

    @cached_property
    def _matrix(self) -> Tensor:
        return self.directions / self.scale[:, None]


@dataclass(frozen=True, eq=False)
class BackgroundSample:
    """Pixels from all over one or more images, and the coordinates that they give.

    `rows` are their (M, C) feature vectors, all of them numbers, and `transformed`
    these in the coordinates, (k + 1, M); `is_free` says whether they are not labelled.
    `others` are of the same rows with other weights of the channels.
    """

    rows: NDArray[np.float32]
    is_free: NDArray[np.bool_]
    coordinates: PCACoordinates
    transformed: Tensor
    channel_weights: Tensor
    others: tuple[Self, ...] = ()

    @classmethod
    def of(
        cls,
        images: Sequence[LabelledImage],
        training: NDArray[np.float32],
        *,
        weigh: Callable[[Tensor], Tensor] | None = None,
        former: Self | None = None,
        should_stop: Stop = None,
    ) -> Self:
        """Return the background sample of some images; they share its pixels.

        Feature vectors of labelled pixels, `training`, serve too where next to nothing
        else is left. `weigh` gives the weights of the channels, from the rows; by
        default they are those of the features. The coordinates of `former` stay if rows
        and weights are the same.
        """
        parts = []
        for image in images:
            pixels, rows = read_background(
                image.features,
                image.exclusion,
                images=len(images),
                should_stop=should_stop,
            )
            parts.append((rows, image.labels.ravel()[pixels] == 0))
        if sum(len(rows) for rows, _ in parts) < LEAST_PIXELS:
            parts.append((training, np.zeros(len(training), bool)))
        rows, is_free = parts[0]
        if len(parts) > 1:
            rows, is_free = (np.concatenate(each) for each in zip(*parts, strict=True))
        table = torch.from_numpy(rows)
        weights = weigh(table) if weigh else channel_weights(images[0].features)
        known: list[Self] = []
        if former is not None and (
            rows is former.rows or np.array_equal(rows, former.rows)
        ):
            known = [replace(former, others=()), *former.others]
        for number, one in enumerate(known):
            if torch.equal(weights, one.channel_weights):
                del known[number]
                return replace(one, is_free=is_free, others=tuple(known))
        coordinates = PCACoordinates.of(table, weights)
        transformed = coordinates(table)
        return cls(rows, is_free, coordinates, transformed, weights, tuple(known))

    def including(
        self, training: NDArray[np.float32], classes: NDArray[np.intp]
    ) -> Self:
        """Return it with coordinates that hide no class of the training samples."""
        coordinates = self.coordinates.including(
            torch.from_numpy(training), torch.from_numpy(classes)
        )
        if coordinates is self.coordinates:
            return self
        transformed = coordinates(torch.from_numpy(self.rows))
        return replace(self, coordinates=coordinates, transformed=transformed)

    @property
    def unlabelled(self) -> Tensor:
        """The rows that are not labelled in these coordinates, (k + 1, m)."""
        free = torch.from_numpy(np.flatnonzero(self.is_free))
        return self.transformed.index_select(1, free)
