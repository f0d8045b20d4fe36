from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")
roifile = pytest.importorskip("roifile")

from files.foreign import region, write_rois  # noqa: E402
from napari_hrdv2.files import import_labels  # noqa: E402

SHAPE = (20, 30)
RED, BLUE = b"\xff\xff\x00\x00", b"\xff\x00\x00\xff"


def _pixels(tmp_path: Path, *rois: object) -> list[tuple[int, int]]:
    """Rows and columns that one region, or several, cover."""
    path = tmp_path / ("r.zip" if len(rois) > 1 else "r.roi")
    write_rois(path, *rois)
    labels = import_labels(path, SHAPE).labels
    return [tuple(at) for at in np.argwhere(labels).tolist()]


def _block(rows: range, columns: range) -> list[tuple[int, int]]:
    return [(row, column) for row in rows for column in columns]


@pytest.mark.parametrize("kind", ["POLYGON", "FREEHAND", "TRACED"])
def test_outlines_are_filled(tmp_path: Path, kind: str) -> None:
    square = region(kind, [(4, 2), (9, 2), (9, 6), (4, 6)])
    assert _pixels(tmp_path, square) == _block(range(2, 6), range(4, 9))


def test_rectangles_cover_their_pixels_also_with_fractions(tmp_path: Path) -> None:
    whole = region("RECT", box=(4, 2, 9, 6))
    assert _pixels(tmp_path, whole) == _block(range(2, 6), range(4, 9))
    fraction = region("RECT", box=(4, 2, 9, 6), version=227)
    fraction.options = roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    fraction.xd, fraction.yd, fraction.widthd, fraction.heightd = 4.6, 2.0, 3.0, 4.0
    assert _pixels(tmp_path, fraction) == _block(range(2, 6), range(5, 8))


def test_an_oval_is_an_ellipse_within_its_box(tmp_path: Path) -> None:
    found = _pixels(tmp_path, region("OVAL", box=(3, 2, 13, 10)))
    rows, columns = np.mgrid[:20, :30] + 0.5
    inside = ((rows - 6) / 4) ** 2 + ((columns - 8) / 5) ** 2 <= 1
    assert found == [tuple(at) for at in np.argwhere(inside).tolist()]


def test_what_is_composed_of_outlines_has_holes(tmp_path: Path) -> None:
    outer = [0, 2, 2, 1, 12, 2, 1, 12, 12, 1, 2, 12, 4]
    inner = [0, 5, 5, 1, 9, 5, 1, 9, 9, 1, 5, 9, 4]
    composed = region("RECT", box=(2, 2, 12, 12))
    composed.multi_coordinates = np.array(outer + inner, np.float32)
    composed.shape_roi_size = len(composed.multi_coordinates)
    found = set(_pixels(tmp_path, composed))
    hole = set(_block(range(5, 9), range(5, 9)))
    assert found == set(_block(range(2, 12), range(2, 12))) - hole


@pytest.mark.parametrize(
    ("width", "rows"), [(0, [5]), (1, [5]), (2, [4, 5]), (3, [4, 5, 6])]
)
def test_lines_are_as_wide_as_their_stroke(
    tmp_path: Path, width: int, rows: list[int]
) -> None:
    line = region("POLYLINE", [(3, 5), (12, 5)], stroke_width=width)
    found = _pixels(tmp_path, line)
    assert sorted({row for row, column in found if 4 <= column <= 11}) == rows
    assert {column for row, column in found if row == 5} >= set(range(3, 13))


def test_thin_lines_have_no_gaps_and_follow_their_bends(tmp_path: Path) -> None:
    line = region("LINE", x1=2.0, y1=3.0, x2=20.0, y2=10.0)
    found = _pixels(tmp_path, line)
    assert {column for _, column in found} == set(range(2, 21))
    assert found[0] == (3, 2)
    assert found[-1] == (10, 20)
    bent = region("FREELINE", [(2, 2), (2, 9), (8, 9)])
    expected = {(row, 2) for row in range(2, 10)} | {(9, x) for x in range(2, 9)}
    assert set(_pixels(tmp_path, bent)) == expected


