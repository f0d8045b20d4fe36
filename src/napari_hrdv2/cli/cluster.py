"""``apply --scheduler``: many micrographs spread over the workers of a dask cluster."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.errors import explained

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.postprocess.exclusion import SharedExclusion
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.session.batch import Applied, Job
    from napari_hrdv2.session.features import FeatureSource

WORKER_WAIT = 60.0
"""Seconds without any worker after which a run is given up; what is done is kept."""
SCHEDULER_WAIT = 10.0
"""The same without the scheduler."""
_POLL = 1.0


class ClusterError(OSError):
    """The cluster is gone; what it did before is there."""


@dataclass(frozen=True)
class Run:
    """What is the same for all micrographs of a run."""

    refinement: Refinement
    exclusion: SharedExclusion | None = None
    pixel_size: tuple[float, str] | None = None  # in place of what the files say

    def segment(
        self, job: Job, trained: PixelClassifier, source: FeatureSource
    ) -> Applied:
        """Segment one micrograph; what went wrong with it is returned."""
        from napari_hrdv2.session.batch import segment_file

        return segment_file(
            job,
            trained,
            source,
            self.refinement,
            exclusion=self.exclusion,
            pixel_size=self.pixel_size,
        )


def on_cluster(
    address: str,
    jobs: Sequence[Job],
    classifier: Path,
    options: FeatureOptions,
    run: Run,
) -> Iterator[Applied]:
    """Yield the results of the workers as they come; all see the same files."""
    from napari_hrdv2.session.batch import Applied, Job

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
        for future in _finished(client, address, done, len(pending)):
            job = pending[future]
            if future.status == "error":  # a worker died, or has no napari-hrdv2
                told = " ".join(str(future.exception()).split())
                yield Applied(job, error=f"{job.file}: {told}")
                continue
            result = future.result()
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


def _finished(
    client: Any, address: str, done: queue.SimpleQueue[Any], count: int
) -> Iterator[Any]:
    """Yield as many futures as they come; ClusterError where no more will come."""
    lost = f"--scheduler: the connection to {address} was lost"
    alone = unreachable = 0.0  # since when
    while count:
        try:
            future = done.get(timeout=_POLL)
        except queue.Empty:
            now = time.monotonic()
            workers = _workers(client)
            unreachable = 0.0 if workers is not None else unreachable or now
            alone = 0.0 if workers or workers is None else alone or now
            if unreachable and now - unreachable >= SCHEDULER_WAIT:
                raise ClusterError(lost) from None
            if alone and now - alone >= WORKER_WAIT:
                raise ClusterError(
                    f"--scheduler: {address} has had no worker for {WORKER_WAIT:.0f} s"
                ) from None
            continue
        alone = unreachable = 0.0
        if future.status not in ("finished", "error"):  # cancelled or lost with it
            raise ClusterError(lost)
        count -= 1
        yield future


def _workers(client: Any) -> int | None:
    """Return how many workers there are; None while the scheduler is not there."""
    if client.status != "running":
        return None
    try:
        return len(client.sync(client.scheduler.ncores, callback_timeout=5))
    except Exception:  # noqa: BLE001 - whatever it is, nobody answers
        return None


def _on_worker(job: Job, classifier: str, options: FeatureOptions, run: Run) -> Applied:
    changed = Path(classifier).stat().st_mtime_ns
    return run.segment(job, *_loaded(classifier, changed, options))


@lru_cache(maxsize=2)
def _loaded(classifier: str, changed: int, options: FeatureOptions) -> tuple[Any, Any]:
    """Classifier and backbone, loaded once by each worker; `changed` is its time."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.features import FeatureSource

    return PixelClassifier.load(classifier), FeatureSource(options, options.load())
