"""Outlines and broad lines by runs, against the slow obvious way."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from skimage.draw import polygon

from napari_hrdv2.core.postprocess.exclusion import Patch, fill_outlines
from napari_hrdv2.files.importers.imagej_rois import broad_line

SHAPE = (37, 52)


def whole(patch: Patch, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    height, width = patch.mask.shape
    mask[patch.top : patch.top + height, patch.left : patch.left + width] = patch.mask
    return mask


@pytest.mark.parametrize("seed", range(30))
def test_an_outline_is_filled_as_scikit_image_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(-15, 60, (random.integers(1, 12), 2))
    if seed % 3 == 1:
        corners = np.rint(corners)  # centres of pixels lie on edges and corners
    elif seed % 3 == 2:
        corners = np.rint(corners) - 0.5  # how ImageJ's lie
    wanted = np.zeros(SHAPE, bool)
    wanted[polygon(*corners.T, SHAPE)] = True
    assert np.array_equal(
        whole(fill_outlines([corners], SHAPE, with_edges=True)), wanted
    )


def test_a_second_outline_is_a_hole() -> None:
    squares = [
        np.array([(a, a), (a, b), (b, b), (b, a)]) - 0.5 for a, b in ((2, 9), (4, 6))
    ]
    wanted = np.zeros(SHAPE, bool)
    wanted[2:9, 2:9] = True
    wanted[4:6, 4:6] = False
    assert np.array_equal(whole(fill_outlines(squares, SHAPE)), wanted)


@pytest.mark.parametrize("seed", range(30))
def test_a_line_covers_what_is_near_to_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(-15, 60, (random.integers(2, 9), 2))
    if seed % 3 == 1:
        points = np.rint(points)
        points[1, seed % 2] = points[0, seed % 2]  # a horizontal or vertical part
        points[-1] = points[-2]  # a part of no length
    reach = random.uniform(0.5, 9)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 1e-3
    wanted = np.zeros(SHAPE, bool)
    for (y0, x0), (y1, x1) in pairwise(points):
        dy, dx = y1 - y0, x1 - x0
        along = ((rows - y0) * dy + (columns - x0) * dx) / max(dy**2 + dx**2, 1e-12)
        along = np.clip(along, 0, 1)
        distance = np.hypot(rows - y0 - along * dy, columns - x0 - along * dx)
        wanted |= distance <= reach
    assert np.array_equal(whole(broad_line(points, reach, SHAPE)), wanted)


def test_a_long_broad_line_and_an_outline_of_many_corners_take_seconds() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(0, 1500, (60_000, 2))
    walk = np.cumsum(random.normal(0, 2, (20_000, 2)), axis=0) + 700
    start = time.process_time()
    assert broad_line(walk, 150, (1500, 1500)).mask.any()
    assert fill_outlines([points[:5000]], (1500, 1500)).mask.any()
    assert time.process_time() - start < 10


@pytest.mark.parametrize("corner", [np.nan, np.inf, -np.inf])
def test_corners_that_are_no_numbers_are_refused(corner: float) -> None:
    points = np.array([(1.0, 2.0), (corner, 3.0), (5.0, 5.0)])
    with pytest.raises(ValueError, match="corners that are no numbers"):
        fill_outlines([points], SHAPE)
    with pytest.raises(ValueError, match="corners that are no numbers"):
        broad_line(points, 1, SHAPE)


def test_work_without_end_is_refused() -> None:
    points = np.array([(0.0, 0.0), (30_000.0, 1.0)] * 20_000)
    with pytest.raises(ValueError, match="rows of pixels, which is too many"):
        broad_line(points, 1, (30_000, 4))
    assert broad_line(points[:4] * 1e30, 1e30, (50, 40)).mask.all()