def test_a_point_is_a_pixel_and_those_outside_are_cut_off(tmp_path: Path) -> None:
    points = region("POINT", [(3, 4), (29, 19), (31, 5)])
    assert _pixels(tmp_path, points) == [(4, 3), (19, 29)]
    half = region("POINT", [(3.5, 4.7), (6.2, 1.1)])
    assert _pixels(tmp_path, half) == [(1, 6), (4, 3)]


def test_regions_that_reach_beyond_the_image_are_cut_off(tmp_path: Path) -> None:
    wide = region("RECT", box=(27, 18, 40, 40))
    assert _pixels(tmp_path, wide) == _block(range(18, 20), range(27, 30))


def test_groups_are_classes_and_the_rest_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    write_rois(
        path,
        region("RECT", box=(0, 0, 2, 2), name="pore-1", group=3, stroke_color=RED),
        region("RECT", box=(4, 0, 6, 2), name="pore-2", group=3),
        region("RECT", box=(8, 0, 9, 2), name="0001-0002", group=1),
        region("RECT", box=(8, 8, 9, 9), name="other"),
    )
    found = import_labels(path, SHAPE)
    assert found.labels[0, [0, 4, 8]].tolist() == [3, 3, 1]
    assert found.labels[8, 8] == 0
    assert found.classes.names == {1: "Group 1", 3: "pore"}
    assert found.classes.colors == {3: "#ff0000"}
    assert "3 regions, classes by group; 1 ignored" in found.note


def test_names_that_differ_by_a_number_are_one_class(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    write_rois(
        path,
        region("RECT", box=(0, 0, 2, 2), name="matrix-1", stroke_color=BLUE),
        region("RECT", box=(4, 0, 6, 2), name="γ′ (1)"),
        region("RECT", box=(8, 0, 9, 2), name="matrix 02"),
        region("RECT", box=(8, 0, 9, 1), name="γ′"),
    )
    found = import_labels(path, SHAPE)
    assert found.labels[0, [0, 4, 8]].tolist() == [1, 2, 2]
    assert found.labels[1, 8] == 1
    assert found.classes.names == {1: "matrix", 2: "γ′"}
    assert found.classes.colors == {1: "#0000ff"}


def test_stroke_colours_are_classes_where_names_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    write_rois(
        path,
        region("RECT", box=(0, 0, 2, 2), name="0001-0002", stroke_color=RED),
        region("RECT", box=(4, 0, 6, 2), name="0003-0002", stroke_color=BLUE),
        region("RECT", box=(8, 0, 9, 2), name="0009-0002", stroke_color=RED),
    )
    found = import_labels(path, SHAPE)
    assert found.labels[0, [0, 4, 8]].tolist() == [1, 2, 1]
    assert found.classes.colors == {1: "#ff0000", 2: "#0000ff"}
    assert found.classes.names == {}


def test_regions_that_nothing_tells_apart_are_one_class(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    write_rois(
        path,
        region("RECT", box=(0, 0, 2, 2), name="0001-0002"),
        region("RECT", box=(4, 0, 6, 2), name="0003-0002"),
    )
    found = import_labels(path, SHAPE)
    assert found.labels[0, [0, 4]].tolist() == [1, 1]
    assert "all one class" in found.note


def test_regions_of_other_planes_and_texts_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    text = region("RECT", box=(8, 0, 9, 2), name="scale bar")
    text.subtype = roifile.ROI_SUBTYPE.TEXT
    write_rois(
        path,
        region("RECT", box=(0, 0, 2, 2), name="a", position=1),
        region("RECT", box=(4, 0, 6, 2), name="a-2", position=7),
        text,
    )
    found = import_labels(path, SHAPE)
    assert found.labels[0, [0, 4, 8]].tolist() == [1, 0, 0]
    assert "1 region, classes by name; 2 ignored" in found.note


def test_regions_of_another_image_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.roi"
    write_rois(path, region("RECT", box=(50, 2, 60, 6), name="far"))
    with pytest.raises(ValueError, match="region far lies outside of the image of 30"):
        import_labels(path, SHAPE)
    with pytest.raises(ValueError, match=r"give shape=\(H, W\)"):
        import_labels(path)
    path.write_bytes(b"Iout" + bytes(3))
    with pytest.raises(ValueError, match="damaged or cut short"):
        import_labels(path, SHAPE)
