"""Labels and segmentations: TIFF that ImageJ and napari read, a PNG to look at."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.limits import parse_json

from .images import write_image
from .raster import read_raster
from .reading import NotReadError, image_format, size_text
from .tiff import read_tiff
from .units import NO_UNIT, Size

_KEY = "napari_hrdv2"
COLOR = re.compile(r"#[0-9a-fA-F]{6}")
LABELS_MARK = f"{_KEY}="
"""How a line begins that the descriptions of label TIFFs have, and no others."""
SOFTWARE = "napari-hrdv2"
"""Who wrote a file: the tag Software of a TIFF, and a text of that name in a PNG."""


@dataclass(frozen=True)
class LabelClasses:
    """What the label ids of a file stand for."""

    names: dict[int, str] = field(default_factory=dict)
    colors: dict[int, str] = field(default_factory=dict)

    @property
    def listed(self) -> dict[int, str]:
        """The classes that the file lists, with their names or ""."""
        return {i: self.names.get(i, "") for i in sorted({*self.names, *self.colors})}


@dataclass(frozen=True)
class ImportedLabels:
    """Labels of another program: 0 where nothing is, else a class.

    `classes` has names and colours as far as the file has them; `note` is a sentence on
    what was read and what was changed or ignored.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    classes: LabelClasses
    note: str


