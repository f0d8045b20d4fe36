"""ImageJ regions of interest (.roi, or RoiSet.zip) as labels.

Areas (polygon, freehand, traced, rectangle, oval and what is composed of them) are
filled, lines are drawn as wide as their stroke, of a point one pixel is taken.

Which class a region belongs to, by the first rule that applies:

1. If regions have groups, the class id is the number of the group; those without a
   group are ignored.
2. If every region has a name of words, as in "matrix-1" and "matrix-2", names that
   differ only by a number at their end are one class.
3. If regions have several stroke colours, each colour is a class.
4. All are one class.

Classes of the rules 2 and 3 are numbered as they come. Later regions cover former ones.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import MOST_DRAWN, MOST_REGIONS, check_claim
from napari_hrdv2.core.postprocess.exclusion import (
    Patch,
    check_work,
    empty_patch,
    fill_outlines,
)
from napari_hrdv2.files.labels import (
    ImportedLabels,
    LabelClasses,
    checked_ids,
    count_text,
)
from napari_hrdv2.files.reading import NotReadError, optional_module, size_text, told

Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows and columns

_GROUP = 500_000  # rows of runs that are worked on at once
_NEARLY = 1e-3  # of a pixel: a line of even width covers as many rows as it is wide
_COUNTER = re.compile(r"[\s_\-.#:(]*\d+\)?$")
_WORD = re.compile(r"[^\W\d_]")


def read_rois(path: Path, shape: tuple[int, int] | None) -> ImportedLabels:
    """Return the regions of a file as labels; see `import_labels`."""
    roifile = optional_module("roifile", f"{path}: reading ImageJ regions")
    if shape is None:
        raise ValueError(
            f"{path}: regions do not tell the size of their image; give shape=(H, W)"
        )
    with told(path):
        return _read(roifile, path, shape)


def _read(roifile: Any, path: Path, shape: tuple[int, int]) -> ImportedLabels:
    _check_archive(path)
    found = roifile.roiread(path)
    every = found if isinstance(found, list) else [found]
    areas = [roi for roi in every if _is_region(roi)]
    ids, names, rule = _classes(areas)
    _check_extent(areas, shape)
    labels = np.zeros(shape, np.min_scalar_type(max([1, *ids])))
    colors: dict[int, str] = {}
    for roi, class_id in zip(areas, ids, strict=True):
        if class_id == 0:
            continue
        pixels = _pixels(roi, shape)
        if not pixels[0].size and _is_outside(roi, shape):
            raise NotReadError(
                f"{path}: the region {roi.name or '(no name)'} lies outside of the "
                f"image of {size_text(shape)} (width × height); regions of this very "
                "image are needed"
            )
        labels[pixels] = class_id
        color = _color(roi)
        if color:
            colors.setdefault(class_id, color)
    if not labels.any():
        raise NotReadError(
            f"{path} has no region that covers a pixel; draw some in Fiji"
        )
    ignored = len(every) - sum(class_id > 0 for class_id in ids)
    note = f"{count_text(len(ids) - ids.count(0), 'region')}, {rule}"
    if ignored:
        note += f"; {ignored} ignored (texts, other planes, or in no group)"
    return ImportedLabels(
        checked_ids(labels), LabelClasses(names, colors), f"ImageJ: {note}."
    )


def _check_archive(path: Path) -> None:
    """Raise ValueError where a ZIP holds too many regions, or too large ones."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > MOST_REGIONS:
        raise NotReadError(
            f"{path} holds {len(members)} files; up to {MOST_REGIONS} regions are read"
        )
    check_claim(sum(one.file_size for one in members), path.stat().st_size, path)


def _check_extent(rois: list[Any], shape: tuple[int, int]) -> None:
    """Raise ValueError where regions together span more pixels than can be drawn."""
    spanned = 0
    for roi in rois:
        left, top, right, bottom = _bounds(roi)
        sides = [
            min(max(high - low, 1), most) if math.isfinite(high - low) else most
            for low, high, most in ((top, bottom, shape[0]), (left, right, shape[1]))
        ]
        spanned += math.ceil(sides[0] * sides[1])
    if spanned > max(MOST_DRAWN, 4 * math.prod(shape)):
        raise ValueError(f"its {len(rois)} regions span {spanned:.1e} pixels together")


