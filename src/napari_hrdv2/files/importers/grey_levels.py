"""Label files whose classes are evenly spaced grey levels, such as 85, 170, 255."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FULL_SCALES = (255, 65535)  # white in 8 and in 16 bit


def spread_levels(labels: NDArray[Any]) -> NDArray[np.integer[Any]] | None:
    """Return the grey levels if the ids are 1…K, spread to be seen; else None.

    Parameters
    ----------
    labels : (H, W) array of int
        0 is no class and stays it.

    Returns
    -------
    (K,) array of int, or None
        The ids that occur, ascending, if they are evenly spaced from 0 up to white: i
        times 255 / K to within rounding, or i times the whole part of that (127, 254);
        the same with 65535. One level has to be white itself. Ids 1…K are none.

    Examples
    --------
    >>> spread_levels(np.array([[0, 85, 170], [255, 255, 0]])).tolist()
    [85, 170, 255]
    >>> spread_levels(np.array([[0, 1, 2]])) is None
    True
    """
    levels = np.unique(labels)
    levels = levels[levels > 0].astype(np.int64)
    count = len(levels)
    if not 1 <= count <= 128:  # 255 classes that are 1 apart are ids
        return None
    index = np.arange(1, count + 1)
    for full in _FULL_SCALES:
        exact = np.abs(levels - index * full / count) <= 1
        if exact.all() or (count > 1 and (levels == index * (full // count)).all()):
            return levels
    return None


def to_ids(labels: NDArray[Any], levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 1 for the first of the levels, 2 for the second, and 0 elsewhere.

    Examples
    --------
    >>> to_ids(np.array([[0, 127, 254]]), np.array([127, 254])).tolist()
    [[0, 1, 2]]
    """
    ids = np.searchsorted(levels, labels).astype(np.uint8) + np.uint8(1)
    return np.where(labels > 0, ids, np.uint8(0))
