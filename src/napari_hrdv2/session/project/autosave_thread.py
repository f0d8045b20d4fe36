"""Autosaving beside the work: one write at a time, of the latest state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_hrdv2.session.project.autosave import AutosaveStore
    from napari_hrdv2.session.project.format import Project

log = logging.getLogger(__name__)


class AutosaveThread:
    """Writes autosaves in a thread of its own, which lives while there is work.

    States that come while one is written wait, and only the last of them is written.
    A program that ends waits for the write that is under way.

    Parameters
    ----------
    autosave : Autosave
    on_error : callable, optional
        Called with the exception when a write failed, in the thread that wrote; the
        default logs it.
    on_saved : callable, optional
        Called with the path after each write, in the thread that wrote.
    """

    def __init__(
        self,
        autosave: AutosaveStore,
        *,
        on_error: Callable[[Exception], None] | None = None,
        on_saved: Callable[[Path], None] | None = None,
    ) -> None:
        # While the interpreter ends, nothing that needs it can be imported any more.
        import tifffile  # noqa: F401

        self._autosave = autosave
        self._on_error = on_error or log_error
        self._on_saved = on_saved
        self._changed = threading.Condition()
        self._waiting: Project | None = None
        self._writes = False
        self._closed = False

    def submit(self, project: Project) -> None:
        """Have a state written, in place of any that still waits.

        Parameters
        ----------
        project : Project
            Arrays and classifier are read later: give copies of what goes on changing.
            Ignored after `close`.
        """
        with self._changed:
            if self._closed:
                return
            self._waiting = project
            if self._writes:
                return
            try:
                # No daemon: the interpreter waits for it at its end.
                threading.Thread(target=self._work, name="autosave").start()
                self._writes = True
            except RuntimeError as error:  # no thread can be started
                self._report(error)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that was submitted is written, or has failed.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether nothing is left to write.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._writes, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Write what waits and take nothing more; return as `flush`."""
        with self._changed:
            self._closed = True
        return self.flush(timeout)

    def _work(self) -> None:
        while (project := self._next()) is not None:
            try:
                path = self._autosave.write(project)
                if path is not None and self._on_saved is not None:
                    self._on_saved(path)
            except Exception as error:  # noqa: BLE001 - nothing may end the work
                self._report(error)

    def _next(self) -> Project | None:
        with self._changed:
            project, self._waiting = self._waiting, None
            if project is None:
                self._writes = False
                self._changed.notify_all()
            return project

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:
            log.exception("autosave: the report of an error failed")


def log_error(error: Exception) -> None:
    """Put a failed write into the log."""
    log.error("autosave: %s", error, exc_info=error)
