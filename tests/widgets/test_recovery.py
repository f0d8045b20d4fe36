import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QMessageBox

from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project.autosave import AutosaveEntry, AutosaveStore
from napari_hrdv2.session.project.store import load_project, save_project
from napari_hrdv2.widgets.widget import RecoveryNotice, _time_text

ANSWERS = QMessageBox.StandardButton


@pytest.fixture
def labels():
    labels = np.zeros((64, 80), np.uint8)
    labels[10:12, 5:20], labels[40:42, 60:70] = 1, 2
    return labels


@pytest.fixture
def folder(preferences):
    return Path(preferences.autosave_folder)


@pytest.fixture
def kept(folder, image, labels):
    """Work that a program left behind that is no more."""
    from napari_hrdv2.session import Session
    from napari_hrdv2.session.project.snapshot import Autosaver

    session = Session()
    saver = Autosaver(session, AutosaveStore(folder))
    session.set_image(image)
    session.set_scribbles(labels)
    session.classes.rename(2, "pore")
    session.configure(interpolation="nearest")
    saver.close()
    return labels


@pytest.fixture
def answer(monkeypatch):
    """Return a function that answers all questions from now on."""
    asked = []

    def answers(button):
        def question(parent, title, text):
            asked.append(text)
            return button

        monkeypatch.setattr(QMessageBox, "question", question)
        return asked

    return answers


def noticed(bench):
    controller = bench.controller
    notice = RecoveryNotice(controller.autosave, controller.project_loader())
    bench.qtbot.addWidget(notice)
    bench.settle()
    return notice


def is_shown(notice):
    return not notice.isHidden()


def test_work_that_was_kept_is_offered_and_restored(kept, bench):
    notice = noticed(bench)
    bench.wait(lambda: is_shown(notice))
    assert notice.text.text().endswith("was found (2 classes, 50 pixels).")
    assert not np.any(bench.scribbles.data)
    notice.restore.click()
    bench.wait(lambda: np.array_equal(bench.scribbles.data, kept))
    bench.settle()
    np.testing.assert_array_equal(bench.session.scribbles.labels, kept)
    assert bench.session.classes[2].name == "pore"
    assert bench.session.options.interpolation == "nearest"
    assert not is_shown(notice)


def test_restored_scribbles_are_segmented_and_undone_like_any(kept, bench):
    notice = noticed(bench)
    bench.compute()
    notice.restore.click()
    bench.wait(lambda: "Segmentation: Image" in bench.names)
    bench.settle()
    bench.scribbles.undo()
    bench.settle()
    assert not np.any(bench.scribbles.data)


def test_nothing_is_offered_on_an_image_nobody_worked_on(kept, bench, image):
    bench.viewer.layers[0].data = image[::-1].copy()
    notice = noticed(bench)
    assert not is_shown(notice)


def test_what_is_declined_is_offered_when_the_image_is_opened_again(kept, bench):
    notice = noticed(bench)
    notice.later.click()
    assert not is_shown(notice)
    bench.controller.autosave.look()
    bench.settle()
    assert not is_shown(notice)
    fingerprint = image_fingerprint(bench.session.image)
    assert len(
        AutosaveStore(bench.controller.autosave.saver.store.folder).find_autosaves(
            fingerprint
        )
    )


def test_forgetting_asks_and_removes_the_file(kept, bench, folder, answer):
    notice = noticed(bench)
    asked = answer(ANSWERS.No)
    notice.forget.click()
    assert "for good" in asked[0]
    assert len(list(folder.iterdir())) == 1
    answer(ANSWERS.Yes)
    notice.forget.click()
    assert list(folder.iterdir()) == []
    assert not is_shown(notice)


