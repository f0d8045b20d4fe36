"""Work beside features and strokes: one thing after the other, the latest wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from .worker import JobRunner

if TYPE_CHECKING:
    from napari_hrdv2.session import Task

Hear = Callable[[Any], object]


@dataclass(frozen=True)
class _Work:
    """A task, and who hears what becomes of it."""

    kind: str
    task: Task
    hear: Hear
    hear_part: Hear
    hear_failure: Hear | None


class SideWork(QObject):
    """Runs tasks of several kinds in one worker thread.

    Parameters
    ----------
    report : callable
        Called with an exception that nobody else hears of.
    """

    progressed = Signal(str, int, int)
    changed = Signal()

    def __init__(self, report: Callable[[Exception], None]) -> None:
        super().__init__()
        self._report = report
        self._waiting: dict[str, _Work] = {}
        self._running: _Work | None = None
        self._jobs = JobRunner()
        self._jobs.progressed.connect(self.progressed)
        self._jobs.partly_returned.connect(self._on_part)
        self._jobs.returned.connect(self._on_returned)
        self._jobs.failed.connect(self._on_failed)
        self._jobs.cancelled.connect(self._on_cancelled)

    @property
    def is_busy(self) -> bool:
        """Whether anything is being worked on or waits for it."""
        return self._running is not None or bool(self._waiting)

    @property
    def kind(self) -> str:
        """What is being worked on, "" if nothing is."""
        return self._running.kind if self._running else ""

    def has(self, kind: str) -> bool:
        """Whether work of a kind is being done or waits for it."""
        return self.kind == kind or kind in self._waiting

    def submit(
        self,
        kind: str,
        task: Task,
        hear: Hear,
        *,
        hear_part: Hear = lambda part: None,
        hear_failure: Hear | None = None,
    ) -> None:
        """Ask for work; an older task of the same kind is given up.

        Parameters
        ----------
        kind : str
        task : Task
            See `session.tasks.context`.
        hear : callable
            Called with the answer, in the main thread; not after `cancel`.
        hear_part : callable, optional
            Called with parts of the answer that come earlier.
        hear_failure : callable, optional
            Called with what went wrong, instead of its being reported.
        """
        self._waiting.pop(kind, None)
        self._waiting[kind] = _Work(kind, task, hear, hear_part, hear_failure)
        if self.kind == kind:
            self._jobs.cancel()
        self._advance()
        self.changed.emit()

    def cancel(self, kind: str) -> None:
        """Give up work of one kind, whether it has begun or not."""
        self._waiting.pop(kind, None)
        if self.kind == kind:
            self._jobs.cancel()
        self.changed.emit()

    def close(self) -> None:
        """Give up everything; the thread ends by itself."""
        self._waiting.clear()
        self._running = None
        self._jobs.close()

    def _advance(self) -> None:
        if self._running is None and self._waiting:
            self._running = self._waiting.pop(next(iter(self._waiting)))
            self._jobs.start(self._running.task)

    def _finish(self, hear: Hear | None, told: Any) -> None:
        """Tell how the work ended, and go on with the next whatever comes of it."""
        self._running = None
        self._tell(hear, told)
        self._advance()
        self.changed.emit()

    def _tell(self, hear: Hear | None, told: Any) -> None:
        if hear is None:
            return
        try:
            hear(told)
        except Exception as error:  # noqa: BLE001 - told to the user; the rest goes on
            self._report(error)

    def _on_part(self, part: Any) -> None:
        if self._running is not None:
            self._tell(self._running.hear_part, part)

    def _on_returned(self, result: Any) -> None:
        if self._running is not None:
            self._finish(self._running.hear, result)

    def _on_failed(self, request: Any, error: Exception) -> None:
        if self._running is not None:
            self._finish(self._running.hear_failure or self._report, error)

    def _on_cancelled(self, request: Any) -> None:
        self._finish(None, None)
