"""The features of a new image, brought to those of the labelled images class by class.

Exposure, focus and noise change what a channel says of one and the same
material. Its mean over the whole image cannot tell that from other fractions of the
classes; its mean and deviation within the classes can. A classifier says which pixels
these are in either, and what the classes have in common is taken for the change.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from napari_hrdv2.core.features.tiles import LinearModel

from .background import NEGLIGIBLE
from .fitting import guessed

ROUNDS = 3  # as the classes are found again in what was aligned
LEAST_SHARE = 0.005  # of the pixels of an image, in a class that is there
# More is rather a class that is taken for another: of shifts, against the deviation of
# the channel in the labelled images; of ratios of deviations, against 1.
MOST_SHIFT, MOST_STRETCH = 0.6, 0.15
LEAST_DEVIATION = 1e-3  # within a class, against that of the channel


class Alignment(NamedTuple):
    """How channels changed: by ``(features - centre) * scale + centre + shift``.

    All three are (C,).
    """

    centre: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, new: Tensor, background: Tensor, model: LinearModel) -> Self:
        """Return what brings an image's features to those that a model is trained on.

        `new` and `background` are (M, C) and (N, C) features of pixels from all over
        the image and the labelled ones. Deviations are over all labelled images
        together, so that what these differ by counts as deviation within the classes.
        """
        centre, unit = background.mean(0), background.std(0, correction=0)
        rounding = NEGLIGIBLE * centre.abs().clamp_min(1)
        floor = (LEAST_DEVIATION * unit + rounding).square()
        alignment = cls(centre, torch.zeros_like(unit), torch.ones_like(unit))
        trained = _Classes.of(background - centre, model.probabilities(background))
        for _ in range(ROUNDS):
            probabilities = model.probabilities(alignment(new))
            found = _Classes.of(new - centre, probabilities)
            shares = torch.minimum(trained.shares, found.shares)
            shares = torch.where(shares >= LEAST_SHARE, shares, 0)
            if not shares.any():
                break
            pooled = shares / shares.sum()
            ratio = (pooled @ found.variances + floor) / (
                pooled @ trained.variances + floor
            )
            scale = ratio.sqrt().clamp(1 - MOST_STRETCH, 1 + MOST_STRETCH)
            weight = shares.sqrt() / shares.sqrt().sum()  # so that rare ones count, too
            shift = weight @ (found.means - trained.means * scale)
            shift = shift.clamp(-MOST_SHIFT * unit, MOST_SHIFT * unit)
            alignment = cls(centre, shift, scale)
        return alignment

    def __call__(self, features: Tensor) -> Tensor:
        """Return (N, C) features as those of the labelled images would be."""
        return (features - self.centre - self.shift) / self.scale + self.centre

    def model_of(self, model: LinearModel) -> LinearModel:
        """Return the model of aligned features as one of features as they are."""
        weight = model.weight / self.scale
        origin = model.weight @ self.centre - weight @ (self.centre + self.shift)
        return LinearModel(weight, model.bias + origin)


class _Classes(NamedTuple):
    """Shares of the pixels, (K,), and (K, C) means and variances of classes."""

    shares: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def of(cls, features: Tensor, probabilities: Tensor) -> Self:
        """Return those of what a classifier is sure of, from (N, C) and (N, K)."""
        guess, counts = guessed(probabilities.T)
        weight = (one_hot(guess, probabilities.shape[1]) * counts[:, None]).T
        total = weight.sum(1, keepdim=True)
        weight = weight / total.clamp_min(torch.finfo(total.dtype).tiny)
        means = weight @ features
        variances = [
            each @ (features - mean).square()
            for each, mean in zip(weight, means, strict=True)
        ]
        return cls(total[:, 0] / max(len(features), 1), means, torch.stack(variances))