def _is_region(roi: Any) -> bool:
    """Whether it covers pixels, and is not of another plane of a stack."""
    covers = roi.roitype.name != "NOROI" and roi.subtype.name not in ("TEXT", "IMAGE")
    return covers and max(roi.position, roi.z_position, roi.t_position) <= 1


def _classes(rois: list[Any]) -> tuple[list[int], dict[int, str], str]:
    """Class id of each region, the names of classes, and the rule in words."""
    bases = [_COUNTER.sub("", roi.name or "") for roi in rois]
    if any(roi.group > 0 for roi in rois):
        ids = [int(roi.group) for roi in rois]
        names = {}
        for i in sorted(set(ids) - {0}):
            alike = {base for base, j in zip(bases, ids, strict=True) if i == j}
            name = alike.pop() if len(alike) == 1 else ""
            names[i] = name if _WORD.search(name) else f"Group {i}"
        return ids, names, "classes by group"
    if rois and all(_WORD.search(base) for base in bases):
        return _numbered(bases, "classes by name", lambda key: key)
    shades = [_color(roi) or "" for roi in rois]
    if len(set(shades)) > 1:
        return _numbered(shades, "classes by stroke colour", lambda key: "")
    return [1] * len(rois), {}, "all one class"


def _numbered(
    keys: list[str], rule: str, name: Callable[[str], str]
) -> tuple[list[int], dict[int, str], str]:
    """Number keys as they come."""
    number = {key: i for i, key in enumerate(dict.fromkeys(keys), 1)}
    names = {i: name(key) for key, i in number.items() if name(key)}
    return [number[key] for key in keys], names, rule


def _color(roi: Any) -> str | None:
    color = roi.hexcolor(roi.stroke_color)
    return None if color is None else str(color)


def _pixels(roi: Any, shape: tuple[int, int]) -> Pixels:
    """Rows and columns of the pixels that a region covers."""
    kind = roi.roitype.name
    if kind == "OVAL" and not roi.n_coordinates:
        return _oval(roi, shape)
    if kind == "POINT":
        points = np.asarray(roi.coordinates(), float).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        columns, rows = np.clip(np.floor(points), -1, max(shape)).astype(int).T
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        return rows[inside], columns[inside]
    if kind in ("LINE", "POLYLINE", "FREELINE", "ANGLE"):
        points = np.asarray(roi.coordinates(), float)
        if roi.subpixelresolution:
            points = points - 0.5  # to where pixel 3 has its centre at 3
        reach = max(roi.float_stroke_width or roi.stroke_width, 1) / 2
        return _at(broad_line(points[:, ::-1], reach, shape))
    if kind == "RECT" and roi.subpixelrect and not roi.n_coordinates:
        left, top, right, bottom = _bounds(roi)
        corners = [[left, top], [left, bottom], [right, bottom], [right, top]]
        return _areas([np.array(corners)], shape)
    return _areas(roi.coordinates(multi=True), shape)


def _areas(outlines: list[NDArray[Any]], shape: tuple[int, int]) -> Pixels:
    """Pixels whose centre lies within an odd number of outlines: the rest are holes."""
    # A pixel covers [x, x + 1), so its centre is half a pixel on.
    centres = [outline[:, ::-1] - 0.5 for outline in outlines]
    return _at(fill_outlines(centres, shape, with_edges=True))


def _at(patch: Patch) -> Pixels:
    rows, columns = np.nonzero(patch.mask)
    return rows + patch.top, columns + patch.left


def _oval(roi: Any, shape: tuple[int, int]) -> Pixels:
    from skimage.draw import ellipse

    left, top, right, bottom = _bounds(roi)
    center = (top + bottom - 1) / 2, (left + right - 1) / 2
    height, width = (max(n / 2, 0.5) * (1 + 1e-9) for n in (bottom - top, right - left))
    rows, columns = ellipse(*center, height, width, shape=shape)
    return rows, columns


