"""Where programs and microscopes keep the size of a pixel."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .units import NO_UNIT, Size, converted, size_of, unit_symbol

# Coarser pixels in plain resolution tags are an inkjet printer's, not a microscope's.
_COARSEST_MICROMETRES = 20.0
_NUMBER = r"([-+0-9.eE]+)"
_SIDECAR_BYTES = 2**20  # a text of a microscope is shorter
_GATAN_UNITS, _GATAN_SCALES = (65003, 65004), (65009, 65010)  # x, y
_TESCAN = 50431


def pixel_size(path: Path, tif: Any, page: Any) -> tuple[Size, str] | None:
    """Return the size of a pixel that a TIFF file, or a text beside it, tells."""
    readers = (_ome, _imagej, _zeiss, _fei, _gatan, _sis, _aperio, _tescan, _fibsem)
    for read in readers:
        try:
            found = _checked(read(tif, page))
        except Exception:  # noqa: BLE001 - tags are freely written: ask the next one
            continue
        if found is not None:
            return found
    return sidecar_size(path) or _checked(_jeol(tif, page) or _resolution(page))


def sidecar_size(path: Path) -> tuple[Size, str] | None:
    """Return the size of a pixel in a text that a microscope wrote beside an image."""
    kind = path.suffix.lstrip(".")
    for name in (f"{path.stem}-{kind}.hdr", f"{path.stem}.hdr", f"{path.stem}.txt"):
        beside = path.with_name(name)
        try:
            if not beside.is_file():
                continue
            with open(beside, encoding="latin-1") as file:
                text = file.read(_SIDECAR_BYTES)
            found = _checked(_tescan_text(text) or _jeol_text(text))
        except (OSError, ValueError):
            continue
        if found is not None:
            return found
    return None


def _checked(found: tuple[float, float, str] | None) -> tuple[Size, str] | None:
    """Size and unit of a height, a width and a unit, if they are sizes."""
    if found is None:
        return None
    height, width, unit = found
    # ImageJ escapes characters.
    name = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), str(unit))
    symbol = unit_symbol(name)
    sides = (float(height), float(width))
    if symbol == NO_UNIT or not all(math.isfinite(x) and x > 0 for x in sides):
        return None
    return size_of(sides), symbol


def _in_nanometres(height: Any, width: Any) -> tuple[float, float, str]:
    """Metres, as most microscopes write them, in a unit to be read."""
    return float(height) * 1e9, float(width) * 1e9, "nm"


def _ome(tif: Any, page: Any) -> tuple[float, float, str] | None:
    if not tif.is_ome:
        return None
    for element in ElementTree.fromstring(tif.ome_metadata).iter():
        if element.tag.endswith("}Pixels") and "PhysicalSizeX" in element.attrib:
            unit = element.get("PhysicalSizeXUnit", "µm")
            width = float(element.attrib["PhysicalSizeX"])
            height = float(element.get("PhysicalSizeY", width))
            other = element.get("PhysicalSizeYUnit", "µm")
            if unit_symbol(other) != unit_symbol(unit) and "PhysicalSizeY" in (
                element.attrib
            ):
                height = converted(height, other, unit)
            return height, width, unit
    return None


def _imagej(tif: Any, page: Any) -> tuple[float, float, str] | None:
    if not tif.is_imagej:
        return None
    found = _per_unit(page)
    unit = str((tif.imagej_metadata or {}).get("unit", ""))
    return None if found is None else (1 / found[0], 1 / found[1], unit)


def _zeiss(tif: Any, page: Any) -> tuple[float, float, str] | None:
    about = tif.sem_metadata or {}
    entry = about.get("ap_image_pixel_size", ())
    if len(entry) == 3:
        return float(entry[1]), float(entry[1]), str(entry[2])
    # Older software tells the pixels of its screen, and how wide the image is.
    entry = about.get("ap_width", ())
    if len(entry) == 3:
        width = float(entry[1]) / page.imagewidth
        return width, width, str(entry[2])
    unnamed = about.get("", ())
    if len(unnamed) > 3 and float(unnamed[3]) > 0:  # of an image 1024 pixels wide
        width = float(unnamed[3]) * 1024 / page.imagewidth
        return _in_nanometres(width, width)
    return None


def _fei(tif: Any, page: Any) -> tuple[float, float, str] | None:
    """FEI and Thermo Fisher."""
    sections = [s for s in (tif.fei_metadata or {}).values() if isinstance(s, dict)]
    for section in sections:
        if "PixelWidth" in section:
            width = section["PixelWidth"]
            return _in_nanometres(section.get("PixelHeight", width), width)
    for section in sections:
        if "HFW" in section:
            width = float(section["HFW"]) / page.imagewidth
            return _in_nanometres(width, width)
    return None


def _gatan(tif: Any, page: Any) -> tuple[float, float, str] | None:
    width, height = (page.tags.valueof(code) for code in _GATAN_SCALES)
    if width is None:
        return None
    x_unit, y_unit = (_text(page.tags.valueof(code)) for code in _GATAN_UNITS)
    height = width if height is None else height
    if y_unit and unit_symbol(y_unit) != unit_symbol(x_unit):
        height = converted(float(height), y_unit, unit_symbol(x_unit))
    return height, width, x_unit


def _sis(tif: Any, page: Any) -> tuple[float, float, str] | None:
    """Olympus Soft Imaging Solutions."""
    about = tif.sis_metadata or {}
    if "pixelsizex" not in about:
        return None
    width = about["pixelsizex"]
    return _in_nanometres(about.get("pixelsizey", width), width)


def _aperio(tif: Any, page: Any) -> tuple[float, float, str] | None:
    text = str(page.description)
    found = re.search(rf"\|\s*MPP\s*=\s*{_NUMBER}", text)
    if not text.startswith("Aperio") or found is None:
        return None
    return float(found[1]), float(found[1]), "µm"


def _tescan(tif: Any, page: Any) -> tuple[float, float, str] | None:
    return _tescan_text(_text(page.tags.valueof(_TESCAN)))


def _tescan_text(text: str) -> tuple[float, float, str] | None:
    sizes = [re.search(rf"PixelSize{axis}\s*=\s*{_NUMBER}", text) for axis in "YX"]
    if sizes[1] is None:
        return None
    height, width = (found or sizes[1] for found in sizes)
    return _in_nanometres(height[1], width[1])


def _fibsem(tif: Any, page: Any) -> tuple[float, float, str] | None:
    """OpenFIBSEM, now fibsem-os: JSON in the description."""
    text = str(page.description)
    if '"pixel_size"' not in text:
        return None
    size = json.loads(text)["pixel_size"]
    return _in_nanometres(size["y"], size["x"])


def _jeol(tif: Any, page: Any) -> tuple[float, float, str] | None:
    """JEOL's transmission microscopes: resolution on the film, and magnification."""
    if not _text(page.tags.valueof(271)).startswith("JEOL"):
        return None
    text = str(page.description)
    found = re.search(rf"<SelectorValue>\s*{_NUMBER}\s*</SelectorValue>", text)
    film = _per_unit(page)
    if found is None or film is None or "<ModeString>MAG<" not in text:
        return None
    inch = int(page.tags.valueof("ResolutionUnit", 1)) == 2
    metres = 0.0254 if inch else 0.01
    height, width = (metres / one / float(found[1]) for one in film)
    return _in_nanometres(height, width)


