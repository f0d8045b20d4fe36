"""What a run over many images did, so that the next one goes on where it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .folders import own_path

NAME, FORMAT = "apply_log.jsonl", "napari-hrdv2 run"
_START = f'{{"format": "{FORMAT}"'  # of each line


class RunLog:
    """One line of JSON for each image that is done, in the folder of the results.

    `settings` is a fingerprint of all that makes the results what they are. A file
    counts as done if it, its results and the settings are what they were.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self._settings = settings
        self._path = own_path(
            folder / NAME,  # whose first line may have been cut off
            lambda text: _START.startswith(text.strip().split("\n")[0][: len(_START)]),
        )
        self._known: dict[str, dict[str, Any]] = {}
        text = self._path.read_bytes() if self._path.exists() else b""
        for line in text.decode("utf-8", "replace").split("\n"):
            with suppress(ValueError):  # cut off
                told = json.loads(line)
                self._known[told["image"]] = told

    def find(self, image: Path) -> dict[str, Any] | None:
        """Return what was told of an image; None if it is not done, or no longer."""
        line = self._known.get(str(image.resolve()))
        if line is None or line.get("settings") != self._settings:
            return None
        files = [image, *map(Path, line.get("outputs", ()))]
        return line["result"] if line.get("states") == _states(files) else None

    def add(self, image: Path, outputs: Iterable[Path], result: dict[str, Any]) -> None:
        """Tell of an image that is done; lines before are left as they are."""
        files = [path.resolve() for path in outputs]
        line = {
            "format": FORMAT,
            "settings": self._settings,
            "image": str(image.resolve()),
            "outputs": [str(path) for path in files],
            "states": _states([image, *files]),
            "result": result,
        }
        with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"\n{json.dumps(line)}\n")  # a line may have been cut off before


def _states(paths: Iterable[Path]) -> list[list[int] | None]:
    """Return size and latest time of files and folders; None where nothing is."""
    states: list[list[int] | None] = []
    for path in paths:
        files = path.rglob("*") if path.is_dir() else [path]
        found = [file.stat() for file in files if file.is_file()]
        times = [one.st_mtime_ns for one in found]
        states.append(
            [sum(one.st_size for one in found), max(times)] if found else None
        )
    return states
