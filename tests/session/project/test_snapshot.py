import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.session import Session
from napari_hrdv2.session.classes import Classes, ClassInfo, matched_classes, relabelled
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project.autosave import AutosaveStore
from napari_hrdv2.session.project.format import Fingerprints
from napari_hrdv2.session.project.snapshot import (
    Autosaver,
    open_images,
    project_of,
    replaced_names,
    restore,
    take_over,
)
from napari_hrdv2.session.project.store import load_project, save_project
from saved_projects import written

KEY = PlaneKey("image")


def saved(session, path, **options):
    return load_project(save_project(project_of(session), path, **options))


def completed(session):
    return project_of(session).completed(Fingerprints(), with_images=True)


@pytest.fixture
def worked(trained):
    """A session in which everything that can be saved was changed."""
    trained.classes.rename(2, "pore")
    trained.add_class()
    mask = np.zeros((40, 48), bool)
    mask[36:] = True
    trained.set_exclusion(mask)
    trained.configure(interpolation="nearest")
    trained.refinement.change(min_object=9)
    trained.train()
    return trained


def test_a_project_holds_everything_and_opens_in_another_session(worked, tmp_path):
    other = Session()
    assert restore(other, saved(worked, tmp_path / "a")) == ()
    mine, theirs = worked.current, other.current
    np.testing.assert_array_equal(theirs.image, mine.image)
    np.testing.assert_array_equal(theirs.scribbles.labels, mine.scribbles.labels)
    np.testing.assert_array_equal(theirs.exclusion, mine.exclusion)
    assert dict(other.classes) == dict(worked.classes)
    assert other.options == worked.options
    assert other.refinement.settings == worked.refinement.settings
    np.testing.assert_array_equal(other.classifier.weight, worked.classifier.weight)


def test_the_segmentation_of_a_reopened_project_is_the_same(trained, tmp_path):
    other = Session()
    restore(other, saved(trained, tmp_path / "a"))
    other.compute_features()
    other.train()
    np.testing.assert_array_equal(other.segmentation, trained.segmentation)


def test_images_without_pixels_in_the_project_are_told(trained, tmp_path):
    project = saved(trained, tmp_path / "a", with_images=False)
    other = Session()
    (missing,) = restore(other, project)
    assert str(missing.key) == "image"
    assert len(other.images) == 0


def test_an_open_image_is_known_by_its_pixels(trained, tmp_path, image):
    project = saved(trained, tmp_path / "a", with_images=False)
    other = Session()
    other.set_image(image.copy(), "elsewhere")
    assert restore(other, project) == ()
    assert [str(key) for key in other.images] == ["elsewhere"]
    assert other.current.class_ids == (1, 2)


def test_an_image_that_is_open_twice_gets_each_scribble_once(image, labels):
    session = Session()
    for key in ("a", "b"):
        session.set_image(image.copy(), key)
        session.set_scribbles(labels * (key == "a"))
    project = completed(session)
    images = list(session.images.values())
    keys = open_images(images, project, Fingerprints())
    assert written(keys) == {"a": "a", "b": "b"}


def test_an_image_goes_with_its_own_key_else_the_first_with_the_current_one(image):
    session = Session()
    for key in ("a", "b", "c"):
        session.set_image(image.copy(), key)
    project = completed(session)
    other = Session()
    for key in ("b", "x", "y"):
        other.set_image(image.copy(), key)
    keys = open_images(list(other.images.values()), project, Fingerprints())
    assert written(keys) == {"b": "b", "c": "x", "a": "y"}


def test_scribbles_on_other_images_keep_their_classes(trained, tmp_path, image, labels):
    trained.classes.rename(1, "pore")
    project = saved(trained, tmp_path / "a")
    other = Session()
    other.classes.rename(2, "pore")
    other.set_image(image[::-1], "other")
    other.set_scribbles(labels)
    other.configure(backbone="filters")
    other.images.add(image, "image")
    (note,) = take_over(other, project, {KEY: KEY})
    assert note.startswith("Other images here have scribbles: classes were matched")
    np.testing.assert_array_equal(other.images["other"].scribbles.labels, labels)
    found = other.images["image"].scribbles.labels
    assert other.classes[int(found[5, 4])].name == "pore"
    assert other.classes[int(found[20, 30])].name == "Class 2"
    assert other.options.backbone == "filters"


