from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.numpy import save_file

from napari_hrdv2 import PixelClassifier, load_backbone
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.series.training import train_series
from napari_hrdv2.files import (
    read_image,
    read_label_classes,
    read_labels,
    write_labels,
)


def test_a_micrograph_is_segmented_from_its_scribbles(
    command, image: Path, labels: Path, truth: np.ndarray
) -> None:
    outcome = command("segment", image, "--labels", labels, "--json")
    assert outcome.code == 0
    out = image.with_name("alloy_segmentation.tif")
    found = read_labels(out)
    assert (found == truth).mean() > 0.97
    assert outcome.json["outputs"] == [str(out), str(out.with_suffix(".png"))]
    fractions = outcome.json["phase_fractions"]
    assert fractions == {"1": (found == 1).mean(), "3": (found == 3).mean()}
    assert outcome.json["seconds"] > 0


def test_pixel_size_names_and_colours_stay(command, image: Path, labels: Path) -> None:
    out = image.with_name("seg.tif")
    outcome = command("segment", image, "-l", labels, "-o", out)
    assert outcome.code == 0
    assert "dark" in outcome.out
    written = read_image(out)
    assert (written.pixel_size, written.unit) == (0.25, "µm")
    classes = read_label_classes(out)
    assert classes.names == {1: "dark", 3: "light"}
    seen = Image.open(out.with_suffix(".png")).convert("RGB").getpixel((45, 20))
    assert "#{:02x}{:02x}{:02x}".format(*seen) == classes.colors[3]


