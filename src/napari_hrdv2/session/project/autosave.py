"""Autosaves: a folder of projects, written one after the other in a thread."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from platformdirs import user_data_path, user_state_path

from .format import SUFFIX, Fingerprints, Project, ProjectRecord
from .store import project_summary, save_project

FOLDER_VARIABLE = "NAPARI_HRDV2_AUTOSAVE"
"""The environment variable that names another folder for autosaves."""

_VERSION_TIME = timedelta(minutes=10)  # until a state no longer replaces the last
_VERSIONS = 5  # newer files of an image that make one of them superfluous
_KEPT_DAYS = 90
_ROOM_BYTES = 500 * 2**20
_OF_LIVING_DAYS = 1  # another program may still write into younger files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AutosaveEntry:
    """An autosave that has work on an image; `load_project` reads it."""

    path: Path
    saved_at: datetime
    labelled_pixels: int  # in all its images
    classes: tuple[str, ...]  # names
    images: tuple[str, ...]  # names


class AutosaveStore:
    """The autosaves of one user, of which this object writes one at a time.

    A state replaces the last one in its file, but begins a new file where it holds
    less than that or the file was begun ten minutes ago. Every object writes files of
    its own, so that programs that run at once are not in each other's way. A thread
    writes what is submitted; of states that wait for it only the latest. `on_error` is
    called in that thread with what went wrong there; the default logs it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        fingerprints: Fingerprints | None = None,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        # While the interpreter ends, nothing that needs it can be imported any more.
        import tifffile  # noqa: F401

        self.folder = default_folder() if folder is None else Path(folder)
        self.fingerprints = fingerprints or Fingerprints()
        self.own: list[Path] = []  # the files that this object began
        self.has_failed = False  # the last write in the thread
        self._begun = _now()  # when the last of them was begun
        self._last: Counter[tuple[str, object]] | None = None
        self._on_error = on_error or (
            lambda error: log.error("autosave: %s", error, exc_info=error)
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="autosave")
        self._lock = threading.RLock()  # `on_error` may ask for more
        self._slot: Project | None = None  # the state that waits
        self._work: Future[None] | None = None
        self._closed = False

    def submit(self, project: Project) -> None:
        """Have a state written by the thread, for which a program that ends waits.

        Arrays and classifier are read later: give copies of what goes on changing.
        """
        with self._lock:
            if self._closed:
                return
            self.has_failed = False  # before the write, which may fail at once
            is_queued, self._slot = self._slot is not None, project
            if is_queued:
                return
            try:
                self._work = self._pool.submit(self._write_slot)
            except RuntimeError as error:  # no thread can be started
                self._slot = None
                self._report(error)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was submitted is written, or has failed.

        Returns whether that is so after `timeout` seconds.
        """
        with self._lock:
            work = self._work
        return work is None or not wait([work], timeout).not_done

    def close(self, timeout: float | None = None) -> bool:
        """Write what waits and take nothing more; return as `flush`."""
        with self._lock:
            self._closed = True
            self._pool.shutdown(wait=False)  # when what waits is written
        return self.flush(timeout)

    def write(self, project: Project) -> Path | None:
        """Save a project without its images; return where, or None if it is empty.

        Errors are those of `save_project`; the former autosave is untouched then.
        """
        contents = _contents(project)
        if self._last is None and all(kind == "class" for kind, _ in contents):
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        is_new = (
            self._last is None
            or not contents >= self._last
            or _now() - self._begun > _VERSION_TIME
        )
        path = self._new_path(project) if is_new else self.own[-1]
        save_project(project, path, with_images=False, fingerprints=self.fingerprints)
        self._last = contents
        if is_new:
            self.own.append(path)
            self._begun = _now()
            self._remove_superfluous()
        return path

    def find_autosaves(self, fingerprint: str) -> list[AutosaveEntry]:
        """Return the autosaves that have work on an image, newest first."""
        return [
            AutosaveEntry(
                path,
                record.saved_at,
                record.labelled_pixels.total(),
                tuple(one.name for one in record.classes.values()),
                tuple(one.name for one in record.images),
            )
            for path, record in self._records()
            if fingerprint in record.labelled_pixels
            and (record.labelled_pixels.total() or record.has_more)
        ]

    def discard(self, entry: AutosaveEntry) -> None:
        """Remove an autosave; OSError if that cannot be."""
        entry.path.unlink(missing_ok=True)

    def _write_slot(self) -> None:
        with self._lock:
            project, self._slot = self._slot, None
        try:
            if project is not None:
                self.write(project)
        except Exception as error:  # noqa: BLE001 - nothing may end the thread
            self._report(error)

    def _report(self, error: Exception) -> None:
        self.has_failed = True
        try:
            self._on_error(error)
        except Exception:
            log.exception("autosave: the report of an error failed")

    def _new_path(self, project: Project) -> Path:
        """Return a name that tells what it is, and that no other program takes."""
        first = project.images[0].name if project.images else "classifier"
        name = re.sub(r"\W+", "-", Path(first).stem).strip("-")[:40] or "image"
        stamp = _now().strftime("%Y%m%d-%H%M%S")
        return self.folder / f"{name}-{stamp}-{secrets.token_hex(4)}{SUFFIX}"

    def _records(self) -> list[tuple[Path, ProjectRecord]]:
        """Return what all readable autosaves say of themselves, newest first."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name.startswith("."):
                continue  # being written
            try:
                found.append((path, project_summary(path)))
            except (OSError, ValueError) as error:
                log.warning("autosave: %s", error)
        return sorted(found, key=lambda pair: pair[1].saved_at, reverse=True)

    def _remove_superfluous(self) -> None:
        """Own files at once, other programs' when they are old or the folder large."""
        for left in self.folder.glob(f".*{SUFFIX}"):  # by writers that were killed
            if _age_in_days(left) > _OF_LIVING_DAYS:
                left.unlink(missing_ok=True)
        found = self._records()  # what cannot be read is left to a person
        room = _ROOM_BYTES - sum(_size(path) for path, _ in found)
        for position, (path, record) in reversed(list(enumerate(found))):
            newer = [other.labelled_pixels for _, other in found[:position]]
            if path == self.own[-1] or not _is_superfluous(record, newer):
                continue
            days = _age_in_days(path)
            is_old = days > _KEPT_DAYS or (days > _OF_LIVING_DAYS and room < 0)
            if path in self.own or is_old:
                room += _size(path)
                path.unlink(missing_ok=True)


