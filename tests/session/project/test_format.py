"""A project comes back as it was, elsewhere too, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.files import read_label_classes, read_labels
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project import store as store_module
from napari_hrdv2.session.project.store import (
    load_project,
    project_summary,
    save_project,
)
from saved_projects import entry, grey, killed, project
from synthetic import striped_features, strokes


def rewritten(path, changes):
    """Replace members of a project, or leave them out where the content is None."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **changes}.items():
            if content is not None:
                archive.writestr(name, content)


def described(path, **changes):
    """Change what the description says."""
    with zipfile.ZipFile(path) as archive:
        found = json.loads(archive.read("project.json"))
    rewritten(path, {"project.json": json.dumps({**found, **changes})})


@pytest.fixture
def path(tmp_path):
    images = entry("a"), entry("b", image=grey((9, 5), seed=1))
    return save_project(project(*images, current=PlaneKey("b")), tmp_path / "alloy")


def test_everything_comes_back(tmp_path):
    exclusion = np.zeros((7, 11), bool)
    exclusion[5:] = True
    former = project(
        entry("a", exclusion=exclusion, trains=False, plane={"Z": 3, "T": 0}),
        options=FeatureOptions("filters", value_range=(0.5, 2), stride=7),
        refinement={"smooth": 2.5, "fill": [1, "all"], "off": None},
        current=PlaneKey("a"),
    )
    path = save_project(former, tmp_path / "alloy.hrdv2")
    found = load_project(path)
    for name in ("classes", "options", "refinement", "current"):
        assert getattr(found, name) == getattr(former, name)
    (before,), (after,) = former.images, found.images
    for name in ("key", "name", "plane", "shape", "image_fingerprint", "pixel_size"):
        assert getattr(after, name) == getattr(before, name)
    assert not after.trains
    for name in ("scribbles", "exclusion", "image"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1), "u1"),
        ((7, 11), "u2"),
        ((7, 11), ">u2"),
        ((7, 11), "?"),
        ((7, 11), "f4"),
        ((7, 11, 3), "u1"),
        ((7, 11, 4), "u2"),
        ((5, 7, 11), "f8"),
    ],
)
def test_images_of_any_kind_come_back_exactly(tmp_path, shape, dtype):
    image = grey(shape, dtype)
    plane = shape[-2:] if shape[0] == 5 else shape[:2]
    path = save_project(project(entry(image=image, shape=plane)), tmp_path / "x")
    found = load_project(path).images[0].image
    np.testing.assert_array_equal(found, image)
    assert found.dtype == image.dtype.newbyteorder("=")


def test_infinite_and_missing_grey_levels_come_back(tmp_path):
    image = np.array([[np.nan, np.inf, -0.0, 1.0]], np.float32)
    path = save_project(project(entry(image=image)), tmp_path / "x")
    np.testing.assert_array_equal(load_project(path).images[0].image, image)


@pytest.mark.parametrize(("dtype", "label"), [("i8", 7000), ("u1", 1), ("i4", 70000)])
def test_labels_keep_their_type(tmp_path, dtype, label):
    labels = np.zeros((7, 11), dtype)
    labels[2, 3:] = label
    path = save_project(project(entry(scribbles=labels)), tmp_path / "x")
    found = load_project(path).images[0].scribbles
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == labels.dtype


def test_a_trained_classifier_predicts_the_same_after_it(tmp_path):
    features = striped_features()
    classifier = PixelClassifier().fit(features, strokes(3, 70))
    path = save_project(project(classifier=classifier), tmp_path / "x")
    found = load_project(path).classifier
    np.testing.assert_array_equal(found.predict(features), classifier.predict(features))


def test_an_untrained_classifier_and_no_images_are_a_project_too(tmp_path):
    path = save_project(project(classifier=PixelClassifier()), tmp_path / "x")
    found = load_project(path)
    assert found.classifier is None
    assert found.images == ()


