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
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.errors import WeightsError

from .hub import files_of, sha256
from .registry import backbone_info

if TYPE_CHECKING:
    from .base import Progress

_PIECE_BYTES = 1 << 20
MANIFEST = "manifest.json"
_FORMAT = 1
_LARGEST = 1 << 20  # bytes of a manifest
_ENCRYPTED = 1  # the flag of a member
_SUFFIXES = (".safetensors", ".json", ".bin", ".ckpt", ".pth", ".pt")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a path; no dot first, so no ..


@dataclass(frozen=True)
class Imported:
    """What importing did."""

    names: tuple[str, ...]  # of the backbones that can be loaded now
    written: int  # files that were put into the folder
    present: int  # files that had been there already
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
        is downloaded; names that come with the package are refused.
    path : path-like
        The file to write. One that exists is refused.
    progress : callable, optional
        Called with bytes done and bytes in all, of each download and of the writing.
    """
    if not names:
        raise ValueError("names: there are none; name at least one backbone")
    if Path(path).exists():
        raise FileExistsError(f"{os.fspath(path)} exists; choose another name")
    specs = [backbone_info(name) for name in names]
    paths: dict[Member, Path] = {}
    for spec in specs:
        for file in files_of(spec, progress):
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
                place = member.place(target)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(temporary, str(number)), place)
    for member in members:
        _point_to_newest(member, target)
    return Imported(names, len(missing), len(members) - len(missing), target)


# --- The folder -----------------------------------------------------------------------
def _is_present(member: Member, folder: Path) -> bool:
    """Return whether the file is there already; raise where another is in its place."""
    place = member.place(folder)
    if not os.path.lexists(place):
        return False
    if place.is_file() and sha256(place) == member.sha256:
        return True
    raise FileExistsError(
        f"{place} exists and is another file; remove it, or import into another folder"
    )


def _require_newest(member: Member, folder: Path) -> None:
    known = member.newest_commit(folder)
    if not member.newest or not known.is_file():
        return
    commit = known.read_text(encoding="utf-8").strip()
    if commit != member.commit:
        raise FileExistsError(
            f"{folder} has {member.repository} at commit {commit[:10]}, the file at "
            f"{member.commit[:10]}; remove that, or import into another folder"
        )


def _point_to_newest(member: Member, folder: Path) -> None:
    place = member.newest_commit(folder)
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


# --- The manifest ---------------------------------------------------------------------
@dataclass(frozen=True)
class Member:
    """A file of the archive, as the manifest describes it."""

    repository: str  # "owner/name"
    commit: str
    filename: str  # in the repository, with / between folders
    newest: bool  # whether the newest commit is meant, not this one in particular
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        for key, kind in Member.__annotations__.items():
            if type(getattr(self, key)).__name__ != kind:
                raise ValueError(f"its {key} is {getattr(self, key)!r}, not {kind}")
        for key, pattern in (
            ("repository", f"(?!.*--){_PART}/{_PART}"),
            ("commit", "[0-9a-f]{40}"),
            ("filename", f"{_PART}(/{_PART})*"),
            ("sha256", "[0-9a-f]{64}"),
        ):
            if not re.fullmatch(pattern, getattr(self, key)):
                raise ValueError(f"its {key} is {getattr(self, key)!r}")
        if not self.filename.endswith(_SUFFIXES):
            raise ValueError(f"{self.filename} is not a kind of file for weights")

    @property
    def name(self) -> str:
        """The name in the archive."""
        return f"{self.repository}/{self.commit}/{self.filename}"

    def home(self, cache: Path) -> Path:
        """Return the folder of its repository."""
        return cache / f"models--{self.repository.replace('/', '--')}"

    def place(self, cache: Path) -> Path:
        """Return where in a cache it belongs."""
        return self.home(cache) / "snapshots" / self.commit / self.filename

    def newest_commit(self, cache: Path) -> Path:
        """Return the file that tells the newest commit of its repository."""
        return self.home(cache) / "refs" / "main"


def read_manifest(
    archive: zipfile.ZipFile, path: str | os.PathLike[str]
) -> tuple[tuple[str, ...], list[Member]]:
    """Return the names and the files, if an archive holds these and no others."""
    entries = archive.infolist()
    if sum(entry.filename == MANIFEST for entry in entries) != 1:
        raise refused(path, f"it has no {MANIFEST}")
    if archive.getinfo(MANIFEST).file_size > _LARGEST:
        raise refused(path, f"its {MANIFEST} is too large")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise refused(path, f"{entry.filename} in it is compressed or encrypted")
    try:
        names, members = _parsed(json.loads(archive.read(MANIFEST)))
    except (ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise refused(path, f"its {MANIFEST} is not understood: {error}") from error
    expected = {member.name: member for member in members}
    if len(expected) != len(members):
        raise refused(path, f"its {MANIFEST} has a file twice")
    found = [entry.filename for entry in entries if entry.filename != MANIFEST]
    strange = [name for name in found if name not in expected]
    if strange:
        raise refused(path, f"it holds {strange[0]!r}, which {MANIFEST} does not name")
    if len(found) != len(members):
        raise refused(path, "a file of its manifest is missing or there twice")
    for member in members:
        if member.bytes != archive.getinfo(member.name).file_size:
            raise refused(path, f"{member.name} in it has another size")
    return names, members


def manifest_of(names: Sequence[str], members: Iterable[Member]) -> str:
    """Return the text of the manifest for backbones and their files."""
    content = {
        "format": _FORMAT,
        "names": list(dict.fromkeys(names)),
        "files": [asdict(member) for member in members],
    }
    return json.dumps(content, indent=1)


def _parsed(content: Any) -> tuple[tuple[str, ...], list[Member]]:
    version = content["format"]
    if version != _FORMAT:
        raise ValueError(f"its format is {version!r}; {_FORMAT} can be read")
    strange = content.keys() - {"format", "names", "files"}
    if strange:
        raise ValueError(f"{sorted(strange)[0]!r} is unknown")
    names = tuple(content["names"])
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no name")
        backbone_info(name)
    return names, [Member(**entry) for entry in content["files"]]


def refused(path: str | os.PathLike[str], why: str) -> WeightsError:
    """Return the error for a file that is not as it must be."""
    return WeightsError(
        f"weights: {os.fspath(path)} is not a file of `backbones export`: {why}"
    )
