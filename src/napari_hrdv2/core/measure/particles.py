"""A table of particles: size, shape and place of each object."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.checks import checked_labels, checked_mask
from napari_hrdv2.core.postprocess.instances import touches_border

from .csv_tables import header, written

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

PixelSize = tuple[float | tuple[float, float], str]
ROUND = 1e-9  # axes that differ by less, relatively, have no direction
LENGTHS = (
    "equivalent diameter",
    "major axis",
    "minor axis",
    "centroid x",
    "centroid y",
)


@dataclass(frozen=True)
class ParticleTable:
    """Measurements of objects, one row each.

    Attributes
    ----------
    columns : dict of str to (N,) array
        Values by name, in the order of the file: label, area, equivalent diameter,
        major axis, minor axis, aspect ratio, orientation, centroid x, centroid y,
        touches border and, if there was an image, mean intensity.
    units : dict of str to str
        Of the columns that have one.
    """

    columns: dict[str, NDArray[Any]]
    units: dict[str, str]

    def __len__(self) -> int:
        return len(self.columns["label"])

    @property
    def headers(self) -> list[str]:
        """The names of the columns with their units, such as "area (µm²)"."""
        return [header(name, self.units.get(name, "")) for name in self.columns]

    def header(self, column: str) -> str:
        """Return the name of a column with its unit."""
        self._values(column)
        return header(column, self.units.get(column, ""))

    def without_border(self) -> ParticleTable:
        """Return the rows of the objects that the image does not cut off."""
        kept = ~self.columns["touches border"]
        columns = {name: values[kept] for name, values in self.columns.items()}
        return ParticleTable(columns, self.units)

    def histogram(
        self, column: str, bins: int = 20
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the number of objects in each bin, and the edges of the bins.

        Parameters
        ----------
        column : str
        bins : int
            How many, from the smallest value to the largest.

        Returns
        -------
        (bins,) int64 array and (bins + 1,) float64 array
            Values that are not numbers do not count. Without any value, the edges are
            those of 0..1.

        Raises
        ------
        ValueError
            If there is no such column, or the number of bins cannot be used.
        """
        if bins < 1:
            raise ValueError(f"bins: {bins!r} is not a whole number from 1")
        values = self._values(column).astype(np.float64)
        counts, edges = np.histogram(values[np.isfinite(values)], bins)
        return counts.astype(np.int64), edges.astype(np.float64)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table: commas, UTF-8, names with units in the first line.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file cannot be written; one that was there before is untouched.
        """
        rows = zip(*(values.tolist() for values in self.columns.values()), strict=True)
        written(path, self.headers, rows)

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
) -> ParticleTable:
    """Return size, shape and place of each object.

    Parameters
    ----------
    instances : (H, W) integer array
        Objects by number, as `instances` returns them; 0 is none.
    pixel_size : tuple of a size and a unit, optional
        The size is one number, or height and width of pixels that are not square.
        Without it, all is in pixels.
    image : (H, W) array, optional
        Grey levels, for the mean intensity of each object.
    exclusion : (H, W) bool array, optional
        Objects beside these pixels count as touching the border.

    Returns
    -------
    ParticleTable
        Rows by number; none if there is no object.

    Raises
    ------
    ValueError
        If an argument cannot be used.

    Notes
    -----
    The equivalent diameter is that of the disk of the same area. Major and minor axis
    are those of the ellipse with the same second moments, a pixel being a rectangle;
    scikit-image takes it as a point, and so a line of one pixel as 0 wide.
    The orientation is that of the major axis, in degrees from 0 up to 180: 0 is along
    the rows, 90 along the columns, and it grows counter-clockwise as one sees it, with
    row 0 on top. It is NaN for objects with no direction, such as a disk or a square.
    Centroids count from the centre of the pixel in the upper left, x to the right and
    y down.
    """
    instances = checked_labels(instances, "instances")
    checked_mask(exclusion, instances.shape)
    (height, width), unit = _checked_pixel_size(pixel_size)
    rows, columns = np.nonzero(instances)
    numbers, which, counts = np.unique(
        instances[rows, columns], return_inverse=True, return_counts=True
    )
    area = counts * (height * width)
    y, x = rows * np.float64(height), columns * np.float64(width)
    values: dict[str, NDArray[Any]] = {
        "label": numbers,
        "area": area,
        "equivalent diameter": np.sqrt(4 * area / np.pi),
        **_ellipses(x, y, which, counts, (height, width)),
        "touches border": touches_border(instances, exclusion=exclusion)[numbers],
    }
    if image is not None:
        grey = _checked_image(image, instances.shape)[rows, columns]
        values["mean intensity"] = np.bincount(which, grey, len(counts)) / counts
    units = dict.fromkeys(LENGTHS, unit) | {"area": f"{unit}²", "orientation": "°"}
    return ParticleTable(values, units)


def _ellipses(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    which: NDArray[np.intp],
    counts: NDArray[np.intp],
    pixel: tuple[float, float],
) -> dict[str, NDArray[np.float64]]:
    """Return axes, orientation and centroid of each object."""

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(which, values, len(counts)) / counts

    middle_x, middle_y = mean(x), mean(y)
    # From each object's own middle, or much would cancel out far from the origin.
    right, up = x - middle_x[which], middle_y[which] - y
    xx = mean(right**2) + pixel[1] ** 2 / 12
    yy = mean(up**2) + pixel[0] ** 2 / 12
    xy = mean(right * up)
    xy[np.abs(xy) <= ROUND * (xx + yy)] = 0  # rounding would tell a row from 0 degrees
    half, gap = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major, minor = 4 * np.sqrt(half + gap), 4 * np.sqrt(half - gap)
    angle = np.degrees(np.arctan2(2 * xy, xx - yy) / 2) % 180
    angle[gap <= ROUND * half] = np.nan
    return {
        "major axis": major,
        "minor axis": minor,
        "aspect ratio": major / minor,
        "orientation": angle,
        "centroid x": middle_x,
        "centroid y": middle_y,
    }


def _checked_pixel_size(
    pixel_size: PixelSize | None,
) -> tuple[tuple[float, float], str]:
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


def _checked_image(image: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(image, np.float64)
    if array.shape != shape:
        raise ValueError(
            f"image: shape {array.shape} does not fit objects of shape {shape}; grey "
            "levels (H, W) are needed"
        )
    return array
