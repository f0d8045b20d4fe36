"""A project in memory, and the models of `project.json`."""

from __future__ import annotations

import json
import os
import re
import weakref
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.options import FeatureOptions, updated
from napari_hrdv2.core.fingerprints import image_fingerprint, sampled_fingerprint
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.planes import Plane, PlaneKey, is_large

SUFFIX = ".hrdv2"
FORMAT = "napari-hrdv2 project"
VERSION = 3

_KEYS_OF_VERSION_1 = {
    "pictures": "images",
    "settings": "options",
    "image_digest": "image_fingerprint",
    "strokes": "labelled_pixels",
    "excluded": "exclusion",
}
_IS_WINDOWS = os.name == "nt"


class Fingerprints:
    """The fingerprints of open images, each computed once; any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[weakref.ref[Any], str]] = {}

    def known(self, key: Hashable, image: Any) -> str:
        """Return the fingerprint of an image entry, "" if it was not computed yet."""
        found = self._known.get(key)
        return found[1] if found is not None and found[0]() is image else ""

    def of(self, key: Hashable, image: Any) -> str:
        """Return the fingerprint of an image entry, computed now if need be."""
        fingerprint = self.known(key, image)
        if not fingerprint:
            is_cut = isinstance(image, Plane) and is_large(image)
            fingerprint = (sampled_fingerprint if is_cut else image_fingerprint)(image)
            self._known[key] = weakref.ref(image), fingerprint
        return fingerprint


@dataclass(frozen=True, eq=False)
class SavedImage:
    """One image entry of a project, with what was painted on it."""

    key: PlaneKey
    name: str  # as the user calls it
    source: str | None  # the file of the image, or its address on the web
    plane: dict[str, int]  # of a stack, for instance {"Z": 3}; else empty
    shape: tuple[int, int]  # (H, W)
    image_fingerprint: str  # "" as long as it is not known
    pixel_size: tuple[float | tuple[float, float], str] | None  # size and unit
    scribbles: NDArray[Any] | None  # (H, W) label ids, 0 where nothing is painted
    exclusion: NDArray[np.bool_] | None  # (H, W)
    trains: bool = True  # whether its scribbles train the classifier
    image: NDArray[Any] | None = None  # (H, W), (H, W, 3|4) or (C, H, W)
    partition: NDArray[Any] | None = None  # (H, W) superpixels from elsewhere
    partition_name: str = ""

    @property
    def labelled_pixels(self) -> int:
        """The number of pixels that have a label."""
        return 0 if self.scribbles is None else int(np.count_nonzero(self.scribbles))


@dataclass(frozen=True, eq=False)
class Project:
    """Everything a user made."""

    images: tuple[SavedImage, ...]
    classes: dict[int, ClassInfo]
    options: FeatureOptions
    classifier: PixelClassifier | None  # one that was not trained is not saved
    refinement: dict[str, object] = field(default_factory=dict)  # plain JSON
    current: PlaneKey | None = None  # key of the image entry that is worked on
    saved_at: datetime | None = None  # None as long as it was not saved

    def completed(self, fingerprints: Fingerprints, *, with_images: bool) -> Project:
        """Return it with all fingerprints, which may read images, and their pixels."""
        images = [
            replace(
                saved,
                image_fingerprint=saved.image_fingerprint
                or fingerprints.of(saved.key, saved.image),
                image=np.asarray(saved.image)
                if with_images and saved.image is not None
                else None,
            )
            for saved in self.images
        ]
        return replace(self, images=tuple(images))


class UnreadableError(Exception):
    """The file is whole, but not one that this version reads."""


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


_Size = Annotated[int, pydantic.Field(ge=1)]
_Length = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


def is_elsewhere(path: str | os.PathLike[str], folder: Path) -> bool:
    """Whether a path is on a machine other than that of the project.

    To ask for it is to log in there, on Windows, and the path may be a stranger's.
    """
    if not _IS_WINDOWS:
        return False
    drive = PureWindowsPath(path).drive
    return drive.startswith("\\\\") and drive != PureWindowsPath(folder).drive


class SourceRecord(_Record):
    """Where an image lies: its path, and the way there from the project file."""

    absolute: str
    relative: str | None = None

    @classmethod
    def of(cls, source: str | None, folder: Path) -> SourceRecord | None:
        """Return how to find an image again from the folder of the project."""
        if source is None:
            return None
        if "://" in source:
            return cls(absolute=source)
        absolute = os.path.abspath(source)
        try:
            relative = Path(os.path.relpath(absolute, folder)).as_posix()
        except ValueError:  # another drive
            return cls(absolute=absolute)
        return cls(absolute=absolute, relative=relative)

    def found_from(self, folder: Path) -> str:
        """Return where the image is now: on the way, where it was, or beside it."""
        if "://" in self.absolute:
            return self.absolute
        name = re.split(r"[\\/]", self.absolute)[-1]
        for path in (folder / (self.relative or name), self.absolute, folder / name):
            if not is_elsewhere(path, folder) and os.path.exists(path):
                return os.path.abspath(path)
        return self.absolute


class ArrayRecord(_Record):
    """A TIFF member, and the array that it was."""

    file: str
    dtype: str
    shape: tuple[_Size, ...]

    @property
    def itemsize(self) -> int:
        """Bytes of a number; of one that is none, those of the widest."""
        try:
            return np.dtype(self.dtype).itemsize
        except TypeError:
            return 8


class ImageRecord(_Record):
    """One image entry of the project."""

    key: str
    name: str
    shape: tuple[_Size, _Size]
    image_fingerprint: str
    source: SourceRecord | None = None
    plane: dict[str, int] = {}
    pixel_size: tuple[_Length | tuple[_Length, _Length], str] | None = None
    trains: bool = True
    labelled_pixels: int = 0
    scribbles: ArrayRecord | None = None
    exclusion: ArrayRecord | None = None
    partition: ArrayRecord | None = None
    partition_name: str = ""
    image: ArrayRecord | None = None


class ClassRecord(_Record):
    """One class."""

    name: str
    color: str = pydantic.Field(pattern=r"^#[0-9a-fA-F]{6}$")


class ProjectRecord(_Record):
    """All of `project.json`."""

    format: str = FORMAT
    version: int = VERSION
    saved_at: pydantic.AwareDatetime
    software: str
    images: tuple[ImageRecord, ...]
    classes: dict[int, ClassRecord]
    options: FeatureOptions
    refinement: dict[str, Any]
    current: str | None = None
    classifier: str | None = None

    @pydantic.field_validator("images")
    @classmethod
    def _check_keys(cls, images: tuple[ImageRecord, ...]) -> tuple[ImageRecord, ...]:
        for key, count in Counter(one.key for one in images).items():
            if count > 1:
                raise ValueError(f"images: the key {key!r} is used twice")
        return images

    @property
    def labelled_pixels(self) -> Counter[str]:
        """How many pixels are labelled, by the fingerprints of the images."""
        counts: Counter[str] = Counter()
        for one in self.images:
            counts[one.image_fingerprint] += one.labelled_pixels
        return counts

    @property
    def has_more(self) -> bool:
        """Whether it holds a classifier, an exclusion mask or given superpixels."""
        masks = [one.exclusion or one.partition for one in self.images]
        return self.classifier is not None or any(masks)

    def to_json(self) -> str:
        """Return the text of `project.json`; ValueError where something has no JSON."""
        values = self.model_dump(warnings=False)
        try:
            return json.dumps(values, indent=1, ensure_ascii=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"project: {error}; refinement takes text, numbers, lists and dicts"
            ) from error

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> ProjectRecord:
        """Return what a `project.json` of this version or an older one says."""
        if found.get("format") != FORMAT:
            raise UnreadableError("is not a project of napari-hrdv2")
        version = found.get("version")
        if isinstance(version, int) and version > VERSION:
            raise UnreadableError(
                f"has format {version}; this version of napari-hrdv2 reads up to "
                f"{VERSION}, a newer one is needed"
            )
        return cls.checked(_updated(found) if version in (1, 2) else found)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> ProjectRecord:
        """Return the record; ValueError, in one sentence, where an entry is wrong."""
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise ValueError(sentence(error)) from None


def sentence(error: pydantic.ValidationError) -> str:
    """Return the first thing that is wrong in one sentence that names the entry."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    loc = [
        f"[{one}]" if isinstance(one, int) else f".{one}"
        for one in first["loc"]
        if isinstance(one, int) or "[" not in one  # nor which of some types was tried
    ]
    where = f"project.json{''.join(loc)}"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where} is unknown to version {VERSION} of the format"
    if first["type"] == "missing":
        return f"{where} is missing"
    seen, wanted = repr(first["input"]), re.sub(r"^\w+ should", "should", first["msg"])
    return f"{where} is {seen if len(seen) <= 60 else f'{seen[:57]}...'}; it {wanted}"


def _updated(found: Mapping[str, Any]) -> dict[str, Any]:
    """Give keys of version 1, and the words of options, what they are called now."""

    def renamed(record: Mapping[str, Any]) -> dict[str, Any]:
        return {_KEYS_OF_VERSION_1.get(key, key): record[key] for key in record}

    values = {**renamed(found), "version": VERSION}
    if "options" in values:
        values["options"] = updated(values["options"])
    images = values.get("images")
    if isinstance(images, list):
        values["images"] = [
            renamed(one) if isinstance(one, dict) else one for one in images
        ]
    return values


def _plain(value: Any) -> Any:
    """Return NumPy's numbers, times and paths as what JSON knows."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is not plain JSON")
