"""The guided filter: planes that follow the edges of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]


def guided_filter(
    planes: Planes,
    guide: Planes,
    *,
    radius: int,
    contrast: float,
    included: NDArray[np.bool_] | None = None,
    tick: Callable[[], None] | None = None,
) -> Planes:
    """Return the planes, smoothed where the guide is smooth.

    In each window of (2 r + 1)² pixels a plane is fitted by a linear function of the
    guide's channels, a · I + b, with a penalty of contrast² on a; each pixel takes
    the mean of what the windows about it say [1]_. The cost does not depend on r.

    Parameters
    ----------
    planes : (K, H, W) float32 array
    guide : (1 or 3, H, W) float32 array
        Grey levels or colours in 0..1.
    radius : int
        In pixels.
    contrast : float
        Differences of the guide well below this are smoothed over, those well above
        are edges.
    included : (H, W) bool array, optional
        Pixels that count; the others give nothing to their neighbours.
    tick : callable
        Called between planes; it may raise.

    Returns
    -------
    (K, H, W) float32 array

    References
    ----------
    .. [1] K. He, J. Sun and X. Tang, "Guided image filtering", IEEE TPAMI 35 (6),
       2013; eqs. 5, 6, 8 and, for colour, 19.
    """
    mean = _window_mean(radius, included)
    guide_mean = np.stack([mean(channel) for channel in guide])
    inverse = _inverse(_covariances(guide, guide_mean, mean), contrast**2)
    output = np.empty_like(planes)
    for plane, result in zip(planes, output, strict=True):
        if tick is not None:
            tick()
        plane_mean = mean(plane)
        with_guide = np.stack([mean(channel * plane) for channel in guide])
        slope = _apply(inverse, with_guide - guide_mean * plane_mean)
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
    share = np.maximum(box(weight), np.float32(0.5 / size**2))
    return lambda plane: box(plane * weight) / share


def _covariances(
    guide: Planes, guide_mean: Planes, mean: Callable[[Planes], Planes]
) -> Planes:
    """Return the covariance matrix of the guide in each window, (C, C, H, W)."""
    count = len(guide)
    matrix = np.empty((count, *guide.shape), np.float32)
    for i in range(count):
        for j in range(i, count):
            matrix[i, j] = mean(guide[i] * guide[j]) - guide_mean[i] * guide_mean[j]
            matrix[j, i] = matrix[i, j]
    return matrix


def _inverse(matrix: Planes, penalty: float) -> Planes:
    """Return the inverse of matrix + penalty · 1 at each pixel, (C, C, H, W)."""
    for i in range(len(matrix)):
        matrix[i, i] += penalty
    if len(matrix) == 1:
        return np.reciprocal(matrix)
    first, second, third = matrix
    pairs = (second, third), (third, first), (first, second)
    adjugate: Planes = np.stack([np.cross(a, b, axis=0) for a, b in pairs])
    determinant: Planes = (first * adjugate[0]).sum(0)
    return adjugate / determinant


def _apply(matrix: Planes, vector: Planes) -> Planes:
    """Return matrix · vector at each pixel, (C, H, W)."""
    product: Planes = np.stack([(row * vector).sum(0) for row in matrix])
    return product