def _contents(project: Project) -> Counter[tuple[str, object]]:
    """Return how much there is of each thing in a project."""
    found: Counter[tuple[str, object]] = Counter()
    for one in project.images:
        found["scribbles", one.key] = one.labelled_pixels
        found["exclusion", ""] += 0 if one.exclusion is None else one.exclusion.sum()
        found["partition", one.key] = int(one.partition is not None)
    classifier = project.classifier
    found["classifier", ""] = int(classifier is not None and classifier.is_fitted)
    return found + Counter(("class", class_id) for class_id in project.classes)


def _is_superfluous(record: ProjectRecord, newer: list[Counter[str]]) -> bool:
    """Whether each image has enough newer files, one with as many labelled pixels."""
    for fingerprint, count in record.labelled_pixels.items():
        others = [one[fingerprint] for one in newer if fingerprint in one]
        if len(others) < _VERSIONS or max(others) < count:
            return False
    return True


def default_folder() -> Path:
    """Return where autosaves go: the user's folder for the data of programs.

    What the environment variable NAPARI_HRDV2_AUTOSAVE says comes first.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    # 0.1.0 asked for XDG_DATA_HOME on Linux alone; so does this.
    path = user_state_path if sys.platform == "darwin" else user_data_path
    return path("napari-hrdv2", appauthor=False) / "autosave"


def _now() -> datetime:
    return datetime.now(UTC)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _age_in_days(path: Path) -> float:
    return (time.time() - path.stat().st_mtime) / 86400 if path.exists() else 0.0
