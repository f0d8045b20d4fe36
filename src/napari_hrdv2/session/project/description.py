"""What `project.json` says, in the words in which it says it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.features.options import FeatureOptions, updated
from napari_hrdv2.session.classes import ClassInfo  # noqa: TC001 - read by `checked`
from napari_hrdv2.session.project.archive import read_json
from napari_hrdv2.session.project.checked_json import checked

if TYPE_CHECKING:
    import zipfile

FORMAT = "napari-hrdv2 project"
VERSION = 2  # 1 was that of napari-hrdv2 0.1.0
DESCRIPTION = "project.json"
CLASSIFIER = "classifier.safetensors"

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


class UnreadableError(Exception):
    """The file is whole, but not one that this version reads."""


@dataclass(frozen=True)
class SourceEntry:
    """Where an image lies: its path, and the way there from the project file."""

    absolute: str
    relative: str | None = None


@dataclass(frozen=True)
class ArrayEntry:
    """A TIFF member, and the array that it was."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PictureEntry:
    """One picture of the project."""

    key: str
    name: str
    shape: tuple[int, int]
    image_digest: str
    source: SourceEntry | None = None
    plane: dict[str, int] | None = None
    pixel_size: tuple[float, str] | None = None
    trains: bool = True
    strokes: int = 0  # pixels that are labelled
    scribbles: ArrayEntry | None = None
    excluded: ArrayEntry | None = None
    partition: ArrayEntry | None = None
    partition_name: str = ""
    image: ArrayEntry | None = None


@dataclass(frozen=True)
class Description:
    """All of `project.json`."""

    format: str
    version: int
    saved_at: str  # UTC, ISO 8601
    software: str
    pictures: tuple[PictureEntry, ...]
    classes: dict[int, ClassInfo]
    options: FeatureOptions
    refinement: dict[str, object]
    current: str | None = None
    classifier: str | None = None


def description_text(description: Description) -> str:
    """Return the JSON; ValueError where something of it has no JSON."""
    try:
        return json.dumps(
            asdict(description), indent=1, ensure_ascii=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"project: {error}; refinement takes text, numbers, lists and dicts"
        ) from error


def read_description(archive: zipfile.ZipFile) -> Description:
    """Return what an archive says of itself; ValueError if it is damaged."""
    there = DESCRIPTION in archive.namelist()
    found = read_json(archive, DESCRIPTION) if there else {}
    if found.get("format") != FORMAT:
        raise UnreadableError("is not a project of napari-hrdv2")
    version = found.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnreadableError(
            f"has format {version}; this version of napari-hrdv2 reads up to "
            f"{VERSION}, a newer one is needed"
        )
    if "settings" in found:  # format 1
        found["options"] = updated(found.pop("settings"))
    description: Description = checked(found, Description, DESCRIPTION)
    for entry in description.pictures:
        if min(entry.shape) < 1:
            raise ValueError(f"picture {entry.key!r} has the shape {entry.shape}")
        if entry.pixel_size and not 0 < entry.pixel_size[0] < float("inf"):
            raise ValueError(f"picture {entry.key!r} has pixels of no size")
    for info in description.classes.values():
        if not _COLOR.fullmatch(info.color):
            raise ValueError(f"class {info.name!r} has the colour {info.color!r}")
    check_keys([entry.key for entry in description.pictures])
    return description


def check_keys(keys: Collection[str]) -> None:
    """Raise ValueError unless every picture has a key of its own."""
    twice = {key for key in keys if list(keys).count(key) > 1}
    if twice:
        raise ValueError(f"pictures: the key {min(twice)!r} is used twice")


def source_entry(source: str | None, folder: Path) -> SourceEntry | None:
    """Return how to find an image again from the folder of the project."""
    if source is None:
        return None
    if "://" in source:
        return SourceEntry(source)
    absolute = os.path.abspath(source)
    try:
        relative = Path(os.path.relpath(absolute, folder)).as_posix()
    except ValueError:  # another drive
        return SourceEntry(absolute)
    return SourceEntry(absolute, relative)


def found_source(entry: SourceEntry | None, folder: Path) -> str | None:
    """Return where an image is now, or where it was if it is nowhere.

    It is looked for on the way from the project, where it was, and beside the project.
    """
    if entry is None:
        return None
    if "://" in entry.absolute:
        return entry.absolute
    name = re.split(r"[\\/]", entry.absolute)[-1]
    for place in (folder / (entry.relative or name), entry.absolute, folder / name):
        if os.path.exists(place):
            return os.path.abspath(place)
    return entry.absolute


def _plain(value: Any) -> Any:
    """NumPy's numbers and paths, which JSON does not know."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is not plain JSON")
