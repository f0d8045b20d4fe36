"""Strokes from elsewhere, written so that undo brings the former ones back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.controller import Controller


def write_strokes(controller: Controller, key: PlaneKey, labels: NDArray[Any]) -> None:
    """Write the (H, W) strokes of a picture into its layer, made if need be.

    Raises
    ------
    ValueError
        If the picture has no image here, or the labels do not fit it.
    """
    session, link = controller.session, controller.link
    layer = link.scribbles_of(key)
    is_there = layer is not None and key in session.images
    if not is_there or not np.can_cast(labels.dtype, layer.data.dtype):
        link.show_scribbles(key, labels)
        return
    session.set_scribbles(labels, key)
    link.write_scribbles(key)
