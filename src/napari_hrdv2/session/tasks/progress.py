"""How long a computation will still take, in words."""

from __future__ import annotations

import time


class TimeLeft:
    """Tells the time left of one computation from the pace so far."""

    def __init__(self) -> None:
        self._stage = ""
        self._start = 0.0

    def text(
        self, stage: str, done: int, total: int, *, now: float | None = None
    ) -> str:
        """Return ``"about 12 s left"``, or "" while the pace is unknown.

        A new stage (say, features after the download) starts a new clock.
        """
        now = time.monotonic() if now is None else now
        if stage != self._stage:
            self._stage, self._start = stage, now
        elapsed = now - self._start
        if done <= 0 or total <= 0 or elapsed <= 0.0:
            return ""
        return f"about {duration_text(elapsed * (total - done) / done)} left"


def duration_text(seconds: float) -> str:
    """Return a duration in words: ``"8 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def bytes_text(count: float) -> str:
    """Return a number of bytes in words: ``"88 MB"``, ``"1.4 GB"``."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    size, unit = (1e6, "MB") if count >= 5e5 else (1e3, "kB")
    return f"{max(round(count / size), 1)} {unit}"