def test_an_image_with_nothing_on_it_comes_back(tmp_path):
    bare = entry(scribbles=None, image=grey(), pixel_size=None)
    found = load_project(save_project(project(bare), tmp_path / "x")).images[0]
    assert found.scribbles is None
    assert found.pixel_size is None
    assert found.labelled_pixels == 0


def test_images_keep_their_order(tmp_path):
    many = [entry(str(n), n % 5, image=grey((3, 4 + n))) for n in range(12)]
    found = load_project(save_project(project(*many), tmp_path / "x"))
    assert [p.key for p in found.images] == [p.key for p in many]
    assert [p.labelled_pixels for p in found.images] == [n % 5 for n in range(12)]


def test_a_person_can_read_the_file_without_us(path, tmp_path):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "by-hand")
    labels = tmp_path / "by-hand" / "scribbles" / "1.tif"
    assert read_labels(labels)[0, :4].tolist() == [7, 7, 7, 0]
    assert read_label_classes(labels).names == {1: "Grain boundary γ′", 7: "pore"}
    assert (tifffile.imread(tmp_path / "by-hand/image/1.tif") == grey()).all()
    said = json.loads((tmp_path / "by-hand/project.json").read_text("utf-8"))
    assert said["classes"]["7"] == {"name": "pore", "color": "#56b4e9"}


