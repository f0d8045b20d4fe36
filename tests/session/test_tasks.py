import pytest

from napari_hrdv2.session import TimeLeft
from napari_hrdv2.session.tasks import duration_text


def test_the_time_left_follows_from_the_pace():
    clock = TimeLeft()
    assert clock.text("features", 0, 10, now=100.0) == ""
    assert clock.text("features", 2, 10, now=104.0) == "about 16 s left"
    assert clock.text("features", 9, 10, now=118.0) == "about 2 s left"


def test_a_new_stage_starts_a_new_clock():
    clock = TimeLeft()
    clock.text("download", 1, 2, now=0.0)
    assert clock.text("features", 5, 10, now=1000.0) == ""
    assert clock.text("features", 6, 10, now=1001.0) != ""


def test_work_of_unknown_length_has_no_end():
    clock = TimeLeft()
    clock.text("download", 0, 0, now=0.0)
    assert clock.text("download", 5, 0, now=9.0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (200, "3 min"), (7500, "2 h 5 min")],
)
def test_durations_are_told_in_words(seconds, text):
    assert duration_text(seconds) == text