def test_a_project_that_is_opened_whole_takes_back_what_was_done_since(
    session, tmp_path, labels
):
    project = saved(session, tmp_path / "a")
    session.set_scribbles(labels)
    session.set_exclusion(np.eye(40, 48, dtype=bool))
    restore(session, project)
    assert session.current.class_ids == ()
    assert not session.scribbles.labels.any()
    assert session.current.exclusion is None


def test_scribbles_stay_where_other_images_have_some(session, tmp_path, labels, image):
    project = saved(session, tmp_path / "a")
    mask = np.eye(40, 48, dtype=bool)
    session.set_scribbles(labels)
    session.set_exclusion(mask)
    session.images.add(image[::-1].copy(), "other")
    session.set_scribbles(labels, "other")
    restore(session, project)
    np.testing.assert_array_equal(session.images["image"].scribbles.labels, labels)
    np.testing.assert_array_equal(session.images["image"].exclusion, mask)


def test_images_whose_scribbles_give_way_are_named(session, tmp_path, labels, image):
    bare, keys = saved(session, tmp_path / "a"), {KEY: KEY}
    session.set_scribbles(labels)
    same = saved(session, tmp_path / "b")
    assert replaced_names(session, bare, {}) == []
    assert replaced_names(session, same, keys) == []
    session.current.name = "alloy"
    assert replaced_names(session, bare, keys) == ["alloy"]
    session.set_scribbles(labels[::-1])
    assert replaced_names(session, same, keys) == ["alloy"]
    session.images.add(image[::-1].copy(), "other")
    session.set_scribbles(labels, "other")
    assert replaced_names(session, bare, keys) == []  # nothing is erased then


def test_only_scribbles_that_are_there_are_erased(session, tmp_path):
    project = saved(session, tmp_path / "a")
    wrote = []
    take_over(session, project, {KEY: KEY}, write=lambda *a: wrote.append(a))
    assert wrote == []


def test_another_image_with_the_same_key_stays_with_its_scribbles(
    trained, tmp_path, image, labels
):
    project = saved(trained, tmp_path / "a")
    other = Session()
    other.set_image(image[::-1].copy())
    other.set_scribbles(labels[::-1])
    assert restore(other, project) == ()
    assert [str(key) for key in other.images] == ["image", "image-2"]
    np.testing.assert_array_equal(other.images["image"].image, image[::-1])
    painted = other.images["image"].scribbles.labels
    np.testing.assert_array_equal(painted, labels[::-1])
    assert str(other.current.key) == "image-2"
    np.testing.assert_array_equal(other.current.image, image)
    assert other.current.class_ids == (1, 2)


def test_a_free_key_is_none_of_the_project_either_and_keeps_the_plane(image, labels):
    session = Session()
    for number, key in enumerate(("s/3", "s-2/3")):
        session.set_image(image + number, key, plane={"Z": 3})
        session.set_scribbles(np.where(labels, number + 1, 0))
    project = completed(session)
    other = Session()
    other.set_image(image[::-1].copy(), "s/3")
    assert restore(other, project) == ()
    assert [str(key) for key in other.images] == ["s/3", "s-3/3", "s-2/3"]
    assert other.images["s-3/3"].class_ids == (1,)
    assert other.images["s-2/3"].class_ids == (2,)


def test_given_regions_come_back_and_go_with_the_project(session, tmp_path):
    regions = np.arange(40)[:, None] // 8 * 6 + np.arange(48) // 8
    without = saved(session, tmp_path / "a")
    session.current.set_partition(regions, "grains")
    project = saved(session, tmp_path / "b")
    other = Session()
    restore(other, project)
    np.testing.assert_array_equal(other.current.partition.labels, regions)
    assert other.current.partition.name == "grains"
    restore(other, without)
    assert other.current.partition is None


def test_features_of_other_regions_go_and_listeners_hear_of_it(session, tmp_path):
    session.current.set_partition(np.zeros((40, 48), int), "one")
    project = saved(session, tmp_path / "a")
    other = Session()
    other.set_image(session.image.copy())
    spit = replace(other.options, backbone="spit-small")
    other.current.set_features(np.zeros((1, 40, 48), np.float32), spit)
    heard = []
    other.features_changed.connect(lambda: heard.append(other.features))
    restore(other, project)
    assert other.features is None
    assert heard[-1] is None


