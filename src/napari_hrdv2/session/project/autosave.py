"""What was not saved yet, kept where a crash cannot reach it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hrdv2.session.project.fingerprints import image_fingerprint
from napari_hrdv2.session.project.format import (
    SUFFIX,
    Project,
    ProjectSummary,
    project_summary,
    save_project,
)

if TYPE_CHECKING:
    from napari_hrdv2.session.planes import PlaneKey

__all__ = [
    "FOLDER_VARIABLE",
    "AutosaveEntry",
    "AutosaveStore",
    "default_folder",
    "image_fingerprint",
]

FOLDER_VARIABLE = "NAPARI_HRDV2_AUTOSAVE"
"""The environment variable that names another folder."""

_VERSION_TIME = timedelta(minutes=10)  # until a state no longer replaces the last
_KEPT_DAYS = 90
_ROOM_BYTES = 500 * 2**20
_OF_LIVING_DAYS = 1  # another program may still write into younger files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AutosaveEntry:
    """Work on an image that can be had back with `session.project.load_project`.

    Attributes
    ----------
    path : pathlib.Path
    saved_at : datetime
    strokes : int
        Labelled pixels in all pictures.
    classes, pictures : tuple of str
        Their names.
    """

    path: Path
    saved_at: datetime
    strokes: int
    classes: tuple[str, ...]
    images: tuple[str, ...]


class AutosaveStore:
    """The autosaves of one user, of which this object writes one at a time.

    A state replaces the last one in its file, but begins a new file where it holds
    less than that or the file was begun ten minutes ago. Every object writes files of
    its own, so that programs that run at once are not in each other's way.

    Parameters
    ----------
    folder : path-like, optional
        Where; the default is that of `default_folder`.
    versions : int
        How many newer files of an image make one of them superfluous.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, versions: int = 5
    ) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self._versions = versions
        self._own: list[Path] = []
        self._begun: datetime | None = None
        self._last: _Holding | None = None

    def write(self, project: Project) -> Path | None:
        """Save a project without its images; return where, or None if it is empty.

        Parameters
        ----------
        project : Project

        Raises
        ------
        OSError
            If it cannot be written; the former autosave is untouched.
        ValueError
            As `save_project`.
        """
        holding = _Holding.of(project)
        if self._last is None and not holding.anything:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        is_new = self._last is None or self._is_new_version(holding)
        path = self._new_path(project) if is_new else self._own[-1]
        save_project(project, path, with_images=False)
        self._last = holding
        if is_new:
            self._own.append(path)
            self._begun = _now()
            self._remove_superfluous()
        return path

    def autosaves(self, fingerprint: str) -> list[AutosaveEntry]:
        """Return the work on an image that was saved, newest first.

        Parameters
        ----------
        digest : str
            Of `image_fingerprint`.

        Returns
        -------
        list of Offer
            Without those in which nothing is painted or trained.
        """
        return [
            AutosaveEntry(
                path,
                found.saved_at,
                sum(found.strokes.values()),
                found.classes,
                found.images,
            )
            for path, found in self._summaries()
            if fingerprint in found.strokes
            and (any(found.strokes.values()) or found.has_more)
        ]

    def discard(self, offer: AutosaveEntry) -> None:
        """Remove the file of an offer.

        Parameters
        ----------
        offer : Offer

        Raises
        ------
        OSError
            If it cannot be removed.
        """
        offer.path.unlink(missing_ok=True)

    def _is_new_version(self, holding: _Holding) -> bool:
        assert self._last is not None
        assert self._begun is not None
        return holding.lacks_of(self._last) or _now() - self._begun > _VERSION_TIME

    def _new_path(self, project: Project) -> Path:
        """A name that tells a person what it is, and that no other program takes."""
        first = project.images[0].name if project.images else "classifier"
        name = re.sub(r"\W+", "-", Path(first).stem).strip("-")[:40] or "picture"
        stamp = _now().strftime("%Y%m%d-%H%M%S")
        return self.folder / f"{name}-{stamp}-{secrets.token_hex(4)}{SUFFIX}"

    def _summaries(self) -> list[tuple[Path, ProjectSummary]]:
        """What all readable autosaves hold, newest first."""
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
        """Own files at once, other programs' when they are old or the folder large.

        What cannot be read is left to a person.
        """
        for left in self.folder.glob(f".*{SUFFIX}"):  # by writers that were killed
            if _age_in_days(left) > _OF_LIVING_DAYS:
                left.unlink(missing_ok=True)
        found = self._summaries()
        room = _ROOM_BYTES - sum(_size(path) for path, _ in found)
        for position, (path, summary) in reversed(list(enumerate(found))):
            newer = [other for _, other in found[:position]]
            if path == self._own[-1] or not _is_superfluous(
                summary, newer, self._versions
            ):
                continue
            days = _age_in_days(path)
            if (
                path in self._own
                or days > _KEPT_DAYS
                or (days > _OF_LIVING_DAYS and room < 0)
            ):
                room += _size(path)
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Holding:
    """How much there is in a project."""

    strokes: dict[PlaneKey, int]
    classes: frozenset[int]
    exclusion: int
    classifier: bool
    partitions: frozenset[PlaneKey]  # keys of the pictures that have one

    @classmethod
    def of(cls, project: Project) -> _Holding:
        exclusion = [p.exclusion for p in project.images if p.exclusion is not None]
        return cls(
            {entry.key: entry.strokes for entry in project.images},
            frozenset(project.classes),
            sum(int(mask.sum()) for mask in exclusion),
            project.classifier is not None and project.classifier.is_fitted,
            frozenset(p.key for p in project.images if p.partition is not None),
        )

    @property
    def anything(self) -> bool:
        others = self.exclusion > 0 or self.classifier or bool(self.partitions)
        return others or any(self.strokes.values())

    def lacks_of(self, former: _Holding) -> bool:
        return (
            any(self.strokes.get(key, 0) < n for key, n in former.strokes.items())
            or not self.classes >= former.classes
            or self.exclusion < former.exclusion
            or self.classifier < former.classifier
            or not self.partitions >= former.partitions
        )


def _is_superfluous(
    summary: ProjectSummary, newer: list[ProjectSummary], versions: int
) -> bool:
    """Whether each image has enough newer files, one with as many strokes in it."""
    for fingerprint, strokes in summary.strokes.items():
        others = [
            other.strokes[fingerprint]
            for other in newer
            if fingerprint in other.strokes
        ]
        if len(others) < versions or max(others) < strokes:
            return False
    return True


def default_folder() -> Path:
    """Return where autosaves go: the user's folder for the data of programs.

    Returns
    -------
    pathlib.Path
        What the environment variable NAPARI_HRDV2_AUTOSAVE says, if it is set.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        data = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        shared = os.environ.get("XDG_DATA_HOME")
        data = Path(shared) if shared else Path.home() / ".local" / "share"
    return data / "napari-hrdv2" / "autosave"


def _now() -> datetime:
    return datetime.now(UTC)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _age_in_days(path: Path) -> float:
    return (time.time() - path.stat().st_mtime) / 86400 if path.exists() else 0.0
