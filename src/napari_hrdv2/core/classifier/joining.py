"""How far the coarse parts of joined features are trusted, told by the scribbles.

Tokens of a ViT know large, textured, coloured objects and blur what is a few pixels
wide; which of the two an image is about is told by its scribbles. Each is left out in
turn and predicted from the others, at some shares of the coarse parts in the variance
of the features, so in what a penalty allows them; the share that predicts best is
taken. That is ridge regression, in which leaving out has a closed form::

    y_s - ŷ_s = (A_ss)⁻¹ (A y)_s,    A = (K_fine + share · K_coarse + Λ)⁻¹

for the samples s of a scribble, with Gram matrices K and Λ the ridge over the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hrdv2.core.features.base import channel_weights

from .samples import PLACE, TrainingSamples, cells_of

if TYPE_CHECKING:
    from napari_hrdv2.core.features.options import PartOptions

COARSE = 4  # times the smallest patch: from here on a part is coarse
# Of the coarse parts in the variance, against that of the others; the first is off.
SHARES = (1e-6, 1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)
USUAL = 2  # the position of the share that is taken where scribbles tell nothing
DOUBT = 0.03  # squared error of one scribble that a step from the usual must save
RIDGE, BIAS = 100.0, 10.0  # for samples of weight 1; square of a constant channel
MOST_SAMPLES, MOST_FOLDS = 250, 16  # in all, and of a class
SCALED_BY = 500  # pixels of the background sample


def trusted(training: TrainingSamples, table: Tensor) -> Tensor:
    """Return the (C,) weights of the channels, of coarse parts as the scribbles tell.

    `table` is the (M, C) background sample. Where no part is coarse beside another, the
    weights are those of the features.
    """
    first = training.features[0]
    is_coarse, weights = coarse_channels(first.part_options), channel_weights(first)
    if is_coarse is None:
        return weights
    deviation, mean = torch.std_mean(table[:SCALED_BY], 0, correction=0)
    scale = torch.where(deviation > 0, weights / deviation, 0)
    variances = (scale * deviation).square()
    fine, coarse = (float(variances[part].sum()) for part in (~is_coarse, is_coarse))
    if not fine * coarse:
        return weights
    folds = folds_of(training)
    chosen = _some(folds)
    rows = (torch.from_numpy(training.rows[chosen]) - mean) * scale
    index, weight = training.index[chosen], training.weight[chosen].astype(np.float64)
    weight *= (
        np.bincount(training.index, training.weight) / np.bincount(index, weight)
    )[index]
    losses = held_out_losses(
        rows[:, ~is_coarse],
        rows[:, is_coarse] * (fine / coarse) ** 0.5,
        torch.from_numpy(index),
        torch.from_numpy(weight / weight.mean()),
        folds[chosen],
    )
    steps = np.abs(np.arange(len(SHARES)) - USUAL)
    losses += DOUBT / (1 + folds.max()) * steps
    factor = (SHARES[int(losses.argmin())] * fine / coarse) ** 0.5
    return torch.where(is_coarse, factor * weights, weights)


def coarse_channels(parts: Sequence[PartOptions]) -> Tensor | None:
    """Return which channels are of coarse parts; None if none is, or all are."""
    sizes = [_patch_size(part) for part in parts] if len(parts) > 1 else [1]
    is_coarse = [size >= COARSE * min(sizes) for size in sizes]
    if not any(is_coarse):
        return None
    return torch.tensor(is_coarse).repeat_interleave(
        torch.tensor([part.channels for part in parts])
    )


def _patch_size(part: PartOptions) -> int:
    try:
        return part.patch_size
    except ValueError:  # a backbone that has no row in the registry
        return part.stride


def held_out_losses(
    fine: Tensor,
    coarse: Tensor,
    classes: Tensor,
    weights: Tensor,
    folds: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the mean squared error of samples left out by folds, for each share.

    `fine` and `coarse` are (N, c) coordinates, of equal variance in all; a class is
    +1 for its samples and -1 for others.
    """
    products = [(part @ part.T).double() for part in (fine, coarse)]
    targets = 2 * torch.nn.functional.one_hot(classes).double() - 1
    members = [torch.from_numpy(np.flatnonzero(folds == f)) for f in np.unique(folds)]
    ridge = torch.diag(RIDGE / weights)
    losses = np.empty(len(SHARES))
    for number, share in enumerate(SHARES):
        inverse = torch.linalg.inv(products[0] + share * products[1] + BIAS + ridge)
        fitted = inverse @ targets
        missed = torch.empty_like(targets)
        for own in members:
            missed[own] = torch.linalg.solve(inverse[own][:, own], fitted[own])
        losses[number] = weights @ missed.square().mean(1) / weights.sum()
    return losses


def folds_of(training: TrainingSamples) -> NDArray[np.intp]:
    """Return which samples are left out together: those of a scribble.

    A scribble is what hangs together of the places of a class in an image. Where a
    class has a single one, its places are left out instead, so that something of it is
    left; of a class with many scribbles, some are left out at once.
    """
    from scipy.ndimage import label

    index, parts = training.index, []
    start = before = 0
    for features, order in zip(training.features, training.orders, strict=True):
        shape, classes = features.shape[1:], index[start : start + len(order)]
        cells, count = cells_of(order, shape)
        painted = np.zeros((len(training.classes), count), bool)
        painted[classes, cells] = True
        grid = painted.reshape(len(painted), -1, -(-shape[1] // PLACE))
        joined = label(grid, [np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])[0]
        scribble = joined.reshape(painted.shape)[classes, cells]
        parts.append(np.stack([scribble, cells]) + before)
        start, before = start + len(order), before + painted.size + 1
    scribbles, places = np.concatenate(parts, 1)
    folds = np.empty(len(index), np.intp)
    for number in range(len(training.classes)):
        own = index == number
        names = scribbles[own]
        if (names == names[0]).all():
            names = places[own]
        rank = np.unique(names, return_inverse=True)[1]
        folds[own] = number * MOST_FOLDS + rank % MOST_FOLDS
    return np.unique(folds, return_inverse=True)[1]


def _some(folds: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the positions of some samples, of every fold."""
    order = np.argsort(folds, kind="stable")
    firsts = np.unique(folds[order], return_index=True)[1]
    step = -(-len(folds) // MOST_SAMPLES)
    return order[np.union1d(np.arange(0, len(order), step), firsts)]
