"""Volumes: stacks of planes in a TIFF or Zarr, of which nothing but parts is read.

A volume is an image of Z · Y rows here, plane below plane, that knows where its planes
begin; so are its labels and its features.
"""

from __future__ import annotations

import math
import os
import re
import weakref
from collections.abc import Sequence
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
from napari_hrdv2.files.reading import channel_names, channels_by_name, image_format
from napari_hrdv2.files.tiff import colors_of, told_channels
from napari_hrdv2.files.units import NO_UNIT, converted, unit_symbol
from napari_hrdv2.files.vendors import pixel_size as tiff_pixel_size
from napari_hrdv2.files.zarr_images import is_zarr, metadata, opened, pixel_size

PLANES = re.compile(r"(z|xyz)(?:\+(\d+\.?\d*|\.\d+) *([^\d\s]*))?")


class LazyVolume(LazyImage):
    """A (Z, Y, X) array in a file as an image, plane below plane; also of colours.

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

    def __init__(
        self,
        path: Path,
        array: Any,
        spacing: tuple[float, str] | None,
        axes: Sequence[str] = "zyx",
        picked: Sequence[int] = (),
    ):
        """Take an array with such axes; "c" are its bands, or those that are picked.

        Of others the first entry counts.
        """
        sizes = dict(zip(axes, array.shape, strict=True))
        count, height, width = self.volume_shape = sizes["z"], sizes["y"], sizes["x"]
        self.plane_shape, self.spacing = (height, width), spacing
        kept = [one for one in axes if one in "zyxc"]
        order = [kept.index(one) for one in "zyxc" if one in kept]
        bands = [len(picked) or sizes["c"]] if "c" in sizes else []
        source = array.oindex if picked else array

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            first, last = rows.start // height, (rows.stop - 1) // height + 1
            spans: dict[str, Any] = {"z": slice(first, last), "x": columns}
            spans |= {"y": slice(None), "c": list(picked) or slice(None)}
            part = np.asarray(source[tuple(spans.get(one, 0) for one in axes)])
            part = part.transpose(order)
            part = part.reshape(-1, *part.shape[2:])
            return part[rows.start - first * height : rows.stop - first * height]

        # A plane at once, so that no chunk of it is read again.
        about: Any = {"chunks": (height, width)}
        shape = count * height, width, *bands
        super().__init__(path, read, shape, array.dtype, **about)

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

    path = Path(path)
    file = open_volume(path, channels)
    if file is None and planes == "z":
        return open_image(path, channels)
    if file is None:
        raise ValueError(f"planes: {planes!r} is for volumes, and {path} is none")
    relate_planes(file.data, planes)
    return file


def relate_planes(volume: LazyVolume, planes: str) -> None:
    """Set what the voxels of a volume are to know of other planes; see `open_stack`."""
    found, known = PLANES.fullmatch(planes), 1.0
    if found and found[3]:
        known = volume.depth_in(found[3]) or 0.0
    if not found or not known:
        raise ValueError(
            f"planes: {planes!r} is neither z nor xyz, nor one of these with a number "
            "of planes (z+2) or, where the file tells how far apart they are, a length "
            "(z+1.5um)"
        )
    volume.planes, volume.width = planes, float(found[2] or 0) / known


def open_volume(path: Path, channels: str = "") -> ImageFile | None:
    """Return the volume in a TIFF or Zarr without reading it; None where it is none.

    Its axes are planes, rows and columns, and three or four colours or the `channels`
    that are named; any others are of length 1. What is wrong with other files is for
    `open_image` to say.
    """
    try:
        if is_zarr(path):
            return _of_zarr(path, channels)
        return _of_tiff(path, channels) if image_format(path) == "TIFF" else None
    except Exception as error:  # of damaged files
        if getattr(error, "channels", ()):  # of which another one was asked for
            raise
        return None


def volume_labels(path: Path, volume: LazyVolume) -> ImportedLabels:
    """Return the scribbles of a volume, from a file with a volume of its shape.

    Or of a TIFF of that shape, or with planes last, whose planes are taken for colours.
    """
    file, size = open_volume(path), volume.volume_shape
    found: list[Any] = []
    if file is None:
        with suppress(Exception):  # it is no TIFF
            found = [each for each in _colours_as_planes(path) if each.shape == size]
    elif file.data.volume_shape == size and file.data.ndim == 2:
        found = [file.data]
    if len(found) > 1:
        raise ValueError(
            f"labels: {path} does not tell whether planes come first or last in its "
            f"shape {size}; write it with photometric='minisblack'"
        )
    if not found or found[0].dtype.kind not in "ui":
        raise ValueError(
            f"labels: {path} is no volume of whole numbers of shape {size}; give one "
            "that is 0 where nothing is painted"
        )
    labels = np.asarray(found[0]).reshape(volume.shape[:2])
    about = f"a volume of {size[0]} planes"
    return ImportedLabels(labels, read_label_classes(path), about)


def _colours_as_planes(path: Path) -> list[NDArray[Any]]:
    """Return the samples of a TIFF of one image of colours, as they may be planes."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        if series.axes not in ("SYX", "YXS"):
            return []
        check_claim(series.nbytes, path.stat().st_size, path)
        samples = series.asarray(maxworkers=1)
        return [samples, *[np.moveaxis(samples, -1, 0)] * (series.axes == "YXS")]


