"""What is done is told once, and done again when anything of it changed."""

import os

from napari_hrdv2.files.run_log import RunLog


def logged(tmp_path):
    image, result = tmp_path / "i.zarr", tmp_path / "r.zarr"
    for folder in (image, result):
        (folder / "0").mkdir(parents=True)
        (folder / "0" / "c").write_bytes(b"1")
    RunLog(tmp_path, "a").add(image, [result], {"n": 1})
    return image, result


def test_only_the_same_settings_are_done(tmp_path):
    image, _ = logged(tmp_path)
    assert RunLog(tmp_path, "a").find(image) == {"n": 1}
    assert RunLog(tmp_path, "b").find(image) is None


def test_a_folder_that_changed_or_is_gone_is_not_done(tmp_path):
    image, result = logged(tmp_path)
    os.utime(image / "0" / "c", ns=(0, 0))
    assert RunLog(tmp_path, "a").find(image) is None
    RunLog(tmp_path, "a").add(image, [result], {"n": 2})
    assert RunLog(tmp_path, "a").find(image) == {"n": 2}
    (result / "0" / "c").unlink()
    assert RunLog(tmp_path, "a").find(image) is None


def test_a_run_that_was_killed_in_its_first_line_is_gone_on_with(tmp_path):
    log = tmp_path / "apply_log.jsonl"
    log.write_text('\n{"format": "napari-hr')
    image, _ = logged(tmp_path)
    assert RunLog(tmp_path, "a").find(image) == {"n": 1}
    assert list(tmp_path.glob("apply_log*")) == [log]
