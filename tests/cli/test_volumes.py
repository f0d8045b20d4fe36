"""Volumes on the command line: segmented, gone on with, applied and measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.features.volumes import VolumeFeatures
from napari_hrdv2.files.volumes import open_volume

SIZE = (6, 40, 48)


@pytest.fixture(scope="module")
def truth():
    z, y, x = np.indices(SIZE)
    return np.where((z - 2) ** 2 * 9 + (y - 20) ** 2 + (x - 22) ** 2 < 150, 2, 1)


@pytest.fixture
def stack(truth, tmp_path):
    noise = np.random.default_rng(0).normal(0, 12, SIZE)
    grey = np.clip(truth * 70 + noise, 0, 255).astype(np.uint8)
    path = tmp_path / "stack.tif"
    about = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, grey, imagej=True, metadata=about, resolution=(4, 4))
    return path


@pytest.fixture
def scribbles(truth, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    for z in (1, 3):
        labels[z, 5, 3:30] = labels[z, 35, 9:40] = 1
        labels[z, 19, 17:27] = 2
    path = tmp_path / "scribbles.tif"
    tifffile.imwrite(path, labels, metadata={"axes": "ZYX"})
    return path


def test_labels_of_which_next_to_nothing_is_stored_are_read(tmp_path):
    labels = zarr.create_array(
        tmp_path / "l.zarr", shape=(400, 1024, 1024), chunks=(1, 512, 512), dtype="u1"
    )
    labels[7, 3, 5] = 2
    volume = open_volume(tmp_path / "l.zarr")
    assert np.flatnonzero(volume.data[7 * 1024 : 8 * 1024]).tolist() == [3 * 1024 + 5]


def found_in(path):
    volume = open_volume(path)
    return np.asarray(volume.data).reshape(volume.data.volume_shape), volume


def test_the_memory_told_of_a_volume_is_that_of_a_plane_as_it_is(
    command, stack, scribbles, tmp_path
):
    coarse, how = tmp_path / "coarse.tif", ["-b", "filters", "--json"]
    about = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    grey = tifffile.imread(stack)
    tifffile.imwrite(coarse, grey, imagej=True, metadata=about, resolution=(2, 2))
    alone = command("segment", stack, "-l", scribbles, *how).json["cost"]
    both = command("segment", coarse, stack, *["-l", scribbles] * 2, *how)
    assert both.code == 0, both.err
    assert both.json["cost"] == alone


@pytest.mark.parametrize("planes", ["z", "xyz", "z+2um"])
def test_a_volume_is_segmented_and_its_classifier_applied(
    command, stack, scribbles, truth, tmp_path, planes
):
    kept = tmp_path / "c.safetensors"
    how = ["--planes", planes, "-b", "filters"]
    outcome = command(
        "segment", stack, "-l", scribbles, *how, "--save-classifier", kept, "--json"
    )
    assert outcome.code == 0, outcome.err
    labels, volume = found_in(tmp_path / "stack_segmentation.zarr")
    assert (labels == truth).mean() > 0.97
    size = volume.pixel_size, volume.data.depth_in("nm"), volume.unit
    assert size == (0.25, pytest.approx(2000), "µm")
    fractions = outcome.json["phase_fractions"]
    assert fractions == {str(i): (labels == i).mean() for i in (1, 2)}
    part = PixelClassifier.load(kept).part_options[0]
    assert part.planes == planes
    applied = command(
        "apply", kept, stack, "-o", tmp_path / "out", "--particles", "2", "--json"
    )
    assert applied.code == 0, applied.err
    again, _ = found_in(tmp_path / "out" / "stack_segmentation.zarr")
    assert (again == labels).mean() > 0.999
    table = (tmp_path / "out" / "stack_particles.csv").read_text(encoding="utf-8")
    assert table.startswith(
        "label,volume (µm³),equivalent diameter (µm),surface voxels"
    )
    drawn = command("apply", kept, scribbles, "-o", tmp_path / "drawn")
    told = drawn.err if planes == "z+2um" else drawn.out  # which needs a spacing
    assert ("far apart" if planes == "z+2um" else "trained on its labels") in told
    assert not (tmp_path / "drawn" / "scribbles_segmentation.zarr").exists()
    flat = tmp_path / "plane.tif"
    tifffile.imwrite(flat, tifffile.imread(stack)[2])
    if planes == "z+2um":
        alone = command("apply", kept, flat, "-o", tmp_path / "out")
        assert alone.code != 0
        assert "'z+2um' is for volumes, and" in alone.err


def segmented(command, image, scribbles, *how):
    """Return the labels of a volume, and those of `apply` with its classifier."""
    kept, out = image.with_name("k.safetensors"), image.with_name("applied")
    given = "-l", scribbles, "-b", "filters", "--save-classifier", kept, *how
    for arguments in (("segment", image, *given), ("apply", kept, image, "-o", out)):
        outcome = command(*arguments, "--exclude", "0,0,40,3")
        assert outcome.code == 0, outcome.err
    name = f"{image.stem}_segmentation.zarr"
    return [found_in(folder / name)[0] for folder in (image.parent, out)]


@pytest.mark.parametrize("planes", ["z+1", "xyz"])
def test_a_volume_of_colours_is_segmented_by_them(
    command, scribbles, truth, tmp_path, planes
):
    noise = np.random.default_rng(0).normal(0, 8, (*SIZE, 3))
    colours = np.array([[90, 110, 90], [90, 60, 140]])[truth - 1]  # alike in red
    path = tmp_path / "colours.tif"
    image = np.clip(colours + noise, 0, 255).astype(np.uint8)
    tifffile.imwrite(path, image, photometric="rgb")
    for labels in segmented(command, path, scribbles, "--planes", planes):
        assert (labels[..., :3] == 0).all()
        assert (labels == truth)[..., 3:].mean() > 0.97


def test_colours_that_are_all_grey_are_grey_levels(command, stack, scribbles, tmp_path):
    path = tmp_path / "same.tif"
    tifffile.imwrite(
        path, np.stack([tifffile.imread(stack)] * 3, -1), photometric="rgb"
    )
    wanted = segmented(command, stack, scribbles)
    for labels, grey in zip(segmented(command, path, scribbles), wanted, strict=True):
        np.testing.assert_array_equal(labels, grey)


def test_channels_of_a_volume_are_taken_together(
    command, stack, scribbles, truth, tmp_path
):
    grey = tifffile.imread(stack)
    noise = np.random.default_rng(1).integers(0, 99, SIZE, dtype=np.uint8)
    path, about = tmp_path / "maps.ome.tif", {"Channel": {"Name": ["Ni", "BSE", "Fe"]}}
    data = np.stack([noise, grey, 255 - grey], 1)
    about["axes"] = "ZCYX"
    tifffile.imwrite(path, data, metadata=about, photometric="minisblack")
    how = "--channels", "BSE,Fe", "--planes", "z+1"
    for labels in segmented(command, path, scribbles, *how):
        assert (labels == truth)[..., 3:].mean() > 0.97
    refused = command("segment", path, "-l", scribbles)
    assert "or name those to take together (--channels A,B)" in refused.err


def test_what_does_not_fit_is_told_in_a_sentence(command, stack, scribbles, tmp_path):
    plane, empty = tmp_path / "plane.tif", tmp_path / "empty.tif"
    tifffile.imwrite(plane, tifffile.imread(scribbles)[3])
    tifffile.imwrite(empty, np.zeros(SIZE, np.uint8), metadata={"axes": "ZYX"})
    for labels, option, text in (
        (plane, [], "is no volume of whole numbers of shape (6, 40, 48)"),
        (empty, [], "is labelled; draw two classes"),
        (scribbles, ["--planes", "z+2apples"], "'z+2apples' is neither z nor xyz"),
        (scribbles, ["--planes", "yx"], "'yx' is neither z nor xyz"),
        (scribbles, ["--smoothing", "crf"], "smoothing: crf"),
        (scribbles, ["-o", tmp_path / "x.tif"], "is not a Zarr name"),
        (scribbles, ["-o", tmp_path / "x.ZARR"], "is not a Zarr name"),
    ):
        outcome = command("segment", stack, "-l", labels, "-b", "filters", *option)
        assert outcome.code != 0
        assert text in outcome.err
    outcome = command("segment", plane, "-l", plane, "--planes", "xyz")
    assert "'xyz' is for volumes, and" in outcome.err


@pytest.mark.parametrize("count", [3, 4])
def test_labels_of_few_planes_that_are_tagged_as_colours_are_planes(
    command, stack, scribbles, truth, tmp_path, count
):
    drawn, painted = tifffile.imread(scribbles)[:count], tmp_path / "painted.tif"
    path = tmp_path / "few.tif"
    grey = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(path, tifffile.imread(stack)[:count], **grey)
    made = []
    for how in (None, "separate", "contig"):  # planes first, and last
        data = np.moveaxis(drawn, 0, -1) if how == "contig" else drawn
        tags = {"photometric": "rgb", "planarconfig": how} if how else grey
        tifffile.imwrite(painted, data, **tags)
        assert (open_volume(painted) is None) == bool(how)
        outcome = command("segment", path, "-l", painted, "-b", "filters")
        assert outcome.code == 0, outcome.err
        made.append(found_in(tmp_path / "few_segmentation.zarr")[0])
    assert (made[0] == truth[:count]).mean() > 0.97
    np.testing.assert_array_equal(made[1], made[0])
    np.testing.assert_array_equal(made[2], made[0])


def test_slices_that_have_no_room_on_the_disk_are_not_begun(
    command, stack, scribbles, monkeypatch
):
    free = SimpleNamespace(free=8 * int(np.prod(SIZE)) - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    given = "segment", stack, "-l", scribbles, "-b", "filters", "--planes"
    outcome = command(*given, "xyz")
    assert outcome.code != 0
    assert "slices across the planes need up to" in outcome.err
    assert command(*given, "z").code == 0
    free.free += 1
    assert command(*given, "xyz").code == 0


def test_a_context_of_many_classes_is_refused_before_training(
    command, stack, scribbles, tmp_path, monkeypatch
):
    labels, kept = tifffile.imread(scribbles), tmp_path / "c.safetensors"
    labels[3, 30, 9:40] = 3
    tifffile.imwrite(tmp_path / "three.tif", labels, metadata={"axes": "ZYX"})
    how = "-b", "filters", "--planes", "z+1", "--save-classifier", kept
    given = "segment", stack, "-l", tmp_path / "three.tif", *how
    assert command(*given).code == 0
    monkeypatch.setattr(
        "napari_hrdv2.core.features.volumes.available_memory",
        lambda device: 10 * 8 * SIZE[1] * SIZE[2] - 1,  # 5 planes of 2 of 3 classes
    )
    for name in ("cli.shared.train", "session.batch.streaming.open_blocks"):
        monkeypatch.setattr(f"napari_hrdv2.{name}", None)  # which are not called
    for arguments in (given, ("apply", kept, stack, "-o", tmp_path / "out")):
        outcome = command(*arguments)
        assert outcome.code != 0
        assert "planes: z+1 keeps 0.0 GB of slices in memory" in outcome.err


def test_what_is_excluded_or_missing_has_no_class(command, stack, scribbles, tmp_path):
    grey = tifffile.imread(stack).astype(np.float32)
    grey[2, 5:9, 5:9], grey[5] = np.nan, np.nan
    path = tmp_path / "holes.tif"
    tifffile.imwrite(path, grey, metadata={"axes": "ZYX"})
    how = ["-l", scribbles, "-b", "filters", "--exclude", "30,0,40,48"]
    outcome = command("segment", path, *how)
    assert outcome.code == 0, outcome.err
    labels, _ = found_in(tmp_path / "holes_segmentation.zarr")
    wanted = np.isnan(grey)
    wanted[:, 30:] = True
    np.testing.assert_array_equal(labels == 0, wanted)


@pytest.mark.parametrize("planes", ["z", "xyz"])
def test_what_was_ended_is_gone_on_with_to_the_same_bytes(
    command, stack, scribbles, tmp_path, planes, monkeypatch
):
    how = ["segment", stack, "-l", scribbles, "-b", "filters", "--min-object", "3"]
    how += ["--planes", f"{planes}+1"]
    assert command(*how, "-o", tmp_path / "whole.zarr").code == 0
    made = VolumeFeatures.slice_features
    for calls in (40, 80):  # slices that are computed before the end
        left = [calls]

        def ending(self, *where, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return made(self, *where)

        monkeypatch.setattr(VolumeFeatures, "slice_features", ending)
        command(*how, "-o", tmp_path / "parts.zarr")
    monkeypatch.setattr(VolumeFeatures, "slice_features", made)
    outcome = command(*how, "-o", tmp_path / "parts.zarr", "--json")
    assert outcome.code == 0, outcome.err
    files = [p for p in (tmp_path / "whole.zarr").rglob("*") if p.is_file()]
    for path in files:
        other = tmp_path / "parts.zarr" / path.relative_to(tmp_path / "whole.zarr")
        if path.name != ".zattrs":  # has its name
            assert other.read_bytes() == path.read_bytes()
    assert not (tmp_path / "parts.zarr.unfinished").exists()
    assert zarr.open_group(tmp_path / "whole.zarr", mode="r")["0"].chunks[0] == 1
