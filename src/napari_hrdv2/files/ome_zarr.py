"""Writing OME-Zarr: an image and labels with names, colours and pixel size [1]_.

The image and each label image are one array of full resolution, without a pyramid.

References
----------
.. [1] J. Moore et al., "OME-Zarr: a cloud-optimized bioimaging file format with
   international community support", Histochem. Cell Biol. 160, 223-251 (2023).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.files.importers.imported import optional_module
from napari_hrdv2.files.labels import LabelClasses, checked_ids, rgb
from napari_hrdv2.files.ome_zarr_read import is_zarr

# Names of the UDUNITS that the standard asks for.
_UNITS = {
    "pm": "picometer",
    "Å": "angstrom",
    "nm": "nanometer",
    "µm": "micrometer",
    "μm": "micrometer",
    "um": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "inch": "inch",
}
_VERSIONS = {"0.4": 2, "0.5": 3}  # of OME-Zarr, and the Zarr beneath
_CHUNK = 1024
_CHANNELS = ("FF0000", "00FF00", "0000FF", "FFFFFF")


def write_ome_zarr(
    path: str | os.PathLike[str],
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]] | Mapping[str, NDArray[np.integer[Any]]],
    classes: LabelClasses,
    pixel_size: float | None = None,
    unit: str = "pixel",
    *,
    version: str = "0.4",
) -> None:
    """Write an image and its labels as one OME-Zarr folder.

    Parameters
    ----------
    path : path-like
        The folder, by custom ending in ``.zarr``. An OME-Zarr that was there is
        replaced once the new one is complete; any other folder is left alone.
    image : (H, W) or (H, W, 3|4) array
    labels : (H, W) integer array, or mapping of str to such arrays
        Ids from 0; several label images by their names, else it is "segmentation".
    classes : LabelClasses
        Names and ``"#rrggbb"`` colours by id, for all of them.
    pixel_size : float, optional
        Width of a pixel in `unit`.
    unit : str
        For instance ``"µm"``.
    version : {"0.4", "0.5"}
        Of the format; most programs read 0.4.

    Raises
    ------
    ImportError
        If the package zarr is missing.
    OSError
        If the folder cannot be written.
    ValueError
        If an array is not of these shapes, or the version is unknown.
    """
    zarr = optional_module("zarr", "writing OME-Zarr")
    if version not in _VERSIONS:
        raise ValueError(f"version: {version!r} is unknown; choose 0.4 or 0.5")
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (3, 4)):
        raise ValueError(
            f"image: shape {image.shape} is not (H, W), (H, W, 3) or (H, W, 4)"
        )
    many = labels if isinstance(labels, Mapping) else {"segmentation": labels}
    checked = {name: checked_ids(each) for name, each in many.items()}
    for name, each in checked.items():
        if each.shape != image.shape[:2]:
            raise ValueError(
                f"labels: {name} of shape {each.shape} does not fit an image of shape "
                f"{image.shape[:2]}"
            )
    scale = _Scale(pixel_size, unit, version)
    target = Path(path)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
    _check_replaceable(target)
    try:
        root = zarr.open_group(temporary, mode="w", zarr_format=_VERSIONS[version])
        _write_image(root, image, scale, target.stem)
        group = root.create_group("labels")
        _annotate(group, {"labels": list(checked)}, version)
        for name, each in checked.items():
            _write_labels(group.create_group(name), each, classes, scale, name)
        _replace(target, temporary)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{target} could not be written: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Scale:
    """Axes and pixel size, in the words of the standard."""

    def __init__(self, pixel_size: float | None, unit: str, version: str) -> None:
        self.pixel_size = 1.0 if pixel_size is None else float(pixel_size)
        self.unit = None if pixel_size is None else _UNITS.get(unit, unit)
        self.version = version
        if self.unit == "pixel":
            self.unit = None

    def multiscales(self, name: str, dimensions: int) -> list[dict[str, Any]]:
        unit = {"unit": self.unit} if self.unit else {}
        axes: list[dict[str, str]] = [
            {"name": axis, "type": "space", **unit} for axis in "yx"
        ]
        scale = [self.pixel_size] * 2
        if dimensions == 3:
            axes.insert(0, {"name": "c", "type": "channel"})
            scale.insert(0, 1.0)
        transform = {"type": "scale", "scale": scale}
        dataset = {"path": "0", "coordinateTransformations": [transform]}
        image: dict[str, Any] = {"name": name, "axes": axes, "datasets": [dataset]}
        # Since 0.5 the version stands once, beside the multiscales.
        return [image | ({"version": "0.4"} if self.version == "0.4" else {})]


def _write_image(root: Any, image: NDArray[Any], scale: _Scale, name: str) -> None:
    if image.dtype == bool:
        image = image.astype(np.uint8)
    if image.dtype.kind == "f" and image.dtype.itemsize == 2:
        image = image.astype(np.float32)  # few programs know half precision
    planes = np.moveaxis(image, -1, 0) if image.ndim == 3 else image
    _write_array(root, planes)
    metadata: dict[str, Any] = {"multiscales": scale.multiscales(name, planes.ndim)}
    if planes.ndim == 3:
        high = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1
        window = {"min": 0, "max": high, "start": 0, "end": high}
        metadata["omero"] = {
            "channels": [
                {"color": color, "window": window, "active": color != _CHANNELS[-1]}
                for color in _CHANNELS[: len(planes)]
            ],
            "rdefs": {"model": "color"},
        }
    _annotate(root, metadata, scale.version)


def _write_labels(
    group: Any, labels: NDArray[Any], classes: LabelClasses, scale: _Scale, name: str
) -> None:
    _write_array(group, labels)
    about: dict[str, Any] = {
        "colors": [
            {"label-value": i, "rgba": [*rgb(i, classes.colors), 255]}
            for i in sorted(classes.colors)
        ],
        "properties": [
            {"label-value": i, "name": classes.names[i]} for i in sorted(classes.names)
        ],
        "source": {"image": "../../"},
    }
    about = {key: value for key, value in about.items() if value}
    if scale.version == "0.4":
        about["version"] = "0.4"
    multiscales = scale.multiscales(name, labels.ndim)
    _annotate(group, {"multiscales": multiscales, "image-label": about}, scale.version)


def _write_array(group: Any, data: NDArray[Any]) -> None:
    chunks = (*(1 for _ in data.shape[:-2]), *(min(n, _CHUNK) for n in data.shape[-2:]))
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if group.metadata.zarr_format == 3:
        names = ("c", "y", "x")[-data.ndim :]
        options = {"dimension_names": names}
    group.create_array("0", data=np.ascontiguousarray(data), chunks=chunks, **options)


def _annotate(group: Any, metadata: dict[str, Any], version: str) -> None:
    if version == "0.4":
        group.attrs.update(metadata)
    else:
        group.attrs.update({"ome": {"version": version, **metadata}})


def _check_replaceable(target: Path) -> None:
    if target.is_dir() and not is_zarr(target) and any(target.iterdir()):
        raise FileExistsError(
            f"{target} is a folder with other things in it; name a new one"
        )
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; name a folder, such as result.zarr")


def _replace(target: Path, complete: Path) -> None:
    """Put a folder in the place of another, which only goes when that has worked."""
    former = target.with_name(f"{complete.name}-former")
    if target.exists():
        os.replace(target, former)
    try:
        os.replace(complete, target)
    except OSError:
        if former.exists():
            os.replace(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)
