"""From a class to its single objects: connected components, or a watershed split."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import (
    check_choice,
    check_whole,
    checked_labels,
    checked_mask,
)

Method = Literal["components", "watershed"]
METHODS: tuple[Method, ...] = get_args(Method)
SMOOTHING = 1.0  # of distances, in pixels: rough outlines have many tiny maxima
DEPTH = 0.5  # pixels by which the middle of an object is wider than its necks


def instances(
    labels: NDArray[np.integer[Any]],
    class_id: int,
    *,
    method: Method = "components",
    min_distance: int = 5,
    connectivity: int = 1,
    exclusion: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """Return the objects of one class, as int32, numbered from 1; 0 is no object.

    Parameters
    ----------
    labels : (H, W) or (Z, Y, X) integer array
    class_id : int
    method : "components" or "watershed"
        Pixels that touch are one object; or such objects are cut at their necks: each
        maximum of the distance to the outline floods its own object.
    min_distance : int
        Of the maxima of two objects, in pixels; larger cuts less. For the watershed.
    connectivity : 1 or 2
        Whether pixels touch by their edges only or also by their corners; of voxels,
        1 to 3, whether by faces only or also by edges, or corners too.
    exclusion : bool array, optional
        Pixels that belong to no object.
    """
    from skimage.measure import label

    labels = checked_labels(labels, axes=3)
    check_choice("method", method, METHODS)
    check_whole("min_distance", min_distance, 1, " of pixels")
    if connectivity not in range(1, labels.ndim + 1):
        raise ValueError(
            f"connectivity: {connectivity!r} is neither 1 (pixels touch by edges) nor "
            "2 (also by corners)"
        )
    mask = labels == class_id
    if (excluded := checked_mask(exclusion, mask.shape)) is not None:
        mask &= ~excluded
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    whole: NDArray[np.int32] = label(mask, connectivity=connectivity).astype(np.int32)
    if method == "components":
        return whole
    return _cut(whole, min_distance, connectivity)


def touches_border(
    instances: NDArray[np.integer[Any]], *, exclusion: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which objects, by number, the border or an exclusion mask cuts off."""
    from scipy.ndimage import binary_erosion

    instances = checked_labels(instances, "instances", axes=3)
    mask = checked_mask(exclusion, instances.shape)
    inside = np.ones(instances.shape, bool) if mask is None else ~mask
    touching = np.zeros(int(instances.max(initial=0)) + 1, bool)
    touching[instances[~binary_erosion(inside)]] = True
    touching[0] = False
    return touching


def _cut(
    whole: NDArray[np.int32], min_distance: int, connectivity: int
) -> NDArray[np.int32]:
    """Return objects cut at their necks, numbered in the order of their first pixel."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.measure import label
    from skimage.morphology import reconstruction
    from skimage.segmentation import watershed

    mask = whole > 0
    # The border of the image is no outline: an object goes on beyond it.
    distance = gaussian_filter(distance_transform_edt(mask), SMOOTHING)
    # Ridges are flat in objects of one width: what counts is what stands out.
    tops = (distance > reconstruction(distance - DEPTH, distance)) & mask
    near = (distance_transform_edt(~tops) <= min_distance / 2) & mask
    markers = np.where(tops, label(near, connectivity=mask.ndim), 0)
    # Smoothing leaves an object of few pixels without a maximum.
    forgotten = ~np.isin(whole, whole[tops]) & mask
    markers[forgotten] = whole[forgotten] + markers.max()
    parts = watershed(-distance, markers, mask=mask, connectivity=connectivity)
    numbers, first = np.unique(parts, return_index=True)
    numbers, first = numbers[numbers > 0], first[numbers > 0]
    new = np.zeros(int(numbers.max()) + 1, np.int32)
    new[numbers[np.argsort(first)]] = np.arange(1, len(numbers) + 1)
    return np.asarray(new[parts])