def _jeol_text(text: str) -> tuple[float, float, str] | None:
    """The length of the bar in the image, and what it stands for."""
    bar = re.search(rf"\$SM_MICRON_BAR\s+{_NUMBER}", text)
    marker = re.search(rf"\$SM_MICRON_MARKER\s+{_NUMBER}\s*(\S+)", text)
    if bar is None or marker is None:
        return None
    width = float(marker[1]) / float(bar[1])
    return width, width, marker[2]


def _resolution(page: Any) -> tuple[float, float, str] | None:
    found = _per_unit(page)
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1)))
    if found is None or unit is None:
        return None
    height, width = (converted(1 / one, unit, "µm") for one in found)
    return (height, width, "µm") if width <= _COARSEST_MICROMETRES else None


def _per_unit(page: Any) -> tuple[float, float] | None:
    """Pixels in a unit of length, along y and x."""
    found = [
        value[0] / value[1] if value and value[0] and value[1] else None
        for value in (page.tags.valueof(f"{axis}Resolution") for axis in "YX")
    ]
    height, width = found
    return None if width is None else (float(height or width), float(width))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8").strip("\0 ")
        except UnicodeDecodeError:
            return value.decode("latin-1").strip("\0 ")
    return "" if value is None else str(value).strip("\0 ")
