from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

from napari_hrdv2.files import (  # noqa: E402
    LabelClasses,
    import_labels,
    read_ome_zarr,
    write_ome_zarr,
)

GREY = np.arange(7 * 9, dtype=np.uint16).reshape(7, 9) * 1000
LABELS = np.zeros((7, 9), np.uint8)
LABELS[2:4], LABELS[5] = 1, 2
CLASSES = LabelClasses({1: "γ′ phase", 2: "pore"}, {1: "#ff8800", 2: "#0000ff"})


def _ome(group: object, version: str) -> dict:
    attributes = dict(group.attrs)
    return attributes if version == "0.4" else attributes["ome"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_zarr_reads_image_labels_names_colours_and_pixel_size(
    tmp_path: Path, version: str
) -> None:
    path = tmp_path / "alloy.zarr"
    write_ome_zarr(path, GREY, LABELS, CLASSES, 0.25, "µm", version=version)
    root = zarr.open_group(path, mode="r")
    assert root.metadata.zarr_format == {"0.4": 2, "0.5": 3}[version]
    assert np.array_equal(root["0"][:], GREY)
    assert root["0"].dtype == np.uint16
    group = root["labels/segmentation"]
    assert np.array_equal(group["0"][:], LABELS)
    assert _ome(root["labels"], version)["labels"] == ["segmentation"]
    about = _ome(group, version)["image-label"]
    assert about["colors"] == [
        {"label-value": 1, "rgba": [255, 136, 0, 255]},
        {"label-value": 2, "rgba": [0, 0, 255, 255]},
    ]
    assert [entry["name"] for entry in about["properties"]] == ["γ′ phase", "pore"]
    for each in (root, group):
        (scale,) = _ome(each, version)["multiscales"]
        assert [axis["unit"] for axis in scale["axes"]] == ["micrometer"] * 2
        (transform,) = scale["datasets"][0]["coordinateTransformations"]
        assert transform == {"type": "scale", "scale": [0.25, 0.25]}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_imported_again_with_names_and_colours(
    tmp_path: Path, version: str
) -> None:
    path = tmp_path / "alloy.zarr"
    write_ome_zarr(path, GREY, LABELS, CLASSES, version=version)
    for place in (path, path / "labels" / "segmentation"):
        found = import_labels(place, (7, 9))
        assert np.array_equal(found.labels, LABELS)
        assert found.classes == CLASSES
        assert found.note == "OME-Zarr: 2 classes of segmentation."


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_come_first_as_channels(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 9, channels), dtype=np.uint8)
    write_ome_zarr(tmp_path / "c.zarr", image, LABELS, CLASSES, 3, "nm")
    root = zarr.open_group(tmp_path / "c.zarr", mode="r")
    assert np.array_equal(root["0"][:], np.moveaxis(image, -1, 0))
    (scale,) = root.attrs["multiscales"]
    assert [axis["name"] for axis in scale["axes"]] == ["c", "y", "x"]
    (transform,) = scale["datasets"][0]["coordinateTransformations"]
    assert transform["scale"] == [1, 3, 3]
    assert len(root.attrs["omero"]["channels"]) == channels


def test_several_label_images_are_told_apart_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    many = {"strokes": LABELS, "segmentation": LABELS + 1}
    write_ome_zarr(path, GREY, many, LabelClasses())
    assert np.array_equal(read_ome_zarr(path).labels, LABELS)
    again = read_ome_zarr(path, name="segmentation")
    assert np.array_equal(again.labels, LABELS + 1)


def test_pixels_without_a_size_have_no_unit(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", GREY, LABELS, CLASSES)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (scale,) = root.attrs["multiscales"]
    assert scale["axes"] == [{"name": a, "type": "space"} for a in "yx"]


def test_bool_images_and_wide_label_ids_are_kept(tmp_path: Path) -> None:
    labels = LABELS.astype(int) * 40_000
    write_ome_zarr(tmp_path / "a.zarr", GREY > 9000, labels, LabelClasses())
    assert np.array_equal(read_ome_zarr(tmp_path / "a.zarr").labels, labels)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert np.array_equal(root["0"][:], GREY > 9000)


def test_an_older_result_is_replaced_whole_and_nothing_is_left_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, GREY, {"old": LABELS}, CLASSES)
    write_ome_zarr(path, GREY, {"new": LABELS}, CLASSES)
    assert [p.name for p in (path / "labels").iterdir() if p.is_dir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_the_older_result_stays_if_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_hrdv2.files import ome_zarr as _ome_zarr

    path = tmp_path / "a.zarr"
    write_ome_zarr(path, GREY, LABELS, CLASSES)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_ome_zarr, "label_metadata", full)
    with pytest.raises(OSError, match=r"a\.zarr could not be written: No space left"):
        write_ome_zarr(path, GREY, LABELS * 0, CLASSES)
    assert np.array_equal(read_ome_zarr(path).labels, LABELS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_the_older_result_comes_back_if_the_last_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, GREY, LABELS, CLASSES)
    replace, refused = os.replace, []

    def refuses_once(source: Path, target: Path) -> None:
        if target == path and not refused:
            refused.append(source)
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuses_once)
    with pytest.raises(OSError, match="could not be written: Permission denied"):
        write_ome_zarr(path, GREY, LABELS * 0, CLASSES)
    assert np.array_equal(read_ome_zarr(path).labels, LABELS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_folders_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("text")
    with pytest.raises(FileExistsError, match="a folder with other things in it"):
        write_ome_zarr(tmp_path / "thesis", GREY, LABELS, CLASSES)
    (tmp_path / "a.zarr").write_text("text")
    with pytest.raises(FileExistsError, match=r"a\.zarr is a file"):
        write_ome_zarr(tmp_path / "a.zarr", GREY, LABELS, CLASSES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0.1"}, "version: '0.1' is unknown"),
        ({"image": GREY[0]}, r"image: shape \(9,\)"),
        ({"labels": LABELS[1:]}, r"segmentation of shape \(6, 9\)"),
        ({"labels": LABELS - 1.0}, "-1.0 is not an id"),
        ({"classes": LabelClasses({}, {1: "red"})}, "'red' of label 1"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, change: dict, said: str) -> None:
    good = {"image": GREY, "labels": LABELS, "classes": CLASSES}
    with pytest.raises(ValueError, match=said):
        write_ome_zarr(tmp_path / "a.zarr", **{**good, **change})
    assert not any(tmp_path.iterdir())


def test_what_holds_no_labels_or_those_of_another_size_is_refused(
    tmp_path: Path,
) -> None:
    write_ome_zarr(tmp_path / "a.zarr", GREY, {}, CLASSES)
    with pytest.raises(ValueError, match="no labels beside its image"):
        read_ome_zarr(tmp_path / "a.zarr")
    write_ome_zarr(tmp_path / "b.zarr", GREY, LABELS, CLASSES)
    with pytest.raises(ValueError, match="b.zarr is 9 × 7 and the image 8 × 7"):
        read_ome_zarr(tmp_path / "b.zarr", (7, 8))
