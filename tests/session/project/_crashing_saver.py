"""Saves again and again and is killed: what is left must open and lack nothing.

``python _crashing_saver.py project|autosave FOLDER KILLS`` forks a saver for each kill,
so that all of them share one import, and prints what was found as JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from napari_hrdv2.session.project.autosave import AutosaveStore
from napari_hrdv2.session.project.store import load_project, save_project
from saved_projects import entry, grey, project

IMAGE = grey((61, 83))
LONGEST_WAIT = 0.04  # s from a save that has returned; a save takes about as long


class ToFile:
    """A project that the user saves."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "alloy.hrdv2"

    def save(self, state) -> None:
        save_project(state, self.path)

    def load(self):
        return load_project(self.path) if self.path.exists() else None


class ToAutosave:
    """A project that saves itself in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = AutosaveStore(folder)

    def save(self, state) -> None:
        self.store.submit(state)
        self.store.flush()

    def load(self):
        autosaves = AutosaveStore(self.folder).find_autosaves(
            entry(image=IMAGE).image_fingerprint
        )
        return load_project(autosaves[0].path) if autosaves else None


def save_for_ever(make, folder: Path, begun: int, report: int) -> None:
    place = make(folder)
    for count in range(begun + 1, IMAGE.size):
        place.save(project(entry("a", count, image=IMAGE)))
        os.write(report, count.to_bytes(4, "little"))


def killed_saver(make, folder: Path, begun: int, rng: random.Random) -> list[int]:
    """Let a saver save a few times, kill it, and return what it had reported."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(make, folder, begun, writing)
        finally:
            os._exit(1)
    os.close(writing)
    reported = b""
    for _ in range(rng.randrange(4)):
        reported += os.read(reading, 4)
    # A moment that nothing marks: here the passing of time is what is tested.
    select.select([], [], [], rng.uniform(0, LONGEST_WAIT))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 4096):
        reported += more
    os.close(reading)
    starts = range(0, len(reported), 4)
    return [int.from_bytes(reported[i : i + 4], "little") for i in starts]


def main(how: str, folder: Path, kills: int) -> dict[str, object]:
    make = {"project": ToFile, "autosave": ToAutosave}[how]
    rng = random.Random(0)
    certain, saves, losses = 0, 0, []
    for kill in range(kills):
        reported = killed_saver(make, folder, certain, rng)
        saves += len(reported)
        certain = max([certain, *reported])
        try:
            found = make(folder).load()
            count = found.images[0].labelled_pixels if found else 0
        except (OSError, ValueError) as error:
            losses.append(f"kill {kill}: {error}")
            continue
        if not certain <= count <= certain + 1:
            losses.append(f"kill {kill}: {count} labelled pixels, {certain} were saved")
        certain = max(certain, count)
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    return {
        "kills": kills,
        "saves": saves,
        "in_the_middle": len(left),
        "losses": losses,
    }


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result))
