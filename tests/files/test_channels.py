"""Channels of a file that are taken together, by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_hrdv2.files import (
    open_image,
    read_channel_names,
    read_image,
    write_image,
)

MAPS = np.random.default_rng(5).integers(0, 60_000, (3, 201, 173), dtype=np.uint16)
NAMES = ["BSE", "Fe", "Si"]
WANTED = np.stack([MAPS[2], MAPS[0]], axis=-1)  # Si, BSE


def ome_zarr(path: Path, data: np.ndarray, axes: str) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=data, chunks=(*(1,) * (data.ndim - 2), 64, 64))
    group.attrs["multiscales"] = [
        {"axes": [{"name": n} for n in axes], "datasets": [{"path": "0"}]}
    ]
    group.attrs["omero"] = {"channels": [{"label": name} for name in NAMES]}
    return path


def written(folder: Path, kind: str) -> Path:
    path = folder / f"maps.{kind}"
    about = {"axes": "CYX", "Channel": {"Name": NAMES}}
    if kind == "ome.tif":
        tifffile.imwrite(path, MAPS, metadata=about)
    elif kind == "tiled.ome.tif":
        options = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
        tifffile.imwrite(path, MAPS, metadata=about, **options)
    elif kind == "imagej.tif":
        labels = {"axes": "CYX", "Labels": NAMES}
        tifffile.imwrite(path, MAPS, imagej=True, metadata=labels)
    elif kind == "zarr":
        ome_zarr(path, MAPS, "cyx")
    elif kind == "deep.zarr":
        ome_zarr(path, MAPS[None, :, None], "tczyx")
    return path


KINDS = ["ome.tif", "tiled.ome.tif", "imagej.tif", "zarr", "deep.zarr"]


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_picked_by_name_in_the_order_asked_for(
    tmp_path: Path, kind: str
) -> None:
    path = written(tmp_path, kind)
    lazy = open_image(path, "Si, BSE").data
    assert lazy.shape == WANTED.shape
    assert np.array_equal(lazy[13:99, 60:171], WANTED[13:99, 60:171])
    assert np.array_equal(read_image(path, "Si,BSE").data, WANTED)
    assert read_channel_names(path) == tuple(NAMES)
    with pytest.raises(ValueError, match="no channel 'Al'; it has BSE, Fe, Si"):
        open_image(path, "BSE,Al")


def test_channels_without_names_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, MAPS, photometric="minisblack")
    assert np.array_equal(read_image(path, "channel 3,channel 1").data, WANTED)
    bands = tmp_path / "bands.tif"
    five = np.moveaxis(np.concatenate([MAPS, MAPS[:2]]), 0, -1)
    tifffile.imwrite(bands, five, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_image(bands, "channel 3,channel 1").data, WANTED)
    plain = tmp_path / "plain.zarr"
    zarr.create_array(plain, data=MAPS, chunks=(1, 64, 64), zarr_format=2)
    assert np.array_equal(read_image(plain, "channel 3,channel 1").data, WANTED)


def test_a_stack_of_channels_is_refused_with_the_way_to_take_them(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"name those to take together \(--channels"):
        open_image(written(tmp_path, "ome.tif"))


def test_what_has_no_axis_of_channels_alone_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "grey.tif", MAPS[0])
    tifffile.imwrite(
        tmp_path / "deep.ome.tif", MAPS[:, None].repeat(2, 1), metadata={"axes": "CZYX"}
    )
    write_image(tmp_path / "x.tif", MAPS[0])
    for name in ("grey.tif", "deep.ome.tif", "x.tif"):
        with pytest.raises(ValueError, match="has no axis of channels alone"):
            open_image(tmp_path / name, "BSE,Fe")
    png = tmp_path / "x.png"
    from PIL import Image

    Image.fromarray(MAPS[0].astype(np.uint8)).save(png)
    with pytest.raises(ValueError, match="give a TIFF of grey channels or OME-Zarr"):
        open_image(png, "BSE,Fe")
