"""Coordinates for a linear classifier, made from what an image holds.

Channels of deep features are of very different size, and strongly correlated. What
counts as large is told by the image, not by the few pixels that were painted: a survey
of it gives the scale of each channel and the principal directions. Directions of little
variance are raised a little (they hold fine distinctions), those of next to none are
left out, which makes fits several times faster. A penalty on coefficients in these
coordinates is the classifier's prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.logistic import LinearModel

KEPT_VARIANCE = 0.998  # of the standardised channels
WHITENING = 0.15  # 0 leaves the variances of directions as they are, 1 makes them equal
MISSED = 0.3  # of how far a class lies from the others: more must not be left out
NEGLIGIBLE = 1e-6  # deviation of a channel, against its mean or against 1


@dataclass(frozen=True)
class Basis:
    """An affine map from C channels to k ≤ C coordinates, and its way back.

    Attributes
    ----------
    mean, scale : (C,) float32 tensors
        Of the channels; those that never vary have the scale 1.
    directions : (C, k) float32 tensor
        Orthonormal, for scaled channels.
    stretch : (k,) float32 tensor
        Factors on the directions.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    stretch: Tensor

    @property
    def size(self) -> int:
        """k, how many coordinates there are."""
        return len(self.stretch)

    @classmethod
    def of(
        cls,
        table: Tensor,
        channel_weights: Tensor | None = None,
        *,
        kept: float = KEPT_VARIANCE,
        whitening: float = WHITENING,
    ) -> Self:
        """Return coordinates from feature vectors of pixels from all over an image.

        Parameters
        ----------
        table : (M, C) float32 tensor
        trust : (C,) float32 tensor, optional
            Factors on the standardised channels: the penalty weighs less on those
            above 1.
        kept : float
            Share of the variance that the directions hold.
        whitening : float
            In 0..1.
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
            stretch = (variances / variances.mean()).pow(-whitening / 2)
        else:
            stretch = torch.ones_like(variances)
        return cls(mean, scale, directions.float().contiguous(), stretch.float())

    def knowing(self, table: Tensor, classes: Tensor) -> Self:
        """Return these coordinates, or more of them if they hide what sets a class off.

        They may if the survey missed the class because it is rare.

        Parameters
        ----------
        table : (N, C) float32 tensor
        classes : (N,) int64 tensor
            0 … K - 1, each of which occurs.
        """
        members = torch.arange(int(classes.max()) + 1)[:, None] == classes
        shares = members / members.sum(1, keepdim=True)  # (K, N)
        means = shares @ table / self.scale
        apart = (means - means.mean(0)).T  # (C, K)
        rest = apart - self.directions @ (self.directions.T @ apart)
        if (rest.norm(dim=0) <= MISSED * apart.norm(dim=0)).all():
            return self
        new, lengths, _ = torch.linalg.svd(rest, full_matrices=False)
        new = new[:, lengths > MISSED * lengths.max()]
        stretch = self.stretch.max().expand(new.shape[1])
        return replace(
            self,
            directions=torch.cat([self.directions, new], 1),
            stretch=torch.cat([self.stretch, stretch]),
        )

    def design(self, table: Tensor) -> Tensor:
        """Return the coordinates of (N, C) rows as (k + 1, N), the last of them ones.

        Coordinate by coordinate, which is twice as fast to fit to.
        """
        design = torch.empty(self.size + 1, len(table))
        matrix = self._matrix.T
        origin = -(matrix @ self.mean)[:, None]
        torch.addmm(origin, matrix, table.T, out=design[:-1])
        design[-1] = 1
        return design

    def readout(self, solution: Tensor) -> LinearModel:
        """Return what (K, k + 1) coefficients mean for features as they are."""
        from napari_hrdv2.core.classifier.logistic import LinearModel

        weight = solution[:, :-1] @ self._matrix.T
        bias = solution[:, -1] - weight @ self.mean
        return LinearModel(weight.numpy(), bias.numpy())

    def solution(self, readout: LinearModel) -> Tensor:
        """Return the coefficients, as near as they come, of a readout."""
        weight = torch.from_numpy(readout.weight)
        inner = (weight * self.scale) @ (self.directions / self.stretch)
        bias = torch.from_numpy(readout.bias) + weight @ self.mean
        return torch.cat([inner, bias[:, None]], 1)

    @cached_property
    def _matrix(self) -> Tensor:
        return self.directions * self.stretch / self.scale[:, None]


@dataclass(frozen=True)
class Overview:
    """Pixels from all over some images, and the coordinates that they make.

    Attributes
    ----------
    rows : (M, C) float32 array
        Their feature vectors.
    basis : Basis
    design : (k + 1, M) float32 tensor
        The rows in these coordinates.
    """

    rows: NDArray[np.float32]
    basis: Basis
    design: Tensor

    @classmethod
    def of(cls, rows: NDArray[np.float32], channel_weights: Tensor | None) -> Self:
        """Return the overview that feature vectors give."""
        table = torch.from_numpy(rows)
        basis = Basis.of(table, channel_weights)
        return cls(rows, basis, basis.design(table))

    def is_of(self, rows: NDArray[np.float32]) -> bool:
        """Whether it was made from these feature vectors."""
        return rows is self.rows or np.array_equal(rows, self.rows)

    def knowing(
        self, samples: NDArray[np.float32], classes: NDArray[np.intp]
    ) -> Overview:
        """Return it with a basis that hides no class; see `Basis.knowing`."""
        basis = self.basis.knowing(torch.from_numpy(samples), torch.from_numpy(classes))
        if basis is self.basis:
            return self
        return Overview(self.rows, basis, basis.design(torch.from_numpy(self.rows)))