def test_what_was_painted_comes_before_the_images(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert names[0] == "project.json"
    assert [name.split("/")[0] for name in names[1:]] == ["scribbles"] * 2 + [
        "image"
    ] * 2


def test_an_excluded_region_is_white_to_the_eye(tmp_path):
    exclusion = np.eye(7, 11, dtype=bool)
    path = save_project(project(entry(exclusion=exclusion)), tmp_path / "x")
    with zipfile.ZipFile(path) as archive, archive.open("exclusion/1.tif") as file:
        assert tifffile.imread(file).max() == 255


@pytest.mark.parametrize("dtype", ["i8", "u1", "?", ">i4"])
def test_given_regions_come_back_with_their_name(tmp_path, dtype):
    regions = (np.arange(77).reshape(7, 11) // 5 % 2 * 99).astype(dtype)
    given = entry(partition=regions, partition_name="grains γ")
    path = save_project(project(given), tmp_path / "x")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert names.index("partition/1.tif") < names.index("image/1.tif")
    found = load_project(path).images[0]
    np.testing.assert_array_equal(found.partition, regions)
    assert found.partition.dtype == regions.dtype.newbyteorder("=")
    assert found.partition_name == "grains γ"
    assert project_summary(path).has_more


def test_a_project_of_before_there_were_regions_opens(path):
    with zipfile.ZipFile(path) as archive:
        entries = json.loads(archive.read("project.json"))["images"]
    for one in entries:
        del one["partition"], one["partition_name"]
    described(path, images=entries)
    found = load_project(path).images
    assert [(p.partition, p.partition_name) for p in found] == [(None, "")] * 2
    assert [p.labelled_pixels for p in found] == [3, 3]


def test_the_suffix_is_added_but_never_twice(tmp_path):
    assert save_project(project(), tmp_path / "a.2024").name == "a.2024.hrdv2"
    assert save_project(project(), tmp_path / "a.HRDV2").name == "a.HRDV2"


def test_a_project_that_moved_with_its_images_finds_them(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "scans").mkdir(parents=True)
    tifffile.imwrite(here / "scans" / "a.tif", grey())
    source = str(here / "scans" / "a.tif")
    save_project(project(entry(source=source)), here / "x", with_images=False)
    shutil.move(here, there)
    found = load_project(there / "x.hrdv2")
    assert found.images[0].image is None
    assert found.images[0].source == str(there / "scans" / "a.tif")


def test_a_project_that_moved_alone_finds_the_images_where_they_were(tmp_path):
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, grey())
    saved = save_project(
        project(entry(source=str(image))), tmp_path / "x", with_images=False
    )
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    moved = shutil.move(saved, tmp_path / "elsewhere" / "deep" / "x.hrdv2")
    assert load_project(moved).images[0].source == str(image)


def test_an_image_beside_the_project_is_found_whatever_machine_it_is_from(tmp_path):
    path = save_project(project(entry()), tmp_path / "x", with_images=False)
    with zipfile.ZipFile(path) as archive:
        entries = json.loads(archive.read("project.json"))["images"]
    entries[0]["source"] = {"absolute": "D:\\scans\\a.tif", "relative": "../no/a.tif"}
    described(path, images=entries)
    assert load_project(path).images[0].source == "D:\\scans\\a.tif"
    tifffile.imwrite(tmp_path / "a.tif", grey())
    assert load_project(path).images[0].source == str(tmp_path / "a.tif")


def test_images_that_are_nowhere_cost_nothing_else(tmp_path):
    images = (
        entry("gone", source=str(tmp_path / "gone.tif")),
        entry("web", source="https://example.org/a.zarr"),
        entry("nowhere"),
    )
    path = save_project(project(*images), tmp_path / "x", with_images=False)
    found = load_project(path)
    assert [p.source for p in found.images] == [p.source for p in images]
    assert [p.image for p in found.images] == [None, None, None]
    assert [p.labelled_pixels for p in found.images] == [3, 3, 3]


def test_the_summary_reads_no_arrays(path):
    rewritten(path, {"scribbles/1.tif": b"", "image/2.tif": None})
    found = project_summary(path)
    assert [one.name for one in found.images] == ["a.tif", "b.tif"]
    assert [one.name for one in found.classes.values()] == ["Grain boundary γ′", "pore"]
    assert list(found.labelled_pixels.values()) == [3, 3]
    assert found.saved_at.tzinfo is not None
    assert not found.has_more


def test_saving_again_replaces_the_former_whole(path):
    save_project(project(entry("c", 5)), path)
    assert [str(p.key) for p in load_project(path).images] == ["c"]
    assert os.listdir(path.parent) == ["alloy.hrdv2"]


def test_a_file_that_does_not_read_back_never_replaces_one_that_does(path, monkeypatch):
    before = path.read_bytes()

    def write_badly(project, temporary, folder):
        content = bytearray(before)
        at = content.index(b"scribbles/1.tif") + 40
        content[at] ^= 1
        temporary.write_bytes(bytes(content))

    monkeypatch.setattr(store_module, "write_archive", write_badly)
    with pytest.raises(OSError, match="scribbles/1.tif does not read back.*untouched"):
        save_project(project(), path)
    assert path.read_bytes() == before


def test_a_full_disk_costs_nothing(path, monkeypatch):
    before = path.read_bytes()

    def fill(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_archive", fill)
    with pytest.raises(OSError, match=r"alloy.hrdv2 could not be written: No space"):
        save_project(project(), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scribbles": np.zeros((3, 3), int)}, r"scribbles: int64 of shape \(3, 3\)"),
        ({"scribbles": np.zeros((7, 11))}, "scribbles: float64"),
        ({"scribbles": np.full((7, 11), -1)}, "labels: -1 is not an id"),
        ({"exclusion": np.zeros((7, 11), int)}, "exclusion: int64"),
        ({"partition": np.zeros((7, 11))}, "partition: float64"),
        ({"partition": np.zeros((3, 3), int)}, r"partition: int64 of shape"),
        ({"image": np.zeros((7, 0))}, "image: float64 .* does not fit image"),
    ],
)
def test_what_does_not_fit_is_named_and_the_old_file_kept(path, wrong, words):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        save_project(project(replace(entry(), **wrong)), path)
    assert path.read_bytes() == before


def test_keys_must_differ(tmp_path):
    with pytest.raises(ValueError, match="key 'a' is used twice"):
        save_project(project(entry("a"), entry("a")), tmp_path / "x")


def test_numbers_of_numpy_and_paths_are_plain_enough(tmp_path):
    refinement = {"radius": np.float32(2.5), "ids": np.arange(2), "at": Path("x")}
    path = save_project(project(refinement=refinement), tmp_path / "x")
    found = load_project(path).refinement
    assert found == {"radius": 2.5, "ids": [0, 1], "at": "x"}


def test_what_json_does_not_know_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not plain JSON; refinement takes"):
        save_project(project(refinement={"x": {1, 2}}), tmp_path / "x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*gone"):
        load_project(tmp_path / "gone.hrdv2")


@pytest.mark.parametrize("content", [b"", b"II*\x00 a picture", b"PK\x03\x04 cut"])
def test_other_files_are_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "x.hrdv2").write_bytes(content)
    with pytest.raises(ValueError, match="x.hrdv2 is not a project .* cut short"):
        load_project(tmp_path / "x.hrdv2")


