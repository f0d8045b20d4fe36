"""Writing files so that a crash or a full disk never costs the old one."""

from __future__ import annotations

import csv
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\..*-[0-9a-f]{16}(\.[^.]*)?")
_STALE_SECONDS = 24 * 3600  # no file takes a day to write


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes it when the block succeeds.

    The content is on the disk before the name changes, and the name before this
    returns: a power cut or an OSError leaves the old file or the new one. What killed
    writers of it left there goes.
    """
    if _TEMPORARY.fullmatch(Path(path).name):  # that of a writer around this one
        yield Path(path)
        return
    with atomic_paths(path) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(
    path: str | os.PathLike[str], *derived: str | os.PathLike[str]
) -> Iterator[tuple[Path, ...]]:
    """Yield temporary paths of a file and of what is made of it, as `atomic_path`.

    All are complete before the first name changes. What is made of the former file is
    gone by then: whenever this is broken off, none lies beside a file that is not its.
    """
    targets = [Path(path), *map(Path, derived)]
    temporaries: list[Path] = []
    try:
        for target in targets:
            remove_leftovers(target)
            temporaries.append(_new_file(target))
        yield tuple(temporaries)
        for temporary in temporaries:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        for target in targets[1:]:
            target.unlink(missing_ok=True)
        for temporary, target in zip(temporaries, targets, strict=True):
            os.replace(temporary, target)
    except OSError as error:
        raise _explained(error, targets[0]) from error
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    for folder in {target.parent for target in targets}:
        _flush_folder(folder)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what writers of ``path`` that were killed left beside it.

    Files younger than a day are kept: another program may be writing them. A folder
    that such a writer had renamed, and not replaced yet, has its name again.
    """
    target = Path(path)
    stem, suffix = map(re.escape, (target.stem, target.suffix))
    # A former folder was renamed to make room for a new one.
    left = re.compile(rf"\.{stem}-[0-9a-f]{{16}}{suffix}(-former)?")
    with suppress(OSError):  # tidying up is a courtesy
        for found in os.scandir(target.parent):
            if (what := left.fullmatch(found.name)) is None:
                continue
            if what[1] and not target.exists():
                os.replace(found.path, target)
            elif time.time() - found.stat().st_mtime <= _STALE_SECONDS:
                continue
            elif found.is_dir(follow_symlinks=False):
                shutil.rmtree(found.path)
            else:
                os.unlink(found.path)


def write_csv(
    path: str | os.PathLike[str],
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Write a CSV file in UTF-8. Numbers keep all digits; None and NaN are empty."""
    with (
        atomic_path(path) as temporary,
        # Names of files need not be text.
        open(
            temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(headers)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    if value is None or value != value:  # only NaN differs from itself
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def _new_file(target: Path) -> Path:
    path = target.with_name(f".{target.stem}-{secrets.token_hex(8)}{target.suffix}")
    # As readable as the user's umask says, unlike those of the tempfile module.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def _flush_folder(folder: Path) -> None:
    # Windows opens no folders and some network drives flush none; the file is there
    # in any case, so nothing of this is an error.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _explained(error: OSError, target: Path) -> OSError:
    reason = error.strerror or str(error)
    kept = "; the file that was there is untouched" if target.exists() else ""
    return OSError(error.errno, f"{target} could not be written: {reason}{kept}")