def test_an_image_with_given_regions_alone_is_kept(session, tmp_path):
    saver = Autosaver(session, AutosaveStore(tmp_path))
    session.current.set_partition(np.zeros((40, 48), int), "one")
    assert saver.flush()
    session.current.set_partition(np.ones((40, 48), int), "other")
    assert saver.flush()
    (found,) = AutosaveStore(tmp_path).find_autosaves(image_fingerprint(session.image))
    assert load_project(found.path).images[0].partition_name == "other"


def test_settings_that_are_unknown_here_cost_no_scribble(
    trained, tmp_path, monkeypatch
):
    project = saved(trained, tmp_path / "a")
    object.__setattr__(project.options, "backbone", "of-the-future")
    project.refinement["new"] = 1
    other = Session()
    other.set_image(trained.image.copy(), "image")
    notes = take_over(other, project, {KEY: KEY})
    assert [note.split(":")[0] for note in notes][:2] == [
        "The options cannot be used here",
        "The refinement cannot be used here",
    ]
    assert other.current.class_ids == (1, 2)


def test_a_class_with_a_new_name_gets_a_free_number():
    classes = Classes()
    theirs = {
        1: ClassInfo("Class 2", "#000000"),
        2: ClassInfo("pore", "#111111"),
        5: ClassInfo("crack", "#222222"),
    }
    assert matched_classes(classes, theirs) == {1: 2, 2: 3, 5: 5}
    assert classes[3] == ClassInfo("pore", "#111111")
    assert classes[2].name == "Class 2"


def test_relabelling_exchanges_ids_and_leaves_others():
    labels = np.array([[0, 1, 2, 9]], np.uint8)
    assert relabelled(labels, {1: 2, 2: 300}).tolist() == [[0, 2, 300, 9]]
    assert relabelled(labels, {1: 1}) is labels


def test_only_what_was_worked_on_is_autosaved(session, image, labels):
    session.set_image(image[::-1], "other")
    assert project_of(session, painted_only=True).images == ()
    session.set_scribbles(labels, "image")
    (kept,) = project_of(session, painted_only=True).images
    assert str(kept.key) == "image"
    assert len(project_of(session).images) == 2


def test_a_fingerprint_is_computed_once_and_anew_for_another_image(image, monkeypatch):
    fingerprints = Fingerprints()
    assert fingerprints.known("a", image) == ""
    assert fingerprints.of("a", image) == image_fingerprint(image)
    assert fingerprints.known("a", image) == image_fingerprint(image)
    assert fingerprints.known("a", image.copy()) == ""


def test_each_change_is_kept(session, labels, tmp_path):
    saver = Autosaver(session, AutosaveStore(tmp_path))
    fingerprint = image_fingerprint(session.image)
    assert saver.flush()
    assert list(tmp_path.iterdir()) == []
    session.set_scribbles(labels)
    assert saver.flush()
    (found,) = AutosaveStore(tmp_path).find_autosaves(fingerprint)
    assert found.labelled_pixels == np.count_nonzero(labels)
    session.classes.rename(1, "pore")
    session.configure(interpolation="nearest")
    session.refinement.change(min_object=3)
    assert saver.flush()
    (found,) = AutosaveStore(tmp_path).find_autosaves(fingerprint)
    loaded = load_project(found.path)
    assert loaded.classes[1].name == "pore"
    assert loaded.options.interpolation == "nearest"
    assert loaded.refinement["min_object"] == 3
    assert saver.store.own == [found.path]


def test_nothing_is_written_twice(session, labels, tmp_path, monkeypatch):
    written = []
    saver = Autosaver(session, AutosaveStore(tmp_path))
    monkeypatch.setattr(saver.store, "submit", written.append)
    session.set_scribbles(labels)
    session.set_scribbles(labels.copy())
    session.images_changed.emit()
    saver.save()
    assert len(written) == 1
    session.set_trains("image", trains=False)
    assert len(written) == 2


