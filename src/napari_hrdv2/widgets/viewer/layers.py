"""Making and updating the napari layers of a session."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_warning

from napari_hrdv2.core.classifier.samples import blank_labels
from napari_hrdv2.files import read_channel_names, read_pixel_size, read_turn, units
from napari_hrdv2.files.volumes import open_volume
from napari_hrdv2.session import ClassInfo, Preview, default_color
from napari_hrdv2.session.classes import Classes, default_class
from napari_hrdv2.session.planes import LARGE

from .planes import METADATA_KEY as METADATA_KEY
from .planes import data_of, joined_channels, levels_of, show_levels
from .planes import mark_on as mark_on

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_hrdv2.session.batch import OpenedImage

SEGMENTATION_OPACITY = 0.5
_PLACE_EVENTS = ("scale", "translate", "rotate", "shear", "affine", "units")
_COLORS_PREPARED = 64  # ids a user may type into napari's own label box


def pixel_size_of(layer: Image) -> tuple[float | tuple[float, float], str] | None:
    """Return side(s) of a pixel and their unit, or None if it has none.

    What was set by hand counts most, then the scale in the viewer, then the file.
    """
    mark = mark_on(layer)
    if "pixel_size" in mark:
        size, unit = mark["pixel_size"]
        return size, unit
    unit = units.unit_symbol(str(layer.units[-1]))
    if unit == units.NO_UNIT:
        found = mark.get("file_pixel_size")
        return None if found is None else (found[0], found[1])
    height, width = (abs(float(side)) for side in layer.scale[-2:])
    return units.size_of((height, width)), unit


def set_pixel_size(layer: Image, size: tuple[float, str] | None) -> None:
    """Set the side of a pixel by hand; None to go by the viewer and the file again."""
    mark = {k: v for k, v in mark_on(layer).items() if k != "pixel_size"}
    if size is not None:
        mark["pixel_size"] = size
    layer.metadata = {**layer.metadata, METADATA_KEY: mark}


def look_into_file(layer: Image) -> None:
    """Note what the file of a layer tells of pixels and planes, once.

    Warns of an image that napari opened as it is stored, though it is to be turned.
    """
    mark, path = mark_on(layer), path_of(layer)
    if path is None or "file_pixel_size" in mark:
        return
    found = read_pixel_size(path)
    if "path" not in mark and (turn := read_turn(path)):
        show_warning(
            f"{layer.name} is shown as it is stored, though its orientation tag asks "
            f"for it to be {turn}, as segment and apply do. Add files… shows it so."
        )
    if layer.ndim == 3:
        stack = open_volume(Path(path))
        mark |= {"file_spacing": stack.data.spacing} if stack else {}
    mark = {"channel_names": read_channel_names(path) if layer.ndim == 3 else ()} | mark
    layer.metadata = {**layer.metadata, METADATA_KEY: mark | {"file_pixel_size": found}}


def spatial_metadata(layer: Image) -> dict[str, Any]:
    """Return what places another layer exactly on this one."""
    if joined_channels(layer):
        return flat_metadata(layer)
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": np.array(layer.affine.affine_matrix),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def plane_metadata(image: Image, index: tuple[int, ...]) -> dict[str, Any]:
    """Return what places a layer of one plane, with all axes, exactly on its stack."""
    found = spatial_metadata(image)
    if index:
        corner, origin = np.array([*index, 0, 0]), np.zeros(image.ndim)
        step = np.subtract(image.data_to_world(corner), image.data_to_world(origin))
        within = np.linalg.solve(image.affine.linear_matrix, step)
        found["translate"] = np.add(image.translate, within)
    return found


def flat_metadata(image: Image) -> dict[str, Any]:
    """Return what places a layer of rows and columns on an image, or on all planes."""
    if image.ndim == 2:
        return spatial_metadata(image)
    seen = np.ix_([-3, -2, -1], [-3, -2, -1])
    return {
        "affine": _affine(image, np.zeros(image.ndim))[seen],
        "units": image.units[-2:],
        "axis_labels": image.axis_labels[-2:],
    }


def heads_metadata(image: Image, index: tuple[int, ...]) -> dict[str, Any]:
    """Return what places maps with a slider for the heads on one plane."""
    affine = np.eye(image.ndim + 2)
    affine[1:, 1:] = _affine(image, np.array([*index, 0, 0]))
    names = ("head", *image.axis_labels)
    return {"affine": affine, "units": ("pixel", *image.units), "axis_labels": names}


def _affine(image: Image, corner: NDArray[Any]) -> NDArray[np.float64]:
    """Return the matrix from data to world, with the origin at a corner."""
    origin = np.array(image.data_to_world(corner))
    steps = [np.array(image.data_to_world(corner + one)) for one in np.eye(image.ndim)]
    affine = np.eye(image.ndim + 1)
    affine[:-1, :-1] = (np.array(steps) - origin).T
    affine[:-1, -1] = origin
    return affine


def place(layer: Any, metadata: dict[str, Any]) -> None:
    """Move a layer to where it belongs."""
    for name, value in metadata.items():
        setattr(layer, name, value)


def place_events(image: Image) -> list[Any]:
    """Return the events of an image that tell that it was moved."""
    return [getattr(image.events, name) for name in _PLACE_EVENTS]


def colormap_of(classes: Mapping[int, ClassInfo]) -> DirectLabelColormap:
    """Return the colours of the classes; other ids have those they would be given."""
    colors: dict[int | None, str] = {None: "white", 0: "transparent"}
    colors |= {i: default_color(i) for i in range(1, _COLORS_PREPARED)}
    colors |= {i: info.color for i, info in classes.items()}
    return DirectLabelColormap(color_dict=colors)


def name_table(classes: Mapping[int, ClassInfo]) -> dict[str, list[Any]]:
    """Return class names as layer features, which napari shows under the cursor."""
    names = ["", *(info.name for info in classes.values())]
    return {"index": [0, *classes], "class": names}


def id_of(viewer: ViewerModel, image: Image) -> str:
    """Return the id of an image; it gets one if it has none of its own."""
    mark = mark_on(image)
    for layer in viewer.layers:
        if layer == image:  # not `is`: plugins see layers through proxies
            break
        other = mark_on(layer)
        if isinstance(layer, Image) and "id" in mark and other.get("id") == mark["id"]:
            mark = {k: v for k, v in mark.items() if k != "id"}  # a duplicate of that
    return str(mark["id"]) if "id" in mark else renew_id(image)


def renew_id(image: Image) -> str:
    """Give an image another id, where it has that of the image it was copied from."""
    mark = {**mark_on(image), "id": uuid4().hex}
    image.metadata = {**image.metadata, METADATA_KEY: mark}
    return str(mark["id"])


def mark_of(role: str, image_id: str, **more: Any) -> dict[str, Any]:
    """Return the mark of a layer that belongs to an image."""
    return {"role": role, "image": image_id, **more}


def class_names_of(layer: Labels) -> dict[int, str]:
    """Return what a layer calls its labels, in its metadata or its table."""
    names = dict(mark_on(layer).get("class_names", {}))
    table = layer.features
    column = next((name for name in ("class", "name") if name in table), None)
    if names or column is None or "index" not in table:
        return names
    pairs = zip(table["index"], table[column], strict=True)
    return {int(i): str(name) for i, name in pairs if i and str(name)}


def class_colors_of(layer: Labels) -> dict[int, str]:
    """Return the ``"#rrggbb"`` colours that a layer gives to the labels it names."""
    if not isinstance(layer.colormap, DirectLabelColormap):
        return {}
    colors = layer.colormap.color_dict
    named = {i: colors[i][:3] for i in class_names_of(layer) if i in colors}
    return {
        i: "#" + "".join(f"{round(float(part) * 255):02x}" for part in color)
        for i, color in named.items()
    }


def take_classes(classes: Classes, layer: Labels) -> None:
    """Take over the classes of a layer; its table names only those without a name."""
    names, colors = class_names_of(layer), class_colors_of(layer)
    if "class_names" not in mark_on(layer):
        names = {i: name for i, name in names.items() if _is_unnamed(classes, i, name)}
        colors = {i: color for i, color in colors.items() if i in names}
    classes.ensure(names, names=names, colors=colors)


def _is_unnamed(classes: Classes, class_id: int, name: str) -> bool:
    """Whether a class is as nobody made it, and no other one has the name."""
    taken = any(info.name == name for i, info in classes.items() if i != class_id)
    known = classes.get(class_id, default_class(class_id))
    return known == default_class(class_id) and not taken


def show_classes(layer: Labels | None, classes: Mapping[int, ClassInfo]) -> None:
    """Give a layer the names and colours of the classes."""
    if layer is not None:
        layer.colormap = colormap_of(classes)
        layer.features = name_table(classes)


def name_of(role: str, image: Image) -> str:
    """Return what a layer that belongs to an image is called."""
    return f"{role.capitalize()}: {image.name}"


def rename(layer: Any, role: str, name: str) -> None:
    """Give a layer another name, unless the user has given it one of his own."""
    kind = re.escape(role.capitalize())
    is_ours = re.fullmatch(rf"{kind}(: .*)?( \[\d+\])?", layer.name, re.DOTALL)
    is_there = re.fullmatch(rf"{re.escape(name)}( \[\d+\])?", layer.name)
    if is_ours and not is_there:
        layer.name = name


def empty_labels(
    image: Image,
    shape: tuple[int, ...],
    mark: dict[str, Any],
    classes: Mapping[int, ClassInfo],
) -> Labels:
    """Return a layer for the scribbles, or the segmentation, of an image."""
    is_result = mark["role"] == "segmentation"
    try:
        data = blank_labels(shape)
    except MemoryError:
        text = f"labels: there is no memory for a layer of shape {shape}"
        raise ValueError(f"{text}; open a part of the stack") from None
    layer = Labels(
        in_levels(data) if is_result else data,
        name=name_of(mark["role"], image),
        colormap=colormap_of(classes),
        features=name_table(classes),
        opacity=SEGMENTATION_OPACITY if is_result else 1.0,
        metadata={METADATA_KEY: mark},
        **spatial_metadata(image),
    )
    layer.editable = not is_result
    return layer


def in_levels(values: NDArray[Any]) -> Any:
    """Return (…, H, W) values in levels where they are large."""
    return levels_of(values) if math.prod(values.shape[-2:]) > LARGE else values


def arm_brush(viewer: ViewerModel, scribbles: Labels, shape: tuple[int, ...]) -> None:
    """Select the layer, and put the brush into the user's hand."""
    viewer.layers.selection.active = scribbles
    mark = scribbles.metadata.setdefault(METADATA_KEY, {})
    if not mark.get("has_brush"):  # only once: the user may like another size
        mark["has_brush"] = True
        # A stroke on the screen, not a dot.
        scribbles.brush_size = int(np.clip(round(min(shape[-2:]) / 80), 3, 40))
    scribbles.mode = "paint"


