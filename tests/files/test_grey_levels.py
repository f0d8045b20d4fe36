from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_hrdv2.files import import_labels, write_labels


def _write(path: Path, levels: list[int], dtype: str = "uint8") -> np.ndarray:
    """Each level in a column of its own, after two columns of 0."""
    labels = np.zeros((5, len(levels) + 2), dtype)
    labels[:, 2:] = levels
    if path.suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)
    return labels


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize(
    "levels",
    [
        [255],
        [127, 255],
        [128, 255],
        [127, 254],
        [85, 170, 255],
        [63, 126, 189, 252],
        [64, 128, 191, 255],
        [51, 102, 153, 204, 255],
        [36, 72, 108, 144, 180, 216, 252],
    ],
    ids=str,
)
def test_levels_evenly_spaced_up_to_white_become_classes(
    tmp_path: Path, levels: list[int], suffix: str
) -> None:
    path = tmp_path / f"labels.{suffix}"
    _write(path, levels)
    found = import_labels(path, (5, len(levels) + 2))
    assert found.labels[3].tolist() == [0, 0, *range(1, len(levels) + 1)]
    assert found.labels.dtype == np.uint8
    assert ", ".join(map(str, levels)) in found.note


def test_sixteen_bit_levels_count_up_to_their_own_white(tmp_path: Path) -> None:
    _write(tmp_path / "l.tif", [21845, 43690, 65535], "uint16")
    found = import_labels(tmp_path / "l.tif")
    assert found.labels[0].tolist() == [0, 0, 1, 2, 3]
    assert found.labels.dtype == np.uint8


@pytest.mark.parametrize(
    "levels",
    [
        [1],
        [1, 2, 3],
        [2, 4],
        [100, 200],
        [85, 255],  # a level is missing: which one is a guess
        [50, 130, 255],
        [128],
        list(range(1, 256)),
    ],
    ids=lambda levels: str(levels[:4]),
)
def test_other_values_are_ids_as_they_are(tmp_path: Path, levels: list[int]) -> None:
    labels = _write(tmp_path / "l.tif", levels)
    found = import_labels(tmp_path / "l.tif")
    assert np.array_equal(found.labels, labels)
    assert "as in the file" in found.note


def test_grey_levels_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    labels = _write(tmp_path / "l.tif", [85, 170, 255])
    found = import_labels(tmp_path / "l.tif", grey_levels=False)
    assert np.array_equal(found.labels, labels)


def test_a_file_of_ours_with_class_names_is_never_taken_for_grey_levels(
    tmp_path: Path,
) -> None:
    labels = np.array([[0, 255], [255, 0]])
    write_labels(tmp_path / "l.tif", labels, class_names={255: "crack"})
    found = import_labels(tmp_path / "l.tif", (2, 2))
    assert np.array_equal(found.labels, labels)
    assert found.classes.names == {255: "crack"}


def test_labels_of_ours_come_with_names_and_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [2, 0, 0]])
    names, colors = {1: "α", 2: "β"}, {1: "#ff0000", 2: "#0000ff"}
    write_labels(tmp_path / "l.tif", labels, class_names=names, class_colors=colors)
    found = import_labels(tmp_path / "l.tif", (2, 3))
    assert np.array_equal(found.labels, labels)
    assert (found.classes.names, found.classes.colors) == (names, colors)


def test_nothing_painted_stays_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "l.tif", np.zeros((3, 4), np.uint8))
    found = import_labels(tmp_path / "l.tif", (3, 4))
    assert not found.labels.any()
    assert found.note.startswith("0 classes")


def test_labels_of_another_size_are_refused_in_a_sentence(tmp_path: Path) -> None:
    _write(tmp_path / "l.tif", [1, 2])
    with pytest.raises(ValueError, match=r"l\.tif is 4 × 5 and the image 9 × 8 "):
        import_labels(tmp_path / "l.tif", (8, 9))
    with pytest.raises(ValueError, match="rows and columns seem to be exchanged"):
        import_labels(tmp_path / "l.tif", (4, 5))


def test_what_is_no_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.tif: there is no such file"):
        import_labels(tmp_path / "no.tif")
    (tmp_path / "t.labeling").write_text("hello")
    with pytest.raises(ValueError, match="not an image of a kind read here"):
        import_labels(tmp_path / "t.labeling")
    with pytest.raises(IsADirectoryError, match="no OME-Zarr"):
        import_labels(tmp_path)