def test_work_that_has_begun_is_replaced_only_if_the_user_agrees(kept, bench, answer):
    notice = noticed(bench)
    bench.paint((30,), range(10, 20), 2)
    asked = answer(ANSWERS.No)
    notice.restore.click()
    bench.wait(lambda: bool(asked))
    bench.settle()
    assert "Image has scribbles already" in asked[0]
    assert np.count_nonzero(bench.session.scribbles.labels) >= 10
    assert not np.any(bench.session.scribbles.labels == 1)
    answer(ANSWERS.Yes)
    notice.restore.click()
    bench.wait(lambda: np.array_equal(bench.scribbles.data, kept))


def test_own_autosaves_are_no_offers(bench, folder):
    notice = noticed(bench)
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    assert bench.controller.autosave.saver.flush()
    assert len(list(folder.iterdir())) == 1
    bench.controller.autosave.look()
    bench.settle()
    assert not is_shown(notice)


def test_painting_is_kept_without_being_asked_for(bench, folder):
    bench.paint((30,), range(10, 20), 2)
    fingerprint = image_fingerprint(bench.session.image)
    bench.wait(lambda: bool(AutosaveStore(folder).find_autosaves(fingerprint)))
    (found,) = AutosaveStore(folder).find_autosaves(fingerprint)
    saved = load_project(found.path).images[0]
    np.testing.assert_array_equal(saved.scribbles, bench.scribbles.data)
    assert saved.pixel_size == (0.5, "nm")


def test_closing_keeps_what_was_done_last(bench, folder):
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    saver = bench.controller.autosave.saver
    bench.controller.close()
    assert saver.store.flush()
    assert len(list(folder.iterdir())) == 1


def test_a_full_disk_is_told_once(bench, monkeypatch, folder):
    told = []
    monkeypatch.setattr(bench.controller.reporter, "report", told.append)

    def refuse(self, project):
        raise OSError("autosave: no space left")

    monkeypatch.setattr(AutosaveStore, "write", refuse)
    for row in (30, 34):
        bench.paint((row,), range(10, 20), 2)
        bench.settle()
        bench.controller.autosave.saver.flush()
    bench.wait(lambda: bool(told))
    bench.settle()
    assert len(told) == 1


@pytest.mark.parametrize("newer", [True, False])
def test_work_newer_than_the_project_is_offered(kept, bench, newer):
    notice = noticed(bench)
    since = datetime.now(UTC) + timedelta(hours=-1 if newer else 1)
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    bench.controller.autosave.note_saved({bench.session.current.key}, since)
    bench.settle()
    assert is_shown(notice) == newer


def test_several_states_are_listed_newest_first(kept, bench, folder):
    (path,) = folder.iterdir()
    project = load_project(path)
    save_project(project, folder / "other.hrdv2", with_images=False)
    notice = noticed(bench)
    bench.controller.autosave.look()
    bench.settle()
    assert notice.choice.count() == 2
    assert not notice.choice.isHidden()
    assert bench.controller.autosave.found[0].path.name == "other.hrdv2"


def test_the_state_that_was_chosen_is_not_followed_by_later_ones(kept, bench, folder):
    (path,) = folder.iterdir()
    save_project(load_project(path), folder / "later.hrdv2", with_images=False)
    notice = noticed(bench)
    bench.controller.autosave.look()
    bench.settle()
    notice.choice.setCurrentIndex(1)
    notice.restore.click()
    bench.wait(lambda: np.array_equal(bench.scribbles.data, kept))
    bench.settle()
    assert not is_shown(notice)


def test_work_on_two_images_is_offered_on_each(kept, bench, folder, image, labels):
    other = image[::-1].copy()
    (path,) = folder.iterdir()
    project = load_project(path)
    second = replace(
        project.images[0],
        key=PlaneKey("second"),
        image_fingerprint=image_fingerprint(other),
        scribbles=labels[::-1],
    )
    save_project(replace(project, images=(*project.images, second)), path)
    notice = noticed(bench)
    bench.controller.autosave.look()
    bench.settle()
    assert notice.text.text().endswith("(2 classes, 100 pixels, 2 images).")
    notice.restore.click()
    bench.wait(lambda: np.array_equal(bench.scribbles.data, kept))
    layer = bench.viewer.add_image(other, name="second")
    bench.settle()
    bench.controller.link.select_image(layer)
    bench.settle()
    bench.wait(lambda: is_shown(notice))
    notice.restore.click()
    scribbles = bench.controller.link.scribbles
    bench.wait(lambda: np.array_equal(scribbles.data, labels[::-1]))


