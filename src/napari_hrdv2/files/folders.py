"""Which files of a folder are micrographs, and which were written by this program."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .images import SUFFIXES
from .labels import LABELS_MARK, SOFTWARE, read_labels
from .zarr_images import attributes, is_zarr

_OF_COLORS = {"_colors": "_labels"}  # the end of a PNG's name, and of its TIFF's


@dataclass(frozen=True)
class FoundImages:
    """The micrographs that were named, and how many other files are no micrographs."""

    files: tuple[Path, ...]
    hidden: int = 0
    results: int = 0

    @property
    def left_out(self) -> str:
        """What was left out, in words; "" for nothing."""
        counts = (self.hidden, "hidden"), (self.results, "written by napari-hrdv2")
        parts = [f"{count} {what}" for count, what in counts if count]
        total = self.hidden + self.results
        files = "file was" if total == 1 else "files were"
        return f"{total} {files} left out: {', '.join(parts)}" if total else ""


def find_images(paths: Iterable[str | os.PathLike[str]]) -> FoundImages:
    """Return the files named, and the micrographs of each folder by name.

    Hidden files of a folder are none, nor are the labels and pictures that this program
    wrote; the same goes for files where several are named, as by a shell's pattern.
    """
    named = [Path(path) for path in paths]
    files: list[Path] = []
    hidden = results = 0
    for path in named:
        is_folder = path.is_dir() and not is_zarr(path)
        inside = sorted(_images_in(path)) if is_folder else [path]
        for file in inside:
            if file is not path and is_hidden(file):
                hidden += 1
            elif (file is not path or len(named) > 1) and is_result(file):
                results += 1
            else:
                files.append(file)
    unique: dict[str, Path] = {}
    for file in files:
        unique.setdefault(os.path.abspath(file), file)
    return FoundImages(tuple(unique.values()), hidden, results)


def image_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files named, and for each folder the micrographs in it by name.

    A warning says how many files of a folder were written by this program.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = find_images([path])
        files += found.files
        if found.results:
            total = found.results + len(found.files)
            warnings.warn(
                f"{path}: {found.results} of {total} images are labels or previews "
                "that napari-hrdv2 wrote, and are left out; name them to use them",
                stacklevel=2,
            )
    return files


def is_hidden(path: Path) -> bool:
    """Whether a file is one that systems and programs keep for themselves."""
    attributes = getattr(path.lstat(), "st_file_attributes", 0)  # of Windows
    return path.name.startswith(".") or bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def is_ours(path: Path) -> bool:
    """Whether this program wrote a file, so that it may write another in its place."""
    return _software(path)[0] == SOFTWARE or _is_unmarked_picture(path)


def is_result(path: Path) -> bool:
    """Whether this program wrote a file, and it shows labels rather than an image."""
    if path.is_dir():
        text = attributes(path)
        return '"image-label"' in text or ('"_creator"' in text and SOFTWARE in text)
    software, description = _software(path)
    if software == SOFTWARE:
        lines = description.splitlines()
        is_labels = any(line.startswith(LABELS_MARK) for line in lines)
        return is_labels or path.suffix.lower() == ".png"
    return _is_unmarked_picture(path)


def _images_in(folder: Path) -> list[Path]:
    inside = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    zarrs = (path for path in folder.glob("*.zarr") if is_zarr(path))
    return [*(path for path in inside if path.is_file()), *zarrs]


def _software(path: Path) -> tuple[str, str]:
    """Return what a TIFF or PNG says of the program that wrote it, and its text."""
    import tifffile
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not path.is_file():
                return "", ""
            if path.suffix.lower() == ".png":
                with Image.open(path, formats=["PNG"]) as picture:
                    return str(picture.info.get("Software", "")), ""
            with tifffile.TiffFile(path) as tif:
                page: Any = tif.pages.first
                return str(page.software), str(page.description)
    except Exception:  # noqa: BLE001 - damaged files raise anything: they are not ours
        return "", ""


def _is_unmarked_picture(path: Path) -> bool:
    """Whether a PNG is that of a label TIFF of ours, from when PNGs had no mark."""
    if path.suffix.lower() != ".png" or not path.is_file():
        return False
    stem = path.stem
    for end, other in _OF_COLORS.items():
        if stem.endswith(end):
            stem = stem.removesuffix(end) + other
    labels = path.with_name(f"{stem}.tif")
    if not labels.is_file() or not is_result(labels):
        return False
    try:
        return bool(np.array_equal(read_labels(path), read_labels(labels)))
    except (OSError, ValueError):
        return False


def own_path(path: Path, is_ours: Callable[[str], bool]) -> Path:
    """Return a path, numbered where another program's file is: that is not replaced.

    `is_ours` tells by the first thousand characters.
    """
    number, found = 1, path
    while found.exists():
        if found.is_file():
            with open(found, encoding="utf-8", errors="replace") as file:
                if is_ours(file.read(1000)):
                    return found
        number += 1
        found = path.with_stem(f"{path.stem}_{number}")
    return found
