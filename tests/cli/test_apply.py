from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from safetensors.numpy import save_file

from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.core.features.options import PartOptions
from napari_hrdv2.files import open_image, read_image, read_labels


@pytest.fixture
def classifier(command, image: Path, labels: Path) -> Path:
    path = image.with_name("alloy.safetensors")
    assert command("segment", image, "-l", labels, "--save-classifier", path).code == 0
    return path


def test_a_classifier_segments_other_micrographs(
    command, classifier: Path, another_image, truth: np.ndarray, tmp_path: Path
) -> None:
    other = another_image(tmp_path / "other.tif", seed=5)
    out = tmp_path / "new" / "results"
    outcome = command("apply", classifier, other, "--out", out, "--json")
    assert outcome.code == 0
    written = out / "other_segmentation.tif"
    assert (read_labels(written) == truth).mean() > 0.97
    assert read_image(written).pixel_size == 0.25
    (result,) = outcome.json["images"]
    assert result["outputs"][0] == str(written)
    assert result["phase_fractions"].keys() == {"1", "3"}


def test_the_same_image_gives_what_segment_gave(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    command("apply", classifier, image, "--out", tmp_path / "out")
    first = read_labels(tmp_path / "alloy_segmentation.tif")
    again = read_labels(tmp_path / "out" / "alloy_segmentation.tif")
    assert np.array_equal(first, again)


@pytest.mark.parametrize("stride", [None, 7])
@pytest.mark.parametrize(
    "name", ["embedded+dinov2-small", "dinov2-small+embedded", "embedded+filters"]
)
def test_each_part_of_a_joined_backbone_is_used_as_it_was(
    command, image: Path, labels: Path, tmp_path: Path, name, stride
) -> None:
    if stride and "dinov2" not in name:
        pytest.skip("no part has patches that large")
    kept = tmp_path / "joined.safetensors"
    common = ["--weights", "random", "--device", "cpu"] if "dinov2" in name else []
    options = ["-b", name, *common, "--save-classifier", kept]
    options += ["--stride", stride] if stride else []
    done = command("segment", image, "-l", labels, *options)
    assert done.code == 0, done.err
    made = {r.backbone: r for r in PixelClassifier.load(kept).part_options}
    assert (made["embedded"].stride, made["embedded"].transforms) == (2, "identity")
    outcome = command("apply", kept, image, *common, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err
    first = read_labels(tmp_path / "alloy_segmentation.tif")
    again = read_labels(tmp_path / "out" / "alloy_segmentation.tif")
    assert np.array_equal(first, again)


def test_brightness_does_not_matter_to_the_embedded_backbone(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    dark = tmp_path / "dark.tif"
    tifffile.imwrite(dark, read_image(image).data.astype(np.uint16) * 2 + 1000)
    outcome = command("apply", classifier, dark, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    first = read_labels(tmp_path / "alloy_segmentation.tif")
    again = read_labels(tmp_path / "out" / "dark_segmentation.tif")
    assert (first == again).mean() > 0.999


def test_a_vision_transformer_s_options_are_taken_from_the_classifier(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "vit.safetensors"
    options = ["-b", "dinov2-small+filters", "-t", "lattice:2", "--stride", 7]
    options += ["--weights", "random", "--device", "cpu", "--save-classifier", kept]
    done = command("segment", image, "-l", labels, *options)
    assert done.code == 0, done.err
    options = ["--weights", "random", "--device", "cpu", "--out", tmp_path / "out"]
    outcome = command("apply", kept, image, *options)
    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err
    first = read_labels(tmp_path / "alloy_segmentation.tif")
    again = read_labels(tmp_path / "out" / "alloy_segmentation.tif")
    assert np.array_equal(first, again)


def test_a_table_lists_the_phase_fractions(
    command, classifier: Path, another_image, tmp_path: Path
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("b.tif", "a.tif"):
        another_image(folder / name, seed=len(name))
    outcome = command("apply", classifier, folder, "--out", tmp_path / "out")
    assert outcome.code == 0
    with open(tmp_path / "out" / "phase_fractions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == ["a.tif", "b.tif"]
    assert rows[0]["segmentation"] == "a_segmentation.tif"
    assert float(rows[0]["dark"]) + float(rows[0]["light"]) == pytest.approx(1)


def test_one_bad_file_does_not_cost_the_others(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    outcome = command(
        "apply", classifier, bad, image, "--out", tmp_path / "o", "--json"
    )
    assert outcome.code == 1
    assert (tmp_path / "o" / "alloy_segmentation.tif").is_file()
    assert [entry["image"] for entry in outcome.json["failed"]] == [str(bad)]
    assert "bad.png is not an image" in outcome.err
    assert outcome.err.endswith("1 of 2 images could not be segmented\n")


def test_files_of_the_same_name_are_told_apart(
    command, classifier: Path, another_image, tmp_path: Path
) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        another_image(tmp_path / folder / "s.tif")
    out = tmp_path / "out"
    command("apply", classifier, tmp_path / "x", tmp_path / "y", "--out", out)
    written = sorted(path.name for path in out.glob("*.tif"))
    assert written == ["s_2_segmentation.tif", "s_segmentation.tif"]


def test_what_is_no_classifier_is_refused(command, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(3)}, other)
    for wrong in (other, image, tmp_path / "none.safetensors"):
        outcome = command("apply", wrong, image, "--out", tmp_path / "out")
        assert outcome.code == 1
        assert wrong.name in outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_other_weights_than_the_classifier_s_are_refused(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    outcome = command(
        "apply", classifier, image, "--weights", "x.pt", "--out", tmp_path / "o"
    )
    assert outcome.code == 1
    assert "weights" in outcome.err


def test_an_empty_folder_is_refused(command, classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = command("apply", classifier, tmp_path / "empty", "--out", tmp_path / "o")
    assert outcome.code == 1
    assert "there are no images" in outcome.err


def test_a_cluster_gives_the_same(
    command, classifier: Path, image: Path, another_image, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    files = [image, another_image(tmp_path / "b.tif", seed=2), bad]
    command("apply", classifier, *files, "--out", tmp_path / "here")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        options = ["--scheduler", cluster.scheduler_address, "--json"]
        outcome = command(
            "apply", classifier, *files, "--out", tmp_path / "there", *options
        )
    assert outcome.code == 1
    assert [entry["image"] for entry in outcome.json["failed"]] == [str(bad)]
    for name in ("alloy_segmentation.tif", "b_segmentation.tif"):
        there = read_labels(tmp_path / "there" / name)
        assert np.array_equal(there, read_labels(tmp_path / "here" / name))
    tables = [(tmp_path / x / "phase_fractions.csv") for x in ("here", "there")]
    assert tables[0].read_text() == tables[1].read_text()


def test_the_missing_extra_is_named(
    command, classifier: Path, image: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    options = ["--scheduler", "tcp://127.0.0.1:9", "--out", tmp_path / "o"]
    outcome = command("apply", classifier, image, *options)
    assert outcome.code == 1
    assert 'pip install "napari-hrdv2[distributed]"' in outcome.err


def test_no_result_takes_the_place_of_another(
    command, classifier: Path, another_image, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a/x.tif", "b/x.tif", "a/x_2.tif")]
    for seed, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        another_image(file, seed)
    out = tmp_path / "out"
    outcome = command("apply", classifier, *files, "--out", out, "--json")
    written = [Path(result["outputs"][0]).name for result in outcome.json["images"]]
    expected = ["x", "x_3", "x_2"]
    assert written == [f"{stem}_segmentation.tif" for stem in expected]
    assert len(list(out.glob("*.tif"))) == len(list(out.glob("*.png"))) == 3


def test_results_beside_images_replace_none_of_them(
    command, classifier: Path, another_image, tmp_path: Path
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    earlier = another_image(folder / "s_segmentation.tif")
    before = earlier.read_bytes()
    another_image(folder / "s.tif")
    assert command("apply", classifier, folder, "--out", folder).code == 0
    assert earlier.read_bytes() == before
    assert (folder / "s_2_segmentation.tif").is_file()


def test_a_file_is_no_folder_for_the_results(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "im.png").touch()
    outcome = command("apply", classifier, image, "--out", tmp_path / "im.png")
    assert outcome.code == 1
    assert outcome.err.startswith("napari-hrdv2: --out: ")
    assert outcome.err.endswith("im.png is a file; give a folder\n")


def test_boundary_and_interpolation_are_the_classifier_s(
    command, image: Path, labels: Path, tmp_path: Path
) -> None:
    backbone = load_backbone("dinov2-small", "random", "cpu")
    features = compute_features(
        read_image(image).data,
        backbone,
        "shift:5",
        boundary="reflect",
        interpolation="nearest",
    )
    trained = PixelClassifier().fit(features, read_labels(labels))
    trained.save(tmp_path / "vit.safetensors")
    options = ["--weights", "random", "--device", "cpu", "--out", tmp_path / "out"]
    outcome = command("apply", tmp_path / "vit.safetensors", image, *options)
    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err
    found = read_labels(tmp_path / "out" / "alloy_segmentation.tif")
    assert np.array_equal(found, trained.predict(features))


def test_the_options_followed_are_that_of_the_network_not_of_the_filters() -> None:
    from napari_hrdv2.core.features.options import FeatureOptions

    filters = PartOptions("filters", "", "identity", 1, 40)
    network = PartOptions(
        "dinov2-small", "abc", "lattice:2", 1, 384, compat="reference"
    )
    for parts in ((filters, network), (network, filters)):
        chosen = FeatureOptions.of(parts, "cpu")
        assert (chosen.transforms, chosen.compat) == ("lattice:2", "reference")


def test_an_image_too_large_for_the_memory_does_not_cost_the_others(
    command, classifier: Path, image: Path, another_image, tmp_path: Path, monkeypatch
) -> None:
    other = another_image(tmp_path / "huge.tif")

    def read(path: Path, *channels: str):
        if path == other:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes")
        return open_image(path, *channels)

    monkeypatch.setattr("napari_hrdv2.files.open_image", read)
    outcome = command("apply", classifier, other, image, "--out", tmp_path / "o")
    assert outcome.code == 1
    assert "huge.tif: there is not enough memory" in outcome.err
    assert (tmp_path / "o" / "alloy_segmentation.tif").is_file()


def test_what_was_done_before_an_interruption_is_in_the_table(
    command, classifier: Path, image: Path, another_image, tmp_path: Path, monkeypatch
) -> None:
    other = another_image(tmp_path / "later.tif")

    def read(path: Path, *channels: str):
        if path == other:
            raise KeyboardInterrupt
        return open_image(path, *channels)

    monkeypatch.setattr("napari_hrdv2.files.open_image", read)
    outcome = command("apply", classifier, image, other, "--out", tmp_path / "o")
    assert outcome.code == 130
    table = (tmp_path / "o" / "phase_fractions.csv").read_text(encoding="utf-8")
    assert [Path(row.split(",")[0]).name for row in table.splitlines()[1:]] == [
        "alloy.tif"
    ]


def test_radius_and_strength_repeat_a_window_s_smoothing(
    command, classifier: Path, image: Path, labels: Path, tmp_path: Path, monkeypatch
) -> None:
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.session import pipeline

    asked = []

    def refine_labels(result, snapshot, refinement, *_, **__):
        asked.append(refinement)
        return result.labels

    monkeypatch.setattr(pipeline, "refine_labels", refine_labels)
    options = ["--smoothing", "guided", "--radius", 3, "--strength", 1]
    for arguments in (
        ["apply", classifier, image, "--out", tmp_path / "o"],
        ["segment", image, "-l", labels, "--out", tmp_path / "s.tif"],
    ):
        outcome = command(*arguments, *options)
        assert outcome.code == 0, outcome.err
    assert asked == [Refinement("guided", 3, 1.0)] * 2


def test_a_download_shows_a_bar_in_a_terminal(
    command, classifier: Path, image: Path, tmp_path: Path, monkeypatch
) -> None:
    def download(name: str, *, progress, **options):
        progress(1, 2)
        return load_backbone(name)

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("napari_hrdv2.core.backbones.load_backbone", download)
    outcome = command("apply", classifier, image, "--out", tmp_path / "o")
    assert outcome.code == 0, outcome.err
    assert "downloading embedded" in outcome.err
    assert " 50%" in outcome.err


@pytest.mark.parametrize("option", [["--radius", 0], ["--strength", 2]])
def test_a_smoothing_that_cannot_be_is_refused(
    command, classifier: Path, image: Path, tmp_path: Path, option
) -> None:
    outcome = command("apply", classifier, image, *option, "--out", tmp_path / "o")
    assert outcome.code == 1
    assert outcome.err.startswith(f"napari-hrdv2: {option[0][2:]}: {option[1]}")


def series_of(another_image, folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        another_image(folder / f"{number}.tif", seed=number)
    return folder


def test_a_second_run_does_only_what_is_missing(
    command, classifier: Path, another_image, tmp_path: Path
) -> None:
    folder, out = series_of(another_image, tmp_path / "series"), tmp_path / "out"
    first = command("apply", classifier, folder, "--out", out, "--json")
    table = (out / "phase_fractions.csv").read_text()
    (out / "1_segmentation.tif").unlink()
    another_image(folder / "2.tif", seed=9)
    second = command("apply", classifier, folder, "--out", out, "--json")
    assert [one["was_there"] for one in first.json["images"]] == [False] * 3
    assert [one["was_there"] for one in second.json["images"]] == [True, False, False]
    kept = ("phase_fractions", "errors", "doubt", "outputs")
    for name in kept:
        assert first.json["images"][0][name] == second.json["images"][0][name]
    again = (out / "phase_fractions.csv").read_text()
    assert again.splitlines()[:3] == table.splitlines()[:3]
    third = command("apply", classifier, folder, "--out", out, "--again", "--json")
    assert not any(one["was_there"] for one in third.json["images"])


@pytest.mark.parametrize("more", [["--min-object", 9], ["--pixel-size", "2 nm"]])
def test_other_settings_are_another_run(
    command, classifier: Path, image: Path, tmp_path: Path, more
) -> None:
    command("apply", classifier, image, "--out", tmp_path / "out")
    outcome = command(
        "apply", classifier, image, "--out", tmp_path / "out", *more, "--json"
    )
    assert [one["was_there"] for one in outcome.json["images"]] == [False]


def test_a_log_that_is_cut_off_or_another_s_is_no_harm(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command("apply", classifier, image, "--out", out)
    log = out / "apply_log.jsonl"
    log.write_text(log.read_text() + '\n{"format": "napari-hrdv2 run", "sett')
    outcome = command("apply", classifier, image, "--out", out, "--json")
    assert outcome.json["images"][0]["was_there"]
    log.write_text("mine")
    outcome = command("apply", classifier, image, "--out", out, "--json")
    assert not outcome.json["images"][0]["was_there"]
    assert log.read_text() == "mine"
    assert (out / "apply_log_2.jsonl").is_file()


def test_what_is_unlike_the_labelled_image_is_flagged_and_in_no_mean(
    command, classifier: Path, another_image, tmp_path: Path
) -> None:
    folder = series_of(another_image, tmp_path / "series")
    noise = np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)
    tifffile.imwrite(folder / "noise.tif", noise)
    outcome = command(
        "apply", classifier, folder, "--out", tmp_path / "out", "--report", "--json"
    )
    assert outcome.code == 0, outcome.err
    *like, odd = outcome.json["images"]
    assert odd["flagged"]
    assert not any(one["flagged"] for one in like)
    assert outcome.json["label_next"] == str(folder / "noise.tif")
    mean = np.mean([one["phase_fractions"]["1"] for one in like])
    assert outcome.json["mean_phase_fractions"]["1"] == pytest.approx(mean)
    assert "Mean of 3 of 4 images; 1 flagged as doubtful left out" in outcome.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 flagged as doubtful left out" in page
    with open(tmp_path / "out" / "phase_fractions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["flagged"] for row in rows] == ["", "", "", "yes"]
    assert float(rows[0]["dark error (half width, 95 %)"]) > 0


def test_particles_go_into_a_table_for_each_image(
    command, classifier: Path, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = command("apply", classifier, image, "--out", out, "--particles", "none")
    assert "'none' is no class; there are 1, 3, dark, light" in outcome.err
    outcome = command("apply", classifier, image, "--out", out, "--particles", "light")
    assert outcome.code == 0, outcome.err
    table = out / "alloy_particles.csv"
    with open(table, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    areas = [float(row["area (µm²)"]) for row in rows]
    light = (read_labels(out / "alloy_segmentation.tif") == 3).sum()
    assert sum(areas) == pytest.approx(light * 0.25**2)
    table.write_text("mine")
    outcome = command("apply", classifier, image, "--out", out, "--particles", 3)
    assert outcome.code == 1
    assert table.read_text() == "mine"