def test_with_autosave_off_nothing_is_kept(
    make_viewer, make_bench, image, monkeypatch, folder
):
    from napari_hrdv2.widgets.preferences import Preferences

    chosen = Preferences(
        start_features=False, autosave=False, autosave_folder=str(folder)
    )
    monkeypatch.setattr(
        "napari_hrdv2.widgets.controller.read_preferences", lambda: chosen
    )
    viewer = make_viewer()
    viewer.add_image(image)
    bench = make_bench(viewer)
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    assert bench.controller.autosave.saver is None
    bench.controller.close()
    assert not folder.exists()


def test_the_time_of_another_day_is_told_with_its_date():
    entry = AutosaveEntry(
        Path("a"), datetime(2020, 1, 2, 12, tzinfo=UTC), 1, ("a",), ("b",)
    )
    assert _time_text(entry).startswith("02 Jan 2020, ")


_WINDOW = """
import os, sys
import napari
import numpy as np
from napari_hrdv2.widgets import SegmentationWidget
import napari_hrdv2.widgets.controller as controller
from napari_hrdv2.widgets.preferences import Preferences
from qtpy.QtWidgets import QApplication

chosen = Preferences(start_features=False, autosave_folder=sys.argv[1])
controller.read_preferences = lambda: chosen
viewer = napari.Viewer()
viewer.add_image(np.load(sys.argv[2]), name="alloy")
widget = SegmentationWidget(viewer)
viewer.window.add_dock_widget(widget)
while widget.controller.link.scribbles is None:
    QApplication.processEvents()
layer = widget.controller.link.scribbles
for row in range(8, 12):
    for column in range(5, 20):
        layer.paint((row, column), 1 + (row > 9))
while not os.path.isdir(sys.argv[1]) or not any(
    name.endswith(".hrdv2") and not name.startswith(".")
    for name in os.listdir(sys.argv[1])
):
    QApplication.processEvents()
np.save(sys.argv[3], layer.data)
os.write(1, b"kept")
while True:
    QApplication.processEvents()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a signal of Unix")
def test_scribbles_of_a_window_that_was_killed_come_back(
    tmp_path, folder, image, make_viewer, make_bench
):
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", _WINDOW, str(folder), str(tmp_path / "image.npy")]
    with subprocess.Popen(
        [*command, str(tmp_path / "scribbles.npy")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.read(4) == b"kept"
        os.kill(process.pid, signal.SIGKILL)
    viewer = make_viewer()
    viewer.add_image(image, name="alloy, renamed")
    bench = make_bench(viewer)
    notice = noticed(bench)
    bench.wait(lambda: is_shown(notice))
    notice.restore.click()
    scribbles = np.load(tmp_path / "scribbles.npy")
    assert scribbles.any()
    bench.wait(lambda: np.array_equal(bench.scribbles.data, scribbles))


def test_work_on_an_image_that_is_open_twice_comes_to_the_one_that_is_shown(
    kept, make_viewer, make_bench, image
):
    viewer = make_viewer()
    for name in ("first", "second"):
        viewer.add_image(image.copy(), name=name)
    bench = make_bench(viewer)
    bench.settle()
    link = bench.controller.link
    for name in ("first", "second"):  # both are pictures of the session now
        link.select_image(viewer.layers[name])
        bench.settle()
    notice = noticed(bench)
    bench.wait(lambda: is_shown(notice))
    notice.restore.click()
    bench.wait(lambda: np.array_equal(link.scribbles.data, kept))
    bench.settle()
    painted = [p.name for p in bench.session.images.values() if p.class_ids]
    assert painted == ["second"]
