"""Volumes: stacks of grey planes in a TIFF or Zarr, of which nothing but parts is read.

A volume is an image of Z · Y rows here, plane below plane, that knows where its planes
begin; so are its labels and its features.
"""

from __future__ import annotations

import math
import os
import re
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import check_claim
from napari_hrdv2.files.images import ImageFile
from napari_hrdv2.files.labels import ImportedLabels, read_label_classes
from napari_hrdv2.files.lazy import LazyImage
from napari_hrdv2.files.reading import image_format
from napari_hrdv2.files.units import NO_UNIT, converted, size_of, unit_symbol
from napari_hrdv2.files.vendors import NO_SIZE
from napari_hrdv2.files.vendors import pixel_size as tiff_pixel_size
from napari_hrdv2.files.zarr_images import is_zarr, metadata, opened, pixel_size

PLANES = re.compile(r"(z|xyz)(?:\+(\d+\.?\d*|\.\d+) *([^\d\s]*))?")


class LazyVolume(LazyImage):
    """A (Z, Y, X) array in a file as an image, plane below plane.

    Attributes
    ----------
    volume_shape, plane_shape : tuple of int
        (Z, Y, X) and (Y, X).
    spacing : tuple of a length and a unit, or None
        Between planes, where the file tells it.
    planes, width : str and float
        What voxels are to know of other planes, see `VolumeFeatures`.
    """

    planes, width = "z", 0.0

    def __init__(self, path: Path, array: Any, spacing: tuple[float, str] | None):
        """Take an array behind any number of axes of length 1."""
        count, height, width = self.volume_shape = tuple(array.shape[-3:])
        self.plane_shape, self.spacing = (height, width), spacing
        before = (0,) * (array.ndim - 3)

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            first, last = rows.start // height, (rows.stop - 1) // height + 1
            cut = (*before, slice(first, last), slice(None), columns)
            part = np.asarray(array[cut]).reshape(-1, columns.stop - columns.start)
            return part[rows.start - first * height : rows.stop - first * height]

        # A plane at once, so that no chunk of it is read again.
        about: Any = {"chunks": (height, width)}
        super().__init__(path, read, (count * height, width), array.dtype, **about)

    def depth_in(self, unit: str) -> float | None:
        """Return the distance of planes in a unit, None where it is not known."""
        with suppress(Exception):  # words that are no units raise anything
            assert self.spacing is not None
            return converted(*self.spacing, unit)
        return None


def open_stack(
    path: str | os.PathLike[str], channels: str = "", planes: str = "z"
) -> ImageFile:
    """Return the volume in a file, its `data` being a `LazyVolume`; else `open_image`.

    `planes` is what voxels are to know of other planes: "z", "xyz", and with context
    along the axis, in planes or a unit of length, "z+2" or "xyz+1.5um".
    """
    from napari_hrdv2.files import open_image

    path, found = Path(path), PLANES.fullmatch(planes)
    file = None if channels else open_volume(path)
    if file is None and planes == "z":
        return open_image(path, channels)
    if file is None:
        raise ValueError(f"planes: {planes!r} is for volumes, and {path} is none")
    data, known = file.data, 1.0
    if found and found[3]:
        known = data.depth_in(found[3])
    if not found or not known:
        raise ValueError(
            f"planes: {planes!r} is neither z nor xyz, nor one of these with a number "
            "of planes (z+2) or, where the file tells how far apart they are, a length "
            "(z+1.5um)"
        )
    data.planes, data.width = planes, float(found[2] or 0) / known
    return file


def open_volume(path: Path) -> ImageFile | None:
    """Return the volume in a TIFF or Zarr without reading it; None where it is none.

    Its axes are planes, rows and columns; any before are of length 1. What is wrong
    with other files is for `open_image` to say.
    """
    try:
        if is_zarr(path):
            return _of_zarr(path)
        return _of_tiff(path) if image_format(path) == "TIFF" else None
    except Exception:  # noqa: BLE001 - of damaged files
        return None


