"""Reading OME-Zarr: labels with their names, and all of it as layers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_hrdv2.files.importers.imported import (
    ImportedLabels,
    check_size,
    count_text,
    narrow,
    optional_module,
)
from napari_hrdv2.files.labels import LabelClasses, checked_ids
from napari_hrdv2.files.read import damaged

_SHORT_UNITS = {"micrometer": "µm", "nanometer": "nm", "angstrom": "Å"}


def read_ome_zarr(
    path: str | os.PathLike[str],
    shape: tuple[int, int] | None = None,
    *,
    name: str | None = None,
) -> ImportedLabels:
    """Return a label image of an OME-Zarr folder, at full resolution.

    Parameters
    ----------
    path : path-like
        The folder of the image, or of one of its label images.
    shape : (H, W), optional
        Of the image that the labels are for.
    name : str, optional
        Of the label image, where there are several; else the first is taken.
    """
    path = Path(path)
    found, group = _label_group(path, _opened(path), name)
    try:
        data, metadata = _array(group)[:], _metadata(group)
    except (KeyError, TypeError, IndexError, OSError) as error:
        raise damaged(path, error) from error
    if any(length > 1 for length in data.shape[:-2]):
        shown = " × ".join(map(str, data.shape))
        raise ValueError(f"{path} has labels of a stack ({shown}); one plane is needed")
    labels = data.reshape(data.shape[-2:])
    check_size(path, labels.shape, shape)
    count = len(np.unique(labels[labels > 0]))
    note = f"OME-Zarr: {count_text(count, 'class', 'classes')} of {found}."
    classes = _classes(metadata.get("image-label", {}))
    return ImportedLabels(narrow(checked_ids(labels)), classes, note)


def read_image_and_labels(
    path: Path,
) -> tuple[Any, dict[str, ImportedLabels], tuple[float, str] | None]:
    """Return the array of the image, the label images by name, and the pixel size."""
    group = _opened(path)
    try:
        image = _array(group)
        names = _metadata(group["labels"])["labels"] if "labels" in group else []
        size = _pixel_size(_metadata(group))
    except (KeyError, TypeError, IndexError, OSError) as error:
        raise damaged(path, error) from error
    return image, {name: read_ome_zarr(path, name=name) for name in names}, size


def _opened(path: Path) -> Any:
    zarr = optional_module("zarr", f"{path}: reading OME-Zarr")
    if not is_zarr(path):
        raise IsADirectoryError(f"{path} is a folder, and no OME-Zarr; give a file")
    try:
        return zarr.open_group(path, mode="r")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise damaged(path, error) from error


def _label_group(path: Path, group: Any, name: str | None) -> tuple[str, Any]:
    """The label image of that name, else the first; or the group itself if it is."""
    if "image-label" in _metadata(group):
        return path.name, group
    try:
        names = _metadata(group["labels"])["labels"] if "labels" in group else []
        chosen = name if name in names else names[0] if names else None
        if chosen is not None:
            return str(chosen), group[f"labels/{chosen}"]
    except (KeyError, TypeError, OSError) as error:
        raise damaged(path, error) from error
    raise ValueError(f"{path} has no labels beside its image")


def _array(group: Any) -> Any:
    """The array of full resolution."""
    return group[_metadata(group)["multiscales"][0]["datasets"][0]["path"]]


def _pixel_size(metadata: Mapping[str, Any]) -> tuple[float, str] | None:
    scale = metadata["multiscales"][0]
    unit = scale["axes"][-1].get("unit")
    if unit is None:
        return None
    (transform, *_) = scale["datasets"][0]["coordinateTransformations"]
    return float(transform["scale"][-1]), _SHORT_UNITS.get(unit, unit)


def _metadata(group: Any) -> dict[str, Any]:
    attributes = dict(group.attrs)
    return dict(attributes.get("ome", attributes))


def _classes(about: Mapping[str, Any]) -> LabelClasses:
    names, colors = {}, {}
    for entry in about.get("properties") or []:
        # What a name is called is left to programs by the standard.
        name = next((entry[k] for k in ("name", "class", "label") if k in entry), None)
        if name is not None:
            names[int(entry["label-value"])] = str(name)
    for entry in about.get("colors") or []:
        if entry.get("rgba") and entry["label-value"] > 0:
            red, green, blue = entry["rgba"][:3]
            colors[int(entry["label-value"])] = f"#{red:02x}{green:02x}{blue:02x}"
    return LabelClasses(names, colors)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a group of Zarr, of either version."""
    return any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is an image of OME-Zarr; the package zarr is not needed."""
    for name in (".zattrs", "zarr.json"):
        try:
            if '"multiscales"' in (path / name).read_text(encoding="utf-8"):
                return True
        except (OSError, UnicodeDecodeError):
            continue
    return False
