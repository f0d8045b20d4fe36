"""Tasks in worker threads, with progress and cancel; and telling what failed."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_hrdv2.core.errors import EXPECTED, Cancelled, explained
from napari_hrdv2.session import Session, Task, compute

logger = logging.getLogger(__name__)

# What a sentence asks a script for, and where it is found in the window.
_BY = "by Weights file… under More choices"
_IN_THE_WINDOW = {
    "give weights= its path": f"choose it {_BY}",
    "give weights= a local file": f"choose a local file {_BY}",
}
Hear = Callable[[Any], object]
THREAD_NAME = "napari-hrdv2 computation"
SECONDS_BETWEEN_PROGRESS = 0.1  # more often only keeps the window busy with painting
CLOSE_TIMEOUT = 1.0  # seconds for which a window that closes waits for its thread
EXIT_TIMEOUT = 10.0  # the same for the process, when no window is there any more


# Not superqt's `create_worker`: its partial results are what a generator yields (ours
# are told deep inside the work), and a thread of its pool is waited for when Qt ends.
class _Job:
    """A task on its way, as both threads see it."""

    def __init__(self, task: Task, emit: Callable[..., None]) -> None:
        self.request, self._emit = task, emit
        self.stop, self.ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._is_heard = True

    def tell(self, what: str, *values: Any) -> None:
        """Tell the main thread, unless nobody is there to hear it any more."""
        with self._lock:
            if self._is_heard:
                self._emit(self, what, values)

    def silence(self) -> None:
        """Tell nothing from now on; whoever listens may then be deleted."""
        with self._lock:
            self._is_heard = False


class JobRunner(QObject):
    """Runs one task at a time in a worker thread; tells of it in the main thread."""

    progressed = Signal(str, int, int)
    partly_returned = Signal(object)
    returned = Signal(object)
    failed = Signal(object, object)
    cancelled = Signal(object)
    _told = Signal(object, str, object)  # by a job in its thread: what, and values

    def __init__(self) -> None:
        super().__init__()
        self._job: _Job | None = None
        self._abandoned: threading.Event | None = None  # set when its thread ends
        self._told.connect(self._on_told)

    @property
    def request(self) -> Any:
        """The task that is being run, or None."""
        return None if self._job is None else self._job.request

    def start(self, task: Task) -> None:
        """Begin to run a task; there must be none running."""
        if self._job is not None:
            raise RuntimeError("a computation is running already")
        self._job = job = _Job(task, self._told.emit)
        threading.Thread(
            target=_work, args=(job,), name=THREAD_NAME, daemon=True
        ).start()

    def cancel(self) -> None:
        """Ask the computation to stop; `cancelled` follows when it has."""
        if self._job is not None:
            self._job.stop.set()

    def abandon(self) -> bool:
        """Stop at once; return False while the last one stopped so has not ended."""
        if self._abandoned is not None and not self._abandoned.is_set():
            return False
        self._abandoned = None if self._job is None else self._job.ended
        self.close(0)
        return True

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Stop for good; return whether the thread has ended within the timeout."""
        job, self._job = self._job, None
        if job is None:
            return True
        job.stop.set()
        job.silence()
        return job.ended.wait(timeout)

    def _on_told(self, job: _Job, what: str, values: Any) -> None:
        if job is not self._job:
            return  # it was given up by `close` while this waited in Qt's queue
        if what == "progress":
            self.progressed.emit(*values)
        elif what == "part":
            if not job.stop.is_set():
                self.partly_returned.emit(*values)
        else:
            (result,), self._job = values, None
            if isinstance(result, Cancelled) or job.stop.is_set():
                self.cancelled.emit(job.request)
            elif isinstance(result, Exception):
                self.failed.emit(job.request, result)
            else:
                self.returned.emit(result)


@dataclass(frozen=True)
class _Work:
    """A task, and who hears what becomes of it."""

    kind: str
    task: Task
    hear: Hear
    hear_part: Hear
    hear_failure: Hear


class SideWork(QObject):
    """Runs tasks of several kinds, one after the other; of a kind the latest wins."""

    progressed = Signal(str, int, int)
    changed = Signal()

    def __init__(self, report: Hear) -> None:
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

        `hear` gets the answer, in the main thread, and `hear_part` parts of it that
        come earlier; neither after `cancel`. `hear_failure` gets what is else reported.
        """
        self._waiting.pop(kind, None)
        hear_failure = hear_failure or self._report
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

    def _finish(self, hear: Hear = lambda told: None, told: Any = None) -> None:
        """Tell how the work ended, and go on with the next whatever comes of it."""
        self._running = None
        self.attempt(hear, told)
        self._advance()
        self.changed.emit()

    def attempt(self, do: Callable[..., object], *values: Any) -> None:
        """Do something that may fail; the user is told why, and the rest goes on."""
        try:
            do(*values)
        except Exception as error:  # noqa: BLE001 - told to the user
            self._report(error)

    def _on_part(self, part: Any) -> None:
        if self._running is not None:
            self.attempt(self._running.hear_part, part)

    def _on_returned(self, result: Any) -> None:
        if self._running is not None:
            self._finish(self._running.hear, result)

    def _on_failed(self, request: Any, error: Exception) -> None:
        if self._running is not None:
            self._finish(self._running.hear_failure, error)

    def _on_cancelled(self, request: Any) -> None:
        self._finish()


class Reporter:
    """Tells errors as status and notification, with the trace in the log."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def report(self, error: Exception) -> None:
        """Show an error as one sentence."""
        sentence, _ = self.explain(error)
        self._session.say(sentence)
        show_error(sentence)

    def explain(self, error: Exception) -> tuple[str, bool]:
        """Return an error as one sentence, and whether it is none of our faults."""
        sentence, is_expected = f"Unexpected error: {error!r}", False
        with suppress(RuntimeError):
            if isinstance(error, EXPECTED):
                sentence, is_expected = explained(error), True
                for argument, here in _IN_THE_WINDOW.items():
                    sentence = sentence.replace(argument, here)
        logger.info("%s", sentence, exc_info=error)
        return sentence, is_expected

    def attempt(self, do: Any, *values: Any, said: str = "", **options: Any) -> bool:
        """Do something, and say so; if it is refused, say why, and return False."""
        try:
            do(*values, **options)
        except Exception as error:  # noqa: BLE001 - told to the user
            self.report(error)
            return False
        if said:
            self._session.say(said)
        return True


def when_rested(parent: QObject, milliseconds: int, do: Any) -> QSignalDebouncer:
    """Return what calls `do` once its `throttle` has not been called for a while."""
    rest = QSignalDebouncer(parent=parent)
    rest.setTimeout(milliseconds)
    rest.triggered.connect(do)
    return rest


def _work(job: _Job) -> None:
    """Compute; runs in the worker thread."""
    told = ("", 0.0)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        is_soon = stage == told[0] and now - told[1] < SECONDS_BETWEEN_PROGRESS
        if done == total or not is_soon:
            told = (stage, now)
            job.tell("progress", stage, done, total)

    result: Any
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = compute(
                job.request,
                progress=progress,
                partial=partial(job.tell, "part"),
                should_stop=job.stop.is_set,
            )
        except Exception as error:  # noqa: BLE001 - shown to the user in the main thread
            result = error
    for warning in caught:
        logger.info("%s", warning.message)
    job.ended.set()
    job.tell("end", result)


@atexit.register
def _wait_for_threads() -> None:
    """Wait for threads: one that is broken off inside torch takes the process down."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(max(deadline - time.monotonic(), 0.0))