def volume_labels(path: Path, volume: LazyVolume) -> ImportedLabels:
    """Return the scribbles of a volume, from a file with a volume of its shape."""
    file, size = open_volume(path), volume.volume_shape
    if (
        file is None
        or file.data.volume_shape != size
        or file.data.dtype.kind not in "ui"
    ):
        raise ValueError(
            f"labels: {path} is no volume of whole numbers of shape {size}; give one "
            "that is 0 where nothing is painted"
        )
    about = f"a volume of {size[0]} planes"
    return ImportedLabels(np.asarray(file.data), read_label_classes(path), about)


def first_plane(image: Any) -> Any:
    """Return the first plane of a volume, else the image."""
    return image[: image.plane_shape[0]] if hasattr(image, "plane_shape") else image


def mask_of(shared: Any, image: Any) -> NDArray[np.bool_] | None:
    """Return the exclusion mask of an image, or of a volume: that of each plane."""
    shape = getattr(image, "plane_shape", image.shape)
    mask = None if shared is None else shared.mask_for(shape)
    return mask if mask is None else np.tile(mask, (image.shape[0] // shape[0], 1))


def _of_zarr(path: Path) -> ImageFile | None:
    node: Any = opened(path)
    axes: list[dict[str, Any]] = [{"name": name} for name in "zyx"]
    found, scale = None, [1.0]
    if not hasattr(node, "shape"):
        about = metadata(node)
        axes, found = about["multiscales"][0]["axes"], pixel_size(about)
        first = about["multiscales"][0]["datasets"][0]
        node = node[first["path"]]
        scale = first["coordinateTransformations"][0]["scale"]
    elif node.shape[-1] in (3, 4):
        return None  # one image of colours
    *names, last = [axis["name"] for axis in axes[:-2]]
    count = node.shape[len(names)]
    is_grey = [axis["name"] for axis in axes[-2:]] == ["y", "x"] and last != "c"
    if not is_grey or node.ndim != len(axes) or math.prod(node.shape[:-2]) != count > 1:
        return None
    for part in (node.shape[-2:], node.chunks):  # labels may have few chunks
        nbytes = math.prod(part) * node.dtype.itemsize
        check_claim(nbytes, nbytes, path)
    unit = axes[-3].get("unit")
    spacing = _distance(scale[-3], unit_symbol(unit)) if found and unit else None
    return ImageFile(LazyVolume(path, node, spacing), *(found or (None, NO_UNIT)))


def _of_tiff(path: Path) -> ImageFile | None:
    import tifffile
    import zarr

    with ExitStack() as stack:
        tif = stack.enter_context(tifffile.TiffFile(path))
        series = tif.series[0]
        others = [one for one in tif.series[1:] if one.size >= series.size]
        is_grey = series.keyframe.photometric.name == "MINISBLACK"
        is_stack = re.fullmatch("[^CYXS]YX", series.axes) and series.shape[0] > 1
        if others or not is_grey or not is_stack:
            return None
        check_claim(series.nbytes, path.stat().st_size, path, is_read=False)
        size = NO_SIZE
        with suppress(Exception):  # a volume is worth more than its size
            size = tiff_pixel_size(path, tif, series.keyframe)
        array = zarr.open(series.aszarr(level=0), mode="r")
        volume = LazyVolume(path, array, _spacing(tif, size.unit))
        weakref.finalize(volume, tif.filehandle.close)
        stack.pop_all()  # it is closed with the volume
        return ImageFile(volume, size.sides and size_of(size.sides), size.unit)


def _spacing(tif: Any, unit: str) -> tuple[float, str] | None:
    """Return the distance of planes where a TIFF tells it; of ImageJ in the unit."""
    try:
        if tif.is_imagej:
            return _distance(tif.imagej_metadata["spacing"], unit)
        about = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
        assert about is not None
        own = unit_symbol(about.get("PhysicalSizeZUnit", "µm"))
        return _distance(about.attrib["PhysicalSizeZ"], own)
    except Exception:  # noqa: BLE001 - a volume is worth more than its spacing
        return None


def _distance(value: Any, unit: str) -> tuple[float, str] | None:
    """Return a distance of planes that may have a sign, None where it is none."""
    known = abs(float(value))
    return (known, unit) if 0 < known < math.inf else None
