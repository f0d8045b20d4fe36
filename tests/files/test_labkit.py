from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("h5py")
pytest.importorskip("roifile")

from files.foreign import labkit
from napari_hrdv2.files import import_labels

LABELS = np.zeros((5, 8), int)
LABELS[1, 2:7] = 1
LABELS[4, 0] = 2
NAMES = ("background", "foreground")


def test_pixels_names_and_colours_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.labeling"
    colors = {"background": "#00FF00", "foreground": "#0A0B0C"}
    path.write_text(labkit(LABELS, NAMES, colors=colors))
    found = import_labels(path, (5, 8))
    assert np.array_equal(found.labels, LABELS)
    assert found.classes.names == dict(enumerate(NAMES, 1))
    assert found.classes.colors == {1: "#00ff00", 2: "#0a0b0c"}
    assert found.note == "Labkit: 2 classes."


def test_the_interval_may_begin_elsewhere_and_labels_may_be_empty(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.labeling"
    content = {
        "interval": {"min": [10, 20, 3], "max": [14, 22, 3]},
        "labels": {"empty": [], "painted": [[11, 22, 3]]},
    }
    path.write_text(json.dumps(content))
    found = import_labels(path, (3, 5))
    assert np.argwhere(found.labels == 2).tolist() == [[2, 1]]


def test_of_several_labels_of_a_pixel_the_last_is_taken_and_that_is_said(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.labeling"
    content = json.loads(labkit(LABELS, NAMES))
    content["labels"]["foreground"] += [[2, 1], [3, 1]]
    path.write_text(json.dumps(content))
    found = import_labels(path, (5, 8))
    assert found.labels[1].tolist() == [0, 0, 2, 2, 1, 1, 1, 0]
    assert "2 pixels have several labels, of which the last was taken" in found.note


def test_labels_of_another_size_of_a_stack_or_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.labeling"
    path.write_text(labkit(LABELS, NAMES))
    with pytest.raises(ValueError, match="a.labeling is 8 × 5 and the image 9 × 5"):
        import_labels(path, (5, 9))
    content = {"interval": {"min": [0, 0, 0], "max": [4, 4, 4]}, "labels": {}}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="labels of a stack"):
        import_labels(path, (5, 5))
    path.write_text(labkit(LABELS * 0, NAMES))
    with pytest.raises(ValueError, match="no labelled pixel"):
        import_labels(path, (5, 8))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"labels": {}', "damaged"),
        ('{"labels": {}}', "damaged"),
        ('{"type": "FeatureCollection"}', "not of Labkit"),
        (
            '{"interval": {"min": [0, 0], "max": [3, 3]}, "labels": {"a": [[9, 0]]}}',
            "a pixel lies outside of the image",
        ),
    ],
)
def test_what_is_no_labeling_is_refused(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "a.labeling").write_text(content)
    with pytest.raises(ValueError, match=said):
        import_labels(tmp_path / "a.labeling", (4, 4))


def test_a_tiff_of_labkit_takes_its_names_from_the_file_beside_it(
    tmp_path: Path,
) -> None:
    values = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values)
    sets = {"labelSets": [[], ["phase 10"], ["phase 2"], ["phase 2", "phase 10"]]}
    (tmp_path / "a.tif.labels").write_text(json.dumps(sets))
    found = import_labels(tmp_path / "a.tif", (2, 3))
    assert found.classes.names == {1: "phase 2", 2: "phase 10"}
    assert found.labels.tolist() == [[0, 2, 1], [2, 0, 2]]
    assert "1 pixel has several labels" in found.note
