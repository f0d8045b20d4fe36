"""Files made to hang, to fill the memory or to break what reads them."""

from __future__ import annotations

import json
import os
import re
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import roifile
import tifffile
import torch
import zarr

from files.foreign import labkit, region, write_ilastik, write_rois
from files.raw_files import png_chunk, write_tiff
from napari_hrdv2.core.backbones.checkpoint import read_checkpoint, read_json
from napari_hrdv2.files import (
    LabelClasses,
    import_labels,
    read_image,
    read_label_classes,
    write_ome_zarr,
)
from napari_hrdv2.files.importers.imagej_rois import MOST_REGIONS

LABELS = np.repeat([[0, 1, 2]], 8, axis=0).repeat(4, axis=1).astype(np.uint8)
SHAPE = LABELS.shape
DEEP = "[" * 100_000


@pytest.fixture(autouse=True)
def within_seconds() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < 10


# --- Memory ---------------------------------------------------------------------------
def test_an_image_that_claims_more_than_its_file_can_hold_is_refused(
    tmp_path: Path,
) -> None:
    side = 60_000
    write_tiff(tmp_path / "t.tif", b"\0" * 9, (side, side))
    header = struct.pack(">IIBBBBB", side // 6, side // 6, 8, 6, 0, 0, 0)
    chunks = (
        png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    )
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    for name, size in (("t.tif", 3.6), ("p.png", 0.4)):
        with pytest.raises(ValueError, match=f"{name} claims to hold {size} GB"):
            read_image(tmp_path / name)


def test_labels_of_a_size_that_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    text = json.loads(labkit(LABELS, ("a", "b")))
    text["interval"]["max"] = [200_000, 200_000]
    (tmp_path / "a.labeling").write_text(json.dumps(text))
    with pytest.raises(ValueError, match="a.labeling claims to hold 80.0 GB"):
        import_labels(tmp_path / "a.labeling")
    write_ilastik(tmp_path / "a.ilp", {"a.tif": (LABELS, "yx")})
    with h5py.File(tmp_path / "a.ilp", "r+") as file:
        block = file["PixelClassification/LabelSets/labels000"]
        attributes = dict(block["block0000"].attrs)
        del block["block0000"]
        made = block.create_dataset("block0000", (40_000, 40_000), "u1", chunks=True)
        made.attrs.update(attributes)
    with pytest.raises(ValueError, match="a.ilp is damaged.*claims to hold 1.6 GB"):
        import_labels(tmp_path / "a.ilp", SHAPE)


def test_an_ome_zarr_of_an_immense_shape_is_refused(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "o.zarr", LABELS, LABELS, LabelClasses())
    path = tmp_path / "o.zarr/labels/segmentation/0/.zarray"
    about = json.loads(path.read_text())
    for changes in (
        {"shape": [10**6, 10**6]},
        {"chunks": [10**5, 10**5]},
        {"shape": [10**4, 10**4], "chunks": [1, 1]},
    ):
        path.write_text(json.dumps({**about, **changes}))
        with pytest.raises(ValueError, match="o.zarr.*(claims to hold|chunks, more)"):
            import_labels(tmp_path / "o.zarr")


def test_weights_that_grow_when_they_are_read_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="x.pt is damaged"):
        read_checkpoint(tmp_path / "x.pt")


# --- Depth and numbers ----------------------------------------------------------------
def test_json_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.labeling").write_text('{"labels": ' + DEEP)
    with pytest.raises(ValueError, match="a.labeling is damaged.* nested too deep"):
        import_labels(tmp_path / "a.labeling", SHAPE)
    (tmp_path / "config.json").write_text('{"labels": ' + DEEP)
    with pytest.raises(ValueError, match="config.json is not a readable"):
        read_json(tmp_path / "config.json")
    tifffile.imwrite(tmp_path / "l.tif", LABELS)
    (tmp_path / "l.tif.labels").write_text('{"labelSets": ' + DEEP)
    with pytest.raises(ValueError, match="l.tif.labels is damaged"):
        import_labels(tmp_path / "l.tif", SHAPE)
    write_ome_zarr(tmp_path / "o.zarr", LABELS, LABELS, LabelClasses())
    (tmp_path / "o.zarr/.zattrs").write_text('{"multiscales": ' + DEEP)
    with pytest.raises(ValueError, match="o.zarr is damaged"):
        import_labels(tmp_path / "o.zarr")


@pytest.mark.parametrize(
    "point", [[2**63, 1], [-(2**63), 1], [10**40, 1], [1.9, 1.2], [1e999, 0], [[1], 2]]
)
def test_coordinates_that_are_no_pixels_are_refused(
    tmp_path: Path, point: list[object]
) -> None:
    text = json.loads(labkit(LABELS, ("a", "b")))
    text["labels"]["a"].append(point)
    (tmp_path / "a.labeling").write_text(json.dumps(text))
    with pytest.raises(ValueError, match="a.labeling is damaged"):
        import_labels(tmp_path / "a.labeling", SHAPE)