def test_pixels_without_values_are_left_out(
    command, image: Path, labels: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    drifted = tmp_path / "drifted.tif"
    pixels = read_image(image).data.astype(np.float32)
    pixels[:, -5:], pixels[2, 3] = np.nan, np.inf
    tifffile.imwrite(drifted, pixels)
    classifier = tmp_path / "c.safetensors"
    kept = "--save-classifier", classifier
    outcome = command("segment", drifted, "-l", labels, "--json", *kept)
    assert outcome.code == 0
    found = read_labels(tmp_path / "drifted_segmentation.tif")
    assert (found[:, -5:] == 0).all()
    assert (found == 0).sum() == 5 * len(found) + 1
    assert (found == truth)[:, :-5].mean() > 0.95
    assert sum(outcome.json["phase_fractions"].values()) == pytest.approx(1)
    applied = command("apply", classifier, drifted, "-o", tmp_path)
    assert applied.code == 0, applied.err


def test_the_classifier_is_kept(command, image: Path, labels: Path) -> None:
    kept = image.with_name("alloy.safetensors")
    outcome = command("segment", image, "-l", labels, "--save-classifier", kept)
    assert outcome.code == 0
    classifier = PixelClassifier.load(kept)
    assert classifier.classes.tolist() == [1, 3]
    assert classifier.class_names == {1: "dark", 3: "light"}
    assert classifier.pixel_size == (0.25, "µm")


def test_with_json_everything_else_goes_to_standard_error(
    command, image: Path, labels: Path
) -> None:
    outcome = command("segment", image, "-l", labels, "--json")
    assert len(outcome.out.splitlines()) == 1
    assert "wrote" in outcome.err


def test_a_vision_transformer_does_it_too(command, image: Path, labels: Path) -> None:
    options = ["--backbone", "dinov2-small", "--weights", "random", "--device", "cpu"]
    outcome = command("segment", image, "-l", labels, *options, "-t", "identity")
    assert outcome.code == 0, outcome.err
    assert read_labels(image.with_name("alloy_segmentation.tif")).shape == (40, 50)


def _complaint(outcome) -> str:
    assert outcome.code == 1
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    return outcome.err


@pytest.mark.parametrize(
    ("value", "complaint"),
    [(0, "bad.tif is labelled; draw"), (2, "bad.tif has scribbles of class 2 only")],
)
def test_two_classes_of_scribbles_are_needed(
    command, image: Path, value: int, complaint: str
) -> None:
    bad = image.with_name("bad.tif")
    write_labels(bad, np.full((40, 50), value))
    assert complaint in _complaint(command("segment", image, "-l", bad))
    assert not image.with_name("alloy_segmentation.tif").exists()


def test_objects_that_were_numbered_are_no_scribbles(command, image: Path) -> None:
    objects = image.with_name("objects.tif")
    write_labels(objects, np.arange(2000).reshape(40, 50) // 25)
    complaint = _complaint(command("segment", image, "-l", objects))
    assert "objects.tif: there are 79 ids from 1 to 79" in complaint
    assert "up to 64 are possible" in complaint
    assert not image.with_name("alloy_segmentation.tif").exists()


def test_labels_of_another_shape_are_refused(command, image: Path) -> None:
    bad = image.with_name("bad.tif")
    write_labels(bad, np.eye(30, 40, dtype=int) + 1)
    complaint = _complaint(command("segment", image, "-l", bad))
    assert "bad.tif is 40 × 30 and the image 50 × 40" in complaint


def test_an_unknown_backbone_is_refused(command, image: Path, labels: Path) -> None:
    complaint = _complaint(command("segment", image, "-l", labels, "-b", "dinov9"))
    assert "dinov9" in complaint


def test_a_hub_id_without_network_is_refused(
    command, image: Path, labels: Path, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    complaint = _complaint(
        command("segment", image, "-l", labels, "-b", "nobody/nothing-here")
    )
    assert "nobody/nothing-here" in complaint


def test_a_transform_set_that_cannot_be_read_is_refused(
    command, image: Path, labels: Path
) -> None:
    complaint = _complaint(command("segment", image, "-l", labels, "-t", "wobble:3"))
    assert "wobble" in complaint


def test_missing_and_broken_files_are_named(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    assert "none.tif: there is no such file" in _complaint(
        command("segment", tmp_path / "none.tif", "-l", labels)
    )
    assert "none.tif: there is no such file" in _complaint(
        command("segment", image, "-l", tmp_path / "none.tif")
    )
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert "broken.png is damaged or cut short" in _complaint(
        command("segment", broken, "-l", labels)
    )


def test_a_constant_image_is_refused(command, labels: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 50), 7, np.uint8)).save(tmp_path / "flat.png")
    complaint = _complaint(command("segment", tmp_path / "flat.png", "-l", labels))
    assert "image" in complaint


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        ("alloy.tif", "would replace an input"),
        ("seg.jpg", "not a TIFF name"),
        ("nowhere/seg.tif", "there is no folder"),
    ],
)
def test_results_need_a_place_of_their_own(
    command, image: Path, labels: Path, out: str, complaint: str
) -> None:
    before = image.read_bytes()
    options = ["-l", labels, "-o", image.with_name("x").parent / out]
    assert complaint in _complaint(command("segment", image, *options))
    assert image.read_bytes() == before


def test_a_classifier_is_not_taken_for_an_image(
    command, labels: Path, tmp_path: Path
) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors")
    complaint = _complaint(command("segment", tmp_path / "a.safetensors", "-l", labels))
    assert "not an image of a kind read here" in complaint


def test_a_stride_of_nothing_is_the_core_s_to_refuse(
    command, image: Path, labels: Path
) -> None:
    options = ["--backbone", "dinov2-small", "--weights", "random", "--stride", 0]
    complaint = _complaint(command("segment", image, "-l", labels, *options))
    assert "stride: 0 does not fit dinov2-small" in complaint


@pytest.mark.parametrize("kept", ["o.tif", "o.png", "nowhere/c.safetensors"])
def test_a_classifier_needs_a_place_of_its_own(
    command, image: Path, labels: Path, kept: str
) -> None:
    folder = image.parent
    options = ["--out", folder / "o.tif", "--save-classifier", folder / kept]
    complaint = _complaint(command("segment", image, "-l", labels, *options))
    assert complaint.startswith("napari-hrdv2: --save-classifier: ")
    assert ("written by --out already" if kept[0] == "o" else "no folder") in complaint
    assert not (folder / "o.tif").exists()


def test_the_interpolation_is_kept_with_the_classifier(
    command, image: Path, labels: Path
) -> None:
    kept = image.with_name("alloy.safetensors")
    outcome = command(
        "segment", image, "-l", labels, "-b", "embedded", "--save-classifier", kept,
        "--interpolation", "bilateral+2",
    )  # fmt: skip
    assert outcome.code == 0
    assert PixelClassifier.load(kept).part_options[0].interpolation == "bilateral+2"


