"""Volumes in files: cut without being read, with the distance of their planes."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from napari_hrdv2.files.label_store import LabelStore
from napari_hrdv2.files.labels import LabelClasses
from napari_hrdv2.files.layers import read_layers
from napari_hrdv2.files.volumes import (
    LazyVolume,
    open_stack,
    open_volume,
    volume_labels,
)

SIZE = (5, 30, 40)
GREY = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
RGB = np.random.default_rng(1).integers(0, 255, (*SIZE, 3)).astype(np.uint8)


def write_zarr(path, array, axes, scale, unit="micrometer"):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=array, chunks=tuple(min(n, 16) for n in array.shape))
    named = [{"name": a, "type": "space", "unit": unit} for a in axes]
    steps = [{"type": "scale", "scale": scale}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": named, "datasets": datasets}
    ]


WRITERS = {
    "pages": (lambda p: tifffile.imwrite(p, GREY, compression="zlib"), None),
    "imagej": (
        lambda p: tifffile.imwrite(
            p,
            GREY,
            imagej=True,
            resolution=(2, 2),
            metadata={"spacing": 2.0, "unit": "um", "axes": "ZYX"},
        ),
        (0.5, 2.0),
    ),
    "ome": (
        lambda p: tifffile.imwrite(
            p,
            GREY,
            ome=True,
            metadata={
                "axes": "ZYX",
                **{f"PhysicalSize{axis}": 0.5 for axis in "XY"},
                "PhysicalSizeZ": 2000,
                "PhysicalSizeZUnit": "nm",
            },
        ),
        (0.5, 2.0),
    ),
    "zarr": (lambda p: write_zarr(p, GREY, "zyx", [2, 0.5, 0.5]), (0.5, 2.0)),
    "times": (
        lambda p: write_zarr(p, GREY[None, None], "tczyx", [1, 1, 2, 0.5, 0.5]),
        (0.5, 2.0),
    ),
    "array": (lambda p: zarr.save_array(p, GREY), None),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_volume_is_cut_and_knows_its_spacing(kind, tmp_path):
    write, size = WRITERS[kind]
    path = tmp_path / ("v.zarr" if kind in ("zarr", "times", "array") else "v.tif")
    write(path)
    volume = open_volume(path)
    assert volume is not None
    found, flat = volume.data, GREY.reshape(-1, SIZE[2])
    assert (found.volume_shape, found.shape, found.dtype) == (SIZE, flat.shape, "u1")
    for rows in (slice(60, 90), slice(25, 97), slice(0, 7), slice(31, 31)):
        np.testing.assert_array_equal(found[rows, 3:8], flat[rows, 3:8])
    np.testing.assert_array_equal(np.asarray(found), flat)
    depth = found.depth_in(volume.unit)
    assert (None if depth is None else (volume.pixel_size, depth)) == size


PLANAR = np.ascontiguousarray(np.moveaxis(RGB, -1, 1))  # (Z, C, Y, X)
ALPHA = np.concatenate([RGB, RGB[..., :1]], -1)
COLOURS = {
    "pages.tif": (lambda p: tifffile.imwrite(p, RGB, photometric="rgb"), RGB),
    "alpha.tif": (lambda p: tifffile.imwrite(p, ALPHA, photometric="rgb"), ALPHA),
    "planar.tif": (
        lambda p: tifffile.imwrite(
            p, PLANAR, photometric="rgb", planarconfig="separate", compression="zlib"
        ),
        RGB,
    ),
    "imagej.tif": (
        lambda p: tifffile.imwrite(p, RGB, imagej=True, metadata={"axes": "ZYXS"}),
        RGB,
    ),
    "last.zarr": (lambda p: write_zarr(p, RGB, "zyxc", [1, 1, 1, 1]), RGB),
    "first.zarr": (
        lambda p: write_zarr(p, PLANAR[None], "tzcyx", [1, 1, 1, 1, 1]),
        RGB,
    ),
    "array.zarr": (lambda p: zarr.save_array(p, ALPHA), ALPHA),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_a_volume_of_colours_is_cut(kind, tmp_path):
    write, wanted = COLOURS[kind]
    write(tmp_path / kind)
    found, flat = open_volume(tmp_path / kind).data, wanted.reshape(150, 40, -1)
    assert (found.volume_shape, found.shape, found.ndim) == (SIZE, flat.shape, 3)
    for rows in (slice(60, 90), slice(25, 97), slice(31, 31)):
        np.testing.assert_array_equal(found[rows, 3:8], flat[rows, 3:8])
    red = found.first_band()
    assert (red.volume_shape, red.shape, red.ndim) == (SIZE, (150, 40), 2)
    np.testing.assert_array_equal(red[25:97, 3:8], flat[25:97, 3:8, 0])


@pytest.mark.parametrize("kind", ["ome.tif", "imagej.tif", "maps.zarr"])
def test_channels_of_a_volume_are_picked_by_name(kind, tmp_path):
    path, names = tmp_path / kind, ["BSE", "Fe", "Si"]
    if kind == "maps.zarr":
        write_zarr(path, np.moveaxis(PLANAR, 1, 0), "czyx", [1, 2, 0.5, 0.5])
        labels = [{"label": name} for name in names]
        zarr.open_group(path).attrs["omero"] = {"channels": labels}
    elif kind == "ome.tif":
        about = {"axes": "ZCYX", "Channel": {"Name": names}}
        tifffile.imwrite(
            path, PLANAR, ome=True, metadata=about, photometric="minisblack"
        )
    else:
        tifffile.imwrite(path, PLANAR, imagej=True, metadata={"axes": "ZCYX"})
        names = ["channel 1", "channel 2", "channel 3"]
    data = open_stack(path, f"{names[2]},{names[0]}", "xyz").data
    assert (data.volume_shape, data.planes) == (SIZE, "xyz")
    np.testing.assert_array_equal(
        data[25:97, 3:8], RGB.reshape(150, 40, 3)[25:97, 3:8, ::-2]
    )
    with pytest.raises(ValueError, match=f"no channel 'Mg'; it has {names[0]}, "):
        open_stack(path, "Mg")
    if kind != "maps.zarr":  # where three channels are colours
        with pytest.raises(ValueError, match=r"15 images .*take together \(--channels"):
            open_stack(path)


def test_context_is_as_wide_as_was_said(tmp_path):
    known, unknown = tmp_path / "v.zarr", tmp_path / "a.zarr"
    write_zarr(known, GREY, "zyx", [2, 0.5, 0.5])
    zarr.save_array(unknown, GREY)
    for planes, width in (
        ("z", 0),
        ("z+3", 3),
        ("xyz+1.5um", 0.75),
        ("z+500 nm", 0.25),
    ):
        data = open_stack(known, planes=planes).data
        assert (data.planes, data.width) == (planes, pytest.approx(width))
    for path, planes in ((known, "z+2apples"), (known, "yx"), (unknown, "z+2um")):
        with pytest.raises(ValueError, match=r"neither z nor xyz"):
            open_stack(path, planes=planes)
    tifffile.imwrite(tmp_path / "i.tif", GREY[0])
    with pytest.raises(ValueError, match="'xyz' is for volumes, and"):
        open_stack(tmp_path / "i.tif", planes="xyz")


@pytest.mark.parametrize("step", [-2.0, 0.0, np.nan, np.inf])
@pytest.mark.parametrize("ending", ["tif", "zarr"])
def test_a_spacing_is_a_length_or_not_known(tmp_path, step, ending):
    path = tmp_path / f"v.{ending}"
    if ending == "zarr":
        write_zarr(path, GREY, "zyx", [step, 0.5, 0.5])
    else:
        about = {"spacing": step, "unit": "um", "axes": "ZYX"}
        tifffile.imwrite(path, GREY, imagej=True, metadata=about, resolution=(2, 2))
    assert open_volume(path).data.depth_in("µm") == (2.0 if step == -2 else None)


def test_labels_of_which_planes_may_be_first_or_last_are_refused(tmp_path):
    path, plain = (
        tmp_path / "labels.tif",
        np.arange(27, dtype=np.uint8).reshape(3, 3, 3),
    )
    image = LazyVolume(path, plain, None)
    tifffile.imwrite(path, plain, photometric="rgb")
    with pytest.raises(ValueError, match="whether planes come first or last"):
        volume_labels(path, image)
    tifffile.imwrite(path, plain, photometric="rgb", planarconfig="separate")
    for _ in range(2):
        np.testing.assert_array_equal(
            volume_labels(path, image).labels, plain.reshape(9, 3)
        )
        tifffile.imwrite(path, plain, photometric="minisblack")
    for shape, how in (((4, 5, 6), "separate"), ((5, 6, 4), "contig")):
        wanted = LazyVolume(path, np.zeros((6, 5, 4)), None)
        labels = np.zeros(shape, np.uint8)
        tifffile.imwrite(path, labels, photometric="rgb", planarconfig=how)
        with pytest.raises(ValueError, match=r"whole numbers of shape \(6, 5, 4\)"):
            volume_labels(path, wanted)
    tifffile.imwrite(path, RGB, photometric="rgb")
    with pytest.raises(ValueError, match=r"is no volume of whole numbers"):
        volume_labels(path, LazyVolume(path, GREY, None))


def test_what_is_no_volume_is_left_to_others(tmp_path):
    path = tmp_path / "i.tif"
    for plane in (GREY[0], GREY[:1]):
        tifffile.imwrite(path, plane, photometric="minisblack")
        assert open_volume(path) is None
    tifffile.imwrite(path, RGB[0], photometric="rgb")
    assert open_volume(path) is None
    tifffile.imwrite(path, np.stack([RGB, RGB]), photometric="rgb")
    assert open_volume(path) is None
    tifffile.imwrite(path, GREY, imagej=True, metadata={"axes": "CYX"})
    assert open_volume(path) is None
    tifffile.imwrite(path, np.stack([GREY, GREY]), metadata={"axes": "TZYX"}, ome=True)
    assert open_volume(path) is None
    path.write_bytes(b"II*\x00 and nothing else")
    assert open_volume(path) is None
    zarr.save_array(tmp_path / "flat.zarr", GREY[0])
    zarr.save_array(tmp_path / "rgb.zarr", RGB[0])
    assert open_volume(tmp_path / "flat.zarr") is None
    assert open_volume(tmp_path / "rgb.zarr") is None
    write_zarr(tmp_path / "c.zarr", GREY, "cyx", [1, 1, 1])
    assert open_volume(tmp_path / "c.zarr") is None


@pytest.mark.parametrize("depth", [2.0, None])
@pytest.mark.parametrize("edge", [30, 1100])
def test_labels_of_a_volume_are_a_layer_with_its_spacing(tmp_path, depth, edge):
    path = tmp_path / "labels.zarr"
    size = (3, edge, 40)
    truth = np.random.default_rng(0).integers(0, 4, size).astype(np.uint8)
    store = LabelStore(path, size, 3, "made from", block=512, is_refined=depth is None)
    for window in store.blocks:
        store.predict(window, truth.reshape(-1, 40)[window])
        store.write(window, store.predicted(window))
    again = LabelStore(path, size, 3, "made from", block=512, is_refined=depth is None)
    assert all(map(again.is_done, store.blocks))
    assert len(store.blocks) == 3 * -(-edge // 512)
    store.finish(LabelClasses({2: "pore"}, {2: "#ff0000"}), 0.5, "µm", depth)
    ((data, about, kind),) = read_layers(str(path))
    levels = data if about.get("multiscale") else [data]
    assert len(levels) == (2 if edge > 1024 else 1)
    np.testing.assert_array_equal(levels[0][:], truth)
    np.testing.assert_array_equal(
        levels[-1][:], truth[:, :: len(levels), :: len(levels)]
    )
    known = (2.0, 0.5, 0.5), ("µm",) * 3
    unknown = (1.0, 1.0, 1.0), ("pixel",) * 3
    assert (about["scale"], about["units"]) == (known if depth else unknown)
    assert (kind, about["features"]["name"]) == ("labels", ["pore"])
