"""Micrographs from files: TIFF with its pixel size, PNG, JPEG, BMP."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from .units import NO_UNIT, ascii_unit, converted, unit_symbol

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")

_MAGIC = {
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
}
_SMALLEST = 2.0**-31  # of the numbers that the fractions in TIFF hold
# Coarser pixels in plain resolution tags are an inkjet printer's, not a microscope's.
_COARSEST_MICROMETRES = 20.0


@dataclass(frozen=True)
class ImageFile:
    """A micrograph as it was in its file: (H, W) or (H, W, 3|4), in its number format.

    `pixel_size` is the width of a pixel in `unit`, None where the file does not say.
    """

    data: NDArray[Any]
    pixel_size: float | None = None
    unit: str = NO_UNIT


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Return the micrograph in a TIFF, PNG, JPEG or BMP file.

    What it is, is seen from its content. Palettes are resolved to the colours they
    stand for.

    Raises
    ------
    OSError
        If there is no such file, it is a folder or it cannot be read.
    ValueError
        If it is no image of these kinds, is damaged or holds more than one image.
    """
    path = Path(path)
    if image_format(path) != "TIFF":
        return ImageFile(_plain_colors(open_image(path)))
    page = read_tiff(path)
    return ImageFile(page.image(), page.pixel_size, page.unit)


def write_image(
    file: str | os.PathLike[str] | BinaryIO,
    image: NDArray[Any],
    *,
    pixel_size: float | None = None,
    unit: str = NO_UNIT,
    note: str = "",
) -> None:
    """Write a compressed TIFF of which `read_image` gives exactly image and size.

    ImageJ and napari read it; `note` is a line of its description.
    """
    import tifffile

    colors = image.ndim == 3 and image.shape[-1] in (3, 4)
    lines, resolution = [], None
    if pixel_size is not None and _SMALLEST < pixel_size < 1 / _SMALLEST:
        resolution = (1 / pixel_size, 1 / pixel_size)
        lines = [f"unit={_escaped(ascii_unit(unit))}"]
    lines += [note] if note else []
    tifffile.imwrite(
        file,
        np.ascontiguousarray(image.view(np.uint8) if image.dtype == bool else image),
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


def image_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files named, and for each folder the images in it by name."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            found += sorted(p for p in inside if p.is_file())
        else:
            found.append(path)
    return found


def file_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a file; OSError in one sentence."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error


def image_format(path: Path) -> str:
    """TIFF, PNG, JPEG or BMP, by what the file begins with."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give an image file")
    start = file_start(path, 4)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    seen = "is empty" if not start else "is not an image of a kind read here"
    raise ValueError(f"{path} {seen}; give a TIFF, PNG, JPEG or BMP file")


def open_image(path: Path) -> Any:
    """PNG, JPEG or BMP (or a TIFF that tifffile cannot decode) as a Pillow image."""
    from PIL import Image

    try:
        with Image.open(path) as entry:
            if getattr(entry, "n_frames", 1) > 1:
                raise ValueError(
                    f"{path} holds {entry.n_frames} images; save the one to "
                    "segment in a file of its own"
                )
            entry.load()
            return entry
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} holds too many pixels for its format; save it as TIFF"
        ) from error
    except (OSError, SyntaxError, EOFError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ValueError:
    """Say what no decoder could make sense of."""
    reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
    return ValueError(f"{path} is damaged or cut short and cannot be read: {reason}")


def optional_module(name: str, purpose: str) -> Any:
    """Import a module of the extra "interop", or say how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {name}; install it with "
            'pip install "napari-hrdv2[interop]"'
        ) from error


def size_text(shape: tuple[int, ...]) -> str:
    """Return width × height of (H, W)."""
    return " × ".join(str(length) for length in reversed(shape))


def _plain_colors(entry: Any) -> NDArray[Any]:
    """Return a Pillow image as grey levels or RGB(A)."""
    if entry.mode in ("P", "PA"):
        entry = entry.convert("RGBA" if "transparency" in entry.info else "RGB")
        return grey_if_grey(np.asarray(entry))
    if entry.mode == "LA":
        entry = entry.getchannel("L")
    elif entry.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "La", "RGBa"):
        entry = entry.convert("RGB")
    data = np.asarray(entry)
    if entry.mode == "I" and data.min() >= 0 and data.max() <= np.iinfo("u2").max:
        data = data.astype(np.uint16)  # how older Pillows give 16-bit PNG files
    return data


def grey_if_grey(colors: NDArray[Any]) -> NDArray[Any]:
    """One plane where red, green and blue are the same in every pixel."""
    red = colors[..., :1]
    return colors[..., 0] if (colors[..., 1:3] == red).all() else colors


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
            return TiffImage(
                _samples(path, series),
                _palette(tif, page),
                page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
                *_pixel_size(tif, page),
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
        return np.asarray(open_image(path))
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
    return None, NO_UNIT


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
    if resolution is None or _unit(unit) == NO_UNIT:
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
    micrometres = converted(1 / resolution, unit, "µm")
    return (micrometres, "µm") if micrometres <= _COARSEST_MICROMETRES else None


def _pixels_per_unit(page: Any) -> float | None:
    value = page.tags.valueof("XResolution")
    if not value or not value[0] or not value[1]:
        return None
    return float(value[0] / value[1])


def _unit(name: str) -> str:
    """Return the symbol of a unit in which ImageJ may have escaped characters."""
    return unit_symbol(
        re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), name)
    )
