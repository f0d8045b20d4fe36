from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sklearn import metrics

from napari_hrdv2.files import read_label_classes, read_labels, write_labels


@pytest.fixture
def made(tmp_path: Path, truth: np.ndarray) -> Path:
    """A segmentation of ours, with a row and a column that are wrong."""
    labels = truth.copy()
    labels[7], labels[:, 30] = 3, 1
    path = tmp_path / "made.tif"
    write_labels(path, labels, class_names={1: "dark", 3: "light"})
    return path


@pytest.fixture
def true(tmp_path: Path, truth: np.ndarray) -> Path:
    path = tmp_path / "true.tif"
    write_labels(path, truth, class_names={1: "dark", 3: "light"})
    return path


def test_a_segmentation_is_scored_as_scikit_learn_scores_it(
    command, made: Path, true: Path
) -> None:
    outcome = command("score", made, true, "--json")
    assert outcome.code == 0, outcome.err
    pair = read_labels(true).ravel(), read_labels(made).ravel()
    expected = metrics.jaccard_score(*pair, average=None)
    found = outcome.json
    assert [one["name"] for one in found["classes"]] == ["dark", "light"]
    ious = [one["iou"] for one in found["classes"]]
    np.testing.assert_allclose(ious, expected, rtol=0, atol=1e-12)
    assert found["mean_iou"] == pytest.approx(expected.mean(), abs=1e-12)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(*pair), abs=1e-12)
    assert found["confusion"] == metrics.confusion_matrix(*pair).tolist()
    assert found["pixels"] == 2000
    assert 0 < found["mean_boundary_iou"] < found["mean_iou"]


@pytest.mark.parametrize("ids", [(0, 1), (1, 2), (0, 255), (4, 9)])
def test_a_truth_of_another_numbering_gives_the_same_or_is_refused(
    command, tmp_path: Path, made: Path, truth: np.ndarray, ids: tuple[int, int]
) -> None:
    numbered = np.where(truth == 1, *ids).astype(np.uint8)
    tifffile.imwrite(tmp_path / "other.tif", numbered)
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, np.where(read_labels(made) == 1, 1, 2).astype(np.uint8))
    right = command("score", plain, tmp_path / "other.tif", "--json")
    if ids == (4, 9):
        assert right.code == 1
        assert "the ids 1, 2 and the truth 4, 9, which are different" in right.err
        assert len(right.err.splitlines()) == 1
        pairs = "4=1,9=2"
        right = command(
            "score", plain, tmp_path / "other.tif", "--match", pairs, "--json"
        )
    write_labels(tmp_path / "true.tif", np.where(truth == 1, 1, 2))
    expected = command("score", plain, tmp_path / "true.tif", "--json").json
    assert right.json["mean_iou"] == expected["mean_iou"]
    assert right.json["confusion"] == expected["confusion"]


def test_pixels_under_scribbles_can_be_left_out(
    command, tmp_path: Path, made: Path, true: Path
) -> None:
    scribbles = np.zeros((40, 50), np.uint8)
    scribbles[7], scribbles[:, 30] = 1, 2  # where it is wrong
    write_labels(tmp_path / "drawn.tif", scribbles)
    arguments = ("score", made, true, "--scribbles", tmp_path / "drawn.tif", "--json")
    found = command(*arguments).json
    assert found["mean_iou"] == 1
    assert found["pixels"] == 2000 - 50 - 39


def test_the_table_and_the_errors_are_written(
    command, tmp_path: Path, made: Path, true: Path
) -> None:
    table, errors = tmp_path / "scores.csv", tmp_path / "errors.tif"
    outcome = command("score", made, true, "--csv", table, "--errors", errors)
    assert outcome.code == 0, outcome.err
    assert "light" in outcome.out
    assert "classes are told by their names" in outcome.out
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["class"] for row in rows] == ["dark", "light", "all classes"]
    wrong = read_labels(errors)
    assert (wrong > 0).sum() == (read_labels(made) != read_labels(true)).sum()
    assert int(rows[0]["taken for light"]) == (wrong == 1).sum()
    assert read_label_classes(errors).names == {1: "dark", 3: "light"}
    np.testing.assert_array_equal(wrong[wrong > 0], read_labels(true)[wrong > 0])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--match", "0=1,2"], "match: '2' in '0=1,2' is not a pair"),
        (["--match", "1=1,1=3"], "match: '1=3' in '1=1,1=3' is not a pair"),
        (["--boundary-width", "0"], "boundary_width: 0 is no width"),
        (["--errors", "errors.png"], "--errors: errors.png is not a TIFF name"),
        (["--csv", "no/where.csv"], "--csv: no/where.csv cannot be written"),
        (["--scribbles", "missing.tif"], "missing.tif"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    command, made: Path, true: Path, arguments: list[str], complaint: str
) -> None:
    outcome = command("score", made, true, *arguments)
    assert outcome.code == 1
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_truth_of_another_size_is_refused(
    command, tmp_path: Path, made: Path
) -> None:
    write_labels(tmp_path / "small.tif", np.eye(30, dtype=np.uint8))
    outcome = command("score", made, tmp_path / "small.tif")
    assert outcome.code == 1
    assert "small.tif is 30 × 30 and the image 50 × 40" in outcome.err


def test_no_input_is_replaced(command, made: Path, true: Path) -> None:
    before = true.read_bytes()
    outcome = command("score", made, true, "--errors", true)
    assert outcome.code == 1
    assert "would replace an input" in outcome.err
    assert true.read_bytes() == before
