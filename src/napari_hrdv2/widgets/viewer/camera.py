"""Where layers lie that go with an image, and taking the view to a place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.widgets.viewer import layers as make

if TYPE_CHECKING:
    import napari.components
    from napari.layers import Image

    from napari_hrdv2.core.measure import PixelSize
    from napari_hrdv2.widgets.viewer.planes import Index

_PLACE_EVENTS = ("scale", "translate", "rotate", "shear", "affine", "units")
# How much of the view a place takes: within these limits the user's zoom is kept.
_SHARE_OF_VIEW, _LEAST_SHARE, _MOST_SHARE = 0.25, 0.02, 0.8
_USUAL_CANVAS = (600, 800)  # of a viewer that does not tell


def plane_metadata(image: Image, index: Index) -> dict[str, Any]:
    """Return what places a layer of one plane, with all axes, exactly on its stack."""
    place = make.spatial_metadata(image)
    if index:
        corner, origin = np.array([*index, 0, 0]), np.zeros(image.ndim)
        step = np.subtract(image.data_to_world(corner), image.data_to_world(origin))
        within = np.linalg.solve(image.affine.linear_matrix, step)
        place["translate"] = np.add(image.translate, within)
    return place


def flat_metadata(image: Image) -> dict[str, Any]:
    """Return what places a layer of rows and columns on an image, or on all planes."""
    if image.ndim == 2:
        return make.spatial_metadata(image)
    origin = np.zeros(image.ndim)
    corners = [origin, origin + _unit(image.ndim, -2), origin + _unit(image.ndim, -1)]
    zero, row, column = (np.array(image.data_to_world(one))[-2:] for one in corners)
    affine = np.eye(3)
    affine[:2] = np.column_stack([row - zero, column - zero, zero])
    return {
        "affine": affine,
        "units": image.units[-2:],
        "axis_labels": image.axis_labels[-2:],
    }


def place(layer: Any, metadata: dict[str, Any]) -> None:
    """Move a layer to where it belongs."""
    for name, value in metadata.items():
        setattr(layer, name, value)


def on_moved(image: Image, slot: Callable[..., None]) -> Callable[[], None]:
    """Call a slot whenever an image is moved; return what ends that."""
    events = [getattr(image.events, name) for name in _PLACE_EVENTS]
    for event in events:
        event.connect(slot)

    def end() -> None:
        for event in events:
            event.disconnect(slot)

    return end


def pixel_size_of(image: Image) -> PixelSize | None:
    """Return height, width and unit of a pixel, or None if nobody said."""
    size = make.pixel_size_of(image)
    if size is None:
        return None
    height, width = (abs(float(side)) for side in image.scale[-2:])
    return (height, width), size[1]


def look_at(
    viewer: napari.components.ViewerModel,
    image: Image,
    point: tuple[float, ...],
    radius: float,
    *,
    least_share: float = _LEAST_SHARE,
) -> None:
    """Move the view to a point in the data of an image; zoom if it would be lost.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    image : Image
    point : tuple of float
        Along all axes of the image.
    radius : float
        Of what is to be seen there, in pixels.
    least_share : float, optional
        How much of the view it takes at least, where the zoom is kept.
    """
    world = np.asarray(image.data_to_world(point))
    aside = np.add(point, 2 * radius * _unit(len(point), -1))
    camera = getattr(viewer, "scene", viewer).camera  # moved in napari 0.9
    canvas = getattr(viewer, "canvas", None)
    view = min(canvas.size if canvas is not None else _USUAL_CANVAS)
    length = max(float(np.linalg.norm(image.data_to_world(aside) - world)), 1e-12)
    if not least_share <= length * camera.zoom / view <= _MOST_SHARE:
        camera.zoom = _SHARE_OF_VIEW * view / length
    # Another layer may have more axes: those of the image are the last ones.
    world = np.concatenate([np.zeros(viewer.dims.ndim - len(world)), world])
    seen = list(viewer.dims.displayed)[-2:]
    camera.center = (*camera.center[:-2], *world[seen])


def _unit(size: int, axis: int) -> np.ndarray:
    return np.eye(size)[axis]
