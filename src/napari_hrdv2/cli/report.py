"""What a command prints: text for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True)
class Report:
    """Where a command says things.

    With `as_json` all text goes to standard error, so that the JSON object is the last
    line, and the only one, of standard output.
    """

    as_json: bool

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        typer.echo(text, err=self.as_json)

    def note(self, text: str) -> None:
        """Print a line for whoever waits at a terminal."""
        if sys.stderr.isatty():
            typer.echo(text, err=True)

    def complain(self, text: str) -> None:
        """Print a line about something that went wrong."""
        typer.echo(f"napari-hrdv2: {text}", err=True)

    def finish(self, result: dict[str, Any]) -> None:
        """Print the result as JSON if that was asked for."""
        if self.as_json:
            typer.echo(json.dumps(result, allow_nan=False))

    def progress(self, task: str) -> Callable[[int, int], None]:
        """Return ``progress(done, total)``, which draws a bar if in a terminal."""
        if not sys.stderr.isatty():
            return _nothing
        last = ""

        def draw(done: int, total: int) -> None:
            nonlocal last
            share = min(done / total, 1.0) if total else 0.0
            bar = "━" * round(30 * share)
            line = f"\r{task}  {bar:╌<30} {share:4.0%}"
            if share >= 1:
                line = "\r\033[K"  # leave no trace
            if line != last:
                sys.stderr.write(line)
                sys.stderr.flush()
                last = line

        return draw


def _nothing(done: int, total: int) -> None:
    """Draw nothing."""


def fractions_table(fractions: dict[int, float], names: dict[int, str]) -> str:
    """Return the phase fractions as aligned lines."""
    labels = {i: names.get(i, f"class {i}") for i in fractions}
    width = max((len(label) for label in labels.values()), default=0)
    return "\n".join(
        f"  {labels[i]:<{width}}  {fraction:6.1%}" for i, fraction in fractions.items()
    )
