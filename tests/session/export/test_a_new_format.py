"""A new export format is one object: window and scripts know it by that object."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2.session.export import FORMATS, export_all, image_format


def write_text(path, image, content):
    if image.segmentation is None:
        return False
    np.savetxt(path, image.segmentation, fmt="%d", header=str(content.names))
    return True


TEXT = image_format("text", "Numbers, text", "Label ids as text", ".txt", write_text)


@pytest.fixture(autouse=True)
def added():
    """Add the object, for one test."""
    FORMATS.append(TEXT)
    yield
    FORMATS.remove(TEXT)


def test_it_is_written_beside_the_others(trained, tmp_path):
    trained.current.name = "alloy"
    exported = export_all(trained, tmp_path, formats=["labels", "text"])
    assert [path.name for path in exported.paths] == ["alloy_labels.tif", "alloy.txt"]
    written = np.loadtxt(tmp_path / "alloy.txt")
    np.testing.assert_array_equal(written, trained.segmentation)


def test_it_does_not_replace_a_file_unasked(trained, tmp_path):
    trained.current.name = "alloy"
    (tmp_path / "alloy.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"alloy\.txt already"):
        export_all(trained, tmp_path, formats=["text"])


def test_the_window_has_a_box_for_it(qtbot, trained):
    from types import SimpleNamespace

    from napari_hrdv2.widgets.jobs import SideWork
    from napari_hrdv2.widgets.panels.files_panel import ExportBox

    side = SideWork(report=lambda error: None)
    link = SimpleNamespace(session=trained)
    box = ExportBox(link, side, attempt=None, ask=lambda text: True)
    qtbot.addWidget(box)
    assert box.boxes["text"].text() == "Numbers, text"
    assert box.boxes["text"].toolTip() == "Label ids as text"
