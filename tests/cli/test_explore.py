from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from napari_hrdv2 import compute_features, load_backbone, propose_places
from napari_hrdv2.files import read_image

FILTERS = ("--backbone", "filters")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "places.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_places_of_the_core(command, image, tmp_path):
    out = tmp_path / "where"
    outcome = command("explore", image, "--places", 12, "--out", out, *FILTERS)
    assert outcome.code == 0, outcome.err
    features = compute_features(read_image(image).data, load_backbone("filters"))
    expected = [(one.row, one.column) for one in propose_places(features, 12)]
    rows = rows_of(out)
    assert [(int(one["row"]), int(one["column"])) for one in rows] == expected
    for one in rows:
        is_rare = float(one["share"]) < 0.5 / len(rows)
        assert one["kind"] == ("rare" if is_rare else "common")
    assert rows[0]["image"] == str(image)
    assert 0 < float(rows[0]["share"]) <= 1


def test_the_picture_has_a_ring_around_each_place(command, image, tmp_path):
    outcome = command(
        "explore", image, "--places", 2, "--out", tmp_path / "where", "--json", *FILTERS
    )
    assert outcome.code == 0, outcome.err
    picture = read_image(tmp_path / "where" / "alloy_places.png").data.astype(int)
    assert picture.shape == (*read_image(image).data.shape, 3)
    is_ring = picture[..., 0] - picture[..., 1] > 100
    for place in outcome.json["places"]:
        rows, columns = np.nonzero(is_ring)
        away = np.hypot(rows - place["row"], columns - place["column"])
        assert (abs(away - 10) < 1.5).sum() > 10


def test_excluded_parts_have_no_place(command, image, tmp_path):
    options = ("--exclude", "0,0,40,30", "--out", tmp_path / "where", *FILTERS)
    assert command("explore", image, *options).code == 0
    rows = rows_of(tmp_path / "where")
    assert rows
    assert all(int(one["column"]) >= 30 for one in rows)


def test_images_of_one_name_share_the_places(command, image, tmp_path):
    other = tmp_path / "more" / image.name
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    out = tmp_path / "where"
    outcome = command("explore", image, other, "--out", out, "--json", *FILTERS)
    assert outcome.code == 0, outcome.err
    assert {one["image"] for one in rows_of(out)} == {str(image), str(other)}
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["alloy_1_places.png", "alloy_2_places.png"]


@pytest.mark.parametrize("count", ["0", "few"])
def test_no_number_of_places_is_wrong_usage(command, image, tmp_path, count):
    outcome = command("explore", image, "--places", count, "--out", tmp_path / "where")
    assert outcome.code == 2
    assert "--places" in outcome.err
