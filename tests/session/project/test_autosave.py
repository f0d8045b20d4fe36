"""Work that was not saved is offered again, and no other work is lost for it."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from platformdirs import macos, unix, windows

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.session.project import autosave as store_module
from napari_hrdv2.session.project.autosave import AutosaveStore, default_folder
from napari_hrdv2.session.project.store import load_project
from saved_projects import CLASSES, entry, grey, killed, project
from synthetic import striped_features, strokes

DIGEST = entry().image_fingerprint
OTHER = grey((4, 9), seed=1)
WINDOWS_VARIABLE = "WIN_PD_OVERRIDE_LOCAL_APPDATA"  # elsewhere it asks Windows
MAC_FOLDER = "Library/Application Support/napari-hrdv2/autosave"


@pytest.fixture
def clock(monkeypatch):
    """A clock for the versions that only goes when it is told to."""
    start = store_module._now()
    times = [start]
    monkeypatch.setattr(store_module, "_now", lambda: times[-1])
    return lambda **step: times.append(times[-1] + timedelta(**step))


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def pixels_found(folder, fingerprint=DIGEST):
    return [
        entry.labelled_pixels
        for entry in AutosaveStore(folder).find_autosaves(fingerprint)
    ]


def made_old(folder, days):
    for path in Path(folder).iterdir():
        at = path.stat().st_mtime - days * 86400
        os.utime(path, (at, at))


def test_what_was_painted_is_offered_for_its_image(tmp_path):
    images = entry("a", 3), entry("b", 4, image=OTHER)
    path = AutosaveStore(tmp_path).write(project(*images))
    (found,) = AutosaveStore(tmp_path).find_autosaves(image_fingerprint(OTHER))
    assert found.path == path
    assert found.labelled_pixels == 7
    assert found.classes == ("Grain boundary γ′", "pore")
    assert found.images == ("a.tif", "b.tif")
    loaded = load_project(found.path)
    assert [p.labelled_pixels for p in loaded.images] == [3, 4]
    assert [p.image for p in loaded.images] == [None, None]
    assert loaded.classes == CLASSES


def test_another_image_is_offered_nothing(tmp_path):
    AutosaveStore(tmp_path).write(project(entry()))
    assert pixels_found(tmp_path, image_fingerprint(OTHER)) == []
    assert AutosaveStore(tmp_path / "nowhere").find_autosaves(DIGEST) == []


def test_growing_work_stays_in_one_file(tmp_path):
    store = AutosaveStore(tmp_path)
    paths = {store.write(project(entry("a", n))) for n in (1, 2, 5)}
    assert len(paths) == 1
    assert pixels_found(tmp_path) == [5]


def test_nothing_is_written_before_there_is_something(tmp_path):
    assert AutosaveStore(tmp_path / "new").write(project(entry("a", 0))) is None
    assert not (tmp_path / "new").exists()


def test_a_classifier_or_regions_excluded_or_given_are_something(tmp_path):
    classifier = PixelClassifier().fit(striped_features(), strokes(3, 70))
    mask = np.eye(7, 11, dtype=bool)
    AutosaveStore(tmp_path).write(project(entry("a", 0), classifier=classifier))
    AutosaveStore(tmp_path).write(project(entry("a", 0, exclusion=mask)))
    regions = np.zeros((7, 11), int)
    AutosaveStore(tmp_path).write(project(entry("a", 0, partition=regions)))
    assert pixels_found(tmp_path) == [0, 0, 0]


@pytest.mark.parametrize(
    "worse",
    [
        project(entry("a", 2)),
        project(),
        project(entry("a", 3), classes={}),
        project(entry("b", 9, image=OTHER)),
    ],
    ids=["scribbles gone", "image gone", "classes gone", "another image"],
)
def test_a_state_that_holds_less_leaves_the_better_one_alone(tmp_path, worse):
    store = AutosaveStore(tmp_path)
    better = store.write(project(entry("a", 3)))
    assert store.write(worse) != better
    assert load_project(better).images[0].labelled_pixels == 3
    assert load_project(better).classes == CLASSES


def test_a_state_without_the_given_regions_leaves_that_with_them_alone(tmp_path):
    store = AutosaveStore(tmp_path)
    regions = np.zeros((7, 11), int)
    better = store.write(project(entry("a", partition=regions)))
    assert store.write(project(entry("a"))) != better


def test_cleared_scribbles_are_not_offered_but_those_before_are(tmp_path):
    store = AutosaveStore(tmp_path)
    store.write(project(entry("a", 3)))
    store.write(project(entry("a", 0)))
    assert pixels_found(tmp_path) == [3]


def test_every_ten_minutes_a_version_stays(tmp_path, clock):
    store = AutosaveStore(tmp_path)
    for n in range(1, 5):
        store.write(project(entry("a", n)))
        clock(minutes=6)
    assert pixels_found(tmp_path) == [4, 2]


def test_five_versions_stay_and_the_one_with_the_most_scribbles(tmp_path, clock):
    store = AutosaveStore(tmp_path)
    for n in (3, 9, 1, 2, 3, 4, 5, 6):
        store.write(project(entry("a", n)))
        clock(minutes=11)
    assert pixels_found(tmp_path) == [6, 5, 4, 3, 2, 9]


def test_a_version_stays_for_the_sake_of_one_of_its_images(tmp_path, clock):
    store = AutosaveStore(tmp_path)
    store.write(project(entry("a", 3), entry("b", 1, image=OTHER)))
    for n in range(4, 12):
        store.write(project(entry("a", n)))
        clock(minutes=11)
    assert pixels_found(tmp_path, image_fingerprint(OTHER)) == [4]
    assert len(pixels_found(tmp_path)) == 6


def test_two_programs_on_one_image_write_two_files(tmp_path):
    one, two = AutosaveStore(tmp_path), AutosaveStore(tmp_path)
    one.write(project(entry("a", 8)))
    two.write(project(entry("a", 1)))
    one.write(project(entry("a", 9)))
    assert pixels_found(tmp_path) == [9, 1]


def test_the_files_of_others_stay_however_often_one_writes(tmp_path, clock):
    AutosaveStore(tmp_path).write(project(entry("a", 1)))
    store = AutosaveStore(tmp_path)
    for n in range(2, 12):
        store.write(project(entry("a", n)))
        clock(minutes=11)
    assert pixels_found(tmp_path) == [11, 10, 9, 8, 7, 1]


@pytest.mark.parametrize(("newer", "left"), [(4, 1), (5, 0)])
def test_old_files_go_once_there_are_five_newer(tmp_path, clock, newer, left):
    old = AutosaveStore(tmp_path).write(project(entry("a", 1)))
    made_old(tmp_path, 91)
    store = AutosaveStore(tmp_path)
    for n in range(newer):
        store.write(project(entry("a", 1 + n)))
        clock(minutes=11)
    assert old.exists() == bool(left)


def test_old_files_with_more_scribbles_than_any_newer_one_stay(tmp_path, clock):
    old = AutosaveStore(tmp_path).write(project(entry("a", 50)))
    made_old(tmp_path, 1000)
    store = AutosaveStore(tmp_path)
    for n in range(1, 9):
        store.write(project(entry("a", n)))
        clock(minutes=11)
    assert old.exists()


@pytest.mark.parametrize(("room", "left"), [(0, False), (10**9, True)])
def test_superfluous_files_go_earlier_where_the_folder_is_full(
    tmp_path, clock, monkeypatch, room, left
):
    monkeypatch.setattr(store_module, "_ROOM_BYTES", room)
    old = AutosaveStore(tmp_path).write(project(entry("a", 1)))
    made_old(tmp_path, 2)
    store = AutosaveStore(tmp_path)
    for n in range(1, 8):
        store.write(project(entry("a", n)))
        clock(minutes=11)
    assert old.exists() == left


def test_damaged_files_are_logged_and_left_to_a_person(tmp_path, caplog):
    store = AutosaveStore(tmp_path)
    store.write(project(entry("a", 3)))
    (tmp_path / "broken.hrdv2").write_bytes(b"PK broken")
    made_old(tmp_path, 1000)
    store.write(project(entry("a", 1)))
    assert pixels_found(tmp_path) == [1, 3]
    assert "broken.hrdv2 is not a project" in caplog.text
    assert (tmp_path / "broken.hrdv2").exists()


def test_what_killed_programs_left_is_tidied_after_a_day(tmp_path):
    (tmp_path / ".a-0123456789abcdef.hrdv2").write_bytes(b"half")
    made_old(tmp_path, 2)
    (tmp_path / ".b-0123456789abcdef.hrdv2").write_bytes(b"half")
    path = AutosaveStore(tmp_path).write(project(entry("a", 3)))
    assert files(tmp_path) == [".b-0123456789abcdef.hrdv2", path.name]


def test_a_discarded_offer_is_not_made_again(tmp_path):
    store = AutosaveStore(tmp_path)
    store.write(project(entry("a", 3)))
    (found,) = store.find_autosaves(DIGEST)
    store.discard(found)
    store.discard(found)
    assert store.find_autosaves(DIGEST) == []
    store.write(project(entry("a", 4)))
    assert pixels_found(tmp_path) == [4]


def test_a_failed_write_keeps_the_last_one_and_tries_again(tmp_path, monkeypatch):
    store = AutosaveStore(tmp_path)
    store.write(project(entry("a", 3)))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _full_disk)
        with pytest.raises(OSError, match="No space left"):
            store.write(project(entry("a", 4)))
    assert pixels_found(tmp_path) == [3]
    store.write(project(entry("a", 5)))
    assert pixels_found(tmp_path) == [5]


def test_names_tell_a_person_what_is_in_them(tmp_path):
    odd = entry("a", name="C:\\scans/Ni alloy: 3.tif")
    path = AutosaveStore(tmp_path).write(project(odd))
    assert path.name.startswith("Ni-alloy-3-20")
    nameless = AutosaveStore(tmp_path).write(project(entry("a", name="…")))
    assert nameless.name.startswith("image-20")


def test_the_folder_is_the_one_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HRDV2_AUTOSAVE", str(tmp_path))
    assert AutosaveStore().folder == tmp_path


@pytest.mark.parametrize(
    ("platform", "dirs", "variable", "end"),
    [
        ("linux", unix.Unix, "XDG_DATA_HOME", "/data/napari-hrdv2/autosave"),
        ("win32", windows.Windows, WINDOWS_VARIABLE, "/data/napari-hrdv2/autosave"),
        ("linux", unix.Unix, "", ".local/share/napari-hrdv2/autosave"),
        ("darwin", macos.MacOS, "", MAC_FOLDER),
        ("darwin", macos.MacOS, "XDG_DATA_HOME", MAC_FOLDER),
    ],
)
def test_the_default_folder_is_where_the_system_wants_data(
    monkeypatch, platform, dirs, variable, end
):
    for name in ("XDG_DATA_HOME", "NAPARI_HRDV2_AUTOSAVE"):
        monkeypatch.delenv(name, raising=False)
    drive = "C:" if platform == "win32" else ""
    if variable:
        monkeypatch.setenv(variable, f"{drive}/data")
    monkeypatch.setattr(platformdirs, "PlatformDirs", dirs)
    monkeypatch.setattr(store_module.sys, "platform", platform)
    assert default_folder().as_posix().endswith(end)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_thirty_moments_every_autosaved_scribble_is_offered():
    found = killed("autosave")
    assert found["losses"] == []
    assert found["kills"] == 30
    assert found["saves"] > 30
    assert found["in_the_middle"] > 10


class SlowStore(AutosaveStore):
    """Writes when it is let; remembers what it was given."""

    def __init__(self, folder):
        super().__init__(folder)
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.given = []

    def write(self, project):
        self.given.append(project)
        self.begun.release()
        assert self.may_end.acquire(timeout=30)


def test_of_states_that_wait_only_the_last_is_written(tmp_path):
    slow = SlowStore(tmp_path)
    slow.submit("first")
    assert slow.begun.acquire(timeout=30)
    for state in ("second", "third", "fourth"):
        slow.submit(state)
    assert slow.given == ["first"]  # one write at a time
    assert not slow.flush(timeout=0)
    slow.may_end.release(2)
    assert slow.flush(timeout=30)
    assert slow.given == ["first", "fourth"]


def test_after_a_pause_it_writes_again(tmp_path):
    writer = AutosaveStore(tmp_path)
    for n in (1, 2):
        writer.submit(project(entry("a", n)))
        assert writer.flush(timeout=30)
    assert pixels_found(tmp_path) == [2]


def test_closing_writes_what_waits_and_takes_no_more(tmp_path):
    writer = AutosaveStore(tmp_path)
    writer.submit(project(entry("a", 3)))
    assert writer.close(timeout=30)
    writer.submit(project(entry("a", 4)))
    assert writer.flush(timeout=30)
    assert pixels_found(tmp_path) == [3]


def test_errors_are_reported_and_end_nothing(tmp_path, monkeypatch):
    errors = []
    writer = AutosaveStore(tmp_path, on_error=errors.append)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _full_disk)
        writer.submit(project(entry("a", 3)))
        assert writer.flush(timeout=30)
    assert "No space left" in str(errors[0])
    writer.submit(project(entry("a", 4)))
    assert writer.close(timeout=30)
    assert pixels_found(tmp_path) == [4]


def test_without_a_callback_errors_are_logged_and_a_bad_callback_too(tmp_path, caplog):
    def fail(_):
        raise RuntimeError("bad callback")

    for callback in (None, fail):
        writer = AutosaveStore(tmp_path, on_error=callback)
        writer.submit("no project")
        assert writer.close(timeout=30)
    assert "has no attribute 'images'" in caplog.text
    assert "bad callback" in caplog.text


def test_a_thread_that_cannot_start_is_reported_and_tried_again(tmp_path, monkeypatch):
    errors = []
    writer = AutosaveStore(tmp_path, on_error=errors.append)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        writer.submit(project(entry("a", 3)))
    assert "can't start new thread" in str(errors[0])
    assert writer.flush(timeout=0)
    writer.submit(project(entry("a", 4)))
    assert writer.close(timeout=30)
    assert pixels_found(tmp_path) == [4]


def _full_disk(*paths):
    raise OSError(28, "No space left on device")


def _no_thread(thread):
    raise RuntimeError("can't start new thread")
