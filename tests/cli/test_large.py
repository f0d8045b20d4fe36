"""Images of any size: Zarr in, block by block out, and going on after an end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.features.cost import Cost, estimate_cost
from napari_hrdv2.files import (
    import_labels,
    open_image,
    read_image,
    read_labels,
    read_ome_zarr,
    write_labels,
)
from napari_hrdv2.session.batch import INVERTED, INVERTED_BY_LABELS, streaming
from synthetic import dabs, discs

if TYPE_CHECKING:
    from napari_hrdv2.core.features.options import FeatureOptions


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no features fit into memory but those of blocks."""

    def estimated(shape: tuple[int, ...], options: FeatureOptions, **how: int) -> Cost:
        cost = estimate_cost(shape, options, **how)
        return cost if how else replace(cost, available_bytes=0)

    monkeypatch.setattr(streaming, "estimate_cost", estimated)


def test_segment_goes_by_blocks_to_the_labels_of_the_whole(
    command, image: Path, labels: Path
) -> None:
    assert command("segment", image, "-l", labels).code == 0
    wanted = read_labels(image.with_name("alloy_segmentation.tif"))
    outcome = command("segment", image, "-l", labels, "--blocks", "--json")
    assert outcome.code == 0, outcome.err
    out = image.with_name("alloy_segmentation.zarr")
    assert outcome.json["outputs"] == [str(out)]
    found = read_ome_zarr(out)
    assert (found.labels == wanted).mean() > 0.995
    assert found.classes.names == {1: "dark", 3: "light"}
    assert (open_image(out).pixel_size, open_image(out).unit) == (0.25, "µm")
    fractions = outcome.json["phase_fractions"]
    assert fractions == {str(i): (found.labels == i).mean() for i in (1, 3)}


