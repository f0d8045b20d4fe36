"""Channels of a layer that are taken together, chosen in the window by their names."""

import runpy

import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_labels
from napari_hrdv2.session.export import export_all
from napari_hrdv2.session.project.format import Fingerprints
from napari_hrdv2.session.project.opening import open_project
from napari_hrdv2.session.project.snapshot import project_of
from napari_hrdv2.session.project.store import save_project
from napari_hrdv2.widgets.panels.feature_panel import PANELS
from napari_hrdv2.widgets.panels.files_panel import FilesPanel
from widgets.desk import Desk, with_panel

pytestmark = pytest.mark.filterwarnings("ignore:uint16 grey levels")
SHAPE = 60, 80


@pytest.fixture
def truth():
    rows, columns = np.indices(SHAPE)
    return 1 + (rows // 15 + columns // 20) % 3


@pytest.fixture
def maps(truth):
    """Three channels; the first two together tell the phases apart, neither alone."""
    means = np.array([[0, 90, 90, 160], [0, 600, 1300, 600], [0, 50, 50, 50]])
    noise = np.random.default_rng(0).normal(0, 1, (3, *SHAPE))
    levels = means[:, truth] + noise * np.array([9, 90, 9])[:, None, None]
    return levels.clip(0, 65535).astype(np.uint16)


@pytest.fixture
def desk(qtbot):
    yield from with_panel(qtbot, PANELS[0])


@pytest.fixture
def opened(desk, maps, tmp_path):
    """A layer of a file that names its channels, painted on once they are joined."""
    path = tmp_path / "maps.ome.tif"
    about = {"axes": "CYX", "Channel": {"Name": ["BSE", "Fe", "Si"]}}
    tifffile.imwrite(path, maps, metadata=about)
    mark = {"napari-hrdv2": {"path": str(path)}}
    desk.layer = desk.open_stack(maps, ("c", "y", "x"), metadata=mark)
    return desk


def choose(desk, text: str) -> None:
    combo = desk.panel.choices["channels"]
    combo.setCurrentText(text)
    combo.textActivated.emit(text)
    desk.settle()


def paint(desk, truth) -> None:
    layer = desk.link.scribbles
    for label in (1, 2, 3):
        rows, columns = np.nonzero((truth == label) & (np.indices(SHAPE)[0] % 6 == 0))
        layer.data_setitem((rows, columns), label)
    desk.settle()


def compute(desk) -> None:
    desk.controller.compute_features()
    desk.wait(lambda: desk.session.features is not None)
    desk.settle()


def test_channels_are_offered_by_the_names_of_the_file(opened):
    combo = opened.panel.choices["channels"]
    assert combo.isVisibleTo(opened.panel)
    assert [combo.itemText(i) for i in range(combo.count())] == ["", "BSE,Fe,Si"]
    assert opened.session.image.shape == SHAPE  # one by one until some are chosen


def test_joined_channels_are_one_flat_image_that_is_painted_and_segmented(
    opened, maps, truth
):
    choose(opened, "BSE,Fe")
    assert opened.session.current.key.plane == ()
    np.testing.assert_array_equal(opened.session.image[..., 1], maps[1])
    assert opened.link.scribbles.data.shape == SHAPE
    compute(opened)
    paint(opened, truth)
    opened.wait(lambda: opened.session.segmentation is not None)
    assert mean_iou(truth, opened.session.segmentation, [1, 2, 3]) > 0.9
    assert opened.link.segmentation.data.shape == SHAPE
    assert opened.errors == []


def test_what_was_painted_is_there_again_where_the_choice_goes_back(opened):
    opened.paint((10, 20), (10, 20), 1)
    assert opened.painted() == [(1,)]
    choose(opened, "BSE,Fe")
    assert opened.painted() == []
    opened.link.scribbles.data_setitem((np.array([5, 6]), np.array([5, 6])), 2)
    opened.settle()
    assert opened.painted() == [()]
    choose(opened, "")
    assert opened.painted() == [(1,)]
    choose(opened, "BSE,Fe")
    assert opened.painted() == [()]
    assert opened.errors == []


def test_a_name_that_is_not_there_is_told_in_a_sentence(opened):
    choose(opened, "BSE,Al")
    assert "no channel 'Al'; it has BSE, Fe, Si" in str(opened.errors[-1])


def test_a_layer_without_names_counts_its_channels(desk, maps):
    desk.open_stack(maps, ("channel", "y", "x"))
    choose(desk, "channel 3,channel 1")
    np.testing.assert_array_equal(desk.session.image[..., 0], maps[2])


def test_a_project_and_a_script_keep_the_channels(opened, truth, tmp_path, monkeypatch):
    choose(opened, "BSE,Fe")
    compute(opened)
    paint(opened, truth)
    opened.wait(lambda: opened.session.segmentation is not None)
    for with_images in (True, False):
        path = save_project(
            project_of(opened.session), tmp_path / "p", with_images=with_images
        )
        found = open_project(path, [], [], Fingerprints())
        assert found.project.options.channels == "BSE,Fe"
        ((image,), missing) = found.images.values(), found.missing
        np.testing.assert_array_equal(image, opened.session.image)
        assert not missing
    folder = tmp_path / "out"
    export_all(opened.session, folder, formats=["script", "labels"])
    monkeypatch.chdir(folder)
    runpy.run_path(str(folder / "segment.py"))
    made = next(folder.glob("*_segmentation.tif"))
    assert mean_iou(truth, read_labels(made), [1, 2, 3]) > 0.9
    opened.session.current.source = None
    with pytest.raises(ValueError, match="channels are read from a file"):
        export_all(opened.session, tmp_path / "none", formats=["script"])


def test_a_project_opens_with_its_channels_in_an_empty_window(
    opened, truth, tmp_path, qtbot
):
    choose(opened, "BSE,Fe")
    paint(opened, truth)
    image = opened.session.image.copy()
    path = save_project(project_of(opened.session), tmp_path / "p")
    another = Desk(qtbot)
    panel = FilesPanel(another.controller)
    qtbot.addWidget(panel)
    panel.loader.open(path)
    another.wait(lambda: another.session.image is not None)
    another.settle()
    np.testing.assert_array_equal(another.session.image, image)
    assert another.session.options.channels == "BSE,Fe"
    assert another.link.scribbles.data.shape == SHAPE
    assert another.session.current.class_ids == (1, 2, 3)
    assert another.errors == []
    another.controller.close()
