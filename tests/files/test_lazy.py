"""Images that stay in their file: windows of them equal those of the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_hrdv2.files import find_images, open_image, read_image, write_ome_zarr
from napari_hrdv2.files.labels import LabelClasses
from napari_hrdv2.files.lazy import LazyImage

RANDOM = np.random.default_rng(11)
SHAPE = (131, 217)  # no multiple of anything
GREY = RANDOM.integers(0, 256, SHAPE, dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, SHAPE, dtype=np.uint16)
RGB = RANDOM.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
WINDOWS = (
    (slice(0, 131), slice(0, 217)),
    (slice(17, 18), slice(100, 217)),
    (slice(60, 131), slice(0, 65)),
    (slice(5, 100, 3), slice(9, None, 7)),
    (slice(40, 40), slice(0, 9)),
    (slice(90, 500), slice(-30, None)),
)


def pyramid(path: Path) -> None:
    """Write a tiled BigTIFF with two smaller levels."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        how = {"tile": (32, 48), "compression": "zlib"}
        file.write(DEEP, subifds=2, **how)
        file.write(DEEP[::2, ::2], subfiletype=1, **how)
        file.write(DEEP[::4, ::4], subfiletype=1, **how)


def written(image: np.ndarray, **how: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, image, **how)


KINDS = {
    "one strip": written(GREY),
    "big-endian": written(DEEP, byteorder=">"),
    "big-endian strips": written(DEEP, byteorder=">", rowsperstrip=7, compression=8),
    "strips": written(GREY, rowsperstrip=16, compression="lzw"),
    "predictor": written(DEEP, rowsperstrip=5, compression="zlib", predictor=True),
    "tiles": written(GREY, tile=(16, 32)),
    "jpeg tiles": written(
        RGB, tile=(64, 64), compression="jpeg", photometric="rgb", maxworkers=1
    ),
    "colours": written(RGB, photometric="rgb", rowsperstrip=11, compression="zstd"),
    "colours in memory order": written(RGB, photometric="rgb"),
    "planes": written(
        np.moveaxis(RGB, -1, 0).copy(),
        photometric="rgb",
        planarconfig="separate",
        tile=(32, 16),
        compression="zlib",
    ),
    "planes, one strip": written(
        np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"
    ),
    "floats": written(DEEP.astype(np.float32) / 7, tile=(32, 32), compression="zlib"),
    "bits": written(GREY > 99, photometric="minisblack"),
    "jpeg 2000": written(DEEP, tile=(64, 64), compression="jpeg2000"),
    "pyramid": pyramid,
}


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_a_tiff_are_those_of_the_whole(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.tif"
    KINDS[kind](path)
    wanted = tifffile.imread(path)
    if kind.startswith("planes"):
        wanted = np.moveaxis(wanted, 0, -1)
    found = open_image(path).data
    assert isinstance(found, LazyImage)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype.newbyteorder("="))
    for window in WINDOWS:
        assert np.array_equal(found[window], wanted[window])
    assert np.array_equal(np.asarray(found), read_image(path).data)


def test_the_levels_of_a_pyramid_are_known(tmp_path: Path) -> None:
    pyramid(tmp_path / "p.tif")
    levels = open_image(tmp_path / "p.tif").data.levels
    assert [level.shape for level in levels] == [(66, 109), (33, 55)]
    assert np.array_equal(levels[1][3:20, 5:9], DEEP[::4, ::4][3:20, 5:9])


def test_a_sparse_tile_is_blank(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, shape=(64, 64), dtype=np.uint8, tile=(32, 32), data=None)
    wanted = tifffile.imread(path)
    assert np.array_equal(open_image(path).data[10:50, 3:60], wanted[10:50, 3:60])