def test_a_tiff_by_blocks_leaves_every_zarr_beside_it(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    kept, out = tmp_path / "out.tif.zarr", tmp_path / "out.tif"
    given = "segment", image, "--blocks", "-l"
    assert command(*given, labels, "-o", kept).code == 0
    before = read_ome_zarr(kept).labels
    assert command(*given, kept, "-o", out).code == 0
    assert np.array_equal(read_ome_zarr(kept).labels, before)
    assert not list(tmp_path.glob(".*"))
    assert command("segment", image, "-l", labels, "-o", out).code == 0
    assert command(*given, labels, "-o", out).code == 0
    assert not out.with_suffix(".png").exists()  # of the labels that were there
    hidden = tmp_path / ".out.tif.blocks.zarr"
    kept.rename(hidden)
    refused = command(*given, hidden, "-o", out)
    assert refused.code != 0
    assert "would replace an input" in refused.err
    assert hidden.is_dir()


@pytest.mark.usefixtures("too_large")
def test_what_does_not_fit_goes_by_blocks_unasked(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "c.safetensors"
    outcome = command("segment", image, "-l", labels, "--save-classifier", kept)
    assert outcome.code == 0, outcome.err
    first = read_ome_zarr(tmp_path / "alloy_segmentation.zarr").labels
    applied = command("apply", kept, image, "-o", tmp_path / "out", "--json")
    assert applied.code == 0, applied.err
    again = tmp_path / "out" / "alloy_segmentation.zarr"
    assert np.array_equal(read_ome_zarr(again).labels, first)
    assert applied.json["images"][0]["outputs"] == [str(again)]


@pytest.mark.usefixtures("too_large")
def test_what_cannot_go_by_blocks_is_refused_before_it_is_read(
    command, image: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_hrdv2.files.lazy.LazyImage.__getitem__", None)
    common = "-b", "spit-small", "--weights", "random"
    outcome = command("segment", image, "-l", labels, *common)
    assert outcome.code == 1
    assert "of memory and" in outcome.err
    assert "By blocks: backbone: spit-small divides" in outcome.err


def test_smoothed_labels_and_particles_by_blocks_are_those_in_memory(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    kept, out = tmp_path / "c.safetensors", tmp_path / "out"
    assert command("segment", image, "-l", labels, "--save-classifier", kept).code == 0
    given = "apply", kept, image, "-o", out, "--smoothing", "crf", "--min-object", 9
    assert command(*given, "--particles", "light").code == 0
    wanted = read_labels(out / "alloy_segmentation.tif")
    rows = (out / "alloy_particles.csv").read_text().splitlines()
    outcome = command(*given, "--particles", "light", "--blocks", "--json")
    assert outcome.code == 0, outcome.err
    table, result = out / "alloy_particles.csv", out / "alloy_segmentation.zarr"
    assert outcome.json["images"][0]["outputs"] == [str(result), str(table)]
    assert (read_ome_zarr(result).labels == wanted).mean() > 0.9999
    found = table.read_text().splitlines()
    assert found[0] == rows[0]
    assert len(found) == pytest.approx(len(rows), abs=1)


def test_a_zarr_is_segmented_scored_and_found_in_a_folder(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    zarr.create_array(folder / "alloy.zarr", data=read_image(image).data)
    kept = tmp_path / "c.safetensors"
    drawn = folder / "alloy.zarr", "-l", labels, "--save-classifier", kept
    assert command("segment", *drawn).code == 0
    found = read_labels(folder / "alloy_segmentation.tif")
    assert command("segment", *drawn, "--blocks").code == 0
    outcome = command("apply", kept, folder, "-o", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = outcome.json["images"]
    assert result["image"] == str(folder / "alloy.zarr")
    applied = read_labels(tmp_path / "out" / "alloy_segmentation.tif")
    assert (applied == found).mean() > 0.99
    assert outcome.json["left_out"]["results"] == 3


@pytest.mark.parametrize("backbone", ["embedded", "filters"])
def test_a_report_shows_what_went_by_blocks_and_how_doubtful_it_is(
    command, image: Path, labels: Path, another_image, tmp_path: Path, backbone: str
) -> None:
    kept = tmp_path / "c.safetensors"
    drawn = image, "-l", labels, "-b", backbone
    assert command("segment", *drawn, "--save-classifier", kept).code == 0
    other = another_image(tmp_path / "other.tif", seed=5)
    given = "apply", kept, image, other, "-o", tmp_path / "out", "--report", "--json"
    outcome = command(*given, "--blocks")
    assert outcome.code == 0, outcome.err
    known, new = outcome.json["images"]
    assert known["doubt"] is None
    whole = command(*given, "--again").json["images"][1]["doubt"]
    assert new["doubt"] == pytest.approx(whole, abs=0.05)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img") == 4


def test_of_a_negative_light_and_dark_are_exchanged_in_memory_and_by_blocks(
    command, tmp_path: Path
) -> None:
    (first, inside), (other, _) = discs(0.25), discs(0.15, 5)
    files = [tmp_path / f"{name}.tif" for name in ("first", "other", "negative")]
    for path, image in zip(files, (first, other, 255 - other), strict=True):
        tifffile.imwrite(path, image)
    drawn, kept = tmp_path / "drawn.tif", tmp_path / "c.safetensors"
    write_labels(drawn, dabs(inside, each=12))
    trained = command("segment", files[0], "-l", drawn, "--save-classifier", kept)
    assert trained.code == 0, trained.err
    given = "apply", kept, *files[1:], "--json", "-o"
    outcome = command(*given, tmp_path / "whole", "--report")
    straight, whole = outcome.json["images"]
    page = (tmp_path / "whole" / "report.html").read_text()
    assert not any(INVERTED in note for note in straight["notes"])
    assert whole["notes"][-1] == f"{files[2]}: {INVERTED}"
    assert INVERTED in outcome.err
    assert INVERTED in page
    labels = read_labels(Path(whole["outputs"][0]))
    wanted = read_labels(Path(straight["outputs"][0]))
    assert (labels == wanted).mean() > 0.97
    found = command(*given, tmp_path / "out", "--blocks").json["images"][1]
    assert found["notes"] == whole["notes"]
    by_blocks = read_ome_zarr(Path(found["outputs"][0])).labels
    assert (by_blocks == labels).mean() >= 0.999
    assert found["doubt"] == pytest.approx(whole["doubt"], abs=0.05)


def test_a_labelled_negative_is_told_to_be_one_by_its_scribbles(
    command, tmp_path: Path
) -> None:
    image, inside = discs(0.25, shape=(64, 70))
    files, drawn = [tmp_path / "a.tif", tmp_path / "b.tif"], tmp_path / "drawn.tif"
    for path, one in zip(files, (image, 255 - image), strict=True):
        tifffile.imwrite(path, one)
    write_labels(drawn, dabs(inside))
    given = "segment", *files, "-l", drawn, "-l", drawn, "--normalisation", "matched"
    kept = tmp_path / "c.safetensors"
    trained = command(*given, "--save-classifier", kept)
    assert trained.code == 0, trained.err
    outcome = command("apply", kept, *files, "--json", "-o", tmp_path / "out")
    first, second = (one["notes"] for one in outcome.json["images"])
    assert not any("exchanged" in note for note in first)
    assert second[-1] == f"{files[1]}: {INVERTED_BY_LABELS}"


def test_blocks_of_another_pixel_size_are_resampled_as_in_memory(
    command, image: Path, labels: Path, another_image, tmp_path: Path
) -> None:
    kept, out = tmp_path / "c.safetensors", tmp_path / "out"
    assert command("segment", image, "-l", labels, "--save-classifier", kept).code == 0
    other = another_image(tmp_path / "other.tif", seed=5)
    given = "apply", kept, other, "--pixel-size", "0.5 um", "--json", "-o"
    whole = command(*given, tmp_path / "whole").json["images"][0]
    wanted = read_labels(Path(whole["outputs"][0]))
    found = command(*given, out, "--blocks").json["images"][0]
    labelled = read_ome_zarr(Path(found["outputs"][0])).labels
    assert (labelled == wanted).mean() >= 0.999
    assert found["notes"] == whole["notes"]
    assert "resampled" in found["notes"][0]
    assert found["doubt"] == pytest.approx(whole["doubt"], abs=0.02)
    # What was ended is not gone on with by a run that sees other pixels.
    (out / "other_segmentation.zarr").rename(out / "other_segmentation.zarr.unfinished")
    as_it_is = command(*given, out, "--blocks", "--no-resample").json["images"][0]
    assert "resampled" not in as_it_is["notes"][0]
    assert len(as_it_is["notes"]) == 1
    plain = command(*given, tmp_path / "plain", "--no-resample").json["images"][0]
    wanted = read_labels(Path(plain["outputs"][0]))
    labelled = read_ome_zarr(Path(as_it_is["outputs"][0])).labels
    assert (labelled == wanted).mean() >= 0.999


def test_what_does_not_fit_once_it_is_resampled_goes_by_blocks(
    command, image: Path, labels: Path, tmp_path: Path, monkeypatch
) -> None:
    kept, seen = tmp_path / "c.safetensors", []
    assert command("segment", image, "-l", labels, "--save-classifier", kept).code == 0

    def estimated(shape: tuple[int, ...], options: FeatureOptions, **how: int) -> Cost:
        seen.append(shape)
        cost = estimate_cost(shape, options, **how)
        return cost if how or shape[0] <= 40 else replace(cost, available_bytes=0)

    monkeypatch.setattr(streaming, "estimate_cost", estimated)
    given = "apply", kept, image, "-o", tmp_path / "out", "--json", "--pixel-size"
    (result,) = command(*given, "0.5 um").json["images"]
    assert result["outputs"][0].endswith(".zarr")
    assert (80, 100) in seen
    (result,) = command(*given, "0.125 um").json["images"]
    assert result["outputs"][0].endswith(".tif")


def test_ctrl_c_says_how_to_go_on(
    command, image: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PixelClassifier, "predict", interrupted)
        outcome = command("segment", image, "-l", labels, "--blocks")
    assert outcome.code == 130
    unfinished = image.with_name("alloy_segmentation.zarr.unfinished")
    assert f"{unfinished} keeps the blocks that are done" in outcome.err
    assert unfinished.is_dir()
    assert command("segment", image, "-l", labels, "--blocks").code == 0
    assert not unfinished.exists()


def test_a_tiff_is_made_of_blocks_in_tiles(
    command, image: Path, labels: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("napari_hrdv2.files.images._TILE", 32)
    common = "segment", image, "-l", labels, "--blocks", "-o"
    assert command(*common, tmp_path / "x.zarr").code == 0
    target = tmp_path / "x.tif"
    outcome = command(*common, target, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["outputs"] == [str(target)]
    with tifffile.TiffFile(target) as file:
        assert file.is_bigtiff
        assert file.pages[0].tile == (32, 32)
    wanted, found = read_ome_zarr(tmp_path / "x.zarr"), import_labels(target)
    assert np.array_equal(found.labels, wanted.labels)
    assert found.classes == wanted.classes
    assert (open_image(target).pixel_size, open_image(target).unit) == (0.25, "µm")
    assert not list(tmp_path.glob("*x.tif.*"))


def test_names_of_results_by_blocks_are_checked(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    common = "segment", image, "-l", labels, "--blocks", "-o"
    outcome = command(*common, tmp_path / "x.png")
    assert outcome.code == 1
    assert "not a OME-Zarr or TIFF name; end it in .zarr" in outcome.err
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").touch()
    outcome = command(*common, tmp_path / "mine.zarr")
    assert outcome.code == 1
    assert "other things in it" in outcome.err
    zarr.create_array(tmp_path / "image.zarr", data=np.ones((5, 5)))
    outcome = command(*common, tmp_path / "image.zarr")
    assert outcome.code == 1
    assert "image.zarr is Zarr that napari-hrdv2 did not write" in outcome.err
    shutil.copytree(tmp_path / "mine.zarr", tmp_path / "other")
    outcome = command("segment", tmp_path / "other", "-l", labels)
    assert "is a folder" in outcome.err
