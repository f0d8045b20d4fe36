"""What a user has painted, with a name by which it is known again."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scribbles:
    """The strokes on one image at one moment.

    Parameters
    ----------
    labels : (H, W) int array
        Label ids, 0 where nothing is painted. Copied: a layer goes on being painted.
    image_shape : tuple of int
        (H, W) of the image that was painted on.

    Attributes
    ----------
    class_ids : tuple of int
        The ids that occur, ascending, without 0.
    counts : dict of int to int
        How many pixels each of them has.
    digest : bytes
        Equal for equal strokes; empty if there are none.
    """

    def __init__(self, labels: NDArray[Any], image_shape: tuple[int, ...]) -> None:
        if labels.shape != tuple(image_shape):
            raise ValueError(
                f"labels: shape {labels.shape} is not that of the image, "
                f"{tuple(image_shape)}"
            )
        if labels.dtype.kind not in "bui":
            raise ValueError(f"labels: dtype {labels.dtype} is not an integer")
        self.labels = labels.copy()
        painted = np.flatnonzero(self.labels != 0)  # much faster on booleans
        values = self.labels.ravel()[painted]
        if values.size and values.min() < 0:
            raise ValueError(
                f"labels: {values.min()} is negative; classes are numbered from 1, and "
                "0 is not labelled"
            )
        self._describe(painted)

    def without(self, mask: NDArray[np.bool_]) -> Scribbles:
        """Return the strokes outside of an (H, W) mask; itself if all are."""
        hidden = mask.ravel()[self._painted]
        if not hidden.any():
            return self
        rest = copy.copy(self)
        rest.labels = self.labels.copy()
        rest.labels.ravel()[self._painted[hidden]] = 0
        rest._describe(self._painted[~hidden])
        return rest

    def _describe(self, painted: NDArray[np.int64]) -> None:
        values = self.labels.ravel()[painted]
        self._painted = painted
        ids, counts = np.unique(values, return_counts=True)
        self.class_ids: tuple[int, ...] = tuple(ids.tolist())
        self.counts = dict(zip(self.class_ids, counts.tolist(), strict=True))
        fingerprint = hashlib.blake2b(painted.tobytes(), digest_size=16)
        fingerprint.update(values.astype(np.int64).tobytes())
        self.fingerprint = fingerprint.digest() if values.size else b""