def test_seventy_thousand_labels_keep_their_numbers(tmp_path: Path) -> None:
    shape = (280, 250)
    points = [[int(i % 250), int(i // 250)] for i in range(70_000)]
    text = {
        "interval": {"n": 2, "min": [0, 0], "max": [shape[1] - 1, shape[0] - 1]},
        "labels": {f"label {i}": [point] for i, point in enumerate(points)},
    }
    (tmp_path / "a.labeling").write_text(json.dumps(text))
    found = import_labels(tmp_path / "a.labeling", shape).labels
    assert np.array_equal(found.ravel(), np.arange(1, 70_001))


# --- What is not as it should be ------------------------------------------------------
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_corrupt_chunk_is_told(tmp_path: Path, version: str) -> None:
    path = tmp_path / "o.zarr"
    write_ome_zarr(path, LABELS, LABELS, LabelClasses(), version=version)
    chunk = "labels/segmentation/0/" + ("0/0" if version == "0.4" else "c/0/0")
    (path / chunk).write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="o.zarr is damaged"):
        import_labels(path)


@pytest.mark.parametrize(
    "about",
    [
        {"image-label": "x"},
        {"image-label": {"colors": True}},
        {"image-label": {"properties": [{"name": "a", "label-value": "x"}]}},
        {"multiscales": []},
        {"multiscales": [{"datasets": [{"path": 5}]}]},
        {"multiscales": [{"datasets": [{"path": "../../.."}]}]},
    ],
)
def test_odd_metadata_are_told(tmp_path: Path, about: dict[str, object]) -> None:
    path = tmp_path / "o.zarr"
    write_ome_zarr(path, LABELS, LABELS, LabelClasses())
    group = zarr.open_group(path / "labels/segmentation", mode="r+")
    group.attrs.update(about)
    with pytest.raises(ValueError, match="o.zarr is damaged"):
        import_labels(path)


def test_a_chunk_of_no_size_is_told(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "o.zarr", LABELS, LABELS, LabelClasses())
    path = tmp_path / "o.zarr/labels/segmentation/0/.zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chunks": [0, 0]}))
    with pytest.raises(ValueError, match="o.zarr is damaged"):
        import_labels(tmp_path / "o.zarr")


def test_a_bad_symbol_table_is_told(tmp_path: Path) -> None:
    write_ilastik(tmp_path / "a.ilp", {"a.tif": (LABELS, "yx")})
    content, refused = (tmp_path / "a.ilp").read_bytes(), []
    for found in re.finditer(b"SNOD", content):  # where the entries of a table lie
        spoiled = bytearray(content)
        spoiled[found.end() + 4 : found.end() + 44] = b"\xfe" * 40
        (tmp_path / "a.ilp").write_bytes(spoiled)
        try:
            assert np.array_equal(import_labels(tmp_path / "a.ilp").labels, LABELS)
        except ValueError as error:
            refused.append(str(error))
    assert any("a.ilp is damaged" in told for told in refused)


def test_too_many_regions_are_refused_before_they_are_read(tmp_path: Path) -> None:
    content = roifile.ImagejRoi.frompoints([(1, 1), (1, 4), (4, 4)]).tobytes()
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for number in range(MOST_REGIONS + 1):
            archive.writestr(f"{number}.roi", content)
    with pytest.raises(ValueError, match="r.zip holds 20001 files; up to 20000"):
        import_labels(tmp_path / "r.zip", SHAPE)


def test_regions_that_cover_a_large_image_again_and_again_are_refused(
    tmp_path: Path,
) -> None:
    shape = (4000, 4000)
    rois = [region("RECT", box=(0, 0, 4000, 4000), name=f"a-{i}") for i in range(99)]
    write_rois(tmp_path / "r.zip", *rois)
    with pytest.raises(ValueError, match="its 99 regions span 1.6e[+]09 pixels"):
        import_labels(tmp_path / "r.zip", shape)
    write_rois(tmp_path / "r.zip", *rois[:4])
    assert import_labels(tmp_path / "r.zip", shape).labels.all()


def test_a_free_line_of_many_points_is_drawn_in_seconds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    points = 300 + np.cumsum(random.normal(0, 1, (20_000, 2)), axis=0)
    roi = region("FREELINE", points.tolist(), stroke_width=300)
    write_rois(tmp_path / "r.roi", roi)
    assert import_labels(tmp_path / "r.roi", (600, 600)).labels.any()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_no_file_to_wait_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tif")
    for read in (read_image, import_labels):
        with pytest.raises(OSError, match="x.tif is no file but a device or a pipe"):
            read(tmp_path / "x.tif")


def test_half_a_surrogate_pair_in_a_name_becomes_writable(tmp_path: Path) -> None:
    about = 'napari_hrdv2={"class_names": {"1": "pore\\ud800"}, "class_colors": {}}'
    text = f"ImageJ=1.54f\n{about}\n".encode() + b"\0"
    write_tiff(tmp_path / "l.tif", LABELS.tobytes(), SHAPE, more={270: (2, list(text))})
    assert read_label_classes(tmp_path / "l.tif").names == {1: "pore?"}
    spelled = labkit(LABELS, ("a", "b")).replace('"b"', '"b\\udfff"')
    (tmp_path / "a.labeling").write_text(spelled)
    names = import_labels(tmp_path / "a.labeling", SHAPE).classes.names
    assert names == {1: "a", 2: "b?"}


@pytest.mark.parametrize(
    ("content", "program"),
    [
        ({"shapes": [], "version": "5"}, "labelme"),
        ({"annotations": [], "images": []}, "COCO"),
        ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
        ({"labels": [1, 2]}, "labels have no names"),
    ],
)
def test_json_of_other_programs_is_named(
    tmp_path: Path, content: dict[str, object], program: str
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"x.json is not of Labkit: .*{program}"):
        import_labels(tmp_path / "x.json", SHAPE)
