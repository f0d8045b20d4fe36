"""Runs over folders as they are after work: results, hidden and odd files, databars."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.files import (
    open_image,
    read_image,
    read_labels,
    write_color_png,
    write_labels,
)

SEGMENT = ("-b", "filters")


@pytest.fixture
def classifier(command, image: Path, labels: Path, tmp_path: Path) -> Path:
    path = tmp_path / "alloy.safetensors"
    options = [*SEGMENT, "--out", tmp_path / "first.tif", "--save-classifier", path]
    assert command("segment", image, "-l", labels, *options).code == 0
    return path


@pytest.fixture
def folder(another_image, tmp_path: Path) -> Path:
    """Three micrographs."""
    folder = tmp_path / "series"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        another_image(folder / f"{name}.tif", seed=seed)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# One file that cannot be read, whatever it raises.


@pytest.mark.parametrize(
    "error", [IndexError("7"), KeyError("a"), RuntimeError("codec"), RecursionError()]
)
def test_whatever_one_file_raises_is_its_sentence(
    command, classifier: Path, folder: Path, tmp_path: Path, monkeypatch, error
) -> None:
    def read(path: Path, *channels: str):
        if path.name == "b.tif":
            raise error
        return open_image(path, *channels)

    monkeypatch.setattr("napari_hrdv2.files.open_image", read)
    outcome = command("apply", classifier, folder, "-o", tmp_path / "o", "--json")
    assert outcome.code == 1
    assert [Path(one["image"]).name for one in outcome.json["images"]] == [
        "a.tif",
        "c.tif",
    ]
    (failed,) = outcome.json["failed"]
    assert failed["error"].startswith(f"{folder / 'b.tif'}: it cannot be done: ")
    assert type(error).__name__ in failed["error"]
    assert outcome.err.endswith("1 of 3 images could not be segmented\n")
    assert "Traceback" not in outcome.err
    table = (tmp_path / "o" / "phase_fractions.csv").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 3


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_are_listed(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"\xff\xfe.tif")
    (folder / "b.tif").rename(folder / odd)
    outcome = command("apply", classifier, folder, "-o", tmp_path / "o")
    assert outcome.code == 0, outcome.err
    table = (tmp_path / "o" / "phase_fractions.csv").read_text(encoding="utf-8")
    assert "\\udcff\\udcfe.tif" in table


def test_half_a_character_in_a_class_name_costs_no_result(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    trained = PixelClassifier.load(classifier)
    trained.class_names = {1: "dark \ud800", 3: "light"}
    trained.save(classifier)
    outcome = command("apply", classifier, folder, "-o", tmp_path / "o")
    assert outcome.code == 0, outcome.err
    table = (tmp_path / "o" / "phase_fractions.csv").read_text(encoding="utf-8")
    assert table.splitlines()[0].startswith("image,segmentation,dark ")
    assert len(table.splitlines()) == 4


# What lies in folders.


def test_a_second_run_over_a_folder_does_the_same_as_the_first(
    command, classifier: Path, folder: Path
) -> None:
    first = command("apply", classifier, folder, "-o", folder)
    assert first.code == 0, first.err
    names = sorted(contents(folder))
    assert len(names) == 3 * 3 + 2  # the table and the log
    outcome = command("apply", classifier, folder, "-o", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert sorted(contents(folder)) == names
    assert len(outcome.json["images"]) == 3
    assert outcome.json["left_out"] == {"hidden": 0, "results": 6, "scribbles": 0}
    assert "6 files were left out: 6 written by napari-hrdv2" in outcome.err


def test_a_shell_s_pattern_is_as_the_folder(
    command, classifier: Path, folder: Path
) -> None:
    command("apply", classifier, folder, "-o", folder)
    names = sorted(contents(folder))
    outcome = command("apply", classifier, *folder.glob("*.tif"), "-o", folder)
    assert outcome.code == 0, outcome.err
    assert sorted(contents(folder)) == names


def test_hidden_files_are_no_micrographs(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "._a.tif").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    shutil.copy(folder / "a.tif", folder / ".a-0123456789abcdef.tif")
    outcome = command("apply", classifier, folder, "-o", tmp_path / "o", "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.json["images"]) == 3
    assert outcome.json["left_out"]["hidden"] == 2


def test_the_scribbles_that_were_trained_on_are_no_micrograph(
    command, classifier: Path, folder: Path, labels: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(folder / "a_strokes.tif", read_labels(labels).astype(np.uint16))
    outcome = command("apply", classifier, folder, "-o", tmp_path / "o", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["left_out"]["scribbles"] == 1
    assert not (tmp_path / "o" / "a_strokes_segmentation.tif").exists()
    assert "a_strokes.tif was left out" in outcome.err


def test_scribbles_of_several_images_are_no_micrographs(
    command, folder: Path, labels: Path, tmp_path: Path
) -> None:
    names = sorted(path.name for path in folder.glob("*.tif"))[:2]
    drawn = read_labels(labels).astype(np.uint8)
    given: list[object] = []
    for name, each in zip(names, (drawn, drawn[::-1]), strict=True):
        path = folder / f"{Path(name).stem}_scribbles.tif"
        tifffile.imwrite(path, each)
        given += ["-l", path]
    both = tmp_path / "both.safetensors"
    images = [folder / name for name in names]
    out = ["-b", "filters", "--save-classifier", both]
    outcome = command("segment", *images, *given, *out)
    assert outcome.code == 0, outcome.err
    outcome = command("apply", both, folder, "-o", tmp_path / "o", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["left_out"]["scribbles"] == 2
    assert "nothing but labels of the classifier's classes" in outcome.err


def test_results_of_0_1_0_whose_pngs_have_no_mark_are_left_out(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    labels = np.ones((9, 9), np.uint8)
    for tif, png in (("x.tif", "x.png"), ("y_labels.tif", "y_colors.png")):
        write_labels(folder / tif, labels)
        write_color_png(folder / png, labels, {1: "#ff0000"})
        with Image.open(folder / png) as picture:
            picture.load()
        picture.info.clear()
        picture.save(folder / png)
        assert b"Software" not in (folder / png).read_bytes()
    outcome = command("apply", classifier, folder, "-o", tmp_path / "o", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["left_out"]["results"] == 4


def test_a_folder_of_results_alone_says_so(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    command("apply", classifier, folder, "-o", tmp_path / "o")
    outcome = command("apply", classifier, tmp_path / "o", "-o", tmp_path / "p")
    assert outcome.code == 1
    assert "no images in there (6 files were left out" in outcome.err


def test_a_micrograph_twice_is_done_once(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    files = folder, folder / "a.tif", folder / "." / "b.tif"
    outcome = command("apply", classifier, *files, "-o", tmp_path / "o", "--json")
    assert [Path(one["image"]).name for one in outcome.json["images"]] == [
        f"{name}.tif" for name in "abc"
    ]


# What nobody named is not replaced.


def test_no_result_replaces_a_file_of_others(
    command, classifier: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    out.mkdir()
    for name in ("a_segmentation.png", "b_segmentation.tif", "phase_fractions.csv"):
        (out / name).write_text("mine")
    first = None
    for _ in range(2):
        outcome = command("apply", classifier, folder, "-o", out, "--json")
        assert outcome.code == 0, outcome.err
        written = [Path(one["outputs"][0]).name for one in outcome.json["images"]]
        assert written == [f"{x}_segmentation.tif" for x in ("a_2", "b_2", "c")]
        assert (out / "phase_fractions_2.csv").is_file()
        names = sorted(contents(out))
        assert names == (first or names)
        first = names
    kept = [name for name, content in contents(out).items() if content == b"mine"]
    assert kept == ["a_segmentation.png", "b_segmentation.tif", "phase_fractions.csv"]


@pytest.mark.parametrize(
    ("mine", "option"),
    [("phases.png", ["-o", "phases.tif"]), ("alloy_segmentation.tif", [])],
)
def test_segment_replaces_nothing_that_was_not_named(
    command, image: Path, labels: Path, monkeypatch, mine, option
) -> None:
    monkeypatch.chdir(image.parent)
    Path(mine).write_text("mine")
    arguments = ["segment", image, "-l", labels, *SEGMENT, *option]
    outcome = command(*arguments)
    assert outcome.code == 1
    assert f"{mine}, which goes with it, would replace a file" in outcome.err
    assert Path(mine).read_text() == "mine"
    Path(mine).unlink()
    assert command(*arguments).code == 0
    assert command(*arguments).code == 0  # what it wrote itself is replaced


def test_the_demo_replaces_nothing_of_others(command, tmp_path: Path) -> None:
    (tmp_path / "segmentation.png").write_text("mine")
    outcome = command("demo", "-o", tmp_path, *SEGMENT)
    assert outcome.code == 1
    assert "segmentation.png would be replaced" in outcome.err
    assert (tmp_path / "segmentation.png").read_text() == "mine"
    (tmp_path / "segmentation.png").unlink()
    assert command("demo", "-o", tmp_path, *SEGMENT).code == 0
    assert command("demo", "-o", tmp_path, *SEGMENT).code == 0


# Grey stored as colours.


@pytest.mark.parametrize("alpha", [False, True])
def test_grey_stored_as_colours_is_grey(
    command, classifier: Path, image: Path, labels: Path, tmp_path: Path, alpha
) -> None:
    grey = read_image(image).data
    bands = [grey] * 3 + [np.full_like(grey, 255)] * alpha
    Image.fromarray(np.dstack(bands)).save(tmp_path / "rgb.png")
    out = tmp_path / "o"
    outcome = command("apply", classifier, image, tmp_path / "rgb.png", "-o", out)
    assert outcome.code == 0, outcome.err
    found = [read_labels(out / f"{x}_segmentation.tif") for x in ("alloy", "rgb")]
    np.testing.assert_array_equal(*found)
    kept = tmp_path / "rgb.safetensors"
    outcome = command(
        *("segment", tmp_path / "rgb.png", "-l", labels, *SEGMENT),
        *("--save-classifier", kept, "-o", tmp_path / "out.tif"),
    )
    assert outcome.code == 0, outcome.err
    np.testing.assert_array_equal(
        read_labels(tmp_path / "out.tif"), read_labels(tmp_path / "first.tif")
    )
    assert PixelClassifier.load(kept).part_options[0].channels == (
        PixelClassifier.load(classifier).part_options[0].channels
    )


def test_a_classifier_of_colours_still_reads_an_image_without_any(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    grey = read_image(image).data
    red = np.dstack([grey, grey // 2, grey // 3])
    Image.fromarray(red).save(tmp_path / "red.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "pale.png")
    kept = tmp_path / "red.safetensors"
    options = [*SEGMENT, "--save-classifier", kept]
    assert command("segment", tmp_path / "red.png", "-l", labels, *options).code == 0
    outcome = command("apply", kept, tmp_path / "pale.png", "-o", tmp_path / "o")
    assert outcome.code == 0, outcome.err


# Another magnification.


def test_another_magnification_is_told(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    grey = read_image(image).data
    noise = np.random.default_rng(1).normal(0, 40, grey.shape)
    grey = (grey + noise).clip(0, 255).astype(np.uint8)
    for name, size in (("same", 4), ("near", 3), ("far", 2), ("fine", 40)):
        tifffile.imwrite(
            tmp_path / f"{name}.tif",
            grey,
            imagej=True,
            resolution=(size, size),
            metadata={"unit": "um"},
        )
    tifffile.imwrite(tmp_path / "unknown.tif", grey)
    files = [tmp_path / f"{x}.tif" for x in ("same", "near", "far", "fine", "unknown")]
    outcome = command("apply", classifier, *files, "-o", tmp_path / "o", "--json")
    assert outcome.code == 0
    notes = {Path(one["image"]).stem: one["notes"] for one in outcome.json["images"]}
    assert [n for n, told in notes.items() if told] == [
        "near",
        "far",
        "fine",
        "unknown",
    ]
    assert notes["far"][0].endswith(
        "2 times as large as those of the training (0.5 µm, 0.25 µm), and it was "
        "resampled to them."
    )
    assert "resampled" in notes["near"][0]
    assert notes["fine"][0].endswith(
        "smaller than those of the training (0.025 µm, 0.25 µm)."
    )
    assert "not known" in notes["unknown"][0]
    assert f"warning: {notes['far'][0]}" in outcome.err
    as_they_are = [tmp_path / "p", "--no-resample", "--json"]
    other = command("apply", classifier, *files, "-o", *as_they_are)
    notes = {Path(one["image"]).stem: one["notes"] for one in other.json["images"]}
    assert [name for name, told in notes.items() if told] == ["far", "fine"]
    results = [
        read_image(tmp_path / out / f"{name}_segmentation.tif").data
        for name in ("same", "far")
        for out in ("o", "p")
    ]
    assert (results[0] == results[1]).all()
    assert (results[1] == results[3]).all()
    assert results[2].shape == grey.shape
    assert (results[2] != results[3]).any()


def test_a_pixel_size_is_given_by_hand(
    command, classifier: Path, image: Path, labels: Path, tmp_path: Path
) -> None:
    options = ["--pixel-size", "500 nm"]
    outcome = command("apply", classifier, image, "-o", tmp_path / "o", *options)
    assert "2 times as large as" in outcome.err
    written = read_image(tmp_path / "o" / "alloy_segmentation.tif")
    assert (written.pixel_size, written.unit) == (500.0, "nm")
    kept = tmp_path / "k.safetensors"
    arguments = ["segment", image, "-l", labels, *SEGMENT, *options]
    outcome = command(*arguments, "--save-classifier", kept)
    assert outcome.code == 0, outcome.err
    assert PixelClassifier.load(kept).pixel_size == (500.0, "nm")


@pytest.mark.parametrize("text", ["5", "nm", "0nm", "-1nm", "5 parsnips", "1e999um"])
def test_what_is_no_pixel_size_is_refused(
    command, classifier: Path, image: Path, tmp_path: Path, text
) -> None:
    options = ["-o", tmp_path / "o", f"--pixel-size={text}"]
    outcome = command("apply", classifier, image, *options)
    assert outcome.code == 1
    assert f"--pixel-size: '{text}' is none; a length" in outcome.err


# Databars.


@pytest.fixture
def databars(folder: Path) -> Path:
    """The same micrographs with a black bar below."""
    for path in folder.iterdir():
        grey = read_image(path).data
        tifffile.imwrite(path, np.pad(grey, ((0, 12), (0, 0))))
    return folder


@pytest.mark.parametrize("how", ["rectangle", "mask", "databar"])
def test_a_databar_is_excluded_from_all_files_of_its_size(
    command, classifier: Path, databars: Path, another_image, tmp_path: Path, how
) -> None:
    another_image(databars / "other_size.tif")
    height, width = read_image(databars / "a.tif").data.shape
    bar = f"{height - 12},0,{height},{width}"
    if how == "databar":
        bar = how
    elif how == "mask":
        bar = tmp_path / "mask.png"
        mask = np.zeros((height, width), np.uint8)
        mask[-12:] = 255
        Image.fromarray(mask).save(bar)
    options = ["-o", tmp_path / "o", "--json", "--exclude", bar]
    outcome = command("apply", classifier, databars, *options)
    assert outcome.code == 0, outcome.err
    found = read_labels(tmp_path / "o" / "a_segmentation.tif")
    assert (found[-12:] == 0).all()
    assert (found[:-12] > 0).all()
    first, *_, last = outcome.json["images"]
    assert sum(first["phase_fractions"].values()) == pytest.approx(1)
    (size,) = first["notes"]
    assert "pixel size is not known" in size
    assert "nothing of it is excluded" in last["notes"][-1]
    with open(tmp_path / "o" / "phase_fractions.csv", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert float(row["light"]) == pytest.approx((found[:-12] == 3).mean(), abs=1e-6)


def test_a_databar_is_offered_where_nothing_is_excluded(
    command, classifier: Path, databars: Path, labels: Path, tmp_path: Path
) -> None:
    height = len(read_image(databars / "a.tif").data)
    told = f"(rows {height - 12} to {height - 1}): --exclude databar leaves it out"
    run = "apply", classifier, databars, "-o", tmp_path / "o"
    assert told in command(*run).out
    found = read_labels(tmp_path / "o" / "a_segmentation.tif")
    assert (found[-12:] > 0).all()
    padded = tmp_path / "padded.tif"
    write_labels(padded, np.pad(read_labels(labels), ((0, 12), (0, 0))))
    run = "segment", databars / "a.tif", "-l", padded, *SEGMENT
    assert told in command(*run, "-o", tmp_path / "s.tif").out
    run = *run, "-o", tmp_path / "t.tif", "--exclude", "databar"
    assert told not in command(*run).out


def test_the_fractions_are_those_of_the_window(
    command, databars: Path, labels: Path, tmp_path: Path
) -> None:
    from napari_hrdv2.session import Session

    grey = read_image(databars / "a.tif").data
    padded = np.pad(read_labels(labels), ((0, 12), (0, 0)))
    padded[-3:, :5] = 2  # on the bar: it does not count
    write_labels(tmp_path / "padded.tif", padded)
    session = Session()
    session.configure(backbone="filters")
    session.set_image(grey)
    session.set_scribbles(padded)
    session.set_exclusion(np.arange(len(grey))[:, None] >= len(grey) - 12 + 0 * grey)
    session.compute_features()
    session.train()
    session.save_classifier(tmp_path / "c.safetensors")
    bar = f"{len(grey) - 12},0,{len(grey)},{grey.shape[1]}"
    options = ["--exclude", bar, "--json", "-o"]
    applied = command(
        "apply", tmp_path / "c.safetensors", databars, *options, tmp_path / "o"
    ).json["images"][0]["phase_fractions"]
    window = {str(k): v for k, v in session.phase_fractions().items()}
    assert applied == pytest.approx(window)
    arguments = ["segment", databars / "a.tif", "-l", tmp_path / "padded.tif"]
    outcome = command(*arguments, *SEGMENT, *options, tmp_path / "s.tif")
    assert outcome.code == 0, outcome.err
    found = outcome.json["phase_fractions"]
    assert json.dumps(sorted(found)) == '["1", "3"]'
    assert found["3"] == pytest.approx(window["3"], abs=0.02)
    assert (read_labels(tmp_path / "s.tif")[-12:] == 0).all()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,0,4", "neither a file nor TOP,LEFT,BOTTOM,RIGHT"),
        ("0,0,4,5000", "no rectangle within 50 × 40 pixels"),
        ("9,0,4,9", "no rectangle within"),
        ("0,0,40,50", "leave nothing of the image"),
    ],
)
def test_what_cannot_be_excluded_is_refused(
    command, classifier: Path, image: Path, tmp_path: Path, text, told
) -> None:
    options = ["-o", tmp_path / "o", "--exclude", text]
    outcome = command("apply", classifier, image, *options)
    assert outcome.code == 1
    assert told in outcome.err
    assert not (tmp_path / "o").exists()