def test_an_unknown_interpolation_is_refused_in_one_line(
    command, image: Path, labels: Path
) -> None:
    outcome = command("segment", image, "-l", labels, "-i", "sharp")
    assert outcome.code == 1
    assert "interpolation: 'sharp' is unknown" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_the_debias_is_kept_with_the_classifier_and_used_again(
    command, image: Path, labels: Path
) -> None:
    kept, out = image.with_name("even.safetensors"), image.parent / "again"
    outcome = command(
        "segment", image, "-l", labels, "--save-classifier", kept, "--debias", "mean"
    )
    assert outcome.code == 0, outcome.err
    classifier = PixelClassifier.load(kept)
    assert classifier.part_options[0].debias == "mean"
    assert FeatureOptions.of(classifier.part_options).debias == "mean"
    assert command("apply", kept, image, "--out", out).code == 0
    first = read_labels(image.with_name("alloy_segmentation.tif"))
    assert np.array_equal(read_labels(out / "alloy_segmentation.tif"), first)


def test_an_unknown_debias_is_refused_in_one_line(
    command, image: Path, labels: Path
) -> None:
    outcome = command("segment", image, "-l", labels, "--debias", "all")
    assert outcome.code == 1
    assert "debias: 'all' is unknown; use none or mean or project" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_the_licence_is_said_in_a_terminal_before_weights_are_downloaded(
    command, image: Path, labels: Path, monkeypatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    outcome = command("segment", image, "-l", labels, "--backbone", "dino-small-8")
    assert outcome.code == 1
    assert "facebook/dino-vits8, 87 MB, licence: Apache-2.0" in outcome.err


def test_small_objects_go_to_the_class_around_them(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "clean_segmentation.tif"
    options = ["--labels", labels, "--out", out, "--min-object", 300]
    assert command("segment", image, *options).code == 0
    command("segment", image, "--labels", labels)
    raw = read_labels(tmp_path / "alloy_segmentation.tif")
    corner = np.s_[30:, :8]  # of an island of the other class, 168 px large
    assert (raw[corner] == 3).mean() > 0.9
    assert (read_labels(out)[corner] == 1).all()


@pytest.mark.parametrize(
    "option", [["--smoothing", "gauss"], ["--min-object", -1], ["--fill-holes", -2]]
)
def test_a_refinement_that_cannot_be_is_refused(
    command, image: Path, labels: Path, option
) -> None:
    outcome = command("segment", image, "--labels", labels, *option)
    assert outcome.code == 1
    assert str(option[1]) in outcome.err


@pytest.mark.filterwarnings("default")
def test_both_sides_of_pixels_that_are_not_square_are_kept_and_told(
    command, image: Path, labels: Path
) -> None:
    grey = tifffile.imread(image)
    about = {"unit": "um"}
    tifffile.imwrite(image, grey, imagej=True, resolution=(4, 2), metadata=about)
    out, kept = image.with_name("seg.tif"), image.with_name("c.safetensors")
    outcome = command(
        "segment", image, "-l", labels, "-o", out, "--save-classifier", kept
    )
    assert outcome.code == 0
    assert "not square (0.25 × 0.5 µm" in outcome.err
    with pytest.warns(UserWarning, match="not square"):
        assert read_image(out).pixel_size == (0.5, 0.25)
    assert PixelClassifier.load(kept).pixel_size == ((0.5, 0.25), "µm")


def test_two_micrographs_train_one_classifier(
    command, image: Path, labels: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    second, drawn = tmp_path / "second.tif", tmp_path / "one_class.tif"
    grey = read_image(image).data
    tifffile.imwrite(second, np.ascontiguousarray(grey[::-1]))
    tifffile.imwrite(drawn, np.where(read_labels(labels) == 1, 1, 0)[::-1])
    kept = tmp_path / "both.safetensors"
    arguments = (image, second, "-l", labels, "-l", drawn, "--save-classifier", kept)
    outcome = command("segment", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert [Path(one["image"]) for one in outcome.json["images"]] == [image, second]
    for name, expected in (("alloy", truth), ("second", truth[::-1])):
        found = read_labels(tmp_path / f"{name}_segmentation.tif")
        assert (found == expected).mean() > 0.97
    chosen = outcome.json["normalisation"]
    assert PixelClassifier.load(kept).normalisation.kind == chosen["kind"]
    assert "normalisation: " in outcome.err


@pytest.mark.parametrize("blocks", [(), ("--blocks",)])
def test_micrographs_of_several_pixel_sizes_are_seen_with_the_median_one(
    command, image: Path, labels: Path, tmp_path: Path, blocks
) -> None:
    grey, about = read_image(image).data, {"imagej": True, "metadata": {"unit": "um"}}
    files = [image]
    for name, resolution in (("coarse", 2), ("far", 0.2), ("fine", 40), ("unknown", 0)):
        files.append(tmp_path / f"{name}.tif")
        options = {**about, "resolution": (resolution,) * 2} if resolution else {}
        tifffile.imwrite(files[-1], grey, **options)
    kept, drawn = (
        tmp_path / "c.safetensors",
        [one for _ in files for one in ("-l", labels)],
    )
    saved = "--save-classifier", kept, "--normalisation", "image", "--json", *blocks
    outcome = command("segment", *files, *drawn, *saved)
    assert outcome.code == 0, outcome.err
    assert PixelClassifier.load(kept).pixel_size == (0.25, "µm")
    notes = [one["notes"] for one in outcome.json["images"]]
    assert notes == [
        [],
        [
            "Its pixels are 2 times as large as those of the training (0.5 µm, "
            "0.25 µm), and it was resampled to them."
        ],
        ["Its pixels are 20 times as large as those of the training (5 µm, 0.25 µm)."],
        [
            "Its pixels are 10 times smaller than those of the training (0.025 µm, "
            "0.25 µm)."
        ],
        ["Its pixel size is not known; it was taken as it is."],
    ]
    assert f"warning: {files[1]}: {notes[1][0]}" in outcome.err
    ratios = [(1, 1), (2, 2), (20, 20), (0.1, 0.1), None]
    seen, as_they_are = (
        train_series(
            *([grey] * 5, [read_labels(labels)] * 5, load_backbone("embedded")),
            normalisation="image",
            pixel_ratios=given,
            blocks=bool(blocks),
        ).classifier.weight
        for given in (ratios, None)
    )
    np.testing.assert_allclose(PixelClassifier.load(kept).weight, seen, atol=1e-5)
    assert np.abs(as_they_are - seen).max() > 1e-3
    ending = "zarr" if blocks else "tif"
    assert (tmp_path / f"coarse_segmentation.{ending}").exists()


@pytest.mark.parametrize("resampled", [False, True])
def test_the_memory_told_is_that_of_the_largest(
    command, image: Path, labels: Path, tmp_path: Path, resampled: bool
) -> None:
    grey, drawn = read_image(image).data, read_labels(labels)
    larger, painted = tmp_path / "larger.tif", tmp_path / "painted.tif"
    about = {"imagej": True, "metadata": {"unit": "um"}}
    side = 2 if resampled else 4
    tifffile.imwrite(larger, np.tile(grey, (2, 3)), resolution=(side, side), **about)
    tifffile.imwrite(painted, np.tile(drawn, (2, 3)))
    given = image, larger, "-l", labels, "-l", painted, "--normalisation", "image"
    outcome = command("segment", *given, "--json")
    assert outcome.code == 0, outcome.err
    shape = (160, 300) if resampled else (80, 150)
    assert outcome.json["cost"] == estimate_cost(shape, FeatureOptions()).as_dict()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-o", "x.tif"], "--out: x.tif is one file for 2 images"),
        ([], "--labels: given 1 times for 2 images"),
    ],
)
def test_several_micrographs_need_files_of_their_own(
    command, image: Path, labels: Path, arguments, complaint
) -> None:
    both = ["-l", labels] if arguments else []
    outcome = command("segment", image, image, "-l", labels, *both, *arguments)
    assert outcome.code == 1
    assert complaint in outcome.err
