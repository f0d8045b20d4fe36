"""Micrographs from files: TIFF with its pixel size, PNG, JPEG, BMP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class ImageFile:
    """A micrograph as it was in its file.

    Attributes
    ----------
    data : (H, W) or (H, W, 3|4) array
        Grey levels or colours, in the file's own number format.
    pixel_size : float or None
        Width of a pixel, None where the file does not say.
    unit : str
        Unit of the pixel size, for instance ``"µm"``; ``"pixel"`` without one.
    """

    data: NDArray[Any]
    pixel_size: float | None = None
    unit: str = "pixel"


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Return the micrograph in a file.

    Parameters
    ----------
    path : path-like
        A TIFF, PNG, JPEG or BMP file of one grey or RGB(A) image; what it is, is seen
        from its content. Palettes are resolved to the colours they stand for.

    Returns
    -------
    ImageFile

    Raises
    ------
    OSError
        If there is no such file, it is a folder or it cannot be read.
    ValueError
        If it is no image of these kinds, is damaged or holds more than one image.
    """
    path = Path(path)
    if image_format(path) == "TIFF":
        from napari_hrdv2.files.tiff import read_tiff

        page = read_tiff(path)
        return ImageFile(page.image(), page.pixel_size, page.unit)
    return ImageFile(_picture(path))


def image_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files named, and for each folder the images in it by name.

    Parameters
    ----------
    paths : iterable of path-like
        Files, whether they exist or not, and folders.

    Returns
    -------
    list of pathlib.Path
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            found += sorted(p for p in inside if p.is_file())
        else:
            found.append(path)
    return found


def image_format(path: Path) -> str:
    """TIFF, PNG, JPEG or BMP, by what the file begins with."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give an image file")
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    seen = "is empty" if not start else "is not an image of a kind read here"
    raise ValueError(f"{path} {seen}; give a TIFF, PNG, JPEG or BMP file")


def open_picture(path: Path) -> Any:
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


def _picture(path: Path) -> NDArray[Any]:
    entry = open_picture(path)
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
