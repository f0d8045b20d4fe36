"""TIFF files: one image, and the pixel size as the many programs write it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.files.read import damaged, grey_if_grey, open_picture

# What programs call a unit, and what we call it.
_UNITS = {
    "um": "µm",
    "µm": "µm",
    "μm": "µm",
    "micron": "µm",
    "microns": "µm",
    "micrometer": "µm",
    "micrometre": "µm",
    "nm": "nm",
    "nanometer": "nm",
    "pm": "pm",
    "å": "Å",
    "angstrom": "Å",
    "mm": "mm",
    "cm": "cm",
    "m": "m",
    "inch": "inch",
}
_TO_MICROMETRES = {"inch": 25_400.0, "cm": 10_000.0}
# Coarser pixels in plain resolution tags are an inkjet printer's, not a microscope's.
_COARSEST_MICROMETRES = 20.0


@dataclass(frozen=True)
class TiffImage:
    """One page: raw samples, (H, W) or (H, W, S), and how to look at them."""

    data: NDArray[Any]
    palette: NDArray[np.uint8] | None
    white_is_zero: bool
    pixel_size: float | None
    unit: str

    def image(self) -> NDArray[Any]:
        """Samples as grey levels or colours."""
        if self.palette is not None:
            return grey_if_grey(self.palette[self.data])
        if self.data.ndim == 3 and self.data.shape[-1] == 2:
            return self.data[..., 0]  # grey with alpha
        if self.white_is_zero and self.data.dtype.kind in "bu":
            return np.asarray(np.invert(self.data))
        return self.data


def read_tiff(path: Path) -> TiffImage:
    """Read the one image in a TIFF file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            _require_one_image(path, tif)
            page = series.keyframe
            size, unit = _pixel_size(tif, page)
            return TiffImage(
                data=_samples(path, series),
                palette=_palette(tif, page),
                white_is_zero=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
                pixel_size=size,
                unit=unit,
            )
    except _NotOneImage as error:
        raise ValueError(str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        raise damaged(path, error) from error


class _NotOneImage(Exception):
    pass


def _require_one_image(path: Path, tif: Any) -> None:
    first = tif.series[0]
    shape = " × ".join(map(str, first.shape))
    if not {"Y", "X"} <= set(first.axes):
        raise _NotOneImage(
            f"{path} holds an array of shape {shape or '()'}; an image of rows and "
            "columns is needed"
        )
    others = [s for s in tif.series[1:] if s.size >= first.size]  # not thumbnails
    sizes = {
        axis: size
        for axis, size in zip(first.axes, first.shape, strict=True)
        if axis not in "YXS" and size > 1
    }
    if others or sizes:
        count = max(math.prod(sizes.values()), len(others) + 1)
        what = "channels" if set(sizes) == {"C"} else "images"
        raise _NotOneImage(
            f"{path} is a stack of {count} {what} (shape {shape}); save the one to "
            "segment in a file of its own (one grey or RGB image)"
        )


def _samples(path: Path, series: Any) -> NDArray[Any]:
    try:
        data = series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        # A compression that tifffile leaves to an optional package; Pillow knows it.
        return np.asarray(open_picture(path))
    axes = series.axes
    if "S" in axes:
        data, axes = np.moveaxis(data, axes.index("S"), -1), axes.replace("S", "") + "S"
    height, width = (series.shape[series.axes.index(axis)] for axis in "YX")
    shape = (height, width, -1) if "S" in axes else (height, width)
    data = np.ascontiguousarray(data).reshape(shape)
    if data.ndim == 3 and data.shape[-1] > 4:
        raise _NotOneImage(
            f"{path} holds {data.shape[-1]} bands; one grey or RGB image is needed"
        )
    return data


def _palette(tif: Any, page: Any) -> NDArray[np.uint8] | None:
    # ImageJ's look-up tables only tint grey levels, so those are left as they are.
    if page.colormap is None or tif.is_imagej:
        return None
    return (np.asarray(page.colormap).T >> 8).astype(np.uint8)


def _pixel_size(tif: Any, page: Any) -> tuple[float | None, str]:
    for read in (_from_ome, _from_imagej, _from_microscope, _from_resolution):
        found = read(tif, page)
        if found is not None and math.isfinite(found[0]) and found[0] > 0:
            return found
    return None, "pixel"


def _from_ome(tif: Any, page: Any) -> tuple[float, str] | None:
    if not tif.is_ome:
        return None
    for element in ElementTree.fromstring(tif.ome_metadata).iter():
        if element.tag.endswith("}Pixels") and "PhysicalSizeX" in element.attrib:
            unit = element.get("PhysicalSizeXUnit", "µm")
            return float(element.attrib["PhysicalSizeX"]), _unit(unit)
    return None


def _from_imagej(tif: Any, page: Any) -> tuple[float, str] | None:
    if not tif.is_imagej:
        return None
    unit = str((tif.imagej_metadata or {}).get("unit", ""))
    resolution = _pixels_per_unit(page)
    if resolution is None or unit.lower() in ("", "pixel", "pixels"):
        return None
    return 1 / resolution, _unit(unit)


def _from_microscope(tif: Any, page: Any) -> tuple[float, str] | None:
    """Zeiss and FEI/Thermo Fisher scanning electron microscopes."""
    if tif.is_sem:
        entry = (tif.sem_metadata or {}).get("ap_image_pixel_size", ())
        if len(entry) == 3:
            return float(entry[1]), _unit(str(entry[2]))
    if tif.is_fei:
        for section in (tif.fei_metadata or {}).values():
            if isinstance(section, dict) and "PixelWidth" in section:
                return float(section["PixelWidth"]) * 1e9, "nm"
    return None


def _from_resolution(tif: Any, page: Any) -> tuple[float, str] | None:
    resolution = _pixels_per_unit(page)
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1)))
    if resolution is None or unit is None:
        return None
    micrometres = _TO_MICROMETRES[unit] / resolution
    return (micrometres, "µm") if micrometres <= _COARSEST_MICROMETRES else None


def _pixels_per_unit(page: Any) -> float | None:
    value = page.tags.valueof("XResolution")
    if not value or not value[0] or not value[1]:
        return None
    return float(value[0] / value[1])


def _unit(name: str) -> str:
    name = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), name)
    name = re.sub(r"\s", "", name)
    return _UNITS.get(name.lower(), name)