def test_other_zip_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.hrdv2", "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(ValueError, match="x.hrdv2 is not a project of napari-hrdv2$"):
        load_project(tmp_path / "x.hrdv2")


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [
        ([0, 11], 1.0, r"shape\[0\] is 0; it should be greater"),
        ([7, 11], 0, "pixel_size"),
    ],
)
def test_images_and_pixels_of_no_size_are_refused(path, shape, size, words):
    with zipfile.ZipFile(path) as archive:
        entries = json.loads(archive.read("project.json"))["images"]
    entries[0] |= {"shape": shape, "pixel_size": [size, "nm"]}
    described(path, images=entries)
    with pytest.raises(ValueError, match=f"damaged: .*images.0..{words}"):
        load_project(path)


@pytest.mark.parametrize(
    ("stride", "pixels"), [("auto", None), ("half", 7), ("3", 3), ("odd", None)]
)
def test_strides_of_version_1_were_words(path, stride, pixels):
    options = {"backbone": "dinov2-small", "stride": stride}
    described(path, version=1, options=options)
    opened = load_project(path).options
    made = FeatureOptions("dinov2-small", "published", interpolation="bilinear")
    assert opened == replace(made, stride=pixels)


def test_auto_of_former_versions_means_what_it_meant(path):
    for version in (1, 2):
        described(path, version=version, options={"backbone": "dinov2-small"})
        opened = load_project(path).options
        assert opened.transform_sets == ("shift:1,2",)
        assert opened.upsampling == "bilinear"
        described(path, version=version, options={"transforms": "flip", "stride": 2})
        opened = load_project(path).options
        assert (opened.transforms, opened.stride) == ("flip", 2)
    described(path, version=3, options={"backbone": "dinov2-small"})
    opened = load_project(path).options
    assert opened.transform_sets == ("lattice:2",)
    assert opened.upsampling == "bilateral"


def test_a_file_of_version_1_opens_with_its_keys(path):
    with zipfile.ZipFile(path) as archive:
        said = json.loads(archive.read("project.json"))
    for one in said["images"]:
        one["image_digest"] = one.pop("image_fingerprint")
        one["strokes"] = one.pop("labelled_pixels")
        one["excluded"] = one.pop("exclusion")
    said["pictures"], said["settings"] = said.pop("images"), said.pop("options")
    rewritten(path, {"project.json": json.dumps({**said, "version": 1})})
    assert [p.labelled_pixels for p in load_project(path).images] == [3, 3]
    assert list(project_summary(path).labelled_pixels.values()) == [3, 3]


