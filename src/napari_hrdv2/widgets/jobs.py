"""One computation at a time in another thread, with progress and cancel."""

from __future__ import annotations

import logging
import threading
from typing import Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import create_worker

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session import compute

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0  # seconds to wait for a thread that was asked to stop


class _Job:
    """A request on its way, as both threads see it."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.stop = threading.Event()
        self.began = threading.Event()
        self.ended = threading.Event()


class JobRunner(QObject):
    """Answers requests of the session in a worker thread, one after the other.

    The signals are emitted in the thread that made the runner. After `close` none
    comes any more.
    """

    progressed = Signal(str, int, int)
    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal(object)
    _advanced = Signal(object, str, int, int)

    def __init__(self) -> None:
        super().__init__()
        self._job: _Job | None = None
        self._advanced.connect(self._on_advanced)

    @property
    def request(self) -> Any:
        """The request that is being worked on, or None."""
        return None if self._job is None else self._job.request

    def start(self, request: Any) -> None:
        """Begin to answer a request; there must be none in work."""
        if self._job is not None:
            raise RuntimeError("a computation is running already")
        self._job = _Job(request)
        create_worker(
            self._work,
            self._job,
            _connect={
                "returned": self._on_returned,
                "errored": self._on_errored,
                "warned": self._on_warned,
            },
        )

    def cancel(self) -> None:
        """Ask the computation to stop; `cancelled` follows when it has."""
        if self._job is not None:
            self._job.stop.set()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Stop for good and wait for the thread; return whether it has ended."""
        job, self._job = self._job, None
        if job is None:
            return True
        job.stop.set()
        # A thread that has not begun will find `stop` set, and end at once.
        if job.began.is_set() and not job.ended.wait(timeout):
            logger.warning("a computation did not stop within %g s", timeout)
            return False
        return True

    def _work(self, job: _Job) -> tuple[_Job, Any]:
        """Compute; runs in the worker thread."""

        def progress(stage: str, done: int, total: int) -> None:
            self._advanced.emit(job, stage, done, total)

        job.began.set()
        try:
            if job.stop.is_set():
                return job, Cancelled()
            return job, compute(
                job.request, progress=progress, should_stop=job.stop.is_set
            )
        except Exception as error:  # noqa: BLE001 - shown to the user in the main thread
            return job, error
        finally:
            job.ended.set()

    # The answer of a job that was given up by `close` is dropped in these.

    def _on_advanced(self, job: _Job, stage: str, done: int, total: int) -> None:
        if job is self._job:
            self.progressed.emit(stage, done, total)

    def _on_returned(self, answer: tuple[_Job, Any]) -> None:
        job, result = answer
        if job is not self._job:
            return
        self._job = None
        if isinstance(result, Cancelled) or job.stop.is_set():
            self.cancelled.emit(job.request)
        elif isinstance(result, Exception):
            self.failed.emit(result)
        else:
            self.returned.emit(result)

    def _on_errored(self, error: Exception) -> None:
        # Errors of the computation come as results; this is one of the worker itself.
        self._job = None
        self.failed.emit(error)

    def _on_warned(self, warning: tuple[Any, ...]) -> None:
        logger.info("%s", warning[0])
