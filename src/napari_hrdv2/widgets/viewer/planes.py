"""What the viewer shows: planes of stacks by its sliders, and places by its camera."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.files.reading import channel_names, channels_by_name
from napari_hrdv2.session.planes import AXIS_NAMES, Plane, axis_name, axis_names

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

METADATA_KEY = "napari-hrdv2"
"""Where layers say what they are to us: ``layer.metadata[METADATA_KEY]``.

An image has an ``"id"``; scribbles and segmentation have a ``"role"`` and, as
``"image"``, the id of the image they belong to.
"""

_PART_OF_VIEW, _MOST_OF_VIEW = 0.25, 0.8  # of the view, that is looked at
_WHOLE = 0.95  # of the view, that a whole image takes
_COARSEST = 512  # pixels of the longer side of a segmentation seen as a whole
_USUAL_CANVAS = (600, 800)  # of a viewer that does not tell

Index = tuple[int, ...]
"""Of a plane along the axes before rows and columns; () for an image that is flat."""


def sizes(layer: Image) -> Index:
    """Return how many planes there are along each axis; () for a flat image."""
    return label_shape(layer)[:-2]


def label_shape(layer: Image) -> Index:
    """Return the shape of labels that lie on a layer."""
    if joined_channels(layer):
        return tuple(data_of(layer).shape[1:])
    return tuple(int(size) for size in data_of(layer).shape[: layer.ndim])


def mark_on(layer: Any) -> dict[str, Any]:
    """Return the mark that a layer has; empty if it is not one of ours."""
    return dict(layer.metadata.get(METADATA_KEY, {}))


def channels_of(layer: Image) -> list[str]:
    """Return the names of the channels along the first axis of a layer; [] for none."""
    if layer.ndim != 3 or axis_name(layer.axis_labels[0]) != "channel":
        return []
    return channel_names(mark_on(layer).get("channel_names", ()), len(data_of(layer)))


def joined_channels(layer: Image) -> str:
    """Return which channels of a layer are taken together, as "BSE,Fe"; "" for none."""
    return str(mark_on(layer).get("channels", "")) if channels_of(layer) else ""


def join_channels(layer: Image, channels: str) -> bool:
    """Take channels of a layer together; return whether it has channels, and others."""
    former, mark = joined_channels(layer), mark_on(layer) | {"channels": channels}
    layer.metadata = {**layer.metadata, METADATA_KEY: mark}
    return former != joined_channels(layer)


def lies_on(labels: Labels, image: Image, shape: tuple[int, int]) -> bool:
    """Whether a labels layer has the size of an image, or of one plane of it."""
    there = tuple(labels.data.shape)
    return there == label_shape(image) or _is_one_plane(there, shape)


def labels_on_plane(
    labels: Labels, index: Index, shape: tuple[int, int]
) -> NDArray[Any]:
    """Return the (H, W) labels on a plane, from a layer that lies on the image."""
    data = labels.data  # of a large stack, not in memory
    is_plane = _is_one_plane(tuple(data.shape), shape)
    return np.asarray(data).reshape(shape) if is_plane else np.asarray(data[index])


def names(layer: Image) -> tuple[str | None, ...]:
    """Return what the axes of the planes are called, None where nobody said."""
    return axis_names(layer.axis_labels[:-2])


def unnamed(layer: Image) -> list[int]:
    """Return the axes that must be named; one plane needs no name."""
    pairs = zip(names(layer), sizes(layer), strict=False)
    return [axis for axis, (name, size) in enumerate(pairs) if not name and size > 1]


def name_axis(layer: Image, axis: int, name: str) -> None:
    """Say what an axis is; the sliders of the viewer show it too."""
    labels = list(layer.axis_labels)
    labels[axis] = name
    layer.axis_labels = tuple(labels)


def place(layer: Image, index: Index) -> dict[str, int]:
    """Return a plane by the names of its axes."""
    return {name: i for name, i in zip(names(layer), index, strict=False) if name}


def pixels(layer: Image, index: Index) -> Any:
    """Return an image, or a plane of a stack; a `Plane` where reading takes time."""
    data, there = data_of(layer), sizes(layer)
    if unnamed(layer):
        raise ValueError(how_to_name(layer))
    is_inside = all(0 <= i < n for i, n in zip(index, there, strict=False))
    if len(index) != len(there) or not is_inside:
        what = f"{layer.name} has no plane {index}"
        raise ValueError(f"plane: {what}; there are {there} of them")
    if channels := joined_channels(layer):
        picked = channels_by_name(layer.name, channels, channels_of(layer))
        shape = (*label_shape(layer), len(picked))

        def read(*part: Any) -> NDArray[Any]:
            return np.stack([np.asarray(data[(one, *part)]) for one in picked], -1)

    else:
        shape = data.shape[len(there) :]

        def read(*part: Any) -> NDArray[Any]:
            where = (*index, *part)
            return np.asarray(data[where] if where else data)

    if isinstance(data, np.ndarray):
        # A new view each time: pixels replaced in place are another image, too.
        return read() if channels else np.asarray(data[index])
    return Plane(read, shape, data.dtype, lambda part: read(*part))


def how_to_name(layer: Image) -> str:
    """Return the sentence that asks for the names of axes."""
    axes = ", ".join(f"axis {axis} ({sizes(layer)[axis]})" for axis in unnamed(layer))
    return (
        f"{layer.name} is a stack: choose under Images and stacks what {axes} is, "
        f"{', '.join(AXIS_NAMES[:-1])} or {AXIS_NAMES[-1]}."
    )


def trouble(viewer: ViewerModel, layer: Image) -> str:
    """Return why no plane of a stack can be worked on now, "" if one can."""
    if layer.ndim == 2:
        return ""
    if unnamed(layer):
        return how_to_name(layer)
    dims = viewer.dims
    if dims.ndisplay == 3:
        return (
            f"The view is 3-D: switch it back to 2-D, by the button below the layer "
            f"list, to segment planes of {layer.name}."
        )
    if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
        return (
            f"The view shows {layer.name} from the side: what you paint counts on all "
            "planes that it crosses, and is answered when the button below the layer "
            "list has brought rows and columns back."
        )
    return ""


def shown(viewer: ViewerModel, layer: Image) -> Index:
    """Return the plane of a layer that the sliders of the viewer point at."""
    there = sizes(layer)
    point = layer.world_to_data(viewer.dims.point)[: len(there)]
    return tuple(
        int(np.clip(round(float(at)), 0, max(size - 1, 0)))
        for at, size in zip(point, there, strict=True)
    )


def visible(layer: Image, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return the part of an image that is on the screen; None for all or nothing."""
    corners = layer.corner_pixels[:, -2:]
    if layer.multiscale:  # they are of the level that is shown
        factors = layer.downsample_factors[layer.data_level][-2:]
        corners = (corners * factors).astype(int)
    (top, left), (bottom, right) = corners
    height, width = shape
    rows = slice(max(int(top), 0), min(int(bottom) + 1, height))
    columns = slice(max(int(left), 0), min(int(right) + 1, width))
    size = (rows.stop - rows.start, columns.stop - columns.start)
    is_seen = min(size) > 0
    return (rows, columns) if is_seen and size != shape else None


