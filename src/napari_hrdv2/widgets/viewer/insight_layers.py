"""The layers that show what a backbone looks at; nobody paints or segments them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer import planes

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.session.tasks.guidance import Attention, Regions
    from napari_hrdv2.widgets.viewer.link import LayerSync
    from napari_hrdv2.widgets.viewer.planes import Index

ATTENTION, REGIONS, BORDERS = "attention", "regions", "region borders"
_OPACITY = 0.7
_BORDER_COLORS = {None: "transparent", 0: "transparent", 1: "yellow"}


def show_attention(
    viewer: napari.components.ViewerModel, link: LayerSync, answer: Attention
) -> Image | None:
    """Show the maps over their image, with a slider for the heads if there are many.

    Returns None where the image has gone meanwhile.
    """
    image, index = link.layer_of(answer.key), answer.key.plane
    if image is None:
        return None
    maps = answer.maps if len(answer.maps) > 1 else answer.maps[0]
    finite = maps[np.isfinite(maps)]
    highest = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    layer = Image(
        _as_planes(maps, index),
        name=f"Attention of {answer.backbone}",
        colormap="inferno",
        contrast_limits=(0, highest or 1.0),
        blending="translucent",
        opacity=_OPACITY,
        **_place(viewer, image, index, ATTENTION, more=maps.ndim - 2),
    )
    _put(viewer, link, layer)
    return layer


def show_regions(
    viewer: napari.components.ViewerModel, link: LayerSync, answer: Regions
) -> Labels | None:
    """Show the borders of the regions, and keep the regions ready beneath them."""
    image, index = link.layer_of(answer.key), answer.key.plane
    if image is None:
        return None
    regions = Labels(
        _as_planes(answer.labels, index),
        name="Regions",
        opacity=_OPACITY,
        visible=False,  # its many colours would hide the image
        **_place(viewer, image, index, REGIONS),
    )
    borders = Labels(
        _as_planes(answer.borders.astype(np.uint8), index),
        name="Region borders",
        colormap=DirectLabelColormap(color_dict=_BORDER_COLORS),
        **_place(viewer, image, index, BORDERS),
    )
    _put(viewer, link, regions)
    _put(viewer, link, borders)
    return regions


def partitions(
    viewer: napari.components.ViewerModel, image: Image, shape: tuple[int, int]
) -> list[Labels]:
    """Return the Labels layers that can divide a picture into regions."""
    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Labels) and _fits(layer, image, shape)
    ]


def plane_of(layer: Labels, index: Index, shape: tuple[int, int]) -> NDArray[Any]:
    """Return the (H, W) labels of one of `partitions` on the plane shown."""
    data = layer.data
    if _size(data.shape) == _size(shape):
        return np.asarray(data).reshape(shape)
    return np.asarray(data[index])


def _fits(layer: Labels, image: Image, shape: tuple[int, int]) -> bool:
    mine = tuple(layer.data.shape)
    is_one = mine[-2:] == shape and _size(mine) == _size(shape)
    return is_one or mine == planes.label_shape(image)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _as_planes(maps: NDArray[Any], index: Index) -> NDArray[Any]:
    """Return (…, H, W) maps as those of one plane of a stack, if it is of one."""
    return maps.reshape(*maps.shape[:-2], *(1 for _ in index), *maps.shape[-2:])


def _place(
    viewer: napari.components.ViewerModel,
    image: Image,
    index: Index,
    role: str,
    *,
    more: int = 0,
) -> dict[str, Any]:
    """Return what places a layer on one plane of an image, with `more` axes before."""
    corner = np.array([*index, 0, 0])
    origin = np.array(image.data_to_world(corner))
    steps = [np.array(image.data_to_world(corner + one)) for one in np.eye(image.ndim)]
    affine = np.eye(more + image.ndim + 1)
    affine[more:-1, more:-1] = (np.array(steps) - origin).T
    affine[more:-1, -1] = origin
    return {
        "affine": affine,
        "units": (*("pixel" for _ in range(more)), *image.units),
        "axis_labels": (*("head" for _ in range(more)), *image.axis_labels),
        "metadata": make.mark_of(role, make.id_of(viewer, image)),
    }


def _put(
    viewer: napari.components.ViewerModel, link: LayerSync, layer: Image | Labels
) -> None:
    """Add a layer beneath the strokes, which stay selected; the former one goes."""
    layers, active = viewer.layers, viewer.layers.selection.active
    for other in list(layers):
        mark = other.metadata.get(make.METADATA_KEY)
        if mark == layer.metadata[make.METADATA_KEY] and type(other) is type(layer):
            layers.remove(other)
    above = link.scribbles
    layers.insert(layers.index(above) if above in layers else len(layers), layer)
    if active in layers:
        layers.selection.active = active
