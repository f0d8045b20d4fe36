"""How long work is asked for, watched and stopped, in whatever thread it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

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
    """What work says to whoever waits for it, and hears from him.

    Attributes
    ----------
    progress : callable
        See `Progress`.
    partial : callable
        Called with a part of the answer that is worth showing already.
    should_stop : callable
        See `ShouldStop`.
    """

    progress: Progress = _ignore
    partial: Callable[[Any], None] = _ignore
    should_stop: ShouldStop = _never

    def loading(self, done: int, total: int) -> None:
        """Tell how much of a backbone is loaded; end that if it is not wanted."""
        if self.should_stop():
            raise Cancelled
        self.progress("Loading weights", done, total)


class Request(Protocol):
    """A frozen snapshot of all that a piece of work reads: any thread may do it.

    Requests carry a number of the state that they were made from, which their answers
    bring back: an answer that comes too late is dropped.
    """

    def answer(self, context: TaskContext) -> Any:
        """Do the work and return its result."""


def compute(
    request: Request | Callable[[TaskContext], Any],
    *,
    progress: Progress = _ignore,
    partial: Callable[[Any], None] = _ignore,
    should_stop: ShouldStop = _never,
) -> Any:
    """Return the answer to a request, or of a function of the context.

    Parameters
    ----------
    request : Request or callable
    progress, partial, should_stop : callable, optional
        See `TaskContext`; called in the calling thread.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    ValueError, OSError
        If the image, the settings or the labels do not allow it, in one sentence.
    """
    context = TaskContext(progress, partial, should_stop)
    return request(context) if callable(request) else request.answer(context)
