"""A failed write never costs the file that was there."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from napari_hrdv2.core.atomic import atomic_path, atomic_paths, remove_leftovers


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "labels.tif"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".tif"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["labels.tif"]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    target = tmp_path / "model"
    target.write_text("old")
    with (
        pytest.raises(
            OSError, match="could not be written: No space left .* untouched"
        ),
        atomic_path(target),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_any_failure_removes_the_temporary_file(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere.*No such file"):
        atomic_path(tmp_path / "nowhere" / "model").__enter__()


def test_the_file_is_as_readable_as_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "model") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o640


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path, monkeypatch
):
    steps = []
    replace, fsync = os.replace, os.fsync

    def record_fsync(handle):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        steps.append("folder" if is_folder else "file")
        fsync(handle)

    def record_replace(*paths):
        steps.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    with atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("x")
    folder = [] if os.name == "nt" else ["folder"]
    assert steps == ["file", "rename", *folder]


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "folders are not flushed here")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "model").read_text() == "x"


def test_what_killed_writers_left_goes_after_a_day(tmp_path):
    target = tmp_path / "alloy.hrdv2"
    old, new, other = (
        tmp_path / f".{name}-{digit * 16}.hrdv2"
        for name, digit in (("alloy", "0"), ("alloy", "1"), ("steel", "2"))
    )
    for path in (target, old, new, other):
        path.write_text("x")
    for path in (target, old, other):
        os.utime(path, (0, 0))
    remove_leftovers(target)
    assert not old.exists()
    assert all(path.exists() for path in (target, new, other))


def test_tidying_a_missing_folder_is_no_error(tmp_path):
    remove_leftovers(tmp_path / "nowhere" / "alloy.hrdv2")


def test_what_is_made_of_a_file_never_lies_beside_another_one(tmp_path, monkeypatch):
    paths = tmp_path / "labels.tif", tmp_path / "labels.png"
    for path in paths:
        path.write_text("old")
    seen = set()
    replace, unlink = os.replace, type(tmp_path).unlink

    def look(change):
        def changed(*arguments, **options):
            change(*arguments, **options)
            seen.add(tuple(p.read_text() if p.exists() else "" for p in paths))

        return changed

    monkeypatch.setattr(os, "replace", look(replace))
    monkeypatch.setattr(type(tmp_path), "unlink", look(unlink))
    with atomic_paths(*paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert seen == {("old", ""), ("new", ""), ("new", "new")}
    assert sorted(os.listdir(tmp_path)) == ["labels.png", "labels.tif"]


def test_one_failure_leaves_both_old_files(tmp_path):
    paths = tmp_path / "labels.tif", tmp_path / "labels.png"
    for path in paths:
        path.write_text("old")
    with pytest.raises(RuntimeError), atomic_paths(*paths) as temporaries:
        temporaries[0].write_text("new")
        raise RuntimeError
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert len(os.listdir(tmp_path)) == 2


def test_every_writer_tidies_up_after_one_that_was_killed(tmp_path):
    left = tmp_path / f".labels-{'0' * 16}.tif"
    left.write_text("half")
    os.utime(left, (0, 0))
    with atomic_path(tmp_path / "labels.tif") as temporary:
        temporary.write_text("x")
    assert os.listdir(tmp_path) == ["labels.tif"]


def test_a_writer_within_a_writer_fails_in_one_sentence(tmp_path):
    with (
        pytest.raises(OSError, match="a.tif could not be written: No space") as caught,
        atomic_path(tmp_path / "a.tif") as outer,
        atomic_path(outer),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value).count("could not be written") == 1


def test_a_writer_within_a_writer_leaves_no_file_of_its_own(tmp_path):
    with atomic_path(tmp_path / "a.tif") as outer, atomic_path(outer) as inner:
        inner.write_text("x")
        assert os.listdir(tmp_path) == [outer.name]
    assert (tmp_path / "a.tif").read_text() == "x"


def test_a_folder_that_a_killed_writer_had_renamed_has_its_name_again(tmp_path):
    target, digits = tmp_path / "alloy.zarr", "0" * 16
    former = tmp_path / f".alloy-{digits}.zarr-former"
    half = tmp_path / f".alloy-{digits}.zarr"
    for folder in (former, half):
        folder.mkdir()
        (folder / "zarr.json").write_text(folder.name)
        os.utime(folder, (0, 0))
    remove_leftovers(target)
    assert os.listdir(tmp_path) == ["alloy.zarr"]
    assert (target / "zarr.json").read_text() == former.name
