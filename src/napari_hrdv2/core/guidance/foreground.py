"""Foreground masks without labels: of the first principal component, of attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import filled
from napari_hrdv2.core.classifier.background import read_background
from napari_hrdv2.core.classifier.clusters import Masks, PlainCoordinates, find_clusters
from napari_hrdv2.core.postprocess.guides import guide_from

if TYPE_CHECKING:
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.tiles import LinearModel

ENTROPY_RADIUS = 10  # pixels of the disc whose grey levels are counted
PARTS = 80  # clusters that attention chooses among


@dataclass(frozen=True, eq=False)
class Foreground:
    """The half of the first principal component that shows more, linear in features."""

    model: LinearModel  # of background and foreground

    def predict(self, features: Features, *, should_stop: Stop = None) -> NDArray[Any]:
        """Return 1 in the foreground of an image and 0 elsewhere, (H, W) uint8."""
        return features.argmax(*self.model, should_stop=should_stop)


def principal_foreground(
    features: Sequence[Features],
    images: Iterable[ArrayLike],
    *,
    exclusion: Masks = None,
) -> Foreground:
    """Return what divides images, all alike, into foreground and background.

    Parameters
    ----------
    features : sequence of Features
    images : (H, W) or (H, W, 3|4) arrays, one after the other
        What they were made of.
    exclusion : sequence of (H, W) array of bool or None, optional
        For each image where nothing of interest is.

    Notes
    -----
    The method of HR-Dv2 [1]_: the halves are above and below the mean along the first
    principal component, here in the coordinates of a plain fit, and the foreground is
    the half with the larger mean entropy of grey levels within 10 px, here of the
    background sample.

    References
    ----------
    .. [1] R. Docherty, A. Vamvakeros, S. J. Cooper, "Upsampling DINOv2 features for
       unsupervised vision tasks and weakly supervised materials segmentation",
       arXiv:2410.19836 (2024).
    """
    space = PlainCoordinates.of(features, exclusion)
    masks = exclusion or [None] * len(features)
    sums, sizes = np.zeros(2), np.zeros(2)
    for one, image, mask in zip(features, images, masks, strict=True):
        pixels, rows = read_background(one, mask, images=len(features))
        side = (space(rows)[:, 0] > 0).astype(int)
        sizes += np.bincount(side, minlength=2)
        sums += np.bincount(side, entropy_of(image).ravel()[pixels], 2)
    means = sums / np.maximum(sizes, 1)
    sides = np.zeros((2, len(space.coordinates.variances)))
    sides[1, 0] = 1 if means[1] >= means[0] else -1
    return Foreground(space.model_of(sides))


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
    should_stop: Stop = None,
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
    return np.asarray(chosen[labels] & kept)
