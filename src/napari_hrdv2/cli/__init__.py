"""The command line: ``napari-hrdv2``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 on success, 1 for bad input, 2 for wrong usage.

    `arguments` are by default those of the process.
    """
    from .app import run

    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
