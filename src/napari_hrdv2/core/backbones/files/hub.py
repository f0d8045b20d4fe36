"""Files of the Hugging Face Hub: of a shared folder, its cache, or downloaded.

Keeping half a file out of the cache is the work of the Hub's client. Large files are
fetched by `_resume`, so that a download that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from napari_hrdv2.core.backbones.files.resume import fetch_blob
from napari_hrdv2.core.errors import WeightsError

Progress = Callable[[int, int], None]
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PATIENCE = 3.0  # s until the Hub counts as out of reach
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
SHARED_FOLDER = "NAPARI_HRDV2_WEIGHTS"

log = logging.getLogger(__name__)


def cached_file(repo: str, filename: str, *, revision: str | None) -> Path | None:
    """Return where this machine keeps a file of the Hub, or None.

    The folder that the environment variable NAPARI_HRDV2_WEIGHTS names, laid out as
    the Hub's cache, comes before the cache. No network is touched.
    """
    from huggingface_hub import try_to_load_from_cache

    shared = os.environ.get(SHARED_FOLDER)
    folders = [shared, None] if shared and _is_there(shared) else [None]
    for folder in folders:
        found = try_to_load_from_cache(repo, filename, folder, revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _is_there(folder: str) -> bool:
    exists = Path(folder).is_dir()
    if not exists:
        _say_missing(folder)
    return exists


@cache  # once
def _say_missing(folder: str) -> None:
    log.warning("%s: there is no folder %s; it is not used", SHARED_FOLDER, folder)


def cached_weights(
    repo: str, *, revision: str | None, filename: str | None = None
) -> Path | None:
    """Return the cached weights of a repository, or None; no network is touched."""
    for name in _names(filename):
        found = cached_file(repo, name, revision=revision)
        if found is not None:
            return found
    return None


def fetch_weights(
    repo: str,
    *,
    revision: str | None,
    filename: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return a local file with the weights of a repository.

    Without a file name the usual ones are tried, safetensors first.
    """
    from huggingface_hub.errors import EntryNotFoundError

    cached = cached_weights(repo, revision=revision, filename=filename)
    if cached is not None:
        return cached
    for name in _names(filename):
        try:
            return fetch(repo, name, revision=revision, progress=progress)
        except EntryNotFoundError:
            continue
    raise WeightsError(
        f"weights: the Hub repository {repo} does not hold "
        f"{' or '.join(_names(filename))}"
    )


def _names(filename: str | None) -> tuple[str, ...]:
    return _WEIGHTS if filename is None else (filename,)


def fetch_config(repo: str, *, revision: str | None) -> Path:
    """Return a local copy of a repository's config.json."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return fetch(repo, "config.json", revision=revision)
    except EntryNotFoundError as error:
        raise WeightsError(
            f"weights: the Hub repository {repo} holds no config.json, so the shape of "
            "its network is unknown"
        ) from error


def fetch_preprocessor(repo: str, *, revision: str | None) -> None:
    """Put what prepares a repository's images beside its config.json, if it has it."""
    from huggingface_hub.errors import EntryNotFoundError

    for name in PREPROCESSORS:
        try:
            fetch(repo, name, revision=revision)
            return
        except EntryNotFoundError:
            continue


def fetch(
    repo: str,
    filename: str,
    *,
    revision: str | None,
    progress: Progress | None = None,
) -> Path:
    """Return a local copy of a repository's file, downloading it if need be.

    Parameters
    ----------
    repo, filename : str
        The repository ("owner/name") and the file in it.
    revision : str or None
        A commit; None for the newest.
    progress : callable, optional
        Called with bytes done and bytes in all. What it raises ends the download.

    Raises
    ------
    WeightsError
        If the Hub or the repository cannot be reached, or what came does not have the
        sha256 that the Hub gives.
    huggingface_hub.errors.EntryNotFoundError
        If the repository has no such file.
    """
    from huggingface_hub import errors, hf_hub_download

    cached = cached_file(repo, filename, revision=revision)
    if cached is not None:
        return cached
    if not _can_reach_hub():
        raise _no_network(repo, filename)
    bar: dict[str, Any] = {}
    if progress is not None:
        bar["tqdm_class"] = _bar_class(progress)
    try:
        with _quiet_client():
            blob = fetch_blob(repo, filename, revision=revision, progress=progress)
            found = Path(hf_hub_download(repo, filename, revision=revision, **bar))
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"weights: the Hub repository {repo} is gated: accept its conditions on "
            "its page and log in with `hf auth login`, or give weights= a local file"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"weights: the Hub repository {repo} has no revision {revision}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"weights: there is no Hub repository {repo}, or it is private and needs "
            "`hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _no_network(repo, filename) from error
    except errors.EntryNotFoundError:
        raise
    except errors.HFValidationError as error:
        raise WeightsError(f"weights: {repo!r} is not a name of the Hub") from error
    except (errors.HfHubHTTPError, OSError) as error:
        text = str(error.strerror or error)
        first_line = (text.splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"weights: {filename} of the Hub repository {repo} was not downloaded: "
            f"{first_line}"
        ) from error
    if blob is not None and not found.is_symlink():
        blob.unlink(missing_ok=True)  # it was copied: there are no links here
    _require_checksum(found, filename, repo)
    return found


def sha256(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_checksum(path: Path, filename: str, repo: str) -> None:
    """Raise WeightsError, and remove the file, unless its sha256 is the Hub's.

    The client compares sizes alone, but links to a file of the cache that is named by
    the Hub's sha256 (small files, kept in git, by another hash), which may be a link in
    turn. Where a system has no symbolic links the name is lost.
    """
    if not path.is_symlink():
        return
    kept = path.parent / path.readlink()
    if not re.fullmatch("[0-9a-f]{64}", kept.name):
        return
    if sha256(kept) != kept.name:
        for damaged in (kept.resolve(), kept, path):
            damaged.unlink(missing_ok=True)
        raise WeightsError(
            f"weights: {filename} of the Hub repository {repo} was damaged on its way "
            "(its sha256 is not that of the Hub); fetch it again"
        )


def _can_reach_hub() -> bool:
    """Return whether there is a Hub to connect to.

    Its client would find out too, but only after half a minute of trying again.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True  # the proxy alone may resolve names; the client knows its kinds
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname, port), timeout=_PATIENCE):
            return True
    except OSError:
        return False


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep quiet about each try of the Hub's client: one error will say it all."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _no_network(repo: str, filename: str) -> WeightsError:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    why = "offline mode is on" if offline else "the Hub cannot be reached"
    return WeightsError(
        f"weights: {filename} of {repo} is not in the cache and {why}; fetch it on "
        "another machine and give weights= its path, or take it here with "
        "`napari-hrdv2 backbones export` there and `backbones import` here"
    )


def _bar_class(progress: Progress) -> type[Any]:
    """Return a progress bar that draws nothing and reports to the callback."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    furthest = [0]

    class Bar(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            options.update(file=io.StringIO(), disable=False)
            super().__init__(*args, **options)

        def update(self, n: float | None = 1) -> Any:
            drawn = super().update(n)
            # A transfer may show two bars, of what is received and what is written.
            if self.total and self.n > furthest[0]:
                furthest[0] = int(self.n)
                progress(furthest[0], int(self.total))
            return drawn

    return Bar
