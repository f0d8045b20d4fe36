from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_hrdv2.cli import clusters as module
from napari_hrdv2.files import read_image, read_labels


def test_clusters_mean_the_same_on_all_images(
    command, image: Path, another_image, truth: np.ndarray, tmp_path: Path
) -> None:
    other, out = another_image(tmp_path / "other.tif", seed=5), tmp_path / "out"
    outcome = command("clusters", image, other, "-k", 2, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["clusters"] == 2
    names: dict[int, int] = {}
    for stem, told in zip(("alloy", "other"), outcome.json["images"], strict=True):
        labels = read_labels(out / f"{stem}_clusters.tif")
        for class_id in (1, 3):
            counts = np.bincount(labels[truth == class_id], minlength=3)
            assert counts.max() > 0.9 * counts.sum()
            best = int(counts.argmax())
            assert names.setdefault(best, class_id) == class_id
        assert told["shares"]["1"] == pytest.approx((labels == 1).mean())
        assert [Path(path).name for path in told["outputs"]] == [
            f"{stem}_clusters.tif",
            f"{stem}_clusters.png",
            f"{stem}_clusters_colors.png",
        ]
        assert read_image(out / f"{stem}_clusters.tif").pixel_size == 0.25
        colors = read_image(out / f"{stem}_clusters_colors.png").data
        assert colors.shape == (*truth.shape, 3)
    assert len(names) == 2


def test_foreground_masks_are_written_if_asked_for(
    command, image: Path, another_image, tmp_path: Path, monkeypatch
) -> None:
    other, out = another_image(tmp_path / "other.tif", seed=5), tmp_path / "out"
    arguments = ("clusters", image, other, "--out", out, "--exclude", "30,0,40,50")
    masks = []
    for share in (0.25, 0.0):
        monkeypatch.setattr(module, "KEPT_MEMORY", share)
        outcome = command(*arguments, "--foreground", "--json")
        assert outcome.code == 0, outcome.err
        for told in outcome.json["images"]:
            path = Path(told["outputs"][-1])
            assert path.name.endswith("_clusters_foreground.tif")
            assert read_image(path).pixel_size == 0.25
            masks.append(read_labels(path))
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(masks[1], masks[3])
    for mask in masks:
        assert set(np.unique(mask)) == {0, 1}
        assert not mask[30:].any()
    (left,) = {int(mask[10, 5]) for mask in masks}  # alike in both
    assert all(int(mask[10, 40]) != left for mask in masks)


def test_features_that_do_not_fit_are_computed_twice(
    command, image: Path, another_image, tmp_path: Path, monkeypatch
) -> None:
    other = another_image(tmp_path / "other.tif", seed=5)
    made = []
    for share in (0.25, 0.0):
        monkeypatch.setattr(module, "KEPT_MEMORY", share)
        out = tmp_path / f"out{share}"
        assert command("clusters", image, other, "-k", 4, "--out", out).code == 0
        made.append([path.read_bytes() for path in sorted(out.glob("*.png"))])
    assert made[0] == made[1]


def test_what_is_excluded_is_in_no_cluster(
    command, image: Path, tmp_path: Path
) -> None:
    options = ("--exclude", "30,0,40,50", "--out", tmp_path)
    assert command("clusters", image, "-k", 3, *options).code == 0
    labels = read_labels(tmp_path / "alloy_clusters.tif")
    assert (labels[30:] == 0).all()
    assert (labels[:30] > 0).all()
    picture = read_image(tmp_path / "alloy_clusters_colors.png").data
    assert (picture[30:] == 0).all()


def test_files_of_others_are_not_replaced_and_results_are_no_images(
    command, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    foreign = out / "alloy_clusters_colors.png"
    foreign.write_bytes(b"of somebody else")
    for _ in range(2):
        assert command("clusters", image, "--out", out).code == 0
    assert foreign.read_bytes() == b"of somebody else"
    assert (out / "alloy_2_clusters_colors.png").is_file()
    foreign.unlink()
    outcome = command("clusters", out, "--out", out)  # pictures of ours are no images
    assert outcome.code == 1
    assert "has no micrograph" in outcome.err


@pytest.mark.parametrize("count", [1, 51])
def test_other_numbers_of_clusters_are_refused(
    command, image: Path, tmp_path: Path, count: int
) -> None:
    outcome = command("clusters", image, "-k", count, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert f"--clusters: {count} is not from 2 to 50" in outcome.err


def test_a_folder_without_micrographs_is_refused(command, tmp_path: Path) -> None:
    outcome = command("clusters", tmp_path, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "has no micrograph" in outcome.err