def read_labels(path: str | os.PathLike[str]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the label ids in a file, in the narrowest unsigned integers.

    Parameters
    ----------
    path : path-like
        A TIFF, PNG or BMP file with one whole number per pixel; the colours of a
        palette are ignored.

    Raises
    ------
    OSError, ValueError
        As `read_image`, and for colours, fractions, negative ids and JPEG.
    """
    path = Path(path)
    kind = image_format(path)
    if kind == "JPEG":
        raise NotReadError(
            f"{path} is a JPEG, which alters label ids; save labels as TIFF or PNG"
        )
    if kind == "TIFF":
        data = read_tiff(path).data
    else:
        data, _ = read_raster(path, kind, indices=True)
    return as_ids(path, _one_band(path, data))


def _one_band(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    """Return grey levels also where they are stored as colours; 0 where transparent."""
    if data.ndim == 2:
        return data
    bands = data.shape[-1]
    grey = data[..., 0]
    if bands in (3, 4) and (data[..., 1:3] != data[..., :1]).any():
        raise NotReadError(
            f"{path} holds colours (shape {data.shape}); labels need one whole number "
            "per pixel: give each class a number, or save it with a palette; planes of "
            "a volume are to be written with photometric='minisblack', as its own are"
        )
    return grey if bands == 3 else np.where(data[..., -1] > 0, grey, 0)


def read_label_classes(path: str | os.PathLike[str]) -> LabelClasses:
    """Return what `write_labels` said of classes; nothing for any other file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            description = str(tif.pages.first.description)
        line = next(x for x in description.splitlines() if x.startswith(f"{_KEY}="))
        found = parse_json(line.removeprefix(f"{_KEY}="))
        colors = {int(k): str(v) for k, v in found.get("class_colors", {}).items()}
        return LabelClasses(
            {int(k): str(v) for k, v in found.get("class_names", {}).items()},
            {i: color for i, color in colors.items() if COLOR.fullmatch(color)},
        )
    except Exception:  # noqa: BLE001 - names are a courtesy: no file is wrong here
        return LabelClasses()


def write_labels(
    path: str | os.PathLike[str],
    labels: Any,
    *,
    pixel_size: Size | None = None,
    unit: str = NO_UNIT,
    class_names: Mapping[int, str] | None = None,
    class_colors: Mapping[int, str] | None = None,
) -> None:
    """Write label ids as a compressed TIFF that ImageJ and napari read.

    Parameters
    ----------
    path : path-like
        A file that was there is replaced only when the new one is complete.
    labels : (H, W) integer array
        Ids from 0; written as uint8, uint16 or uint32, whichever is enough. Or what is
        read in parts, of an image of any size: see `write_image`.
    pixel_size : float or tuple of two float, optional
        Side of a pixel in `unit`, or height and width; omitted where TIFF's 32 bit
        cannot hold it.
    class_names, class_colors : mapping of int to str, optional
        What the ids stand for and their ``"#rrggbb"``, kept in the description.
    """
    about = {"class_names": class_names or {}, "class_colors": class_colors or {}}
    note = f"{_KEY}={json.dumps(about)}"
    data = checked_ids(labels) if isinstance(labels, np.ndarray) else labels
    with atomic_path(path) as temporary:
        write_image(temporary, data, pixel_size=pixel_size, unit=unit, note=note)


def write_color_png(
    path: str | os.PathLike[str],
    labels: NDArray[np.integer[Any]],
    colors: Mapping[int, str],
) -> None:
    """Write labels as a PNG to look at, each id in its colour.

    Parameters
    ----------
    path, labels
        As for `write_labels`.
    colors : mapping of int to str
        The ``"#rrggbb"`` of every id that occurs; 0 is black unless given.
    """
    from PIL import Image

    data = checked_ids(labels)
    ids, position = np.unique(data, return_inverse=True)
    known = {0: "#000000", **colors}
    table = np.array([rgb(int(label), known) for label in ids], dtype=np.uint8)
    if data.dtype == np.uint8:
        # A palette: small, and still readable as label ids.
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[ids] = table
        entry = Image.fromarray(data).convert("P")
        entry.putpalette(palette.tobytes())
    else:
        entry = Image.fromarray(table[position.reshape(data.shape)])
    _write_png(path, entry)


def write_picture(path: str | os.PathLike[str], picture: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) picture to look at as a PNG, known as one of ours."""
    from PIL import Image

    _write_png(path, Image.fromarray(picture))


def _write_png(path: str | os.PathLike[str], entry: Any) -> None:
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", SOFTWARE)
    with atomic_path(path) as temporary:
        entry.save(temporary, format="PNG", optimize=True, pnginfo=about)


def rgb(label: int, colors: Mapping[int, str]) -> tuple[int, ...]:
    """Return red, green and blue of a label, 0 to 255."""
    color = colors.get(label)
    if color is None:
        raise ValueError(f"colors: label {label} has none; give it one as '#rrggbb'")
    if not COLOR.fullmatch(color):
        raise ValueError(f"colors: {color!r} of label {label} is not '#rrggbb'")
    return tuple(bytes.fromhex(color[1:]))


def as_ids(path: Path, data: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return whole numbers as label ids; ValueError, by the file, for others."""
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or (data != np.rint(data)).any():
            raise ValueError(f"{path} holds fractions; labels are whole numbers")
    elif data.dtype.kind not in "bui":
        raise ValueError(f"{path} holds {data.dtype}; labels are whole numbers")
    try:
        return checked_ids(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def checked_ids(labels: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return (H, W) ids in the narrowest integers, or raise ValueError."""
    data = np.asarray(labels)
    if data.ndim != 2 or data.size == 0:
        raise ValueError(f"labels: shape {data.shape} is not (H, W)")
    low, high = data.min(), data.max()
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise ValueError(f"labels: {low if low < 0 else high} is not an id from 0 up")
    return data.astype(np.min_scalar_type(int(high)))


def check_size(
    path: Path, found: tuple[int, ...], wanted: tuple[int, int] | None
) -> None:
    """Raise ValueError unless labels are of the size of the image."""
    if wanted is None or tuple(found) == tuple(wanted):
        return
    hint = "labels of this very image are needed"
    if tuple(found) == tuple(wanted)[::-1]:
        hint = "rows and columns seem to be exchanged"
    raise ValueError(
        f"labels: {path} is {size_text(found)} and the image {size_text(wanted)} "
        f"(width × height); {hint}"
    )


def count_text(count: int, one: str, many: str = "") -> str:
    """Return "1 class", "2 classes"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
