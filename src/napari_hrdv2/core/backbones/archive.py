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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.errors import WeightsError

from .hub import files_of, sha256
from .registry import backbone_info

if TYPE_CHECKING:
    from .base import Progress

_PIECE_BYTES = 1 << 20
MANIFEST = "manifest.json"
_LARGEST = 1 << 20  # bytes of a manifest
_ENCRYPTED = 1  # the flag of a member
_SUFFIX = r"\.(safetensors|json|bin|ckpt|pth|pt)"
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
    """Write the weights of backbones into a new file and return its size in bytes.

    Names are as for `load_backbone`, except joined ones and what comes with the
    package. Weights that are not on this machine are downloaded; `progress` is called
    with bytes done and bytes in all, of each download and of the writing.
    """
    if not names:
        raise ValueError("names: there are none; name at least one backbone")
    if Path(path).exists():
        raise FileExistsError(f"{os.fspath(path)} exists; choose another name")
    paths: dict[Member, Path] = {}
    for spec in [backbone_info(name) for name in names]:
        for file in files_of(spec, progress):
            member = Member(
                repository=spec.source,
                commit=file.commit,
                filename=file.filename,
                newest=spec.revision is None,
                bytes=file.path.stat().st_size,
                sha256=sha256(file.path),
            )
            paths[member] = file.path
    manifest = Manifest(format=1, names=tuple(dict.fromkeys(names)), files=tuple(paths))
    count = _counter(manifest.files, progress)
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(MANIFEST, manifest.model_dump_json(indent=1))
            for member, source in paths.items():
                info = zipfile.ZipInfo(member.name)
                info.file_size = member.bytes  # tells whether the format must be zip64
                with open(source, "rb") as read, archive.open(info, "w") as written:
                    while piece := read.read(_PIECE_BYTES):
                        written.write(piece)
                        count(len(piece))
        return temporary.stat().st_size


