"""What all readers begin with: the kind of a file, and sentences for what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

_MAGIC = {
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
}

JOINED = ", or name those to take together (--channels A,B)"


class NotReadError(ValueError):
    """The file is whole, but what is in it is not read here; the text says why."""

    channels: tuple[str, ...] = ()  # of which another one was asked for


def file_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a file; OSError in one sentence."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is no file but a device or a pipe; give a file")
        with open(path, "rb") as file:
            return file.read(count)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file") from error
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null character in the name
        raise ValueError(f"{str(path)!r} is not the name of a file: {error}") from error


def image_format(path: Path) -> str:
    """TIFF, PNG, JPEG or BMP, by what the file begins with."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give an image file")
    start = file_start(path, 4)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    seen = "is empty" if not start else "is not an image of a kind read here"
    raise NotReadError(f"{path} {seen}; give a TIFF, PNG, JPEG or BMP file")


def damaged(path: Path, error: BaseException) -> ValueError:
    """Say what no decoder could make sense of."""
    reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
    reason = reason if len(reason) <= 200 else f"{reason[:197]}..."
    return ValueError(f"{path} is damaged or cut short and cannot be read: {reason}")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes a decoder raise into a sentence."""
    try:
        yield
    except (NotReadError, MemoryError, ImportError):
        raise
    except Exception as error:
        if str(error).startswith(str(path)):  # a sentence already
            raise
        raise damaged(path, error) from error


def optional_module(name: str, purpose: str) -> Any:
    """Import a module of the extra "interop", or say how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {name}; install it with "
            'pip install "napari-hrdv2[interop]"'
        ) from error


def channel_names(told: Sequence[object], count: int) -> list[str]:
    """Return what channels are called: as the file tells, if that tells them apart."""
    names = [" ".join(str(one or "").replace(",", " ").split()) for one in told]
    if len(names) == len(set(names)) == count and all(names):
        return names
    return [f"channel {number}" for number in range(1, count + 1)]


def channels_by_name(path: Path, wanted: str, names: list[str]) -> list[int]:
    """Return which channels are meant by "BSE,Fe"; NotReadError for one not there."""
    chosen = [one.strip() for one in wanted.split(",")]
    if missing := [one for one in chosen if one not in names]:
        told = f"has no channel {missing[0]!r}; it has {', '.join(names)}"
        error = NotReadError(f"channels: {path} {told}")
        error.channels = tuple(names)
        raise error
    return [names.index(one) for one in chosen]


def size_text(shape: tuple[int, ...]) -> str:
    """Return width × height of (H, W)."""
    return " × ".join(str(length) for length in reversed(shape))
