"""Maps that say which region each pixel belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def numbered(labels: Tensor) -> Tensor:
    """Return a label map with the labels 0 to n - 1 in the order of their values.

    Parameters
    ----------
    labels : (H, W) integer tensor
        Of any values; what has one value is one region, be it in several pieces.
    """
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers


def borders(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return where a pixel has another label than the one to its right or below.

    Parameters
    ----------
    labels : (H, W) array of int

    Returns
    -------
    (H, W) bool array
    """
    labels = np.asarray(labels)
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def boxes_of(labels: Tensor) -> Tensor:
    """Return the first row and column and the last row and column of every region.

    Parameters
    ----------
    labels : (H, W) int64 tensor
        0 to n - 1, none missing.

    Returns
    -------
    (4, n) int64 tensor
    """
    width = labels.shape[1]
    flat = labels.flatten()
    pixels = torch.arange(len(flat), device=flat.device)
    rows, columns = pixels // width, pixels % width
    boxes = flat.new_zeros(4, int(flat.max()) + 1)
    for target, source, how in zip(
        boxes,
        (rows, columns, rows, columns),
        ("amin", "amin", "amax", "amax"),
        strict=True,
    ):
        target.scatter_reduce_(0, flat, source, how, include_self=False)
    return boxes
