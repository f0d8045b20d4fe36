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
    command += ["--source", "made", "--steps", "1", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", [*command, "--losses", "invariance"])
    adapt.main()
    table = tmp_path / "out" / "rows.csv"
    before = table.read_text()
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    names = [row[0] for row in rows]
    assert names == ["made embedded", "made embedded invariance 0.0001 1 0"]
    for row in rows:
        assert all(0.5 < float(cell) <= 1 for cell in row[1:4])
        assert np.mean([float(x) for x in row[8].split()]) == pytest.approx(
            float(row[2]), abs=1e-4
        )
    monkeypatch.setattr(adapt, "scored", None)  # it would fail
    adapt.main()
    assert table.read_text() == before
    assert capsys.readouterr().out.count("| made embedded |") == 2
