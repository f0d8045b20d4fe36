"""One file with the weights of backbones, for a machine without a network.

It is a zip archive, not compressed, of files of the Hub as owner/name/commit/file, and
of `manifest.json`: the names of the backbones, and of each file its repository, commit,
size and sha256. Importing puts the files where the Hub's client would have: into its
cache, whose layout [1]_ has no function of its own for writing.

References
----------
.. [1] https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.backbones.files.downloads import download_files
from napari_hrdv2.core.backbones.files.hub import Progress, sha256
from napari_hrdv2.core.backbones.files.manifest import (
    MANIFEST,
    Member,
    manifest_of,
    read_manifest,
    refused,
)
from napari_hrdv2.core.backbones.registry import require_known
from napari_hrdv2.core.errors import WeightsError

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Imported:
    """What importing did.

    Attributes
    ----------
    names : tuple of str
        The backbones that can be loaded now.
    written, present : int
        Files that were put into the folder, and that had been there already.
    folder : pathlib.Path
    """

    names: tuple[str, ...]
    written: int
    present: int
    folder: Path


def export_weights(
    names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> int:
    """Write the weights of backbones into one file and return its size in bytes.

    Parameters
    ----------
    names : sequence of str
        As `load_backbone` takes them, except joined ones. What is not on this machine
        is downloaded.
    path : path-like
        The file to write. One that exists is refused.
    progress : callable, optional
        Called with bytes done and bytes in all, of each download and of the writing.

    Raises
    ------
    FileExistsError
        If the file exists.
    ValueError
        If a name is unknown, or comes with the package.
    WeightsError
        If weights cannot be had.
    """
    if not names:
        raise ValueError("names: there are none; name at least one backbone")
    if Path(path).exists():
        raise FileExistsError(f"{os.fspath(path)} exists; choose another name")
    for name in names:
        require_known(name)
    paths: dict[Member, Path] = {}
    for name in names:
        for file in download_files(name, progress):
            member = Member(
                repository=file.repository,
                commit=file.commit,
                filename=file.filename,
                newest=file.revision is None,
                bytes=file.path.stat().st_size,
                sha256=sha256(file.path),
            )
            paths[member] = file.path
    reported = _Counted(sum(member.bytes for member in paths), progress)
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(MANIFEST, manifest_of(names, paths))
            for member, source in paths.items():
                info = zipfile.ZipInfo(member.name)
                info.file_size = member.bytes  # tells whether the format must be zip64
                with open(source, "rb") as read, archive.open(info, "w") as written:
                    for piece in reported.pieces(read):
                        written.write(piece)
        return temporary.stat().st_size


def import_weights(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
) -> Imported:
    """Put the weights of an exported file where `load_backbone` finds them.

    Either all files get into the folder or, where one is refused, none. The checksums
    tell damage; a file made to deceive has checksums that fit.

    Parameters
    ----------
    path : path-like
        What `export_weights` wrote.
    folder : path-like, optional
        A folder to share, see NAPARI_HRDV2_WEIGHTS; the Hub's cache by default.
    progress : callable, optional
        Called with bytes done and bytes in all.

    Raises
    ------
    FileExistsError
        If another file is where one of these belongs, or the folder has another newest
        commit of a repository.
    WeightsError
        If it is not such a file, is damaged, or holds what does not belong there.
    """
    from huggingface_hub import constants

    target = Path(constants.HF_HUB_CACHE if folder is None else folder).expanduser()
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise refused(path, "it is no archive, or its end is missing") from error
    with archive:
        names, members = read_manifest(archive, path)
        missing = [member for member in members if not _is_present(member, target)]
        for member in members:
            _require_newest(member, target)
        target.mkdir(parents=True, exist_ok=True)
        total = sum(member.bytes for member in missing)
        reported = _Counted(total, progress)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=target) as temporary:
            for number, member in enumerate(missing):
                _extract(archive, member, Path(temporary, str(number)), reported, path)
            for number, member in enumerate(missing):
                place = target / member.place
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(temporary, str(number)), place)
    for member in members:
        _point_to_newest(member, target)
    return Imported(names, len(missing), len(members) - len(missing), target)


# --- The folder -----------------------------------------------------------------------
def _is_present(member: Member, folder: Path) -> bool:
    """Return whether the file is there already; raise where another is in its place."""
    place = folder / member.place
    if not os.path.lexists(place):
        return False
    if place.is_file() and sha256(place) == member.sha256:
        return True
    raise FileExistsError(
        f"{place} exists and is another file; remove it, or import into another folder"
    )


def _newest(member: Member, folder: Path) -> Path:
    return folder / member.home / "refs" / "main"


def _require_newest(member: Member, folder: Path) -> None:
    known = _newest(member, folder)
    if not member.newest or not known.is_file():
        return
    commit = known.read_text(encoding="utf-8").strip()
    if commit != member.commit:
        raise FileExistsError(
            f"{folder} has {member.repository} at commit {commit[:10]}, the file at "
            f"{member.commit[:10]}; remove that, or import into another folder"
        )


def _point_to_newest(member: Member, folder: Path) -> None:
    place = _newest(member, folder)
    if member.newest and not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary:
            temporary.write_text(member.commit, encoding="utf-8")


def _extract(
    archive: zipfile.ZipFile,
    member: Member,
    place: Path,
    reported: _Counted,
    path: str | os.PathLike[str],
) -> None:
    fingerprint = hashlib.sha256()
    try:
        with archive.open(member.name) as source, open(place, "wb") as file:
            for piece in reported.pieces(source):
                fingerprint.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, EOFError) as error:
        raise _damaged(member, path) from error
    if fingerprint.hexdigest() != member.sha256:
        raise _damaged(member, path)


def _damaged(member: Member, path: str | os.PathLike[str]) -> WeightsError:
    return WeightsError(
        f"weights: {member.filename} of {member.repository} in {os.fspath(path)} is "
        "damaged (its sha256 is not that of the manifest); copy the file again"
    )


class _Counted:
    """Reads files in pieces and reports the bytes of all."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def pieces(self, file: IO[bytes]) -> Iterator[bytes]:
        while piece := file.read(_PIECE_BYTES):
            yield piece
            self._done += len(piece)
            if self._progress is not None:
                self._progress(self._done, self._total)
