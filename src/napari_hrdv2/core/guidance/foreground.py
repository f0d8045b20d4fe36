"""Foreground masks without labels: of the first principal component, of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_hrdv2.core.checks import filled, guide_from
from napari_hrdv2.core.classifier.clusters import PlainCoordinates, find_clusters

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.classifier.clusters import Masks
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import LinearModel

ENTROPY_RADIUS = 10  # pixels of the disc whose grey levels are counted
PARTS = 80  # clusters that attention chooses among


@dataclass(frozen=True, eq=False)
class Foreground:
    """The half of the first principal component that shows more, linear in features."""

    model: LinearModel  # of background and foreground

    def predict(
        self, features: Features, *, should_stop: Callable[[], bool] | None = None
    ) -> NDArray[Any]:
        """Return 1 in the foreground of an image and 0 elsewhere, (H, W) uint8."""
        return features.argmax(*self.model, should_stop=should_stop)


def principal_foreground(
    features: Sequence[Features],
    images: Sequence[ArrayLike],
    *,
    exclusion: Masks = None,
    should_stop: Callable[[], bool] | None = None,
) -> Foreground:
    """Return what divides images, all alike, into foreground and background.

    Parameters
    ----------
    features : sequence of Features
    images : sequence of (H, W) or (H, W, 3|4) arrays
        What they were made of.
    exclusion : sequence of (H, W) array of bool or None, optional
        For each image where nothing of interest is.

    Notes
    -----
    The method of HR-Dv2 [1]_: the halves are above and below the mean along the first
    principal component, here in the coordinates of a plain fit, and the foreground is
    the half whose pixels have the larger mean entropy of grey levels within 10 px.

    References
    ----------
    .. [1] R. Docherty, A. Vamvakeros, S. J. Cooper, "Upsampling DINOv2 features for
       unsupervised vision tasks and weakly supervised materials segmentation",
       arXiv:2410.19836 (2024).
    """
    space = PlainCoordinates.of(features, exclusion)
    sides = np.zeros((2, space.coordinates.directions.shape[1]))
    sides[1, 0] = 1
    found = Foreground(space.model_of(sides))
    masks = exclusion or [None] * len(features)
    sums, sizes = np.zeros(2), np.zeros(2)
    for one, image, mask in zip(features, images, masks, strict=True):
        side = found.predict(one, should_stop=should_stop)
        seen = ... if mask is None else ~mask
        inside = side[seen].ravel()
        sizes += np.bincount(inside, minlength=2)
        sums += np.bincount(inside, entropy_of(image)[seen].ravel(), minlength=2)
    means = sums / np.maximum(sizes, 1)
    return Foreground(space.model_of(-sides)) if means[0] > means[1] else found


def entropy_of(image: ArrayLike) -> NDArray[np.float64]:
    """Return the entropy of grey levels about each pixel in bits, (H, W)."""
    from skimage.filters.rank import entropy
    from skimage.morphology import disk

    levels = np.asarray(filled(image), np.float32)
    grey = levels if levels.ndim == 2 else levels[..., :3].mean(-1)
    (levels,) = guide_from(torch.from_numpy(grey)[None]).numpy()
    return np.asarray(entropy(levels, disk(ENTROPY_RADIUS)))


def attention_foreground(
    features: Features,
    attention: NDArray[np.float32],
    *,
    exclusion: NDArray[np.bool_] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.bool_]:
    """Return where a backbone looks more than elsewhere, (H, W).

    Of `PARTS` clusters of the features those to which the (heads, H, W) `attention`
    is above the mean of all of them, as in [1]_.

    References
    ----------
    .. [1] R. Docherty et al., arXiv:2410.19836 (2024).
    """
    found = find_clusters(features, PARTS, exclusion=[exclusion])
    labels = found.predict(features, should_stop=should_stop)
    kept = np.isfinite(attention).all(0)
    if exclusion is not None:
        kept &= ~exclusion
    inside, total = labels[kept], attention.sum(0, dtype=np.float64)[kept]
    sizes = np.bincount(inside, minlength=found.count)
    densities = np.bincount(inside, total, found.count) / np.maximum(sizes, 1)
    chosen = densities > densities[sizes > 0].mean() if kept.any() else sizes > 0
    mask: NDArray[np.bool_] = chosen[labels] & kept
    return mask
