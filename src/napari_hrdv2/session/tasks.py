"""Long work in any thread: how it is run, watched and stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari_hrdv2.core.errors import Cancelled

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

ShouldStop = Callable[[], bool]
"""Asked often; when it returns True the work ends with `Cancelled`."""


def _ignore(*told: object) -> None:
    """Report to nobody."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class TaskContext:
    """Progress, partial results and cancellation of a running task."""

    progress: Progress = _ignore
    partial: Callable[[Any], None] = _ignore
    should_stop: ShouldStop = _never

    def stop_if_cancelled(self) -> None:
        """Raise `Cancelled` if the answer is not wanted any more."""
        if self.should_stop():
            raise Cancelled

    def loading(self, done: int, total: int) -> None:
        """Report how much of a backbone is loaded; stop that if it is not wanted."""
        self.stop_if_cancelled()
        self.progress("Loading weights", done, total)


Task = Callable[[TaskContext], Any]
"""Work that any thread may do: a function, or a frozen request with a version.

It reads copies of the state it was made from, so late answers are told by the version.
"""


def compute(
    task: Task,
    *,
    progress: Progress = _ignore,
    partial: Callable[[Any], None] = _ignore,
    should_stop: ShouldStop = _never,
) -> Any:
    """Return the answer of a task, in the calling thread."""
    return task(TaskContext(progress, partial, should_stop))


class TimeLeft:
    """Tells the time left of one computation from its throughput so far."""

    def __init__(self) -> None:
        self._stage = ""
        self._start, self._first = 0.0, 0  # when, and what an earlier run had done

    def text(
        self, stage: str, done: int, total: int, *, now: float | None = None
    ) -> str:
        """Return ``"about 12 s left"``, or "" while it is unknown."""
        now = time.monotonic() if now is None else now
        if stage != self._stage:
            self._stage, self._start, self._first = stage, now, done
        elapsed, gained = now - self._start, done - self._first
        if gained <= 0 or total <= 0 or elapsed <= 0.0:
            return ""
        return f"about {duration_text(elapsed * (total - done) / gained)} left"


def duration_text(seconds: float) -> str:
    """Return a duration in words: ``"8 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
