"""Exceptions that callers are expected to catch."""

from __future__ import annotations


class Cancelled(Exception):
    """The caller's ``should_stop`` asked to stop; nothing was kept."""


class WeightsError(ValueError):
    """A weights file or download that cannot serve the backbone it was given for."""
