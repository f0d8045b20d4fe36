"""The commands, and what happens when one fails."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from napari_hrdv2.core.errors import EXPECTED, explained

from .adapt import adapt
from .apply import apply
from .backbones import backbones
from .bench import bench
from .clusters import clusters, explore
from .demo import demo
from .evaluate import evaluate
from .score import score
from .segment import segment
from .shared import expanded, readable

# typer has had click beside itself and, later, within; this finds either's class.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    add_completion=False,
    help="Segment micrographs from a few scribbles.",
    epilog="Exit codes: 0 success, 1 bad input, 2 wrong usage, 130 stopped by hand.",
    rich_markup_mode=None,
)
for command in (demo, explore, segment, apply, clusters, score, evaluate, adapt, bench):
    app.command()(expanded(command))
app.add_typer(backbones, name="backbones")


def _show_version(wanted: bool) -> None:
    if wanted:
        from napari_hrdv2 import __version__

        typer.echo(f"napari-hrdv2 {__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the program an error arose.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    context.obj["debug"] = debug


def run(arguments: Sequence[str]) -> int:
    """Run a command; every failure is one line on standard error and an exit code."""
    settings: dict[str, Any] = {"debug": False}
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = app(
                list(arguments) or ["--help"],
                prog_name="napari-hrdv2",
                standalone_mode=False,
                obj=settings,
            )
        return _fail("stopped", 130) if code == 130 else int(code or 0)
    except _UsageError as error:
        return _fail(error.format_message(), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped", 130)
    except EXPECTED as error:
        if settings["debug"]:
            traceback.print_exc()
        return _fail(explained(error), 1)


def _fail(message: str, code: int) -> int:
    typer.echo(readable(f"napari-hrdv2: {' '.join(message.split())}"), err=True)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"napari-hrdv2: warning: {message}", file=sys.stderr)  # noqa: T201
