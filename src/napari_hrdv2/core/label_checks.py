"""What label images and masks must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def checked_labels(labels: ArrayLike, name: str = "labels") -> NDArray[Any]:
    """Return an (H, W) array of ids from 0, or raise ValueError."""
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise ValueError(
            f"{name}: shape {array.shape} of {array.dtype} is not a label image; an "
            "(H, W) array of integers is needed"
        )
    if array.size and array.min() < 0:
        raise ValueError(f"{name}: {array.min()} is not a label id; they start at 0")
    return array


def checked_mask(
    exclusion: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Return the mask, None for one that excludes nothing, or raise ValueError."""
    if exclusion is None:
        return None
    mask = np.asarray(exclusion, bool)
    if mask.shape != tuple(shape):
        raise ValueError(
            f"exclusion: shape {mask.shape} does not fit an image of shape "
            f"{tuple(shape)}"
        )
    return mask if mask.any() else None
