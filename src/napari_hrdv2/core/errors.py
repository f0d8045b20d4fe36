"""Exceptions that callers are expected to catch."""

from __future__ import annotations

import re

_NO_MEMORY = "out of memory|can't allocate memory|not enough memory"


class Cancelled(Exception):
    """The caller's ``should_stop`` asked to stop; nothing was kept."""


class WeightsError(ValueError):
    """A weights file or download that cannot serve the backbone it was given for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out.

    On the CPU torch has no class for it: a RuntimeError says so in its text.
    """
    if isinstance(error, RuntimeError):  # also torch.OutOfMemoryError, on a GPU
        return re.search(_NO_MEMORY, str(error), re.IGNORECASE) is not None
    return isinstance(error, MemoryError)