def _bounds(roi: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    if roi.subpixelrect:
        return roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
    return roi.left, roi.top, roi.right, roi.bottom


def _is_outside(roi: Any, shape: tuple[int, int]) -> bool:
    """Whether it lies beside the image, rather than between centres of pixels."""
    if roi.roitype.name in ("OVAL", "RECT") and not roi.n_coordinates:
        left, top, right, bottom = _bounds(roi)
    else:
        outline = np.concatenate(roi.coordinates(multi=True))
        (left, top), (right, bottom) = outline.min(0), outline.max(0)
    return bool(left >= shape[1] or top >= shape[0] or right < 0 or bottom < 0)


# --- Broad lines, by runs: a row is a few numbers, however wide ----------------------
def broad_line(
    points: NDArray[np.float64], reach: float, shape: tuple[int, int]
) -> Patch:
    """Return the pixels with centres nearer to a line than `reach`.

    Parameters
    ----------
    points : (N, 2) array
        Rows and columns of its corners.
    """
    patch = empty_patch([points], reach, shape)
    height, width = patch.mask.shape
    if not patch.mask.size:
        return patch
    start, end = (x - (patch.top, patch.left) for x in (points[:-1], points[1:]))
    low = np.clip(np.ceil(np.minimum(start, end)[:, 0] - reach - 1), 0, height)
    high = np.clip(np.floor(np.maximum(start, end)[:, 0] + reach + 1) + 1, 0, height)
    counts = np.maximum(high - low, 0).astype(np.int64)
    check_work(int(counts.sum()))
    edges = np.zeros(height * (width + 1), np.int32)
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = int(ends[first] - counts[first])
        last = max(int(np.searchsorted(ends, before + _GROUP)), first + 1)
        part = slice(first, last)
        number = np.repeat(np.arange(len(counts))[part], counts[part])
        row = np.arange(before, before + len(number)) + low[number].astype(np.int64)
        row -= np.repeat(ends[part] - counts[part], counts[part])
        left, right = _run(start[number], end[number], reach, row)
        left = np.clip(np.ceil(left - _NEARLY), 0, width).astype(np.int64)
        right = np.clip(np.floor(right - _NEARLY) + 1, 0, width).astype(np.int64)
        there = left < right
        place = row[there] * (width + 1)
        np.add.at(edges, place + left[there], 1)
        np.subtract.at(edges, place + right[there], 1)
        first = last
    edges = edges.reshape(height, width + 1)
    np.cumsum(edges, axis=1, out=edges)
    return patch._replace(mask=edges[:, :width] > 0)


def _run(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    reach: float,
    row: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the first and last column within reach of a segment, in a row of each."""
    y = row + _NEARLY
    left = np.full(len(row), np.inf)
    right = np.full(len(row), -np.inf)

    def reaches(x: NDArray[np.float64], there: NDArray[np.bool_]) -> None:
        np.minimum(left, x, out=left, where=there)
        np.maximum(right, x, out=right, where=there)

    for point in (start, end):
        half = reach**2 - (y - point[:, 0]) ** 2
        for side in (-1, 1):
            reaches(point[:, 1] + side * np.sqrt(np.maximum(half, 0)), half >= 0)
    # Between the ends: a rectangle, by its four sides.
    with np.errstate(divide="ignore", invalid="ignore"):  # of no length, it has none
        aside = (end - start)[:, ::-1] * (-1, 1)
        aside *= reach / np.linalg.norm(aside, axis=1, keepdims=True)
        corners = start + aside, end + aside, end - aside, start - aside
        for one, other in pairwise((*corners, corners[0])):
            (y0, x0), (y1, x1) = one.T, other.T
            reaches(x0 + (y - y0) * (x1 - x0) / (y1 - y0), (y0 <= y) != (y1 <= y))
    return left, right
