"""The benchmark of adaptation fills in the rows that are missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import adapt


def make_cases(folder: Path) -> Path:
    """Write two images of two phases, their truth and scribbles, and a manifest."""
    entries = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        truth = np.zeros((64, 70), np.uint8)
        truth[10:50, 8 + seed : 40] = 1
        grey = np.clip(80 + 70 * truth + rng.normal(0, 12, truth.shape), 0, 255)
        drawn = np.where(rng.random(truth.shape) < 0.05, truth + 1, 0)
        files = {"image": grey, "label": truth, "scribbles": drawn}
        for name, array in files.items():
            tifffile.imwrite(folder / f"{seed}_{name}.tif", array.astype(np.uint8))
        entries.append(
            {
                "id": str(seed),
                "source": "made",
                "image": f"{seed}_image.tif",
                "label": f"{seed}_label.tif",
                "classes": ["dark", "light"],
                "scribbles": dict.fromkeys(("lo", "a"), f"{seed}_scribbles.tif"),
            }
        )
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.slow
def test_rows_that_are_there_are_not_made_again(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.CHECKED_PAIRS", 1)
    command = ["adapt", str(make_cases(tmp_path)), str(tmp_path / "out")]
    command += ["--sources", "made", "--steps", "1", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", [*command, "--losses", "invariance"])
    adapt.main()
    table = tmp_path / "out" / "rows.csv"
    before = table.read_text()
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    names = ["embedded", "embedded invariance 0.0004 1 0"]
    assert [row[0] for row in rows] == [names[0]] * 2 + [names[1]] * 2
    assert [row[3] for row in rows] == ["0", "1", "0", "1"]
    for row in rows:
        assert all(0.5 < float(cell) <= 1 for cell in row[4:])
    monkeypatch.setattr(adapt, "scored", None)  # it would fail
    adapt.main()
    assert table.read_text() == before
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].split(" | ")[:2] == ["| embedded", f"{mean(rows[:2], 4):.4f}"]
    assert printed[-1].split(" | ")[3] == f"{mean(rows[2:], 6):.4f}"


def mean(rows: list[list[str]], column: int) -> float:
    """The mean of a column of figures."""
    return float(np.mean([float(row[column]) for row in rows]))


def test_what_the_default_keeps_is_told_by_source() -> None:
    before = [
        ["b", "0", "x", "1", "0.5", "0.6", "0.7", "0.80", "0.80"],
        ["b", "0", "y", "2", "0.5", "0.6", "0.7", "0.80", "nan"],
    ]
    after = [
        ["run", "9", "x", "1", "0.6", "0.5", "0.9", "0.81", "0.80"],  # too little
        ["run", "9", "y", "2", "0.9", "0.5", "0.9", "0.82", "nan"],
    ]
    means, kept = ["0.7500", "0.5000", "0.9000"], ["0.7000", "0.5500", "0.8000"]
    summary = adapt.summary(before, after)
    assert summary == ["run", *means, "2 of 2", "y", *kept, "0.1000"]
