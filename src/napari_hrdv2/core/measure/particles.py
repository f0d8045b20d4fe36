"""A table of particles: size, shape and position of each object."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.atomic import write_csv
from napari_hrdv2.core.checks import check_whole, checked_labels, checked_mask
from napari_hrdv2.core.postprocess.instances import touches_border

PixelSize = tuple[float | tuple[float, float], str]
MEASURED = ("label", "area", "equivalent_diameter_area", "centroid")
ROUND = 1e-9  # axes that differ by less, relatively, have no direction
DIAMETERS = ("equivalent diameter", "major axis", "minor axis")
LENGTHS = (*DIAMETERS, "centroid x", "centroid y", "centroid z")
BOX = ("min row", "min column", "max row", "max column")  # in pixels


@dataclass(frozen=True)
class ParticleTable:
    """Measurements of objects, one row each, with the units of columns that have one.

    The columns are label, area, equivalent diameter, major axis, minor axis, aspect
    ratio, orientation, centroid x, centroid y, touches border, if there was an image
    mean intensity, and the box: min row, min column, max row and max column. Of a
    volume they are label, volume, equivalent diameter, surface voxels, centroid x,
    centroid y, centroid z and touches border.
    """

    columns: dict[str, NDArray[Any]]
    units: dict[str, str]

    def __len__(self) -> int:
        return len(self.columns["label"])

    @property
    def headers(self) -> list[str]:
        """The names of the columns with their units, such as "area (µm²)"."""
        return [self.header(name) for name in self.columns]

    def header(self, column: str) -> str:
        """Return the name of a column with its unit."""
        self._values(column)
        unit = self.units.get(column)
        return f"{column} ({unit})" if unit else column

    def without_border(self) -> ParticleTable:
        """Return the rows of the objects that the image does not cut off."""
        kept = ~self.columns["touches border"]
        columns = {name: values[kept] for name, values in self.columns.items()}
        return ParticleTable(columns, self.units)

    def histogram(
        self, column: str, bins: int = 20
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the number of objects in each of (N,) bins, and the N + 1 edges.

        Values that are not numbers do not count; without any the edges are 0..1.
        """
        check_whole("bins", bins)
        values = self._values(column).astype(np.float64)
        counts, edges = np.histogram(values[np.isfinite(values)], bins)
        return counts.astype(np.int64), edges.astype(np.float64)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table: commas, UTF-8, names with units in the first line."""
        rows = zip(*(values.tolist() for values in self.columns.values()), strict=True)
        write_csv(path, self.headers, rows)

    def _values(self, column: str) -> NDArray[Any]:
        if column not in self.columns:
            raise ValueError(
                f"column: there is no {column!r}; there are {', '.join(self.columns)}"
            )
        return self.columns[column]


def particle_table(
    instances: NDArray[np.integer[Any]],
    *,
    pixel_size: PixelSize | None = None,
    image: ArrayLike | None = None,
    exclusion: NDArray[np.bool_] | None = None,
    depth: float | None = None,
) -> ParticleTable:
    """Return size, shape and position of each object, by number.

    Parameters
    ----------
    instances : (H, W) or (Z, Y, X) integer array
        Objects by number, as `instances` returns them; 0 is none.
    pixel_size : tuple of a size and a unit, optional
        The size is one number, or height and width of pixels that are not square.
        Without it, all is in pixels.
    depth : float, optional
        Of a volume, the distance of planes in that unit; without it, all is in pixels.
    image : (H, W) array, optional
        Grey levels, for the mean intensity of each object.
    exclusion : (H, W) bool array, optional
        Objects beside these pixels count as touching the border.

    Notes
    -----
    Made from scikit-image's `regionprops_table`, but for the axes and the orientation:
    it takes a pixel as a point, so a line of one pixel as 0 wide, where the axes here
    are those of the ellipse with the second moments of the pixels as rectangles.
    The orientation is that of the major axis, in degrees from 0 up to 180: 0 is along
    the rows, 90 along the columns, counter-clockwise as one sees it. It is NaN for
    objects with no direction, such as a disk or a square.
    Centroids count from the centre of the pixel in the upper left, x to the right and
    y down. Boxes are in pixels from 0, whatever their size: the first and the last rows
    and columns with a pixel of the object.
    """
    from skimage.measure import regionprops_table

    instances = checked_labels(instances, "instances", axes=3)
    checked_mask(exclusion, instances.shape)
    if instances.ndim == 3:
        sides, unit = checked_pixel_size(pixel_size if depth else None)
        return _volume_table(instances, exclusion, (depth or 1.0, *sides), unit)
    (height, width), unit = checked_pixel_size(pixel_size)
    grey = None if image is None else np.asarray(image, np.float64)
    if grey is not None and grey.shape != instances.shape:
        raise ValueError(
            f"image: shape {grey.shape} does not fit objects of shape "
            f"{instances.shape}; grey levels (H, W) are needed"
        )
    names = [*MEASURED, "inertia_tensor", "bbox"]
    if grey is not None:
        names.append("intensity_mean")
    measured = regionprops_table(
        instances, grey, properties=names, spacing=(height, width)
    )
    values: dict[str, NDArray[Any]] = {
        "label": measured["label"],
        "area": measured["area"],
        "equivalent diameter": measured["equivalent_diameter_area"],
        **ellipses(
            measured["inertia_tensor-0-0"] + width**2 / 12,
            measured["inertia_tensor-1-1"] + height**2 / 12,
            measured["inertia_tensor-0-1"],
        ),
        "centroid x": measured["centroid-1"],
        "centroid y": measured["centroid-0"],
    }
    is_cut = touches_border(instances, exclusion=exclusion)
    values["touches border"] = is_cut[measured["label"]]
    if grey is not None:
        values["mean intensity"] = measured["intensity_mean"]
    for number, name in enumerate(BOX):  # scikit-image's ends are one beyond
        values[name] = measured[f"bbox-{number}"] - number // 2
    return ParticleTable(values, units_in(unit))


def units_in(unit: str) -> dict[str, str]:
    """Return the units of the columns that have one, from that of lengths."""
    units = dict.fromkeys(LENGTHS, unit) | dict.fromkeys(BOX, "px")
    return units | {"area": f"{unit}²", "volume": f"{unit}³", "orientation": "°"}


def _volume_table(
    instances: NDArray[np.integer[Any]],
    exclusion: NDArray[np.bool_] | None,
    spacing: tuple[float, ...],
    unit: str,
) -> ParticleTable:
    """Return the table of a volume; surface is what has a face to something else."""
    from skimage.measure import regionprops_table

    is_inner = np.ones(instances.shape, bool)
    for axis in range(3):
        each, inner = (np.moveaxis(a, axis, 0) for a in (instances, is_inner))
        same = each[1:] == each[:-1]
        inner[1:] &= same
        inner[:-1] &= same
    measured = regionprops_table(instances, properties=MEASURED, spacing=spacing)
    found = measured["label"]
    count = int(found.max(initial=0)) + 1
    values: dict[str, NDArray[Any]] = {
        "label": found,
        "volume": measured["area"],
        "equivalent diameter": measured["equivalent_diameter_area"],
        "surface voxels": np.bincount(instances[~is_inner], minlength=count)[found],
        "centroid x": measured["centroid-2"],
        "centroid y": measured["centroid-1"],
        "centroid z": measured["centroid-0"],
        "touches border": touches_border(instances, exclusion=exclusion)[found],
    }
    return ParticleTable(values, units_in(unit))


def ellipses(
    xx: NDArray[np.float64], yy: NDArray[np.float64], xy: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return axes and orientation from second moments, x to the right and y up."""
    # Rounding would tell a row from 0 degrees.
    xy = np.where(np.abs(xy) <= ROUND * (xx + yy), 0, xy)
    half, gap = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major, minor = 4 * np.sqrt(half + gap), 4 * np.sqrt(half - gap)
    angle = np.degrees(np.arctan2(2 * xy, xx - yy) / 2) % 180
    angle[gap <= ROUND * half] = np.nan
    return {
        "major axis": major,
        "minor axis": minor,
        "aspect ratio": major / minor,
        "orientation": angle,
    }


def checked_pixel_size(pixel_size: PixelSize | None) -> tuple[tuple[float, float], str]:
    """Return height and width of a pixel, and the unit."""
    if pixel_size is None:
        return (1.0, 1.0), "px"
    size, unit = pixel_size
    height, width = size if isinstance(size, tuple) else (size, size)
    if not (0 < height < np.inf and 0 < width < np.inf) or not unit:
        raise ValueError(
            f"pixel_size: {pixel_size!r} is not a size above 0 and its unit, as in "
            "(0.5, 'µm')"
        )
    return (float(height), float(width)), unit
