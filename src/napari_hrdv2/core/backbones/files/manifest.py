"""What a file of exported weights says of itself, and whether that is so."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from napari_hrdv2.core.backbones.registry import require_known
from napari_hrdv2.core.errors import WeightsError

MANIFEST = "manifest.json"
_FORMAT = 1
_LARGEST = 1 << 20  # bytes of a manifest
_ENCRYPTED = 1  # the flag of a member
_SUFFIXES = (".safetensors", ".json", ".bin", ".ckpt", ".pth", ".pt")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a path; no dot first, so no ..


@dataclass(frozen=True)
class Member:
    """A file of the archive, as the manifest describes it.

    Attributes
    ----------
    repository : str
        The Hub repository, "owner/name".
    commit : str
    filename : str
        In the repository, with / between folders.
    newest : bool
        Whether the newest commit is meant, not this one in particular.
    bytes : int
    sha256 : str
    """

    repository: str
    commit: str
    filename: str
    newest: bool
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

    @property
    def home(self) -> PurePosixPath:
        """The folder of its repository in the cache."""
        return PurePosixPath(f"models--{self.repository.replace('/', '--')}")

    @property
    def place(self) -> PurePosixPath:
        """Where in the cache it belongs."""
        return self.home / "snapshots" / self.commit / self.filename


def read_manifest(
    archive: zipfile.ZipFile, path: str | os.PathLike[str]
) -> tuple[tuple[str, ...], list[Member]]:
    """Return the names and the files, if an archive holds these and no others.

    Parameters
    ----------
    archive : zipfile.ZipFile
    path : path-like
        Where it is, for what is said of it.

    Raises
    ------
    WeightsError
        If it is not an archive as `weights_archive` describes it.
    """
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
        require_known(name)
    return names, [Member(**entry) for entry in content["files"]]


def refused(path: str | os.PathLike[str], why: str) -> WeightsError:
    """Return the error for a file that is not as it must be."""
    return WeightsError(
        f"weights: {os.fspath(path)} is not a file of `backbones export`: {why}"
    )
