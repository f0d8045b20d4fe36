"""Our files as napari layers: with class names, colours and pixel size.

napari's own readers give the numbers alone. This one knows no napari either: it
returns the tuples that napari's plugin interface asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .images import read_image
from .importers import import_labels
from .labels import LabelClasses, read_label_classes
from .ome_zarr import open_label_levels, read_image_and_labels
from .units import NO_UNIT, Size, is_length, sides_of
from .volumes import open_volume
from .zarr_images import attributes, is_ome_zarr

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return `read_layers` for an OME-Zarr or a label TIFF of ours, else None."""
    if not isinstance(path, str):
        return None
    if is_ome_zarr(Path(path)):
        return read_layers
    classes = read_label_classes(path)
    return read_layers if classes.names or classes.colors else None


def read_layers(path: str) -> list[LayerData]:
    """Return napari's tuples for an OME-Zarr or a label TIFF."""
    if Path(path).is_dir():
        return _from_zarr(Path(path))
    found = import_labels(path, grey_levels=False)
    file = read_image(path)
    size = file.size
    return [_labels_layer(Path(path).stem, found.labels, found.classes, size)]


def _from_zarr(path: Path) -> list[LayerData]:
    if '"image-label"' in attributes(path):
        levels, classes, size = open_label_levels(path)
        data = levels if len(levels) > 1 else np.asarray(levels[0][:])
        _, about, _ = layer = _labels_layer(path.stem, data, classes, size)
        if levels[0].ndim == 3:  # a volume
            volume = open_volume(path)
            depth = volume and volume.data.depth_in(volume.unit)
            about |= {} if depth else {"scale": (1.0, 1.0), "units": (NO_UNIT,)}
            about["scale"] = depth or 1.0, *about["scale"]
            about["units"] = about["units"][:1] * 3
        return [layer]
    image, labels, size = read_image_and_labels(path)
    data = np.asarray(image[:])
    is_color = data.ndim == 3 and len(data) in (3, 4)
    if is_color:
        data = np.moveaxis(data, 0, -1)
    about = {"name": path.stem, "rgb": is_color, **_scaled(size)}
    return [
        (data, about, "image"),
        *(
            _labels_layer(name, each.labels, each.classes, size)
            for name, each in labels.items()
        ),
    ]


def _labels_layer(
    name: str, labels: Any, classes: LabelClasses, size: tuple[Size, str] | None
) -> LayerData:
    about: dict[str, Any] = {"name": name, **_scaled(size)}
    if isinstance(labels, list):
        about["multiscale"] = True
    if classes.colors:
        shades: dict[int | None, str] = {None: "transparent", 0: "transparent"}
        about["colormap"] = shades | classes.colors
    if classes.names:
        ids = sorted(classes.names)
        about["features"] = {"index": ids, "name": [classes.names[i] for i in ids]}
    return labels, about, "labels"


def _scaled(size: tuple[Size, str] | None) -> dict[str, Any]:
    if size is None:
        return {}
    unit = size[1] if is_length(size[1]) else NO_UNIT  # napari knows no others
    return {"scale": sides_of(size[0]), "units": (unit, unit)}
