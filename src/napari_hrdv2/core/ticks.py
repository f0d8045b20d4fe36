"""Counting the steps of work whose parts are many or few."""

from __future__ import annotations

from collections.abc import Callable


def evenly(
    tick: Callable[[], None] | None, calls: int, ticks: int
) -> Callable[[], None]:
    """Return what calls `tick` so often in all when it is called `calls` times."""
    done = 0

    def called() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            for _ in range(done * ticks // calls - (done - 1) * ticks // calls):
                tick()

    return called
