"""Micrographs from files: TIFF with its pixel size, PNG, JPEG, BMP."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_hrdv2.core.limits import check_claim

from .raster import ORIENTATION, TURNS, read_raster
from .reading import NotReadError, image_format, size_text
from .tiff import open_tiff, read_tiff
from .units import NO_UNIT, Size, ascii_unit, sides_of
from .vendors import pixel_size as tiff_pixel_size
from .vendors import sidecar_size
from .zarr_images import is_zarr, open_zarr

__all__ = [
    "ImageFile",
    "open_image",
    "read_channel_names",
    "read_image",
    "read_pixel_size",
    "read_turn",
    "size_text",
    "write_image",
]

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")

_TILE = 512  # px along a side
_SMALLEST = 2.0**-31  # of the numbers that the fractions in TIFF hold


@dataclass(frozen=True)
class ImageFile:
    """A micrograph as it was in its file: (H, W) or (H, W, 3|4), in its number format.

    `data` is an array, or a `LazyImage` where nothing but the header was read.
    `pixel_size` is the side of a pixel in `unit`, None where the file does not say;
    height and width where pixels are not square. `notes` are what is to be minded, one
    sentence each.
    """

    data: Any
    pixel_size: Size | None = None
    unit: str = NO_UNIT
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[Size, str] | None:
        """The pixel size with its unit."""
        return None if self.pixel_size is None else (self.pixel_size, self.unit)


def open_image(path: str | os.PathLike[str], channels: str = "") -> ImageFile:
    """Return the micrograph in a file or a Zarr folder; its pixels stay there.

    Of TIFF, whatever its layout, and of Zarr only the header is read. PNG, JPEG, BMP
    and TIFF whose samples stand for other colours or are to be turned are read.
    `channels` are the names of those that become bands, as in "BSE,Fe": (H, W, 2).

    Raises
    ------
    OSError, ValueError
        As `read_image`; for pixels that are damaged when they are read.
    """
    path = Path(path)
    if is_zarr(path):
        return _noted(path, *open_zarr(path, channels))
    is_tiff = image_format(path) == "TIFF"
    if is_tiff and (opened := open_tiff(path, channels)) is not None:
        return _noted(path, *opened)
    if channels:
        raise NotReadError(
            f"channels: {path} has none that are read here; give a TIFF of grey "
            "channels or OME-Zarr"
        )
    return read_image(path)


def read_image(path: str | os.PathLike[str], channels: str = "") -> ImageFile:
    """Return the micrograph in a TIFF, PNG, JPEG or BMP file, or a Zarr folder.

    What it is, is seen from its content; `channels` are as for `open_image`. Palettes
    and inks are resolved to the colours they stand for, and the image is turned as its
    orientation tag asks. That, and pixels that are not square, are in its notes, and
    warned of.

    Raises
    ------
    OSError
        If there is no such file, it is a folder or it cannot be read.
    ValueError
        If it is no image of these kinds, is damaged or holds more than one image.
    """
    path = Path(path)
    if channels or is_zarr(path):
        opened = open_image(path, channels)
        check_claim(opened.data.nbytes, opened.data.nbytes, path)
        return replace(opened, data=np.asarray(opened.data))
    kind = image_format(path)
    if kind == "TIFF":
        page = read_tiff(path)
        data, orientation, size = page.image(), page.orientation, page.size
    else:
        data, orientation = read_raster(path, kind)
        data = data[..., 0] if data.shape[2:] == (2,) else data  # grey with alpha
        size = sidecar_size(path)
    notes = []
    if orientation != 1:
        notes.append(
            f"{path} is {TURNS[orientation]}, as its orientation tag asks; labels that "
            "were drawn on it without that do not fit"
        )
    return _noted(path, data, size, notes)


def _noted(
    path: Path, data: Any, found: tuple[Size, str] | None, notes: Sequence[str] = ()
) -> ImageFile:
    notes, (size, unit) = list(notes), found or (None, NO_UNIT)
    if isinstance(size, tuple):
        height, width = size
        notes.append(
            f"{path} has pixels that are not square ({width:g} × {height:g} "
            f"{unit}, width × height); both sides are kept"
        )
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return ImageFile(data, size, unit, tuple(notes))


def read_pixel_size(path: str | os.PathLike[str]) -> tuple[Size, str] | None:
    """Return side(s) of a pixel and their unit, as an image file tells, or None.

    Nothing but the header is read, and whatever is wrong with it is no matter.
    """
    import tifffile

    path = Path(path)
    try:
        if is_zarr(path):
            return open_zarr(path)[1]
        if image_format(path) == "TIFF":
            with tifffile.TiffFile(path) as tif:
                return tiff_pixel_size(path, tif, tif.pages[0])
        return sidecar_size(path)
    except Exception:  # noqa: BLE001 - the image is open already
        return None


def read_channel_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of the channels of a file that has some, else ()."""
    try:
        open_image(path, ",")
    except Exception as error:  # noqa: BLE001 - the image is open already
        return getattr(error, "channels", ())
    return ()


