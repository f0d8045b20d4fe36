"""Files of the Hugging Face Hub: of a shared folder, of its cache, or downloaded."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_hrdv2.core.errors import WeightsError

from .checkpoint import PREFERRED

if TYPE_CHECKING:
    from .base import BackboneSpec, Progress

PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
SHARED_FOLDER = "NAPARI_HRDV2_WEIGHTS"

log = logging.getLogger(__name__)


class HubFile(NamedTuple):
    """A file of a Hub repository and where it is on this machine."""

    filename: str
    path: Path  # in a folder laid out as the Hub's cache

    @property
    def commit(self) -> str:
        """The commit it is of: the folder that the cache keeps it in."""
        return self.path.parents[self.filename.count("/")].name


# --- What a backbone needs ------------------------------------------------------------
def files_of(spec: BackboneSpec, progress: Progress | None = None) -> list[HubFile]:
    """Return all files that loading a backbone needs, downloaded if need be."""
    weights = download_weights(spec, progress)
    files = [HubFile(spec.filename or weights.name, weights)]
    if spec.shape_from_hub:
        fetch_config(spec)
        fetch(spec, PREPROCESSORS)
        cached = ((n, _cached(spec, n)) for n in ("config.json", *PREPROCESSORS))
        files += [HubFile(name, path) for name, path in cached if path is not None]
    return files


def download_weights(spec: BackboneSpec, progress: Progress | None = None) -> Path:
    """Return a local file with the weights of a backbone, downloaded if need be."""
    if spec.bundled:
        raise ValueError(
            f"backbone: {spec.name} comes with the package; there is nothing to "
            "download"
        )
    if not spec.source:
        raise WeightsError(f"weights: {spec.name}: {spec.conditions}")
    if (found := cached_weights(spec)) is not None:
        return found
    if spec.gated:
        log.warning("%s: %s", spec.name, spec.conditions)
    if (found := fetch(spec, _names(spec), progress)) is None:
        raise WeightsError(
            f"weights: the Hub repository {spec.source} does not hold "
            f"{' or '.join(_names(spec))}"
        )
    return found


def fetch_config(spec: BackboneSpec) -> Path:
    """Return a local copy of a repository's config.json."""
    if (found := fetch(spec, ["config.json"])) is None:
        raise WeightsError(
            f"weights: the Hub repository {spec.source} holds no config.json, so the "
            "shape of its network is unknown"
        )
    return found


def cached_weights(spec: BackboneSpec) -> Path | None:
    """Return the weights on this machine, or None; no network is touched."""
    found = (_cached(spec, name) for name in _names(spec))
    return next((path for path in found if path is not None), None)


def _names(spec: BackboneSpec) -> tuple[str, ...]:
    return PREFERRED if spec.filename is None else (spec.filename,)


# --- One file -------------------------------------------------------------------------
def _cached(spec: BackboneSpec, filename: str) -> Path | None:
    """Return where this machine keeps a file of the Hub: first in a shared folder."""
    from huggingface_hub import try_to_load_from_cache

    shared = os.environ.get(SHARED_FOLDER)
    folders = [shared, None] if shared and _is_there(shared) else [None]
    for folder in folders:
        found = try_to_load_from_cache(spec.source, filename, folder, spec.revision)
        if isinstance(found, str):
            return Path(found)
    return None


@cache  # so that it is said once
def _is_there(folder: str) -> bool:
    if not (exists := Path(folder).is_dir()):
        log.warning("%s: there is no folder %s; it is not used", SHARED_FOLDER, folder)
    return exists


def fetch(
    spec: BackboneSpec, names: Sequence[str], progress: Progress | None = None
) -> Path | None:
    """Return a local copy of the first of these files that the repository has.

    Raises
    ------
    WeightsError
        If the Hub or the repository cannot be reached, or what came does not have the
        sha256 that the Hub gives.
    """
    from huggingface_hub import errors, hf_hub_download

    repo, revision = spec.source, spec.revision
    bar = None if progress is None else _bar_class(progress)
    for name in names:
        if (found := _cached(spec, name)) is not None:
            return found
        try:
            with _quiet_client():
                path = hf_hub_download(repo, name, revision=revision, tqdm_class=bar)
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            is_local = isinstance(error, errors.LocalEntryNotFoundError)
            if isinstance(error, errors.EntryNotFoundError) and not is_local:
                continue
            why = _refusal(error, repo, name, revision)
            raise WeightsError(f"weights: {why}") from error
        _require_checksum(Path(path), name, repo)
        return Path(path)
    return None


def _refusal(error: Exception, repo: str, filename: str, revision: str | None) -> str:
    """Return one sentence for what the Hub's client raised."""
    from huggingface_hub import constants, errors

    offline = constants.HF_HUB_OFFLINE
    unreachable = "offline mode is on" if offline else "the Hub cannot be reached"
    sentences: dict[Any, str] = {
        (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled): (
            f"{filename} of {repo} is not in the cache and {unreachable}; fetch it on "
            "another machine and give weights= its path, or take it here with "
            "`napari-hrdv2 backbones export` there and `backbones import` here"
        ),
        errors.GatedRepoError: (
            f"the Hub repository {repo} is gated: accept its conditions on its page "
            "and log in with `hf auth login`, or give weights= a local file"
        ),
        errors.RevisionNotFoundError: (
            f"the Hub repository {repo} has no revision {revision}"
        ),
        errors.RepositoryNotFoundError: (
            f"there is no Hub repository {repo}, or it is private and needs "
            "`hf auth login`"
        ),
        errors.HFValidationError: f"{repo!r} is not a name of the Hub",
    }
    for kind, sentence in sentences.items():
        if isinstance(error, kind):
            return sentence
    text = str(getattr(error, "strerror", None) or error)
    why = (text.splitlines() or [type(error).__name__])[0]
    return f"{filename} of the Hub repository {repo} was not downloaded: {why}"


def sha256(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_checksum(path: Path, filename: str, repo: str) -> None:
    """Raise WeightsError, and remove the file, unless its sha256 is the Hub's."""
    # The client compares sizes alone, but links to a file of the cache that is named by
    # the Hub's sha256 (small files, kept in git, by another hash), which may be a link
    # in turn. Where a system has no symbolic links the name is lost.
    if not path.is_symlink():
        return
    kept = path.parent / path.readlink()
    if not re.fullmatch("[0-9a-f]{64}", kept.name) or sha256(kept) == kept.name:
        return
    for damaged in (kept.resolve(), kept, path):
        damaged.unlink(missing_ok=True)
    raise WeightsError(
        f"weights: {filename} of the Hub repository {repo} was damaged on its way "
        "(its sha256 is not that of the Hub); fetch it again"
    )


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
