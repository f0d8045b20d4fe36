"""Making and updating the napari layers of a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_hrdv2.session import default_color

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.session import ClassInfo

METADATA_KEY = "napari-hrdv2"
"""Where layers say what they are to us: ``layer.metadata[METADATA_KEY]``.

An image has an ``"id"``; scribbles and segmentation have a ``"role"`` and, as
``"image"``, the id of the image they belong to.
"""

SEGMENTATION_OPACITY = 0.5
_COLORS_PREPARED = 64  # ids a user may type into napari's own label box


def pixels_of(layer: Image) -> NDArray[Any]:
    """Return the (H, W) or (H, W, 3|4) array of an image layer.

    Raises
    ------
    ValueError
        If the layer is a stack or a volume.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.ndim != 2:
        raise ValueError(not_flat(layer))
    return np.asarray(data)


def not_flat(layer: Image) -> str:
    """Return the sentence that refuses a stack or a volume."""
    return (
        f"{layer.name} has {layer.ndim} dimensions; open or extract a 2-D grey or RGB "
        "image."
    )


def pixel_size_of(layer: Image) -> tuple[float, str] | None:
    """Return the length of a pixel's side and its unit, or None if it has none."""
    unit = str(layer.units[-1])
    if unit in ("pixel", "dimensionless"):
        return None
    return float(layer.scale[-1]), unit


def spatial_metadata(layer: Image) -> dict[str, Any]:
    """Return what places another layer exactly on this one."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": np.array(layer.affine.affine_matrix),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def place_like(layer: Labels | None, image: Image) -> None:
    """Move a layer to where the image is now."""
    if layer is not None:
        for name, value in spatial_metadata(image).items():
            setattr(layer, name, value)


def colormap_of(classes: Mapping[int, ClassInfo]) -> DirectLabelColormap:
    """Return the colours of the classes; other ids have those they would be given."""
    colors: dict[int | None, str] = {None: "white", 0: "transparent"}
    colors |= {i: default_color(i) for i in range(1, _COLORS_PREPARED)}
    colors |= {i: info.color for i, info in classes.items()}
    return DirectLabelColormap(color_dict=colors)


def name_table(classes: Mapping[int, ClassInfo]) -> dict[str, list[Any]]:
    """Return class names as layer features, which napari shows under the cursor."""
    return {
        "index": [0, *classes],
        "class": ["", *(info.name for info in classes.values())],
    }


def sensible_brush(shape: tuple[int, ...]) -> int:
    """Return a brush size in pixels that is a stroke on the screen, not a dot."""
    return int(np.clip(round(min(shape[:2]) / 80), 3, 40))


def new_id() -> str:
    """Return a name that no other image has."""
    return uuid4().hex


def id_of(viewer: napari.components.ViewerModel, image: Image) -> str:
    """Return the id of an image; it gets one if it has none of its own."""
    mark = image.metadata.get(METADATA_KEY, {})
    for layer in viewer.layers:
        if layer == image:  # not `is`: plugins see layers through proxies
            break
        if isinstance(layer, Image) and layer.metadata.get(METADATA_KEY, {}) == mark:
            mark = {}  # the layer is a duplicate of that one
    if "id" not in mark:
        mark = {"id": new_id()}
        image.metadata = {**image.metadata, METADATA_KEY: mark}
    return str(mark["id"])


def mark_of(role: str, image_id: str) -> dict[str, Any]:
    """Return the metadata of a layer that belongs to an image."""
    return {METADATA_KEY: {"role": role, "image": image_id}}


def find_layer(
    viewer: napari.components.ViewerModel,
    role: str,
    image: Image,
    shape: tuple[int, ...],
) -> Labels | None:
    """Return the layer that has this role for this image, and fits it."""
    image_id = id_of(viewer, image)
    for layer in viewer.layers:  # a duplicate that the user made lies above
        mark = layer.metadata.get(METADATA_KEY, {})
        if (
            isinstance(layer, Labels)
            and (mark.get("role"), mark.get("image")) == (role, image_id)
            and layer.data.shape == tuple(shape)
        ):
            return layer
    return None


def class_names_of(layer: Labels) -> dict[int, str]:
    """Return the names that a layer brings for its classes, as those of samples do."""
    return dict(layer.metadata.get(METADATA_KEY, {}).get("class_names", {}))


def make_scribbles(
    viewer: napari.components.ViewerModel,
    image: Image,
    shape: tuple[int, int],
    classes: Mapping[int, ClassInfo],
) -> Labels:
    """Add an empty layer to paint on, above the image."""
    return viewer.add_labels(
        np.zeros(shape, np.uint8),
        name="Scribbles",
        colormap=colormap_of(classes),
        features=name_table(classes),
        opacity=1.0,
        metadata=mark_of("scribbles", id_of(viewer, image)),
        **spatial_metadata(image),
    )


def arm_brush(
    viewer: napari.components.ViewerModel, scribbles: Labels, shape: tuple[int, ...]
) -> None:
    """Select the layer, and put the brush into the user's hand."""
    viewer.layers.selection.active = scribbles
    mark = scribbles.metadata.setdefault(METADATA_KEY, {})
    if not mark.get("has_brush"):  # only once: the user may like another size
        mark["has_brush"] = True
        scribbles.brush_size = sensible_brush(shape)
    scribbles.mode = "paint"


def make_segmentation(
    viewer: napari.components.ViewerModel,
    image: Image,
    scribbles: Labels | None,
    data: NDArray[Any],
    classes: Mapping[int, ClassInfo],
) -> Labels:
    """Add the result beneath the scribbles, which stay selected."""
    layer = Labels(
        data.copy(),
        name="Segmentation",
        colormap=colormap_of(classes),
        features=name_table(classes),
        opacity=SEGMENTATION_OPACITY,
        metadata=mark_of("segmentation", id_of(viewer, image)),
        **spatial_metadata(image),
    )
    layer.editable = False
    active = viewer.layers.selection.active
    above = scribbles if scribbles in viewer.layers else None
    position = len(viewer.layers) if above is None else viewer.layers.index(above)
    viewer.layers.insert(position, layer)
    viewer.layers.selection.active = active
    return layer


def show_segmentation(layer: Labels, data: NDArray[Any]) -> None:
    """Write a result into its layer, which stays protected from the brush."""
    if layer.data.shape == data.shape and layer.data.dtype == data.dtype:
        layer.data[...] = data
        layer.refresh()
    else:
        layer.data = data.copy()
        layer.editable = False