def test_a_newer_format_is_refused_in_one_sentence(path):
    described(path, version=4, images="of another kind")
    with pytest.raises(ValueError, match="has format 4; .* reads up to 3, a newer one"):
        load_project(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mood": "good"}, "mood is unknown to version 3 of the format"),
        ({"options": {"speed": 3}}, "options.speed is unknown"),
        ({"pictures": []}, "pictures is unknown"),
        ({"cls": 1}, "cls is unknown"),
        ({"options": {"stride": "half"}}, "stride is 'half'; it should be a valid int"),
        ({"options": {"value_range": [1]}}, r"options.value_range\[1\] is missing"),
        ({"classes": {"one": {}}}, "classes.one.* is 'one'; it should be a valid int"),
        ({"classes": {"1": {"name": "x"}}}, r"classes.1.color is missing"),
        (
            {"classes": {"1": {"name": "x", "color": "red"}}},
            "color is 'red'; it should",
        ),
        ({"refinement": []}, r"refinement is \[\]; it should be a valid dict"),
        ({"version": None}, "version is None; it should be a valid integer"),
        ({"images": [{"key": "a"}]}, r"images\[0\].name is missing"),
        ({"saved_at": "soon"}, "saved_at is 'soon'; it should be a valid datetime"),
        ({"classifier": "../secret"}, r"../secret is missing"),
    ],
)
def test_a_damaged_description_is_told_by_its_field(path, changes, words):
    described(path, **changes)
    with pytest.raises(ValueError, match=f"alloy.hrdv2 is damaged: .*{words}"):
        load_project(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scribbles/1.tif": None}, "scribbles/1.tif is missing"),
        ({"scribbles/2.tif": b"II*\x00"}, "scribbles/2.tif is damaged"),
        ({"image/1.tif": b"nothing"}, "image/1.tif is damaged"),
        ({"project.json": b"{"}, "project.json is no JSON"),
        ({"project.json": b"\xff{}"}, "project.json is no JSON"),
        ({"project.json": b"[]"}, "project.json is not an object"),
    ],
)
def test_a_damaged_part_is_told_by_its_name(path, changes, words):
    rewritten(path, changes)
    with pytest.raises(ValueError, match=f"alloy.hrdv2 is damaged: {words}"):
        load_project(path)


def test_a_flipped_bit_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"image/1.tif") + 100] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="image/1.tif is damaged: Bad CRC"):
        load_project(path)


def test_a_damaged_classifier_is_told_without_a_temporary_path(tmp_path):
    classifier = PixelClassifier().fit(striped_features(), strokes(3, 70))
    path = save_project(project(classifier=classifier), tmp_path / "x")
    rewritten(path, {"classifier.safetensors": b"broken"})
    with pytest.raises(ValueError, match="damaged: classifier: classifier.safetensors"):
        load_project(path)


def test_labels_of_another_size_are_refused_before_they_are_read(path):
    with zipfile.ZipFile(path) as archive:
        other = archive.read("scribbles/2.tif")
    rewritten(path, {"scribbles/1.tif": other})
    with pytest.raises(ValueError, match="45 values do not fit the shape"):
        load_project(path)


def test_a_bomb_is_refused_before_it_is_unpacked(path):
    with zipfile.ZipFile(path) as archive:
        entries = json.loads(archive.read("project.json"))["images"]
    side = 2**20
    entries[0]["shape"] = entries[0]["scribbles"]["shape"] = [side, side]
    described(path, images=entries)
    header = struct.pack("<2sHI", b"II", 42, 8)  # a TIFF of one empty strip
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 0)]
    tags += [(277, 1), (278, side), (279, 0)]
    tiff = header + struct.pack("<H", len(tags))
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags)
    rewritten(path, {"scribbles/1.tif": tiff + bytes(4)})
    with pytest.raises(ValueError, match="scribbles/1.tif is damaged.*do not fit"):
        load_project(path)


def test_a_current_image_that_is_not_there_is_none(path):
    described(path, current="z")
    assert load_project(path).current is None


def test_class_zero_and_high_ids_come_back(tmp_path):
    classes = {0: ClassInfo("none", "#000000"), 7000: ClassInfo("", "#ffffff")}
    path = save_project(project(classes=classes), tmp_path / "x")
    assert load_project(path).classes == classes


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_thirty_moments_a_project_opens_with_every_saved_scribble():
    found = killed("project")
    assert found["losses"] == []
    assert found["kills"] == 30
    assert found["saves"] > 30
    assert found["in_the_middle"] > 10  # else nothing was tried


def test_both_sides_of_pixels_that_are_not_square_are_kept(tmp_path):
    size = ((0.5, 0.25), "µm")
    path = save_project(project(entry("a", pixel_size=size)), tmp_path / "alloy")
    assert load_project(path).images[0].pixel_size == size