def import_weights(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
) -> Imported:
    """Put the weights of an exported file where `load_backbone` finds them.

    Either all files get into the folder or, where one is refused, none. The checksums
    tell damage; a file made to deceive has checksums that fit. The folder is one to
    share, see NAPARI_HRDV2_WEIGHTS, or by default the Hub's cache.

    Raises
    ------
    FileExistsError
        If another file is where one of these belongs, or the folder has another newest
        commit of a repository.
    WeightsError
        If it is not such a file, is damaged, or holds what does not belong there.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE if folder is None else folder).expanduser()
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise _refused(path, "it is no archive, or its end is missing") from error
    with archive:
        manifest = _read_manifest(archive, path)
        members = manifest.files
        missing = [member for member in members if not _is_present(member, cache)]
        cache.mkdir(parents=True, exist_ok=True)
        count = _counter(missing, progress)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=cache) as temporary:
            parts = [Path(temporary, str(number)) for number in range(len(missing))]
            for member, part in zip(missing, parts, strict=True):
                _extract(archive, member, part, count)
            for member, part in zip(missing, parts, strict=True):
                target = cache / member.place
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, target)
    for member in members:
        newest = cache / member.newest_commit
        if member.newest and not newest.is_file():
            newest.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(newest) as part:
                part.write_text(member.commit, encoding="utf-8")
    return Imported(manifest.names, len(missing), len(members) - len(missing), cache)


def _is_present(member: Member, cache: Path) -> bool:
    """Return whether the file is there already; raise where another is in its place."""
    newest = cache / member.newest_commit
    commit = newest.read_text(encoding="utf-8").strip() if newest.is_file() else None
    if member.newest and commit not in (None, member.commit):
        raise FileExistsError(
            f"{cache} has {member.repository} at commit {commit:.10}, the file at "
            f"{member.commit:.10}; remove that, or import into another folder"
        )
    path = cache / member.place
    if os.path.lexists(path) and not (path.is_file() and sha256(path) == member.sha256):
        raise FileExistsError(
            f"{path} exists and is another file; remove it, or import into another "
            "folder"
        )
    return path.is_file()


def _extract(
    archive: zipfile.ZipFile, member: Member, path: Path, count: Callable[[int], None]
) -> None:
    hashed = hashlib.sha256()
    with (
        suppress(zipfile.BadZipFile, EOFError),  # the hash differs then
        archive.open(member.name) as source,
        open(path, "wb") as file,
    ):
        while piece := source.read(_PIECE_BYTES):
            hashed.update(piece)
            file.write(piece)
            count(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if hashed.hexdigest() != member.sha256:
        raise WeightsError(
            f"weights: {member.filename} of {member.repository} in {archive.filename} "
            "is damaged (its sha256 is not that of the manifest); copy the file again"
        )


def _counter(
    members: Sequence[Member], progress: Progress | None
) -> Callable[[int], None]:
    """Return what is told the bytes of each piece, and reports those of all."""
    total, done = sum(member.bytes for member in members), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    return count


# --- The manifest ---------------------------------------------------------------------
class _Checked(pydantic.BaseModel):
    # Rust's regular expressions, the default, have no look-ahead.
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, regex_engine="python-re"
    )


def _text(pattern: str) -> pydantic.StringConstraints:
    return pydantic.StringConstraints(pattern=rf"\A{pattern}\Z")


class Member(_Checked):
    """A file of the archive, as the manifest describes it."""

    repository: Annotated[str, _text(f"(?!.*--){_PART}/{_PART}")]  # "owner/name"
    commit: Annotated[str, _text("[0-9a-f]{40}")]
    # In the repository, with / between folders.
    filename: Annotated[str, _text(f"{_PART}(/{_PART})*{_SUFFIX}")]
    newest: bool  # whether the newest commit is meant, not this one in particular
    bytes: int
    sha256: Annotated[str, _text("[0-9a-f]{64}")]

    @property
    def name(self) -> str:
        """The name in the archive."""
        return f"{self.repository}/{self.commit}/{self.filename}"

    @property
    def place(self) -> Path:
        """Where in the cache it belongs."""
        return self._home / "snapshots" / self.commit / self.filename

    @property
    def newest_commit(self) -> Path:
        """The file of the cache that tells the newest commit of its repository."""
        return self._home / "refs" / "main"

    @property
    def _home(self) -> Path:
        return Path(f"models--{self.repository.replace('/', '--')}")


class Manifest(_Checked):
    """What an archive holds."""

    format: Literal[1]
    names: tuple[str, ...]  # of the backbones
    files: tuple[Member, ...]

    @pydantic.field_validator("names")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            backbone_info(name)
        return names

    @pydantic.field_validator("files")
    @classmethod
    def _different(cls, files: tuple[Member, ...]) -> tuple[Member, ...]:
        if len({member.name for member in files}) != len(files):
            raise ValueError("a file twice")
        return files


def _read_manifest(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest, if an archive holds its files and no others."""
    entries = archive.infolist()
    if sum(entry.filename == MANIFEST for entry in entries) != 1:
        raise _refused(path, f"it has no {MANIFEST}")
    if archive.getinfo(MANIFEST).file_size > _LARGEST:
        raise _refused(path, f"its {MANIFEST} is too large")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise _refused(path, f"{entry.filename} in it is compressed or encrypted")
    try:
        manifest = Manifest.model_validate_json(archive.read(MANIFEST))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        why = f"{where} is {first['input']!r:.60} ({first['msg']})"
        raise _refused(path, f"its {MANIFEST} is not understood: {why}") from error
    except zipfile.BadZipFile as error:
        raise _refused(path, f"its {MANIFEST} is damaged") from error
    expected = {member.name for member in manifest.files}
    found = [entry.filename for entry in entries if entry.filename != MANIFEST]
    strange = [name for name in found if name not in expected]
    if strange:
        raise _refused(path, f"it holds {strange[0]!r}, which {MANIFEST} does not name")
    if len(found) != len(expected):
        raise _refused(path, "a file of its manifest is missing or there twice")
    for member in manifest.files:
        if member.bytes != archive.getinfo(member.name).file_size:
            raise _refused(path, f"{member.name} in it has another size")
    return manifest


def _refused(path: str | os.PathLike[str], why: str) -> WeightsError:
    """Return the error for what is no such file."""
    return WeightsError(
        f"weights: {os.fspath(path)} is not a file of `backbones export`: {why}"
    )