def go_to(viewer: ViewerModel, layer: Image, index: Index) -> None:
    """Move the sliders of the viewer to a plane."""
    if not index:
        return
    world = layer.data_to_world((*index, 0, 0))
    first = viewer.dims.ndim - layer.ndim
    for axis in range(len(index)):
        viewer.dims.set_point(first + axis, float(world[axis]))


def look_at(
    viewer: ViewerModel,
    layer: Image,
    point: tuple[float, ...],
    radius: float,
    *,
    least_of_view: float = 0.02,
) -> None:
    """Move the view to a point in the data of an image; zoom if it would be lost.

    The zoom is kept where what is seen there, of a radius in pixels, takes from
    `least_of_view` to 80 % of the view.
    """
    point = (*(0,) * (layer.ndim - len(point)), *point)  # of channels that are joined
    world = np.asarray(layer.data_to_world(point))
    aside = np.add(point, 2 * radius * np.eye(len(point))[-1])
    camera, view = camera_of(viewer), min(canvas_size(viewer))
    length = max(float(np.linalg.norm(layer.data_to_world(aside) - world)), 1e-12)
    if not least_of_view <= length * camera.zoom / view <= _MOST_OF_VIEW:
        camera.zoom = _PART_OF_VIEW * view / length
    # Another layer may have more axes: those of the image are the last ones.
    world = np.concatenate([np.zeros(viewer.dims.ndim - len(world)), world])
    seen = list(viewer.dims.displayed)[-2:]
    camera.center = (*camera.center[:-2], *world[seen])


def _is_one_plane(there: tuple[int, ...], shape: tuple[int, int]) -> bool:
    return there[-2:] == shape and math.prod(there) == math.prod(shape)


def camera_of(viewer: ViewerModel) -> Any:
    """Return the camera of a viewer."""
    return getattr(viewer, "scene", viewer).camera  # moved in napari 0.9


def fit(viewer: ViewerModel, layer: Image) -> None:
    """Move and zoom the view so that the whole image is seen."""
    (low, high), camera = extent(layer), camera_of(viewer)
    sides = np.maximum(high - low, 1e-12)
    camera.center = (*camera.center[:-2], *(low + high) / 2)
    camera.zoom = _WHOLE * float(np.min(np.asarray(canvas_size(viewer)) / sides))


def extent(layer: Image) -> tuple[Any, Any]:
    """Return the least and the largest row and column of an image in the world."""
    height, width = label_shape(layer)[-2:]
    first = (0,) * (layer.ndim - 2)
    edges = [(-0.5, size - 0.5) for size in (height, width)]
    corners = [(*first, y, x) for y in edges[0] for x in edges[1]]
    world = np.array([layer.data_to_world(corner) for corner in corners])[:, -2:]
    return world.min(axis=0), world.max(axis=0)


def canvas_size(viewer: ViewerModel) -> tuple[int, int]:
    """Return height and width of what is seen on the screen."""
    canvas = getattr(viewer, "canvas", None)
    return _USUAL_CANVAS if canvas is None else tuple(canvas.size)


def levels_of(labels: Any) -> list[Any]:
    """Return views of (…, H, W) labels in steps of two, of which one is on the screen.

    The viewer then sends what is seen to the graphics card, not all of it. Labels in a
    file have levels of their own.
    """
    if hasattr(labels, "levels"):
        return [labels, *labels.levels]
    count = max((max(labels.shape[-2:]) // _COARSEST).bit_length(), 2)
    return [labels[..., :: 2**n, :: 2**n] for n in range(count)]


def show_levels(layer: Labels, labels: NDArray[Any]) -> None:
    """Let a layer of several levels show these labels, which it shares."""
    levels = levels_of(labels)
    # The viewer starts at the coarsest level, and would look there where it is now.
    ends = np.subtract(levels[-1].shape, 1)
    layer.corner_pixels = np.stack([np.zeros_like(ends), ends])
    layer.data = levels


def show_values(layer: Any, values: NDArray[Any]) -> None:
    """Let a layer, of one level or of several, show these values of its shape."""
    if layer.multiscale:
        show_levels(layer, values)
    else:
        layer.data = values


def data_of(layer: Any) -> Any:
    """Return the data of a layer, of one with several levels that in full."""
    return layer.data[0] if layer.multiscale else layer.data
