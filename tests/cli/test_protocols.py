from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_hrdv2.files import write_labels

SHAPE = (40, 56)


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of two phases, its truth 0 and 1, scribbles 1 and 2."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(SHAPE, np.uint8)
    truth[:20, seed + 4 : 24], truth[24:, 30:50] = 1, 1
    grey = np.clip(70 + 90 * truth + rng.normal(0, 9, SHAPE), 0, 255).astype(np.uint8)
    scribbles = np.where(rng.random(SHAPE) < 0.06, truth + 1, 0).astype(np.uint8)
    return grey, truth, scribbles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images with dense labels and scribbles beside them, as files."""
    for seed in range(3):
        grey, truth, scribbles = world(seed)
        tifffile.imwrite(tmp_path / f"im{seed}.tif", grey)
        tifffile.imwrite(tmp_path / f"im{seed}_label.tif", truth)
        tifffile.imwrite(tmp_path / f"im{seed}_scribbles.tif", scribbles)
    tifffile.imwrite(tmp_path / "other.tif", grey)  # has no truth
    (tmp_path / "._im0.tif").write_bytes(b"Mac OS X")
    return tmp_path


def relabel(folder: Path, change) -> None:
    for path in folder.glob("*_label.tif"):
        tifffile.imwrite(path, change(tifffile.imread(path)))


@pytest.mark.parametrize(
    ("protocol", "scored"),
    [("scribbles", 3), ("linear", 2), ("clusters", 3), ("neighbours", 3)],
)
def test_every_protocol_scores_ones_own_folder(
    command, folder: Path, protocol: str, scored: int
) -> None:
    outcome = command("evaluate", folder, "-p", protocol, "-b", "filters", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert found["protocol"] == protocol
    assert len(found["cases"]) == scored
    assert found["mean_miou"] > 0.85
    mious = [case["miou"] for case in found["cases"]]
    assert found["mean_miou_by_source"] == {folder.name: pytest.approx(np.mean(mious))}


def test_the_clusters_are_the_same_twice(command, folder: Path) -> None:
    arguments = ("evaluate", folder, "-p", "clusters", "-b", "filters", "--json")
    first, second = (command(*arguments, "--clusters", "9").json for _ in range(2))
    others = [case["others"] for case in first["cases"]]
    assert [list(each) for each in others] == [["9 clusters"]] * 3
    assert others == [case["others"] for case in second["cases"]]
    assert first["mean_others"]["9 clusters"] > 0.85


def test_as_many_clusters_as_classes_do_not_hide_those_that_are_matched(
    command, folder: Path
) -> None:
    def rare(ids: np.ndarray) -> np.ndarray:
        few = np.zeros_like(ids)
        few[:4] = ids[:4]
        return few

    relabel(folder, rare)  # most pixels of each cluster are of the other class
    arguments = ("evaluate", folder, "-p", "clusters", "-b", "filters", "--json")
    found = [command(*arguments, "--clusters", n).json["cases"] for n in (9, 2)]
    matched = [[case["miou"] for case in cases] for cases in found]
    assert matched[0] == matched[1]
    assert found[1][0]["others"]["2 clusters"] != matched[1][0]


@pytest.mark.parametrize("protocol", ["linear", "neighbours"])
def test_what_is_scored_did_not_train(command, folder: Path, protocol: str) -> None:
    for path in folder.glob("*_scribbles.tif"):
        path.unlink()
    arguments = ("evaluate", folder, "-p", protocol, "-b", "filters", "--json")
    before = command(*arguments).json["cases"]
    scored = {case["id"] for case in before}
    assert len(scored) == 2
    for name in scored:  # a truth that is turned round is not learnt from
        path = folder / f"{name}_label.tif"
        tifffile.imwrite(path, 1 - tifffile.imread(path))
    after = command(*arguments).json["cases"]
    assert {case["id"] for case in after} == scored
    assert all(case["miou"] < 0.1 for case in after)


def test_a_single_image_trains_on_its_left_half(command, folder: Path) -> None:
    for number in (1, 2):
        (folder / f"im{number}_label.tif").unlink()
    truth = tifffile.imread(folder / "im0_label.tif")
    truth[:, 28:] = 1 - truth[:, 28:]
    tifffile.imwrite(folder / "im0_label.tif", truth)
    outcome = command("evaluate", folder, "-p", "linear", "-b", "filters", "--json")
    assert [case["id"] for case in outcome.json["cases"]] == ["im0"]
    assert outcome.json["mean_miou"] < 0.1


def test_grey_and_colour_images_are_not_mixed(command, folder: Path) -> None:
    coloured = tifffile.imread(folder / "im0.tif")[..., None] * np.array([1, 0.9, 0.4])
    tifffile.imwrite(folder / "im0.tif", coloured.astype(np.uint8), photometric="rgb")
    outcome = command("evaluate", folder, "-p", "linear", "-b", "filters", "--json")
    assert outcome.code == 0, outcome.err
    assert "im0" in [case["id"] for case in outcome.json["cases"]]


def test_backbones_are_compared_in_one_table(command, folder: Path) -> None:
    table = folder / "scores.csv"
    arguments = ("-b", "filters", "-b", "embedded", "--csv", table, "--json")
    outcome = command("evaluate", folder, *arguments)
    assert outcome.code == 0, outcome.err
    found = outcome.json["backbones"]
    assert [each["backbone"] for each in found] == ["filters", "embedded"]
    assert outcome.json["mean_miou"] == found[0]["mean_miou"]
    line = next(x for x in outcome.err.splitlines() if x.startswith("im1 "))
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 8
    own = [row for row in rows if row["case"] == "im1"]
    for row, each in zip(own, found, strict=True):
        assert float(row["mean IoU"]) == each["cases"][1]["miou"]
        assert float(row["IoU of class 2"]) == each["cases"][1]["iou"][1]
    last = [x for x in outcome.err.splitlines() if x.startswith("im1 ")][-1]
    assert last.split() == ["im1", *(f"{float(r['mean IoU']):.4f}" for r in own)]
    assert line != last


def test_protocols_are_compared_in_one_table(command, folder: Path) -> None:
    table = folder / "scores.csv"
    arguments = ("-p", "linear", "-p", "clusters", "-b", "filters", "--csv", table)
    outcome = command("evaluate", folder, *arguments, "--json")
    assert outcome.code == 0, outcome.err
    linear, clusters = outcome.json["backbones"]
    assert (linear["protocol"], clusters["protocol"]) == ("linear", "clusters")
    scored = {case["id"]: f"{case['miou']:.4f}" for case in linear["cases"]}
    lines = [x.split() for x in outcome.err.splitlines() if x.startswith("im")]
    divided = [f"{case['miou']:.4f}" for case in clusters["cases"]]
    shown = {cells[0]: cells[1:] for cells in lines[-3:]}  # the last table has all
    assert [cells[1] for cells in shown.values()] == divided
    assert [cells[0] for cells in shown.values()] == [
        scored.get(name, "-") for name in shown
    ]
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["protocol"] for row in rows] == ["linear"] * 3 + ["clusters"] * 4
    last = outcome.err.splitlines()[-1]
    means = [
        linear["mean_miou"],
        clusters["mean_miou"],
        *clusters["mean_others"].values(),
    ]
    assert last.split() == [
        "mean",
        "of",
        "2",
        "or",
        "3",
        "cases",
        *(f"{m:.4f}" for m in means),
    ]


def test_a_plot_has_a_bar_for_each_mean_and_a_dot_for_each_case(
    command, folder: Path, monkeypatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figures.Figure.savefig

    def keep(figure, *arguments, **given):
        drawn.append(figure)
        save(figure, *arguments, **given)

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    plot = folder / "scores.SVG"
    arguments = ("-p", "linear", "-p", "clusters", "-b", "filters", "-b", "embedded")
    outcome = command("evaluate", folder, *arguments, "--plot", plot, "--json")
    assert outcome.code == 0, outcome.err
    assert b"<svg" in plot.read_bytes()
    found = outcome.json["backbones"]
    axes = drawn[0].axes[0]
    heights = [
        mean
        for name in ("filters", "embedded")
        for each in (e for e in found if e["backbone"] == name)
        for mean in (each["mean_miou"], *each["mean_others"].values())
    ]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(heights)
    dots = [list(line.get_ydata()) for line in axes.lines]
    assert dots[0] == pytest.approx([case["miou"] for case in found[0]["cases"]])
    assert [len(each) for each in dots] == [2, 3, 3] * 2


def test_a_plot_says_what_it_lacks_before_anything_is_scored(
    command, tmp_path: Path, monkeypatch
) -> None:
    outcome = command("evaluate", tmp_path / "none", "--plot", tmp_path / "a.jpg")
    assert "a.jpg is to end in .png or .svg or .pdf" in outcome.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = command("evaluate", tmp_path / "none", "--plot", tmp_path / "a.png")
    assert outcome.code == 1
    assert 'pip install "napari-hrdv2[plot]"' in outcome.err


def test_folders_of_images_and_labels_are_paired(command, folder: Path) -> None:
    for kind in ("images", "labels", "scribbles"):
        (folder / kind).mkdir()
    for number in range(3):
        (folder / f"im{number}.tif").rename(folder / "images" / f"im{number}.tif")
        for kind, name in (("label", "labels"), ("scribbles", "scribbles")):
            source = folder / f"im{number}_{kind}.tif"
            source.rename(folder / name / f"im{number}.tif")
    outcome = command("evaluate", folder, "-b", "filters", "--json")
    assert [case["id"] for case in outcome.json["cases"]] == ["im0", "im1", "im2"]
    assert outcome.json["mean_miou"] > 0.85


@pytest.mark.parametrize("protocol", ["scribbles", "clusters"])
def test_the_score_does_not_depend_on_how_the_truth_is_numbered(
    command, folder: Path, protocol: str
) -> None:
    arguments = ("evaluate", folder, "-p", protocol, "-b", "filters", "--json")
    expected = [case["iou"] for case in command(*arguments).json["cases"]]
    for change in (lambda ids: ids + 1, lambda ids: (ids - 1) * 255):
        relabel(folder, change)
        found = [case["iou"] for case in command(*arguments).json["cases"]]
        assert found == expected


def test_ids_that_are_no_class_can_be_ignored(command, folder: Path) -> None:
    def with_a_frame(ids: np.ndarray) -> np.ndarray:
        framed = ids + 1
        framed[:8] = 0
        return framed

    relabel(folder, with_a_frame)
    for path in folder.glob("*_scribbles.tif"):  # they would tell that 0 is none
        path.unlink()
    arguments = ("evaluate", folder, "-p", "clusters", "-b", "filters", "--json")
    assert len(command(*arguments).json["cases"][0]["iou"]) == 3
    ignoring = command(*arguments, "--ignore", 0).json
    assert len(ignoring["cases"][0]["iou"]) == 2
    assert ignoring["mean_miou"] > 0.85


def test_names_in_label_files_tell_the_classes(command, folder: Path) -> None:
    for path in folder.glob("*_label.tif"):
        ids = tifffile.imread(path) + 1
        ids[:8] = 0
        write_labels(path, ids, class_names={1: "dark", 2: "light"})
    outcome = command("evaluate", folder, "-p", "clusters", "-b", "filters", "--json")
    assert len(outcome.json["cases"][0]["iou"]) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["-p", "probe"],
            "--protocol: 'probe' is unknown; use scribbles or series or linear or",
        ),
        (["--clusters", "0"], "--clusters: 0 is no number of clusters"),
        (["--csv", "no/where.csv"], "--csv: no/where.csv cannot be written"),
        (
            ["-b", "filters", "-b", "embedded", "--weights", "mine.safetensors"],
            "--weights: mine.safetensors is of one backbone, and there are 2",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(
    command, folder: Path, arguments: list[str], complaint: str
) -> None:
    outcome = command("evaluate", folder, *arguments)
    assert outcome.code == 1
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_folder_without_scribbles_names_the_way_out(command, folder: Path) -> None:
    (folder / "im1_scribbles.tif").unlink()
    outcome = command("evaluate", folder)
    assert outcome.code == 1
    assert "im1.tif: there are no scribbles im1_scribbles beside it" in outcome.err
    assert "--protocol" in outcome.err


@pytest.fixture
def manifest(folder: Path) -> Path:
    """The same three as cases of two classes."""
    entries = [
        {
            "id": f"im{n}",
            "source": "steel",
            "image": f"im{n}.tif",
            "label": f"im{n}_label.tif",
            "classes": ["dark", "light"],
            "scribbles": {"a": f"im{n}_scribbles.tif"},
        }
        for n in range(3)
    ]
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: ids + 1,
        lambda ids: ids * 255,
        lambda ids: np.where(np.arange(SHAPE[1]) < 2, 0, ids + 1).astype(np.uint8),
    ],
    ids=["from 1", "a mask", "from 1 with 0 unknown"],
)
def test_a_truth_of_a_case_numbered_otherwise_is_understood(
    command, manifest: Path, change
) -> None:
    arguments = ("evaluate", manifest, "-b", "filters", "--json")
    expected = command(*arguments).json["mean_miou"]
    relabel(manifest, change)
    assert command(*arguments).json["mean_miou"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda ids: ids + 4, "has the ids 4, 5, and there are 2 classes; number them"),
        (lambda ids: 1 - ids, "number the classes otherwise"),
        (lambda ids: ids * 3, "has the ids 0, 3, and there are 2 classes"),
    ],
)
def test_a_truth_that_contradicts_the_scribbles_is_refused(
    command, manifest: Path, change, complaint: str
) -> None:
    relabel(manifest, change)
    outcome = command("evaluate", manifest, "-b", "filters", "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert complaint in outcome.err


def test_a_truth_from_1_without_its_last_class_is_refused(
    command, manifest: Path
) -> None:
    entries = json.loads((manifest / "manifest.json").read_text())
    for entry in entries:
        entry["classes"].append("crack")
    (manifest / "manifest.json").write_text(json.dumps(entries))
    relabel(manifest, lambda ids: ids + 1)
    outcome = command("evaluate", manifest, "-b", "filters")
    assert outcome.code == 1
    assert "is numbered from 0, by the scribbles from 1" in outcome.err


def test_scribbles_beyond_the_classes_are_refused(command, manifest: Path) -> None:
    path = manifest / "im1_scribbles.tif"
    tifffile.imwrite(path, tifffile.imread(path) * 2)
    outcome = command("evaluate", manifest, "-b", "filters")
    assert outcome.code == 1
    assert "has scribbles of class 4, and there are 2 classes" in outcome.err


def test_a_half_that_is_not_known_is_refused(command, folder: Path) -> None:
    for number in (1, 2):
        (folder / f"im{number}_label.tif").unlink()
    (folder / "im0_scribbles.tif").unlink()
    relabel(folder, lambda ids: np.where(np.arange(SHAPE[1]) < 28, ids + 1, 0))
    arguments = ("-p", "linear", "-b", "filters", "--ignore", 0)
    outcome = command("evaluate", folder, *arguments)
    assert outcome.code == 1
    assert "im0: its right half has no pixel of a known class" in outcome.err


def test_a_manifest_says_itself_what_to_ignore(command, manifest: Path) -> None:
    outcome = command("evaluate", manifest, "--ignore", 0)
    assert outcome.code == 1
    assert "--ignore: " in outcome.err


def test_protocols_without_scribbles_need_none(command, manifest: Path) -> None:
    entries = json.loads((manifest / "manifest.json").read_text())
    for entry in entries:
        del entry["scribbles"]
    (manifest / "manifest.json").write_text(json.dumps(entries))
    assert command("evaluate", manifest, "-p", "linear", "-b", "filters").code == 0
    outcome = command("evaluate", manifest)
    assert "lacks scribbles" in outcome.err
