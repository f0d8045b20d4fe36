"""Smoothing the planes of probabilities with the image as a guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_hrdv2.core.features.upsampling.bilateral import guide_from
from napari_hrdv2.core.postprocess.crf import mean_field
from napari_hrdv2.core.postprocess.guided_filter import guided_filter

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CONTRAST = 0.03  # of the guided filter: differences of grey, of which there are 0..1
STRONGEST = 8.0  # of the CRF, in nats: what a strength of 1 stands for
SMALLEST = 1e-6  # probabilities below are as good as none


def smoothed(
    planes: NDArray[np.float32],
    guide: NDArray[np.float32],
    smoothing: str,
    *,
    radius: int,
    strength: float,
    exclusion: NDArray[np.bool_] | None = None,
    tick: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Return new planes of probabilities, (K, H, W), smoothed by "guided" or "crf".

    In both ways a pixel of which the classifier is sure keeps its class if `strength`
    is at most 0.5. The guided filter gives a share `strength` of the result and the
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
    image: ArrayLike | None,
    shape: tuple[int, ...],
    exclusion: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """Return the image as (1 or 3, H, W) in 0..1, stretched to its 1–99 %."""
    array = np.asarray(np.nan if image is None else image, np.float32)
    given = array.shape
    if array.ndim == 3 and array.shape[2] in (3, 4):
        array = np.moveaxis(array[..., :3], 2, 0)
    elif array.ndim == 2:
        array = array[None]
    if array.shape[-2:] != shape[1:] or array.ndim != 3:
        raise ValueError(
            f"image: shape {given} does not fit probabilities of shape "
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
