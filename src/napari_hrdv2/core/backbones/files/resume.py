"""Large files of the Hub, fetched so that a download which was stopped can go on.

The Hub's client throws away what it has of a file when it is stopped. So the bytes are
fetched here, into a file beside those of the cache that keeps its name, and the client
is left to put the whole file in its place.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from napari_hrdv2.core.errors import WeightsError

Progress = Callable[[int, int], None]
LEAST_BYTES = 1_000_000  # what is smaller need not be resumed
CHUNK = 1 << 20
_TRIES = 5  # in a row without a byte

log = logging.getLogger(__name__)


class _Source(NamedTuple):
    """A file of the Hub: where it is, how large, and the sha256 it must have."""

    url: str
    size: int
    sha256: str


def fetch_blob(
    repo: str,
    filename: str,
    *,
    revision: str | None,
    progress: Progress | None = None,
) -> Path | None:
    """Put a large file into the Hub's cache, where its client finds it.

    Nothing is done, and the client left to do or explain it, where the file is small,
    has no sha256, or cannot be asked for.

    Parameters
    ----------
    repo, filename, revision
        As for `fetch`.
    progress : callable, optional
        Called with bytes done and bytes in all. What it raises ends the download, and
        what came of the file is kept for the next time.

    Returns
    -------
    pathlib.Path or None
        The file among the blobs of the cache; None where nothing was done.

    Raises
    ------
    WeightsError
        If what came does not have the sha256 that the Hub gives.
    OSError
        If the file cannot be written, or the connection broke too often.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    source = _source(hf_hub_url(repo, filename, revision=revision))
    if source is None:
        return None
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blobs = Path(constants.HF_HUB_CACHE) / folder / "blobs"
    blob = blobs / source.sha256
    if blob.exists():
        return None
    blobs.mkdir(parents=True, exist_ok=True)
    part = part_of(blob)
    _complete(part, source, progress or _nothing)
    if _sha256(part) != source.sha256:
        part.unlink(missing_ok=True)
        raise WeightsError(
            f"weights: {filename} of the Hub repository {repo} was damaged on its way "
            "(its sha256 is not that of the Hub); fetch it again"
        )
    os.replace(part, blob)
    return blob


def part_of(blob: Path) -> Path:
    """Return where what there is of a file is kept until it is whole."""
    return blob.with_name(f"{blob.name}.napari-hrdv2.part")


def _source(url: str) -> _Source | None:
    from huggingface_hub import get_hf_file_metadata

    try:
        told = get_hf_file_metadata(url)
    except _connection_errors():
        return None
    etag, size = told.etag or "", told.size or 0
    if not re.fullmatch("[0-9a-f]{64}", etag) or size < LEAST_BYTES:
        return None
    return _Source(url, size, etag)


def _complete(part: Path, source: _Source, progress: Progress) -> None:
    """Fetch what is missing of a file, going on where a connection breaks."""
    tries = 0
    while True:
        before = _length(part)
        if before > source.size:
            part.unlink()
            before = 0
        if before == source.size:
            return
        if before:
            log.info(
                "%s: going on after %d of %d bytes", source.url, before, source.size
            )
        try:
            _append(part, before, source, progress)
        except _connection_errors() as error:
            tries = 0 if _length(part) > before else tries + 1
            if tries == _TRIES or _is_final(error):
                raise _explained(error) from error


def _append(part: Path, start: int, source: _Source, progress: Progress) -> None:
    """Fetch a file from a byte on, or all of it where the server sends no part."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined, unused-ignore]
        build_hf_headers,
        hf_raise_for_status,
    )

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = get_session().stream(
        "GET",
        source.url,
        headers=headers,
        follow_redirects=True,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    with request as response:
        if response.status_code == 416:  # the server has no such part
            part.unlink(missing_ok=True)
            raise ConnectionError("the server refused to go on")
        hf_raise_for_status(response)
        goes_on = response.status_code == 206 and _begins_at(response, start)
        done = start if goes_on else 0
        with open(part, "ab" if goes_on else "wb") as file:
            progress(done, source.size)
            for chunk in response.iter_bytes(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, source.size)


def _begins_at(response: Any, start: int) -> bool:
    told = response.headers.get("Content-Range", "")
    return bool(re.match(rf"bytes {start}-", told))


def _connection_errors() -> tuple[type[Exception], ...]:
    """Return what a connection that fails raises."""
    from huggingface_hub import errors, get_session

    # The client is of httpx, or of what came after it.
    package = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return (errors.HfHubHTTPError, package.TransportError, ConnectionError)


def _is_final(error: Exception) -> bool:
    """Return whether the server answered, and will not answer otherwise."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    return 400 <= status < 500 and status not in (408, 429)


def _explained(error: Exception) -> Exception:
    return error if isinstance(error, OSError) else ConnectionError(str(error))


def _length(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _nothing(done: int, total: int) -> None:
    """Report nothing."""