def test_after_closing_nothing_more_is_kept(session, labels, tmp_path):
    saver = Autosaver(session, AutosaveStore(tmp_path))
    session.set_scribbles(labels)
    assert saver.close()
    (path,) = tmp_path.iterdir()
    session.set_scribbles(np.where(labels == 2, 1, labels))
    assert np.array_equal(load_project(path).images[0].scribbles, labels)


def test_a_change_in_the_middle_of_a_write_does_not_reach_it(session, labels, tmp_path):
    project = project_of(session)
    session.set_scribbles(labels)
    assert project.images[0].scribbles is None
    before = project_of(session)
    session.set_scribbles(np.zeros_like(labels))
    session.classes.rename(1, "pore")
    path = save_project(before, tmp_path / "a")
    assert np.array_equal(load_project(path).images[0].scribbles, labels)
    assert load_project(path).classes[1].name == "Class 1"


def test_a_failed_write_is_told(session, labels, tmp_path):
    (tmp_path / "file").write_text("no folder")
    errors = []
    saver = Autosaver(session, AutosaveStore(tmp_path / "file", on_error=errors.append))
    session.set_scribbles(labels)
    assert saver.flush()
    assert isinstance(errors[0], OSError)


@pytest.mark.parametrize("again", ["flush", "close"])
def test_a_failed_write_is_tried_again_without_a_further_change(
    session, labels, tmp_path, again
):
    (tmp_path / "folder").write_text("no folder")
    errors = []
    saver = Autosaver(
        session, AutosaveStore(tmp_path / "folder", on_error=errors.append)
    )
    session.set_scribbles(labels)
    assert saver.flush()
    assert len(errors) == 1
    (tmp_path / "folder").unlink()
    assert getattr(saver, again)()
    (path,) = (tmp_path / "folder").iterdir()
    np.testing.assert_array_equal(load_project(path).images[0].scribbles, labels)


def test_a_write_that_failed_is_not_forgotten_where_everything_was_erased_then(
    session, labels, tmp_path, monkeypatch
):
    saver = Autosaver(session, AutosaveStore(tmp_path, on_error=lambda error: None))
    session.set_scribbles(labels)
    assert saver.flush()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _full_disk)
        session.set_scribbles(np.zeros_like(labels))
        assert saver.flush()
    assert len(saver.store.own) == 1
    assert saver.flush()
    assert len(saver.store.own) == 2


def test_a_failure_is_logged_where_nobody_listens(session, labels, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    saver = Autosaver(session, AutosaveStore(tmp_path / "file"))
    session.set_scribbles(labels)
    assert saver.flush()
    assert "autosave: " in caplog.text


def _full_disk(*paths):
    raise OSError(28, "No space left on device")


_KILLED = """
import os, sys
import numpy as np
from napari_hrdv2.session import Session
from napari_hrdv2.session.project.snapshot import Autosaver
from napari_hrdv2.session.project.autosave import AutosaveStore

session = Session()
saver = Autosaver(session, AutosaveStore(sys.argv[1]))
session.set_image(np.load(sys.argv[2]))
session.set_scribbles(np.load(sys.argv[3]))
session.classes.rename(2, "pore")
saver.flush()
os.write(1, b"kept")
while True:
    session.classes.rename(1, os.urandom(4).hex())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a signal of Unix")
def test_after_a_kill_the_work_is_offered_and_restored(image, labels, tmp_path):
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "labels.npy", labels)
    paths = [tmp_path / name for name in ("kept", "image.npy", "labels.npy")]
    command = [sys.executable, "-c", _KILLED, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(4) == b"kept"
        os.kill(process.pid, signal.SIGKILL)
    (found,) = AutosaveStore(tmp_path / "kept").find_autosaves(image_fingerprint(image))
    session = Session()
    session.set_image(image, "opened again")
    assert restore(session, load_project(found.path)) == ()
    np.testing.assert_array_equal(session.scribbles.labels, labels)
    assert session.classes[2].name == "pore"


def test_projects_of_sessions_are_plain_json(worked, tmp_path):
    path = save_project(project_of(worked), tmp_path / "a")
    with zipfile.ZipFile(path) as archive:
        said = json.loads(archive.read("project.json"))
    assert Path(path).suffix == ".hrdv2"
    assert said["current"] == "image"
