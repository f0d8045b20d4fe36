"""Smoothing planes of probabilities with the image as a guide, in two ways.

The guided filter makes planes follow the edges of the image; in the conditional random
field neighbours that look alike tend to be of one class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .guides import guide_from

CONTRAST = 0.03  # of the guided filter: differences of grey, of which there are 0..1
STRONGEST = 8.0  # of the CRF, in nats: what a strength of 1 stands for
SMALLEST = 1e-6  # probabilities below are as good as none
ITERATIONS = 5  # of the CRF: the labels hardly change after
COLOUR = 0.05  # standard deviation of the guide's differences, of which it has 0..1
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # and, by symmetry, their opposites

Planes = NDArray[np.float32]
Slices = tuple[slice, slice]


def smoothed(
    planes: Planes,
    guide: Planes,
    smoothing: str,
    *,
    radius: int,
    strength: float,
    exclusion: NDArray[np.bool_] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Planes:
    """Return new planes of probabilities, (K, H, W), smoothed by "guided" or "crf".

    In both ways a pixel of which the classifier is sure keeps its class if `strength`
    is at most 0.5. The guided filter gives a fraction `strength` of the result and the
    pixel itself the rest. In the CRF the neighbours can make a class likelier by a
    factor exp(8 · strength) at most.
    """
    included = None if exclusion is None else ~exclusion
    if smoothing == "guided":
        output = guided_filter(
            planes,
            guide,
            radius=radius,
            contrast=CONTRAST,
            included=included,
            tick=tick,
        )
        np.clip(output, 0, 1, out=output)  # near edges it overshoots
        output *= strength
        output += (1 - strength) * planes
        return output
    return mean_field(
        torch.from_numpy(np.log(np.maximum(planes, SMALLEST))),
        torch.from_numpy(guide),
        radius=radius,
        strength=STRONGEST * strength,
        included=None if included is None else torch.from_numpy(included),
        tick=tick,
    ).numpy()


def guide_of(
    image: ArrayLike | None, shape: tuple[int, ...], exclusion: NDArray[np.bool_] | None
) -> Planes:
    """Return the image as (1 or 3, H, W) in 0..1, stretched to its 1–99 %."""
    given = np.asarray(np.nan if image is None else image, np.float32)
    array = channels_of(given)
    if array.shape[-2:] != shape[1:] or array.ndim != 3:
        raise ValueError(
            f"image: shape {given.shape} does not fit probabilities of shape "
            f"{shape}; (H, W), (H, W, 3) or (H, W, 4) is needed to smooth"
        )
    if exclusion is not None and not exclusion.all():
        # A white databar must not decide how the micrograph is stretched.
        middle = np.median(array[:, ~exclusion], axis=1)
        array = np.where(exclusion, middle[:, None, None], array)
    if not np.isfinite(array).all():
        raise ValueError("image: it holds NaN or infinite values; replace them first")
    guide = guide_from(torch.from_numpy(np.ascontiguousarray(array)))
    return (guide.float() / 255).numpy()


def channels_of(image: Planes) -> Planes:
    """Return an (H, W) or (H, W, 3|4) image as (1 or 3, H, W), another as it is."""
    if image.ndim == 3 and image.shape[2] in (3, 4):
        return np.moveaxis(image[..., :3], 2, 0)
    return image[None] if image.ndim == 2 else image


def guided_filter(
    planes: Planes,
    guide: Planes,
    *,
    radius: int,
    contrast: float,
    included: NDArray[np.bool_] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Planes:
    """Return the (K, H, W) planes, smoothed where the guide, in 0..1, is smooth.

    In each window of (2 r + 1)² pixels a plane is fitted by a linear function of the
    guide's channels, a · I + b, with a penalty of contrast² on a; each pixel takes
    the mean of what the windows about it say [1]_. The cost does not depend on r.
    Pixels that are not included give nothing to their neighbours.

    References
    ----------
    .. [1] K. He, J. Sun and X. Tang, "Guided image filtering", IEEE TPAMI 35 (6),
       2013; eqs. 5, 6, 8 and, for colour, 19.
    """
    mean = _window_mean(radius, included)
    guide_mean = np.stack([mean(channel) for channel in guide])
    inverse = _inverse_covariances(guide, guide_mean, mean, contrast**2)
    output = np.empty_like(planes)
    for plane, result in zip(planes, output, strict=True):
        tick()
        plane_mean = mean(plane)
        with_guide = np.stack([mean(channel * plane) for channel in guide])
        slope = np.einsum(
            "ijhw,jhw->ihw", inverse, with_guide - guide_mean * plane_mean
        )
        offset = plane_mean - (slope * guide_mean).sum(0)
        result[:] = mean(offset)
        for part, channel in zip(slope, guide, strict=True):
            result += mean(part) * channel
    return output


def _window_mean(
    radius: int, included: NDArray[np.bool_] | None
) -> Callable[[Planes], Planes]:
    """Return a function that gives the mean of (H, W) about each pixel."""
    from scipy.ndimage import uniform_filter

    size = 2 * radius + 1

    def box(plane: Planes) -> Any:
        return uniform_filter(plane, size, mode="reflect")

    if included is None:
        return box
    weight = included.astype(np.float32)
    covered = np.maximum(box(weight), np.float32(0.5 / size**2))
    return lambda plane: box(plane * weight) / covered


def _inverse_covariances(
    guide: Planes, guide_mean: Planes, mean: Callable[[Planes], Planes], penalty: float
) -> Planes:
    """Return (covariance of the guide in each window + penalty)⁻¹, (C, C, H, W)."""
    matrix = np.empty((len(guide), *guide.shape), np.float32)
    for i in range(len(guide)):
        for j in range(i, len(guide)):
            matrix[i, j] = mean(guide[i] * guide[j]) - guide_mean[i] * guide_mean[j]
            matrix[j, i] = matrix[i, j]
        matrix[i, i] += penalty
    if len(matrix) == 1:
        return np.reciprocal(matrix)
    first, second, third = matrix
    pairs = (second, third), (third, first), (first, second)
    adjugate: Planes = np.stack([np.cross(a, b, axis=0) for a, b in pairs])
    determinant: Planes = (first * adjugate[0]).sum(0)
    return adjugate / determinant


def mean_field(
    log_probabilities: Tensor,
    guide: Tensor,
    *,
    radius: int,
    strength: float,
    included: Tensor | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return the probabilities, (K, H, W), of a local CRF with a colour term.

    A pixel i listens to pixels j at distances 1, 2, 4, … ≤ radius in eight directions.
    With the guide I they weigh, and from the probabilities p mean field [1]_ iterates,

        w_ij = exp(−|i − j|² / 2 (r/2)² − |I_i − I_j|² / 2 (0.05)²)
        Q_i(k) ∝ p_i(k) · exp(strength · Σ_j w_ij Q_j(k) / Σ_j w_ij)

    The sum is divided by the weights, so a class gains at most a factor
    exp(strength) on another: a pixel that is surer than that keeps its class, whatever
    its neighbours say. That is what keeps thin phases. Pixels that are not included
    say nothing to their neighbours.

    References
    ----------
    .. [1] P. Krähenbühl and V. Koltun, "Efficient inference in fully connected CRFs
       with Gaussian edge potentials", NeurIPS 2011, algorithm 1.
    """
    probabilities = log_probabilities.softmax(0)
    norm = torch.full(guide.shape[1:], 1e-6)
    for here, there, weight in _pairs(guide, radius, included):
        norm[here] += weight
        norm[there] += weight
    for _ in range(ITERATIONS):
        tick()
        message = torch.zeros_like(probabilities)
        for here, there, weight in _pairs(guide, radius, included):
            for heard, said in zip(message, probabilities, strict=True):
                heard[here].addcmul_(weight, said[there])
                heard[there].addcmul_(weight, said[here])
        message.mul_(strength).div_(norm).add_(log_probabilities)
        probabilities = message.softmax(0)
    return probabilities


def _pairs(
    guide: Tensor, radius: int, included: Tensor | None
) -> Iterator[tuple[Slices, Slices, Tensor]]:
    """Yield two views for each offset, and weights: kept, they would fill memory."""
    height, width = guide.shape[1:]
    for down, right in DIRECTIONS:
        distance = 1
        while distance <= radius:
            rows, columns = down * distance, right * distance
            if rows < height and abs(columns) < width:
                first, last = max(0, -columns), width - max(0, columns)
                here = slice(0, height - rows), slice(first, last)
                there = slice(rows, height), slice(first + columns, last + columns)
                weight = (guide[:, *here] - guide[:, *there]).square_().sum(0)
                squared = rows**2 + columns**2
                weight.mul_(-0.5 / COLOUR**2).sub_(0.5 * squared / (radius / 2) ** 2)
                weight.exp_()
                if included is not None:
                    weight *= included[here] & included[there]
                yield here, there, weight
            distance *= 2