def read_turn(path: str | os.PathLike[str]) -> str:
    """Return how `read_image` turns an image file, in words; "" if it does not.

    Nothing but the header is read, and whatever is wrong with it is no matter.
    """
    import tifffile
    from PIL import Image

    path = Path(path)
    try:
        if image_format(path) == "TIFF":
            with tifffile.TiffFile(path) as tif:
                orientation = tif.pages[0].tags.valueof(ORIENTATION, 1)
        else:
            with Image.open(path) as entry:
                orientation = entry.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - the image is open already
        return ""
    return TURNS.get(orientation, "")


def write_image(
    file: str | os.PathLike[str] | BinaryIO,
    image: Any,
    *,
    pixel_size: Size | None = None,
    unit: str = NO_UNIT,
    note: str = "",
) -> None:
    """Write a compressed TIFF of which `read_image` gives exactly image and size.

    ImageJ and napari read it; `note` is a line of its description. What is no array is
    read tile by tile, into a BigTIFF.
    """
    import tifffile

    colors = image.ndim == 3 and image.shape[-1] in (3, 4)
    lines, resolution = [], None
    sides = (0.0, 0.0) if pixel_size is None else sides_of(pixel_size)
    if all(_SMALLEST < side < 1 / _SMALLEST for side in sides):
        resolution = (1 / sides[1], 1 / sides[0])  # along x and y
        lines = [f"unit={_escaped(ascii_unit(unit))}"]
    lines += [note] if note else []
    if isinstance(image, np.ndarray):
        image = image.view(np.uint8) if image.dtype == bool else image
        how: dict[str, Any] = {"data": np.ascontiguousarray(image)}
    else:
        tops, lefts = (range(0, length, _TILE) for length in image.shape[:2])
        how = {"shape": image.shape, "dtype": image.dtype, "tile": (_TILE, _TILE)}
        how["data"] = (image[y : y + _TILE, x : x + _TILE] for y in tops for x in lefts)
    tifffile.imwrite(
        file,
        **how,
        bigtiff="tile" in how,
        photometric="rgb" if colors else "minisblack",
        extrasamples=("unassalpha",) if colors and image.shape[-1] == 4 else None,
        compression="zlib",
        compressionargs={"level": 1},  # micrographs are noise: 6 gains little
        maxworkers=1,  # works in a thread that outlives the main one
        resolution=resolution,
        resolutionunit="none",
        description="\n".join(["ImageJ=1.54f", *lines, ""]) if lines else None,
        metadata=None,
        software="napari-hrdv2",
    )


def _escaped(unit: str) -> str:
    """Escape as ImageJ does; the TIFF standard wants descriptions in ASCII."""
    plain = " ".join(unit.split())
    return "".join(c if c.isascii() else f"\\u{ord(c):04x}" for c in plain)
