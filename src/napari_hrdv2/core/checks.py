"""What images, label images and masks must be."""

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


def check_grey_or_rgb(name: str, image_channels: int) -> None:
    """Raise ValueError unless a backbone of that name can take so many channels."""
    if image_channels not in (1, 3):
        raise ValueError(
            f"image: {name} takes 1 (grey) or 3 (RGB) channels, not {image_channels}"
        )


def checked_partition(
    partition: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return (H, W) region numbers of an image of that shape, or raise ValueError."""
    labels = np.asarray(partition)
    if labels.shape != tuple(shape) or labels.dtype.kind not in "biu":
        raise ValueError(
            f"partition: {labels.dtype} of shape {labels.shape} does not fit an image "
            f"of shape {tuple(shape)}; whole numbers of that shape are needed"
        )
    return labels.astype(np.int64)