@pytest.mark.parametrize(
    "image", [GREY, DEEP, RGB, DEEP / np.float32(9)], ids=["8", "16", "rgb", "float"]
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_is_opened_with_its_pixel_size(
    tmp_path: Path, image: np.ndarray, version: str
) -> None:
    path = tmp_path / "image.zarr"
    labels = np.ones(SHAPE, np.uint8)
    write_ome_zarr(path, image, labels, LabelClasses(), 0.5, "µm", version=version)
    opened = open_image(path)
    assert isinstance(opened.data, LazyImage)
    assert (opened.pixel_size, opened.unit) == (0.5, "µm")
    assert np.array_equal(opened.data[20:90, 30:101], image[20:90, 30:101])
    assert np.array_equal(read_image(path).data, image)


@pytest.mark.parametrize("format_", [2, 3])
def test_a_plain_array_of_zarr_is_an_image(tmp_path: Path, format_: int) -> None:
    for name, image in (("grey", DEEP), ("rgb", RGB), ("one", GREY[None, None])):
        array = zarr.create_array(
            tmp_path / f"{name}.zarr",
            data=image,
            chunks="auto",
            zarr_format=format_,
        )
        assert array.shape == image.shape
        found = open_image(tmp_path / f"{name}.zarr").data
        assert np.array_equal(found[7:99], image.reshape(found.shape)[7:99])


def test_stacks_are_refused_with_the_names_of_their_channels(tmp_path: Path) -> None:
    stack = np.stack([GREY, GREY])
    axes = {"axes": "CYX", "Channel": {"Name": ["Si", "Al"]}}
    tifffile.imwrite(tmp_path / "maps.ome.tif", stack, metadata=axes)
    with pytest.raises(ValueError, match=r"stack of 2 channels \(Si, Al\)"):
        open_image(tmp_path / "maps.ome.tif")
    group = zarr.open_group(tmp_path / "maps.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=stack)
    group.attrs["multiscales"] = [
        {"axes": [{"name": n} for n in "cyx"], "datasets": [{"path": "0"}]}
    ]
    group.attrs["omero"] = {"channels": [{"label": "Si"}, {"label": "Al"}]}
    with pytest.raises(ValueError, match=r"stack of 2 channels \(Si, Al\)"):
        open_image(tmp_path / "maps.zarr")


def test_what_is_to_be_turned_or_is_of_other_colours_is_read(tmp_path: Path) -> None:
    inks = RANDOM.integers(0, 256, (*SHAPE, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "inks.tif", inks, photometric="separated")
    tifffile.imwrite(tmp_path / "white.tif", GREY, photometric="miniswhite")
    for name in ("inks.tif", "white.tif"):
        found = open_image(tmp_path / name).data
        assert isinstance(found, np.ndarray)
        assert np.array_equal(found, read_image(tmp_path / name).data)


def test_what_is_cut_short_is_told_in_a_sentence(tmp_path: Path) -> None:
    for kind in ("one strip", "strips", "tiles", "colours"):
        path = tmp_path / f"{kind}.tif"
        KINDS[kind](path)
        path.write_bytes(path.read_bytes()[:-9000])
        with pytest.raises(ValueError, match=f"{kind}.tif is damaged or cut short"):
            open_image(path).data[:]


def test_a_folder_gives_its_zarr_images_and_not_our_results(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=GREY)
    tifffile.imwrite(tmp_path / "b.tif", GREY)
    labels = np.ones(SHAPE, np.uint8)
    write_ome_zarr(tmp_path / "c.zarr", GREY, labels, LabelClasses())
    found = find_images([tmp_path])
    assert [path.name for path in found.files] == ["a.zarr", "b.tif"]
    assert found.results == 1
    assert find_images([tmp_path / "c.zarr"]).files == (tmp_path / "c.zarr",)


def test_an_image_says_what_of_it_is_decoded_at_once(tmp_path: Path) -> None:
    KINDS["strips"](tmp_path / "a.tif")
    strips = open_image(tmp_path / "a.tif").data
    assert strips.chunks == (16, 217)
    pyramid(tmp_path / "b.tif")
    assert open_image(tmp_path / "b.tif").data.chunks == (32, 48)
    zarr.create_array(tmp_path / "c.zarr", data=RGB, chunks=(20, 30, 3))
    colours = open_image(tmp_path / "c.zarr").data
    assert colours.chunks == colours.first_band().chunks == (20, 30)
