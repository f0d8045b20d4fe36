from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

napari = pytest.importorskip("napari")
pytest.importorskip("zarr")

from napari_hrdv2.files import LabelClasses, write_labels, write_ome_zarr  # noqa: E402
from napari_hrdv2.files.layers import get_reader  # noqa: E402

LABELS = np.zeros((7, 9), np.uint8)
LABELS[2:4], LABELS[5] = 1, 255
NAMES, COLORS = {1: "γ′", 255: "pore"}, {1: "#ff8800", 255: "#0000ff"}


def _layers(path: Path) -> list:
    reader = get_reader(str(path))
    assert reader is not None
    return [napari.layers.Layer.create(*each) for each in reader(str(path))]


def _check_labels(layer: object) -> None:
    assert np.array_equal(layer.data, LABELS)
    assert layer.scale.tolist() == [0.25, 0.25]
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    assert layer.features["name"].tolist() == ["γ′", "pore"]
    assert layer.get_color(1) == pytest.approx([1, 136 / 255, 0, 1])
    assert layer.get_color(255) == pytest.approx([0, 0, 1, 1])


def test_napari_shows_a_label_tiff_with_names_colours_and_pixel_size(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.tif"
    write_labels(
        path,
        LABELS,
        pixel_size=0.25,
        unit="µm",
        class_names=NAMES,
        class_colors=COLORS,
    )
    (layer,) = _layers(path)
    _check_labels(layer)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)], ids=["grey", "colour"])
def test_napari_shows_an_ome_zarr_with_names_colours_and_pixel_size(
    tmp_path: Path, shape: tuple[int, ...], version: str
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "alloy.zarr"
    classes = LabelClasses(NAMES, COLORS)
    write_ome_zarr(path, image, LABELS, classes, 0.25, "µm", version=version)
    shown, labels = _layers(path)
    assert np.array_equal(shown.data, image)
    assert shown.rgb == (len(shape) == 3)
    assert shown.scale.tolist() == [0.25, 0.25]
    assert (shown.name, labels.name) == ("alloy", "segmentation")
    _check_labels(labels)


def test_napari_reads_the_arrays_by_itself(tmp_path: Path) -> None:
    builtin = pytest.importorskip("napari_builtins.io")
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, LABELS * 2, LABELS, LabelClasses())
    for place, expected in (
        (path / "0", LABELS * 2),
        (path / "labels" / "segmentation", LABELS),
    ):
        ((data, *_),) = builtin.napari_get_reader(str(place))(str(place))
        assert np.array_equal(np.squeeze(np.asarray(data)), expected)


def test_other_files_are_left_to_other_readers(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_group(tmp_path / "other.zarr")
    assert get_reader(str(tmp_path / "other.zarr")) is None
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    assert get_reader(str(tmp_path / "a.tif")) is None
    assert get_reader(str(tmp_path)) is None
    assert get_reader([str(tmp_path / "a.tif")]) is None
    assert get_reader(str(tmp_path / "none.png")) is None