def first_plane(image: Any) -> Any:
    """Return the first plane of a volume, else the image."""
    return image[: image.plane_shape[0]] if hasattr(image, "plane_shape") else image


def mask_of(shared: Any, image: Any) -> NDArray[np.bool_] | None:
    """Return the exclusion mask of an image, or of a volume: that of each plane."""
    shape = getattr(image, "plane_shape", image.shape)
    mask = None if shared is None else shared.mask_for(shape)
    return mask if mask is None else np.tile(mask, (image.shape[0] // shape[0], 1))


def _of_zarr(path: Path, channels: str) -> ImageFile | None:
    node: Any = opened(path)
    found, scale, told = None, [1.0], list[Any]()
    if hasattr(node, "shape"):
        order = "zyxc" if node.shape[-1] in (3, 4) else "zyx"
        axes: list[dict[str, Any]] = [{"name": one} for one in f"{order:_>{node.ndim}}"]
    else:
        about = metadata(node)
        axes, found = about["multiscales"][0]["axes"], pixel_size(about)
        told = [one.get("label") for one in about.get("omero", {}).get("channels", ())]
        first = about["multiscales"][0]["datasets"][0]
        node = node[first["path"]]
        scale = first["coordinateTransformations"][0]["scale"]
    names = [axis["name"] for axis in axes]
    names, picked = _axes(path, names, node.shape, told, channels)
    if not names:
        return None
    plane = math.prod(node.shape[names.index(one)] for one in "yx")
    for count in (plane, math.prod(node.chunks)):  # labels may have few chunks
        nbytes = count * node.dtype.itemsize
        check_claim(nbytes, nbytes, path)
    unit = axes[place := names.index("z")].get("unit")
    spacing = _distance(scale[place], unit_symbol(unit)) if found and unit else None
    volume = LazyVolume(path, node, spacing, names, picked)
    return ImageFile(volume, *(found or (None, NO_UNIT)))


def _of_tiff(path: Path, channels: str) -> ImageFile | None:
    import tifffile
    import zarr

    with ExitStack() as stack:
        tif = stack.enter_context(tifffile.TiffFile(path))
        series = tif.series[0]
        others = [one for one in tif.series[1:] if one.size >= series.size]
        is_known = colors_of(series.keyframe) in ("MINISBLACK", "RGB")
        if others or not is_known or ("C" in series.axes and not channels):
            return None
        bands = "C" if channels else "S"
        names = ["c" if one == bands else one.lower() for one in series.axes]
        given = series.shape, told_channels(tif), channels
        names, picked = _axes(path, names, *given)
        if not names:
            return None
        check_claim(series.nbytes, path.stat().st_size, path, is_read=False)
        size, unit = None, NO_UNIT
        with suppress(Exception):  # a volume is worth more than its size
            size, unit = tiff_pixel_size(path, tif, series.keyframe) or (size, unit)
        array = zarr.open(series.aszarr(level=0), mode="r")
        volume = LazyVolume(path, array, _spacing(tif, unit), names, picked)
        weakref.finalize(volume, tif.filehandle.close)
        stack.pop_all()  # it is closed with the volume
        return ImageFile(volume, size, unit)


def _axes(
    path: Path, names: list[str], shape: Any, told: Sequence[object], channels: str
) -> tuple[list[str], list[int]]:
    """Return axes, of which "z" has planes and "c" bands, and which bands are meant.

    None where it is no volume: it has one long axis beside rows, columns and bands.
    """
    sizes = list(zip(names, shape, strict=True))
    planes = [one for one, size in sizes if size > 1 and one not in ("y", "x", "c")]
    bands = dict(sizes).get("c", 1)
    fits = "c" in names if channels else bands in (1, 3, 4)
    if len(planes) != 1 or not {"y", "x"} <= set(names) or not fits:
        return [], []
    known = channel_names(told, bands)
    picked = channels_by_name(path, channels, known) if channels else []
    seen = {"y": "y", "x": "x", "c": "c" if channels or bands > 1 else "_"}
    kept = (seen.get(one, "z" if n > 1 else "_") for one, n in sizes)
    return list(kept), picked


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