def insert_beneath(viewer: ViewerModel, layer: Any, above: Any | None) -> None:
    """Add a layer beneath another one, or on top; what is selected stays selected."""
    present, active = viewer.layers, viewer.layers.selection.active
    position = present.index(above) if above in present else len(present)
    present.insert(position, layer)
    if active is None or active in present:
        present.selection.active = active


def write_plane(
    layer: Labels,
    index: tuple[int, ...],
    labels: NDArray[Any],
    *,
    undoable: bool = False,
) -> None:
    """Write (H, W) labels into a layer; one that is protected stays protected."""
    if layer.multiscale:  # a segmentation, which nobody paints on: not copied
        if not index:
            show_levels(layer, labels)
            return
        data_of(layer)[index] = labels
        layer.refresh()
    elif labels.size and not np.can_cast(labels.dtype, layer.data.dtype):
        is_editable = layer.editable
        data = layer.data.astype(np.promote_types(layer.data.dtype, labels.dtype))
        data[index] = labels
        layer.data = data
        layer.editable = is_editable
    elif undoable:
        changed = np.nonzero(layer.data[index] != labels)
        if changed[0].size:
            plane = (np.full(len(changed[0]), place) for place in index)
            layer.data_setitem((*plane, *changed), labels[changed])
    else:
        layer.data[index] = labels
        layer.refresh()


