from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from micrographs import make_sample
from napari_hrdv2.files import read_image, read_labels

if TYPE_CHECKING:
    from napari_hrdv2.core.samples import Sample


@pytest.fixture
def small_sample(monkeypatch) -> Sample:
    """The demo's micrograph, made small."""
    sample = make_sample("particles", (80, 96))
    monkeypatch.setattr("napari_hrdv2.core.samples.example", lambda: sample)
    return sample


def test_the_demo_segments_and_draws(
    command, small_sample: Sample, tmp_path: Path
) -> None:
    outcome = command("demo", "--out", tmp_path / "demo")
    assert outcome.code == 0, outcome.err
    assert "mIoU" in outcome.out
    assert "particle" in outcome.out
    entry = Image.open(tmp_path / "demo" / "demo.png")
    assert entry.width > 4 * 96
    assert entry.height > 80


def test_the_demo_s_files_are_what_segment_takes(
    command, small_sample: Sample, tmp_path: Path
) -> None:
    outcome = command("demo", "--out", tmp_path, "--json")
    assert np.array_equal(
        read_image(tmp_path / "micrograph.tif").data, small_sample.image
    )
    image, scribbles = tmp_path / "micrograph.tif", tmp_path / "scribbles.tif"
    again = command("segment", image, "--labels", scribbles, "--json")
    assert again.json["phase_fractions"] == outcome.json["phase_fractions"]
    assert np.array_equal(
        read_labels(tmp_path / "micrograph_segmentation.tif"),
        read_labels(tmp_path / "segmentation.tif"),
    )


def test_the_demo_reports_as_json(
    command, small_sample: Sample, tmp_path: Path
) -> None:
    result = command("demo", "--out", tmp_path, "--json").json
    assert 0.5 < result["miou"] <= 1
    assert result["class_names"] == {"1": "matrix", "2": "particle"}
    assert all(Path(path).is_file() for path in result["outputs"])


def test_the_demo_makes_the_example_and_nothing_else(command) -> None:
    outcome = command("demo", "--kind", "stain")
    assert outcome.code == 2
    assert "--kind" in outcome.err


def test_the_image_shows_scribbles_and_truth_in_the_classes_colours(
    tmp_path: Path,
) -> None:
    from napari_hrdv2.cli.demo import draw_panels

    sample = make_sample("particles", (64, 64))
    colors = {1: "#ff0000", 2: "#00ff00"}
    draw_panels(tmp_path / "p.png", sample, sample.labels, colors, 1.0)
    pixels = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    scribbles = pixels[64 : 64 + 64, 24 + 80 : 24 + 80 + 64]
    assert (scribbles[sample.scribbles == 1] == [255, 0, 0]).all()
    assert (scribbles[sample.scribbles == 2] == [0, 255, 0]).all()
    truth = pixels[64 : 64 + 64, 24 + 240 : 24 + 240 + 64]
    greener = truth[..., 1] > truth[..., 0]
    assert np.array_equal(greener, sample.labels == 2)


def test_the_window_s_command_ends_with_json_too(command, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr("napari_hrdv2.widgets.launch_demo", lambda: opened.append(1))
    monkeypatch.setenv("DISPLAY", ":0")
    result = command("demo", "--gui", "--json")
    assert result.json == {"outputs": []}
    assert opened == [1]


def test_a_file_is_no_folder_for_the_images(command, tmp_path: Path) -> None:
    (tmp_path / "im.png").touch()
    outcome = command("demo", "--out", tmp_path / "im.png")
    assert outcome.code == 1
    assert outcome.err.endswith("im.png is a file; give a folder\n")


def test_the_demo_without_a_display_is_refused_in_one_sentence(
    command, monkeypatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    outcome = command("demo", "--gui")
    assert outcome.code == 1
    assert "there is no display" in outcome.err
