"""A failed write never costs the file that was there."""

from __future__ import annotations

import errno
import os

import pytest

from napari_hrdv2.core.atomic import atomic_path


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
