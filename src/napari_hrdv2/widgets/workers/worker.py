"""One computation at a time in another thread, with progress and cancel."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session import Task, compute

logger = logging.getLogger(__name__)

THREAD_NAME = "napari-hrdv2 computation"
SECONDS_BETWEEN_PROGRESS = 0.1  # more often only keeps the window busy with painting
CLOSE_TIMEOUT = 1.0  # seconds for which a window that closes waits for its thread
EXIT_TIMEOUT = 10.0  # the same for the process, when no window is there any more


# Not superqt's `create_worker`: its partial results are what a generator yields (ours
# are told deep inside the work), and a thread of its pool is waited for when Qt ends.
class _Job:
    """A task on its way, as both threads see it."""

    def __init__(self, task: Task) -> None:
        self.request = task
        self.stop = threading.Event()
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._is_heard = True

    def tell(self, emit: Callable[..., None], *values: Any) -> None:
        """Emit a signal, unless nobody is there to hear it any more."""
        with self._lock:
            if self._is_heard:
                emit(self, *values)

    def silence(self) -> None:
        """Tell nothing from now on; whoever listens may then be deleted."""
        with self._lock:
            self._is_heard = False


class JobRunner(QObject):
    """A lane: runs tasks of the session in a worker thread, one after the other.

    The signals are emitted in the thread that made the lane. After `close` none comes
    any more, even if the thread goes on.
    """

    progressed = Signal(str, int, int)
    partly_returned = Signal(object)
    returned = Signal(object)
    failed = Signal(object, object)
    cancelled = Signal(object)
    _advanced = Signal(object, str, int, int)
    _partly_answered = Signal(object, object)
    _answered = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._job: _Job | None = None
        self._abandoned: threading.Event | None = None  # set when its thread ends
        self._advanced.connect(self._on_advanced)
        self._partly_answered.connect(self._on_partly_answered)
        self._answered.connect(self._on_answered)

    @property
    def request(self) -> Any:
        """The task that is being run, or None."""
        return None if self._job is None else self._job.request

    def start(self, task: Task) -> None:
        """Begin to run a task; there must be none running."""
        if self._job is not None:
            raise RuntimeError("a computation is running already")
        self._job = _Job(task)
        threading.Thread(
            target=_work,
            args=(
                self._job,
                self._advanced.emit,
                self._partly_answered.emit,
                self._answered.emit,
            ),
            name=THREAD_NAME,
            daemon=True,
        ).start()

    def cancel(self) -> None:
        """Ask the computation to stop; `cancelled` follows when it has."""
        if self._job is not None:
            self._job.stop.set()

    def abandon(self) -> bool:
        """Stop at once: the thread ends by itself, beside the next task.

        Return False, having done nothing, while the last one does so already.
        """
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

    # The answer of a job that was given up by `close` may wait in Qt's queue: dropped.

    def _on_advanced(self, job: _Job, stage: str, done: int, total: int) -> None:
        if job is self._job:
            self.progressed.emit(stage, done, total)

    def _on_partly_answered(self, job: _Job, result: Any) -> None:
        if job is self._job and not job.stop.is_set():
            self.partly_returned.emit(result)

    def _on_answered(self, job: _Job, result: Any) -> None:
        if job is not self._job:
            return
        self._job = None
        if isinstance(result, Cancelled) or job.stop.is_set():
            self.cancelled.emit(job.request)
        elif isinstance(result, Exception):
            self.failed.emit(job.request, result)
        else:
            self.returned.emit(result)


def _work(
    job: _Job,
    advanced: Callable[..., None],
    partly_answered: Callable[..., None],
    answered: Callable[..., None],
) -> None:
    """Compute; runs in the worker thread."""
    told = ("", 0.0)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if (
            stage == told[0]
            and done != total
            and now - told[1] < SECONDS_BETWEEN_PROGRESS
        ):
            return
        told = (stage, now)
        job.tell(advanced, stage, done, total)

    def partial(result: Any) -> None:
        job.tell(partly_answered, result)

    result: Any
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = compute(
                job.request,
                progress=progress,
                partial=partial,
                should_stop=job.stop.is_set,
            )
        except Exception as error:  # noqa: BLE001 - shown to the user in the main thread
            result = error
    for warning in caught:
        logger.info("%s", warning.message)
    job.ended.set()
    job.tell(answered, result)


def _wait_for_threads() -> None:
    """Let computations that were given up come to their end.

    A thread that the interpreter has to break off inside torch takes the process down.
    """
    deadline = time.monotonic() + EXIT_TIMEOUT
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(max(deadline - time.monotonic(), 0.0))


atexit.register(_wait_for_threads)
