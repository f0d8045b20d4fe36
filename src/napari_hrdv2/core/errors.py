"""Exceptions that callers are expected to catch."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable

logger = logging.getLogger(__name__)

EXPECTED = (ValueError, TypeError, OSError, MemoryError, ImportError, RuntimeError)
"""What bad input or a machine too small raises; see `explained`."""

Stop = Callable[[], bool] | None
"""Asked between blocks of work; `Cancelled` is raised when it says so."""

_LONGEST = 600  # characters; what libraries say may be as long as a file
_NO_MEMORY = "out of memory|can't allocate memory|not enough memory"


class Cancelled(Exception):
    """The caller's ``should_stop`` asked to stop; nothing was kept."""


def stop_if(should_stop: Stop, what: str) -> None:
    """Raise `Cancelled` if the caller wants no more of what is being done."""
    if should_stop is not None and should_stop():
        raise Cancelled(f"{what} was cancelled")


class WeightsError(ValueError):
    """A weights file or download that cannot serve the backbone it was given for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out.

    On the CPU torch has no class for it: a RuntimeError says so in its text.
    """
    if isinstance(error, RuntimeError):  # also torch.OutOfMemoryError, on a GPU
        return re.search(_NO_MEMORY, str(error), re.IGNORECASE) is not None
    return isinstance(error, MemoryError)


def explained(error: Exception) -> str:
    """Return one line for an EXPECTED error; raise it where it is a fault of ours."""
    text = str(error)
    if isinstance(error, RuntimeError):
        if not is_out_of_memory(error):
            raise error
        text = ""  # torch's own text is about its allocator
    if isinstance(error, OSError) and error.strerror:
        named = error.filename is not None
        text = f"{os.fspath(error.filename)}: " if named else ""
        text += error.strerror
    if not text and is_out_of_memory(error):
        text = "there is not enough memory; take a smaller image or backbone"
    return " ".join((text or type(error).__name__).split())


def explained_of(name: str | os.PathLike[str], error: Exception) -> str:
    """Return one line on what befell one file of many, whatever that was.

    The file is named. What nobody foresaw is in the log with its trace.
    """
    try:
        text = explained(error) if isinstance(error, EXPECTED) else ""
    except RuntimeError:  # a fault of ours, or of a library
        text = ""
    if not text:
        logger.info("%s failed", name, exc_info=error)
        told = " ".join(str(error).split())
        text = f"it cannot be done: {type(error).__name__}" + f": {told}" * bool(told)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    name = os.fspath(name)
    is_named = text.startswith(name) or (os.path.isabs(name) and name in text)
    return text if is_named else f"{name}: {text}"
