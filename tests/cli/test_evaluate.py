from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Two sources with one easy case each; class k is scribble value k + 1."""
    entries = []
    for seed, source in enumerate(["alloy", "tissue"]):
        rng = np.random.default_rng(seed)
        truth = np.zeros((36, 44), np.uint8)
        truth[:, 20:] = 1
        grey = np.clip(70 + 90 * truth + rng.normal(0, 9, truth.shape), 0, 255)
        scribbles = np.zeros_like(truth)
        scribbles[5:8, 3:16], scribbles[20:23, 25:40] = 1, 2
        image = np.repeat(grey[..., None], 3, -1) if seed else grey
        for name, data in (("", image), ("_label", truth), ("_a", scribbles)):
            Image.fromarray(data.astype(np.uint8)).save(
                tmp_path / f"{source}{name}.png"
            )
        entries.append(
            {
                "id": f"{source}/1",
                "source": source,
                "image": f"{source}.png",
                "label": f"{source}_label.png",
                "classes": ["dark", "light"],
                "scribbles": {"a": f"{source}_a.png"},
            }
        )
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    return tmp_path


def test_every_case_is_scored_and_averaged(command, cases: Path) -> None:
    outcome = command("evaluate", cases, "--scribbles", "a", "--json")
    assert outcome.code == 0, outcome.err
    result = outcome.json
    mious = [case["miou"] for case in result["cases"]]
    assert [case["id"] for case in result["cases"]] == ["alloy/1", "tissue/1"]
    assert min(mious) > 0.9
    assert result["mean_miou"] == pytest.approx(np.mean(mious))
    assert result["mean_miou_by_source"] == {"alloy": mious[0], "tissue": mious[1]}
    assert mious[0] == pytest.approx(np.mean(result["cases"][0]["iou"]))
    assert result["cases"][0]["seconds"] > 0


def test_pixels_under_scribbles_do_not_count(command, cases: Path) -> None:
    truth = np.asarray(Image.open(cases / "alloy_label.png")).copy()
    scribbles = np.asarray(Image.open(cases / "alloy_a.png"))
    before = command("evaluate", cases, "--json").json["cases"][0]["iou"]
    truth[scribbles > 0] = 1 - truth[scribbles > 0]
    Image.fromarray(truth).save(cases / "alloy_label.png")
    after = command("evaluate", cases, "--json").json["cases"][0]["iou"]
    assert before == after


def test_an_unknown_set_of_scribbles_is_refused(command, cases: Path) -> None:
    outcome = command("evaluate", cases, "--scribbles", "hi")
    assert outcome.code == 1
    assert "alloy/1 has no set 'hi'; it has a" in outcome.err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no such file"),
        ("{", "is not JSON"),
        ("{}", "is not a list of cases"),
        ('[{"id": "x"}]', "case 1 (x) lacks source, image"),
        ("[3]", "case 1 is not an object with id, source"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(
    command, tmp_path: Path, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    outcome = command("evaluate", tmp_path)
    assert outcome.code == 1
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("scribbles", "a", "(tissue/1): scribbles is 'a', not an object"),
        ("scribbles", {"a": 3}, "(tissue/1): scribbles 'a' is not the name of a file"),
        ("classes", 2, "(tissue/1): classes is 2, not a list"),
        ("classes", [], "(tissue/1): classes is empty"),
        ("label", None, "(tissue/1): label is None, not a text"),
    ],
)
def test_a_case_with_entries_of_other_kinds_is_named(
    command, cases: Path, key: str, value: object, complaint: str
) -> None:
    entries = json.loads((cases / "manifest.json").read_text())
    entries[1][key] = value
    (cases / "manifest.json").write_text(json.dumps(entries))
    outcome = command("evaluate", cases)
    assert outcome.code == 1
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_truth_of_another_size_is_refused(command, cases: Path) -> None:
    Image.fromarray(np.eye(30, 44, dtype=np.uint8)).save(cases / "alloy_label.png")
    outcome = command("evaluate", cases)
    assert outcome.code == 1
    assert "alloy/1: " in outcome.err
    assert "is 44 × 30 and the image 44 × 36" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_case_all_under_scribbles_is_refused(command, cases: Path) -> None:
    scribbles = np.asarray(Image.open(cases / "alloy_label.png")) + 1
    Image.fromarray(scribbles.astype(np.uint8)).save(cases / "alloy_a.png")
    outcome = command("evaluate", cases, "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert "alloy/1: " in outcome.err
    assert "nothing to score" in outcome.err


def test_a_series_is_scored_by_the_scribbles_of_the_others(command, cases: Path):
    entries = json.loads((cases / "manifest.json").read_text())
    again = np.asarray(Image.open(cases / "alloy.png")) // 2 + 60
    Image.fromarray(again).save(cases / "again.png")
    entries.append({**entries[0], "id": "alloy/2", "image": "again.png"})
    (cases / "manifest.json").write_text(json.dumps(entries))
    result = command("evaluate", cases, "--protocol", "series", "--json").json
    assert [case["id"] for case in result["cases"]] == ["alloy/1", "alloy/2"]
    assert {case["note"] for case in result["cases"]} == {"matched"}
    assert result["mean_miou"] > 0.9
    assert list(result["mean_miou_by_source"]) == ["alloy"]
    chosen = ("--protocol", "series", "--normalisation", "shared", "--json")
    shared = command("evaluate", cases, *chosen).json
    assert {case["note"] for case in shared["cases"]} == {"shared"}


def test_a_series_of_one_is_none(command, cases: Path):
    outcome = command("evaluate", cases, "--protocol", "series")
    assert outcome.code == 1
    assert "no source has two images" in outcome.err
