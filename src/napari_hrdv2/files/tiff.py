"""TIFF pages: raw samples, and the picture that they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import check_claim

from .lazy import LazyImage, of_tiff
from .raster import ORIENTATION, grey_if_grey, rgb_of, rgb_of_cmyk, turned
from .reading import JOINED, NotReadError, channel_names, channels_by_name, told
from .units import Size, sides_of, size_of
from .vendors import pixel_size

_SCALED_BITS = (2, 3, 4, 5, 6, 7)  # grey levels that are spread over 8 bits to be seen
_OF_BYTES = (1, 5, 8, 32773, 32946, 34925, 50000)  # compressions of any bytes


@dataclass(frozen=True)
class TiffImage:
    """One page: samples as they are stored, and what they stand for."""

    path: Path
    data: NDArray[Any]  # (H, W) or (H, W, S), turned as `orientation` asks
    photometric: str  # in the words of tifffile
    bits: int | tuple[int, ...]
    palette: NDArray[np.uint8] | None
    orientation: int
    size: tuple[Size, str] | None

    def image(self) -> NDArray[Any]:
        """Return grey levels or RGB(A); ValueError where it is of other colours."""
        with told(self.path):
            return self._image()

    def _image(self) -> NDArray[Any]:
        data, bands = self.data, self.data.shape[2:]
        if self.photometric == "PALETTE" and self.palette is not None:
            index = data[..., 0] if bands else data
            kind = np.uint8 if index.dtype == bool else index.dtype
            return grey_if_grey(self.palette[index.astype(kind, copy=False)])
        if self.photometric in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE"):
            return self._grey_or_rgb(data[..., 0] if bands == (2,) else data)
        is_bytes = data.dtype == np.uint8
        if self.photometric == "SEPARATED" and bands == (4,) and data.dtype.kind == "u":
            return rgb_of_cmyk(data)
        if self.photometric in ("CIELAB", "ICCLAB") and bands == (3,) and is_bytes:
            shift = np.array([0, 0x80, 0x80], np.uint8)  # ICC's a and b have no sign
            return rgb_of(data ^ shift if self.photometric == "ICCLAB" else data, "LAB")
        if self.photometric == "YCBCR" and bands == (3,) and is_bytes:
            return rgb_of(data, "YCbCr")
        raise NotReadError(
            f"{self.path} holds {bands[0] if bands else 1} band(s) of "
            f"{data.dtype} in the colours {self.photometric}, which are not read here; "
            "save it as RGB or grey"
        )

    def _grey_or_rgb(self, data: NDArray[Any]) -> NDArray[Any]:
        if self.bits in _SCALED_BITS and data.dtype == np.uint8:
            full = 2**self.bits - 1
            data = (data.astype(np.uint16) * 255 // full).astype(np.uint8)
        if self.photometric != "MINISWHITE":
            return data
        turned_over: NDArray[Any] = (
            np.negative(data) if data.dtype.kind == "f" else np.invert(data)
        )
        if isinstance(self.bits, int) and 8 < self.bits < 8 * data.dtype.itemsize:
            turned_over &= data.dtype.type(2**self.bits - 1)
        return turned_over


def read_tiff(path: Path) -> TiffImage:
    """Read the one image in a TIFF file."""
    import tifffile

    with told(path), tifffile.TiffFile(path) as tif:
        series = _one_image(path, tif)
        check_claim(series.nbytes, path.stat().st_size, path)
        page = series.keyframe
        data, photometric = _samples(series)
        orientation = _orientation(page)
        return TiffImage(
            path,
            turned(data, orientation),
            photometric,
            page.bitspersample,
            _palette(tif, page),
            orientation,
            _size(path, tif, page, orientation),
        )


def open_tiff(
    path: Path, channels: str = ""
) -> tuple[LazyImage, tuple[Size, str] | None] | None:
    """Return the one image in a TIFF file without reading it, and its pixel size.

    None where its samples are not the grey levels or RGB(A) that they stand for.
    `channels` are the names of those that become its bands, as in "BSE,Fe".
    """
    import tifffile

    with told(path), ExitStack() as stack:
        tif = stack.enter_context(tifffile.TiffFile(path))
        series = tif.series[0] if channels else _one_image(path, tif)
        page, picked = series.keyframe, None
        if channels:
            axis, names = _channels(path, tif)
            picked = axis, channels_by_name(path, channels, names)
        bands = dict(zip(series.axes, series.shape, strict=True)).get("S", 1)
        if (
            colors_of(page) not in ("MINISBLACK", "RGB")
            or (bands not in (1, 3, 4) and picked is None)
            or page.bitspersample in _SCALED_BITS
            or _orientation(page) != 1
        ):
            return None
        check_claim(series.nbytes, path.stat().st_size, path, is_read=False)
        image = of_tiff(path, tif, picked)
        if image is None:
            return None
        size = _size(path, tif, page, 1)
        stack.pop_all()  # it is closed with the image
        return image, size


def _channels(path: Path, tif: Any) -> tuple[str, list[str]]:
    """Return the axis that has the channels of an open TIFF, and their names."""
    series = tif.series[0]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    others = [axis for axis, size in sizes.items() if axis not in "YX" and size > 1]
    if len(others) != 1 or not {"Y", "X"} <= set(sizes):
        shape = " × ".join(map(str, series.shape))
        raise NotReadError(
            f"channels: {path} has no axis of channels alone (axes {series.axes}, "
            f"shape {shape}); save it as rows, columns and channels"
        )
    return others[0], channel_names(told_channels(tif), sizes[others[0]])


def told_channels(tif: Any) -> Sequence[object]:
    """Return what OME-TIFF or ImageJ call the channels, as far as they do."""
    told: Sequence[object] = (tif.imagej_metadata or {}).get("Labels") or ()
    with suppress(Exception):  # names are a courtesy
        channels = ElementTree.fromstring(tif.ome_metadata).iterfind(".//{*}Channel")
        told = [channel.get("Name") for channel in channels]
    return told


def _one_image(path: Path, tif: Any) -> Any:
    """Return the series of the one image; raise NotReadError for what is not read."""
    series = tif.series[0]
    page, axes = series.keyframe, series.axes
    shape = " × ".join(map(str, series.shape))
    if not {"Y", "X"} <= set(axes):
        raise NotReadError(
            f"{path} holds an array of shape {shape or '()'}; an image of rows and "
            "columns is needed"
        )
    others = [s for s in tif.series[1:] if s.size >= series.size]  # not thumbnails
    sizes = {
        axis: size
        for axis, size in zip(axes, series.shape, strict=True)
        if axis not in "YXS" and size > 1
    }
    if others or sizes:
        count = max(math.prod(sizes.values()), len(others) + 1)
        names = _channels(path, tif)[1] if set(sizes) == {"C"} else []
        what = f"channels ({', '.join(names)})" if names else "images"
        raise NotReadError(
            f"{path} is a stack of {count} {what} (shape {shape}); save the one "
            "to segment in a file of its own (one grey or RGB image)"
            f"{JOINED * ('C' in sizes)}"
        )
    bands = series.shape[axes.index("S")] if "S" in axes else 1
    if bands > 4:
        raise NotReadError(
            f"{path} holds {bands} bands; one grey or RGB image is needed{JOINED}"
        )
    if page.photometric is None:
        raise ValueError("it does not say what its samples stand for")
    if page.is_subsampled and _keeps_colors(page):
        raise NotReadError(
            f"{path} holds YCbCr colours of which some stand for several pixels, "
            "which is not read here; save it as RGB"
        )
    return series


def _samples(series: Any) -> tuple[NDArray[Any], str]:
    """Return samples as stored, and their photometric."""
    data, axes = series.asarray(maxworkers=1), series.axes
    if "S" in axes:
        data, axes = np.moveaxis(data, axes.index("S"), -1), axes.replace("S", "") + "S"
    sizes = dict(zip(series.axes, series.shape, strict=True))
    shape = tuple(sizes[axis] for axis in "YXS" if axis in sizes)
    return np.ascontiguousarray(data).reshape(shape), colors_of(series.keyframe)


def colors_of(page: Any) -> str:
    """Return what the samples of a page stand for once they are decoded."""
    name: str = page.photometric.name
    # Decoders of JPEG and its kin give RGB.
    return "RGB" if name == "YCBCR" and not _keeps_colors(page) else name


def _orientation(page: Any) -> int:
    orientation: int = page.tags.valueof(ORIENTATION, 1)
    return orientation if orientation in range(2, 9) else 1


def _palette(tif: Any, page: Any) -> NDArray[np.uint8] | None:
    # ImageJ's look-up tables only tint grey levels, so those are left as they are.
    if page.colormap is None or tif.is_imagej:
        return None
    return (np.asarray(page.colormap).T >> 8).astype(np.uint8)


def _size(path: Path, tif: Any, page: Any, orientation: int) -> tuple[Size, str] | None:
    try:
        found = pixel_size(path, tif, page)
    except Exception:  # noqa: BLE001 - an image is worth more than its size
        return None
    if found is None or orientation < 5:
        return found
    return size_of(sides_of(found[0])[::-1]), found[1]


def _keeps_colors(page: Any) -> bool:
    """Whether samples stay in their colour space when they are decoded."""
    return int(page.compression) in _OF_BYTES
