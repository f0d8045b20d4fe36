"""What a project may ask of the machine, and of other machines."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_hrdv2.session.project import format as format_module
from napari_hrdv2.session.project.format import SourceRecord, is_elsewhere
from napari_hrdv2.session.project.store import load_project, save_project
from saved_projects import entry, grey, project


def rewritten(path: Path, change, extra=None, method=zipfile.ZIP_DEFLATED) -> None:
    """Let `change` alter what project.json says, and add members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    record = json.loads(members["project.json"])
    change(record)
    members["project.json"] = json.dumps(record).encode()
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in {**members, **(extra or {})}.items():
            archive.writestr(name, content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_project(project(entry("a")), tmp_path / "alloy")


def blank(side: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((side, side), np.uint8), compression="zlib", rowsperstrip=side
    )
    return file.getvalue()


def test_a_small_file_that_asks_for_gigabytes_is_refused(path: Path) -> None:
    """Arrays that are packed twice, and read as wider numbers than they are."""
    side = 3000

    def many(record):
        (one,) = record["images"]
        array = {"file": "scribbles/1.tif", "dtype": "float64", "shape": [side, side]}
        record["images"] = [
            {
                **one,
                "key": f"k{i}",
                "shape": [side, side],
                "scribbles": {**array, "file": f"scribbles/{i}.tif"},
                "image": None,
            }
            for i in range(40)
        ]

    extra = {f"scribbles/{i}.tif": blank(side) for i in range(40)}
    rewritten(path, many, extra)
    assert path.stat().st_size < 300_000
    with pytest.raises(ValueError, match="it claims to hold 2.9 GB, which is more"):
        load_project(path)


def test_a_member_serves_one_array(path: Path) -> None:
    def twice(record):
        (one,) = record["images"]
        record["images"] = [{**one, "key": key} for key in "ab"]

    rewritten(path, twice)
    with pytest.raises(ValueError, match=r"is damaged: .*tif is used 2 times"):
        load_project(path)


def test_labels_that_are_blank_for_the_most_part_are_no_attack(tmp_path: Path) -> None:
    labels = np.zeros((6000, 5000), np.int64)
    labels[17, 4:9] = 7
    one = entry("a", image=grey((3, 3)), shape=labels.shape)
    given = {**vars(one), "scribbles": labels, "image": None}
    path = save_project(project(type(one)(**given)), tmp_path / "a", with_images=False)
    assert path.stat().st_size < labels.nbytes / 1032
    assert np.array_equal(load_project(path).images[0].scribbles, labels)


@pytest.mark.slow
def test_thirty_thousand_images_take_seconds(path: Path) -> None:
    def many(record):
        (one,) = record["images"]
        bare = {**one, "scribbles": None, "image": None}
        record["images"] = [{**bare, "key": f"k{i}"} for i in range(30_000)]

    rewritten(path, many)
    start = time.perf_counter()
    assert len(load_project(path).images) == 30_000
    assert time.perf_counter() - start < 10


def test_a_zip_of_a_future_version_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 6] = 255  # version needed to extract
    path.write_bytes(content)
    with pytest.raises(ValueError, match="alloy.hrdv2 is not a project"):
        load_project(path)


def test_half_a_surrogate_pair_in_a_name_becomes_writable(path: Path) -> None:
    def spoil(record):
        record["classes"]["7"]["name"] = "pore\ud800"

    rewritten(path, spoil)
    assert load_project(path).classes[7].name == "pore?"


@pytest.mark.parametrize(
    ("place", "elsewhere"),
    [
        (r"\\host\share\x.tif", True),
        ("//host/share/x.tif", True),
        (r"\\?\UNC\host\share\x.tif", True),
        (r"\\lab\data\other\x.tif", False),  # the share of the project itself
        (r"C:\data\x.tif", False),
        (r"..\x.tif", False),
    ],
)
def test_a_path_on_another_machine_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, place: str, elsewhere: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(format_module, "_IS_WINDOWS", True)
    monkeypatch.setattr(
        format_module.os.path, "exists", lambda path: asked.append(str(path))
    )
    folder = Path(r"\\lab\data\project")
    assert is_elsewhere(place, folder) == elsewhere
    assert SourceRecord(absolute=place).found_from(folder) == place
    assert (place in asked) is not elsewhere