def write_part(layer: Labels, part: Preview) -> None:
    """Write a part of a result into the layer that shows it."""
    if layer.multiscale and part.of is None and not part.key.plane:
        show_levels(layer, data_of(layer).copy())  # what it shares is a former result's
    data_of(layer)[(*part.key.plane, *part.window)] = part.labels
    layer.refresh()


def add_image(
    viewer: ViewerModel,
    data: NDArray[Any],
    path: str,
    *,
    name: str = "",
    pixel_size: units.Size | None = None,
    unit: str = units.NO_UNIT,
    channels: str = "",
) -> Image:
    """Add a micrograph that was read from a file, and remember the file."""
    names = channels.split(",") if channels and data.ndim == 3 else []
    joined = {"channels": channels, "channel_names": names} if names else {}
    if unit != units.NO_UNIT and not units.is_length(unit):
        # napari takes no image whose unit it does not know.
        warnings.warn(
            f"{path} has the unit {unit!r}, which is no length; it is opened without a "
            "pixel size",
            stacklevel=2,
        )
        unit = units.NO_UNIT
    size = 1.0 if pixel_size is None or unit == units.NO_UNIT else pixel_size
    return viewer.add_image(
        np.moveaxis(data, -1, 0) if names else data,
        name=name or Path(path).stem,
        rgb=data.ndim == 3 and not names,
        scale=(1.0, *units.sides_of(size))[not names :],
        units=("pixel", unit, unit)[not names :],
        axis_labels=("channel", "y", "x")[not names :],
        metadata={METADATA_KEY: {"path": path} | joined},
    )


def add_opened(viewer: ViewerModel, opened: OpenedImage) -> Image:
    """Add a micrograph as it was opened."""
    image = opened.image
    return add_image(
        viewer,
        image.data,
        opened.path,
        pixel_size=image.pixel_size,
        unit=image.unit,
    )


def path_of(image: Image) -> str | None:
    """Return the file that an image came from."""
    return image.source.path or mark_on(image).get("path")
