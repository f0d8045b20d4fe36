"""``apply --scheduler``: many micrographs spread over the workers of a dask cluster."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.errors import explained

if TYPE_CHECKING:
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.session.batch import Applied, Job, Run

WORKER_WAIT = 60.0
"""Seconds without any worker after which a run is given up; what is done is kept."""
SCHEDULER_WAIT = 10.0
"""The same without the scheduler."""
_POLL = 1.0


class ClusterError(OSError):
    """The cluster is gone; what it did before is there."""


def on_cluster(
    address: str,
    jobs: Sequence[Job],
    classifier: Path,
    options: FeatureOptions,
    run: Run,
) -> Iterator[Applied]:
    """Yield the results of the workers as they come; all see the same files."""
    from napari_hrdv2.session.batch.applied import Applied, Job

    client = _client(address)
    try:
        pending = {}
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        file = str(classifier.resolve())
        for job in jobs:
            there = Job(job.file.resolve(), job.target.resolve())
            work = there, file, options, run
            future = client.submit(_on_worker, *work, pure=False)
            pending[future] = job
            future.add_done_callback(done.put)
        watch = _Watch(client, address)
        while pending:
            future, result, error = watch.next_of(done)
            job = pending.pop(future)
            if error:  # a worker died again and again, or has no napari-hrdv2
                yield Applied(job, error=f"{job.file}: {error}")
                continue
            names = tuple(job.target.with_name(path.name) for path in result.outputs)
            yield replace(result, job=job, outputs=names)
    finally:
        with suppress(Exception):  # nobody may be there to take leave of
            client.close(timeout=2)


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ImportError(
            "--scheduler: dask.distributed is not installed; install it with "
            'pip install "napari-hrdv2[distributed]"'
        ) from error
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it in a sentence
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"--scheduler: {address} cannot be reached: {explained(error)}"
        ) from error


class _Watch:
    """Waits for results, as long as there is somebody to wait for."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._alone = self._unreachable = 0.0  # since when; 0 for not

    def next_of(self, done: queue.SimpleQueue[Any]) -> tuple[Any, Any, str]:
        """Return a future with its result or error; ClusterError if none will come."""
        while True:
            try:
                future = done.get(timeout=_POLL)
            except queue.Empty:
                self._check()
                continue
            if future.status == "error":
                return future, None, " ".join(str(future.exception()).split())
            try:
                result = future.result(timeout=_POLL)
            except TimeoutError:  # gone with its worker: another one does it again
                self._check()
                future.add_done_callback(done.put)
                continue
            except Exception as error:  # cancelled or lost
                raise ClusterError(self._lost) from error
            self._alone = self._unreachable = 0.0
            return future, result, ""

    @property
    def _lost(self) -> str:
        return f"--scheduler: the connection to {self._address} was lost"

    def _check(self) -> None:
        now, workers = time.monotonic(), _workers(self._client)
        self._unreachable = (self._unreachable or now) if workers is None else 0.0
        self._alone = (self._alone or now) if workers == 0 else 0.0
        if self._unreachable and now - self._unreachable >= SCHEDULER_WAIT:
            raise ClusterError(self._lost)
        if self._alone and now - self._alone >= WORKER_WAIT:
            raise ClusterError(
                f"--scheduler: {self._address} has had no worker for "
                f"{WORKER_WAIT:.0f} s"
            )


def _workers(client: Any) -> int | None:
    """Return how many workers there are; None while the scheduler is not there."""
    if client.status != "running":
        return None
    try:
        return len(client.sync(client.scheduler.ncores, callback_timeout=5))
    except Exception:  # noqa: BLE001 - whatever it is, nobody answers
        return None


def _on_worker(job: Job, classifier: str, options: FeatureOptions, run: Run) -> Applied:
    from napari_hrdv2.session.batch import segment_file

    changed = Path(classifier).stat().st_mtime_ns
    return segment_file(job, *_loaded(classifier, changed, options), run)


@lru_cache(maxsize=2)
def _loaded(classifier: str, changed: int, options: FeatureOptions) -> tuple[Any, Any]:
    """Classifier and backbone, loaded once by each worker; `changed` is its time."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.features import FeatureSource

    return PixelClassifier.load(classifier), FeatureSource(options, options.load())
