"""Errors told to the user, in one sentence each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error

from napari_hrdv2.core.errors import EXPECTED, explained

if TYPE_CHECKING:
    from napari_hrdv2.session import Session

logger = logging.getLogger(__name__)


class Reporter:
    """Tells errors as status and notification, with the trace in the log."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def report(self, error: Exception) -> None:
        """Show an error as one sentence."""
        sentence = _sentence(error)
        logger.info("%s", sentence, exc_info=error)
        self._session.say(sentence)
        show_error(sentence)

    def attempt(self, do: Any, *values: Any, **options: Any) -> bool:
        """Do something that may be refused; say why if it is, and return False."""
        try:
            do(*values, **options)
        except Exception as error:  # noqa: BLE001 - told to the user
            self.report(error)
            return False
        return True


def _sentence(error: Exception) -> str:
    try:
        if isinstance(error, EXPECTED):
            return explained(error)
    except RuntimeError:
        pass
    return f"Unexpected error: {error!r}"
