"""One thing after the other, whatever comes of each."""

import threading
from dataclasses import dataclass

import pytest

from napari_hrdv2.widgets.jobs import JobRunner, SideWork


@dataclass(frozen=True)
class Say:
    word: str

    def __call__(self, context):
        if self.word == "bad":
            raise ValueError("bad word")
        context.partial(self.word[0])
        return self.word


@pytest.fixture
def reported():
    return []


@pytest.fixture
def side(qtbot, reported):
    side = SideWork(reported.append)
    yield side
    side.close()


def test_a_hearer_that_fails_does_not_stop_the_rest(side, reported, qtbot):
    heard = []

    def refuse(word):
        raise ValueError(f"no {word}")

    side.submit("first", Say("one"), refuse)
    side.submit("second", Say("two"), heard.append)
    qtbot.waitUntil(lambda: heard == ["two"])
    assert [str(error) for error in reported] == ["no one"]
    assert not side.is_busy


def test_a_failure_is_reported_or_heard(side, reported, qtbot):
    heard = []
    side.submit("first", Say("bad"), heard.append)
    qtbot.waitUntil(lambda: len(reported) == 1)
    side.submit("second", Say("bad"), heard.append, hear_failure=heard.append)
    qtbot.waitUntil(lambda: len(heard) == 1)
    assert str(heard[0]) == "bad word"
    assert len(reported) == 1


def test_the_latest_of_a_kind_wins_and_parts_come_first(side, qtbot):
    heard, parts = [], []
    for word in ("one", "two", "three"):
        side.submit("words", Say(word), heard.append, hear_part=parts.append)
    qtbot.waitUntil(lambda: not side.is_busy)
    assert heard == ["three"]
    assert parts[-1] == "t"


def test_what_was_cancelled_is_not_heard(side, qtbot):
    heard = []
    side.submit("words", Say("one"), heard.append)
    side.cancel("words")
    qtbot.waitUntil(lambda: not side.is_busy)
    assert heard == []


def test_an_abandoned_task_is_not_heard_and_the_next_one_runs_beside_it(qtbot):
    lane, gate, heard = JobRunner(), threading.Event(), []
    lane.returned.connect(heard.append)
    lane.start(lambda context: gate.wait(10))
    assert lane.abandon()
    lane.start(Say("two"))
    qtbot.waitUntil(lambda: heard == ["two"])
    lane.start(lambda context: gate.wait(10))
    assert not lane.abandon()  # one thread beside another is enough
    gate.set()
    qtbot.waitUntil(lambda: heard == ["two", True])
