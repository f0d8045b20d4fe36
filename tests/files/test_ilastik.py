from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pytest.importorskip("roifile")

from files.foreign import write_ilastik  # noqa: E402
from napari_hrdv2.files import import_labels  # noqa: E402

LABELS = np.zeros((7, 10), int)
LABELS[1:3, 3:8] = 1
LABELS[5, 2] = LABELS[6, 9] = 2


@pytest.mark.parametrize("block_tags", [True, False])
@pytest.mark.parametrize("axes", ["yx", "xy", "yxc", "xyc", "cxy", "zyxc", "tzyxc"])
def test_labels_are_read_whatever_the_order_of_the_axes(
    tmp_path: Path, axes: str, block_tags: bool
) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"alloy.tif": (LABELS, axes)}, block_tags=block_tags)
    found = import_labels(path, (7, 10))
    assert np.array_equal(found.labels, LABELS)
    assert found.classes.names == {1: "Pores", 2: "γ′"}
    assert found.classes.colors == {1: "#ffe119", 2: "#0082c8"}
    assert found.note == "ilastik project: 2 classes of alloy.tif."


def test_labels_have_a_channel_axis_that_the_image_has_not(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"a.tif": (LABELS, "yx")}, block_tags=False)
    with h5py.File(path, "a") as file:
        blocks = file["PixelClassification/LabelSets/labels000"]
        for key in list(blocks):
            data, place = blocks[key][()], blocks[key].attrs["blockSlice"]
            del blocks[key]
            blocks[key] = data[..., None]
            blocks[key].attrs["blockSlice"] = f"{place[:-1]},0:1]".encode()
    assert np.array_equal(import_labels(path, (7, 10)).labels, LABELS)


def test_the_lane_is_chosen_by_the_name_of_the_image(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    other = np.where(LABELS > 0, 3 - LABELS, 0)
    lanes = {"one.tif": (LABELS, "yxc"), "two.tif": (other, "yxc")}
    write_ilastik(path, lanes)
    for name in ("two", "two.png", "TWO.tif"):
        assert np.array_equal(
            import_labels(path, (7, 10), image_name=name).labels, other
        )


def test_the_lane_is_else_the_only_one_of_the_image_s_size(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    small = np.ones((3, 4), int)
    write_ilastik(path, {"one.tif": (small, "yxc"), "two.tif": (LABELS, "yxc")})
    found = import_labels(path, (7, 10), image_name="elsewhere")
    assert np.array_equal(found.labels, LABELS)


def test_lanes_are_listed_where_none_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"one.tif": (LABELS, "yxc"), "two.tif": (LABELS, "yxc")})
    listed = r"one\.tif \(10 × 7\); two\.tif \(10 × 7\)"
    with pytest.raises(ValueError, match=listed):
        import_labels(path, (7, 10))
    with pytest.raises(ValueError, match=rf"named 'three'.*{listed}"):
        import_labels(path, (7, 10), image_name="three")


def test_labels_of_an_image_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"one.tif": (LABELS, "yxc")})
    with pytest.raises(ValueError, match="p.ilp is 10 × 7 and the image 20 × 30"):
        import_labels(path, (30, 20))


def test_a_lane_without_scribbles_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"one.tif": (LABELS * 0, "yxc")})
    with pytest.raises(ValueError, match=r"no labels on one\.tif"):
        import_labels(path, (7, 10))


def test_stacks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"one.tif": (LABELS, "zyxc")})
    with h5py.File(path, "a") as file:
        file["Input Data/infos/lane0000/Raw Data/shape"][0] = 5
    with pytest.raises(ValueError, match=r"one\.tif is a stack of 5 planes"):
        import_labels(path, (7, 10))


def test_projects_of_other_workflows_and_damaged_ones_are_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.ilp"
    with h5py.File(path, "w") as file:
        file["workflowName"] = b"Object Classification"
    with pytest.raises(ValueError, match="no labels of ilastik's pixel"):
        import_labels(path, (7, 10))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        import_labels(path, (7, 10))


def test_a_missing_package_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.ilp"
    write_ilastik(path, {"one.tif": (LABELS, "yxc")})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'h5py.*"napari-hrdv2\[interop\]"'):
        import_labels(path, (7, 10))
