"""``apply --scheduler``: micrographs, or their blocks, on the workers of a cluster.

A file that fits into the memory of a worker is one task. Of any other each block is
one: the worker writes it, which is its chunk of the OME-Zarr, and tells its checksum.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from napari_hrdv2.core.errors import Cancelled, explained
from napari_hrdv2.files import open_image

from .shared import goes_on

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.blocks import BlockFeatures
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.files.label_store import Place, Window
    from napari_hrdv2.session import TaskContext
    from napari_hrdv2.session.batch import Applied, Job, Run
    from napari_hrdv2.session.batch.streaming import Streamed

WORKER_WAIT = 60.0
"""Seconds without any worker after which a run is given up; what is done is kept."""
SCHEDULER_WAIT = 10.0
"""The same without the scheduler."""
MOST_PENDING = 500  # tasks that the scheduler knows of at once
RETRIES = 2  # of a task that raised, as a file system may that is busy
_POLL = 1.0


class ClusterError(Cancelled):
    """The cluster is gone; what it did before is there."""


def on_cluster(
    address: str,
    jobs: Sequence[Job],
    classifier: Path,
    options: FeatureOptions,
    run: Run,
    context: TaskContext,
    tls: dict[str, Path | None],
) -> Iterator[Applied]:
    """Yield the results of the workers as they come; all see the same files."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.cost import outline_of
    from napari_hrdv2.session.batch import segment_file
    from napari_hrdv2.session.batch.applied import Applied
    from napari_hrdv2.session.features import FeatureSource

    cluster = _Cluster(_client(address, tls), address)
    given = str(classifier.resolve()), classifier.stat().st_mtime_ns, options
    by_blocks: list[tuple[Job, Any, _Opened]] = []
    try:
        tasks = ((job, _on_worker, _there(job), *given, run) for job in jobs)
        for job, future, result, error in cluster.results(tasks):
            if error:  # a worker died again and again, or has no napari-hrdv2
                yield Applied(job, error=f"{job.file}: {error}")
            elif isinstance(result, _Opened):
                by_blocks.append((job, future, result))
            else:
                outputs = (job.target.with_name(path.name) for path in result.outputs)
                yield replace(result, job=job, outputs=tuple(outputs))
        trained, there = PixelClassifier.load(classifier), replace(run, blocks=True)
        for job, *opened in by_blocks:
            stream = partial(_stream, cluster, _there(job), *opened)
            about = FeatureSource(options, outline_of(options)), there, context
            with goes_on(job.target.with_suffix(".zarr")):
                yield segment_file(job, trained, *about, stream)
    finally:
        with suppress(Exception):  # nobody may be there to take leave of
            cluster.client.close(timeout=2)


def _there(job: Job) -> Job:
    return replace(job, file=job.file.resolve(), target=job.target.resolve())


def _client(address: str, tls: dict[str, Path | None]) -> Any:
    try:
        from distributed import Client
        from distributed.security import Security
    except ModuleNotFoundError as error:
        raise ImportError(
            "--scheduler: dask.distributed is not installed; install it with "
            'pip install "napari-hrdv2[distributed]"'
        ) from error
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it in a sentence
    security, files = None, {f"tls_{name}": path for name, path in tls.items() if path}
    if files and (missing := [path for path in files.values() if not path.is_file()]):
        raise FileNotFoundError(f"--tls: there is no file {missing[0]}")
    is_tls = address.startswith("tls://")
    if files and not is_tls:
        raise ValueError(
            f"--scheduler: {address} is not encrypted; --tls-… need tls://"
        )
    try:
        if files:
            told = {name: str(path) for name, path in files.items()}
            security = Security(require_encryption=True, **told)
        return Client(address, timeout="10s", set_as_default=False, security=security)
    except (OSError, ValueError, TypeError) as error:
        reason = explained(error).split(". ")[0]
        reason += "; are --tls-ca, --tls-cert and --tls-key its own?" * is_tls
        raise OSError(f"--scheduler: {address} cannot be reached: {reason}") from error


class _Cluster:
    """Runs tasks, and waits for them as long as there is somebody to wait for."""

    def __init__(self, client: Any, address: str) -> None:
        self.client, self._address = client, address
        self._alone = self._unreachable = 0.0  # since when; 0 for not

    def results(
        self, tasks: Iterable[tuple[Any, ...]], **limits: Any
    ) -> Iterator[tuple[Any, Any, Any, str]]:
        """Yield what each is for, its future, its result or its error, as they come.

        A task is what it is for, a function, and its arguments.
        """
        pending: dict[Any, Any] = {}
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        tasks = iter(tasks)
        while True:
            for target, *work in islice(tasks, MOST_PENDING - len(pending)):
                future = self.client.submit(
                    *work, pure=False, retries=RETRIES, **limits
                )
                pending[future] = target
                future.add_done_callback(done.put)
            if not pending:
                return
            future, result, error = self._next_of(done)
            yield pending.pop(future), future, result, error

    def memory(self, needed: int) -> dict[str, Any]:
        """Return what keeps a task to workers that offer so many bytes, if any do."""
        workers = self.client.scheduler_info()["workers"].values()
        most = max(one.get("resources", {}).get("memory", 0) for one in workers)
        if 0 < most < needed:
            raise ValueError(
                f"--scheduler: a block needs about {needed / 1e9:.1f} GB of memory; no "
                f"worker offers more than {most / 1e9:.1f} GB"
            )
        return {"resources": {"memory": needed}} if most else {}

    def _next_of(self, done: queue.SimpleQueue[Any]) -> tuple[Any, Any, str]:
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
        now, workers = time.monotonic(), _workers(self.client)
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


def _stream(
    cluster: _Cluster, job: Job, future: Any, known: _Opened, *given: Any, **about: Any
) -> Streamed:
    """Do what `stream_image` does, with the blocks on the workers."""
    from napari_hrdv2.core.features.cost import estimate_cost
    from napari_hrdv2.session.batch.streaming import lazily_grey, stream_labels

    file, trained, source, target, context = given
    file = replace(file, data=source.as_trained(file.data, trained, lazily_grey))
    rows, columns = known.features.seen
    mask = about["exclusion"]
    del about["pixel_ratio"]  # the features are there
    shape = rows.length, columns.length, *file.data.shape[2:]
    cost = estimate_cost(shape, source.options, block=rows.side)
    limits = cluster.memory(cost.peak_bytes)

    def spread(place: Place, windows: list[Window]) -> Iterator[tuple[Window, int]]:
        tasks = (
            (one, _block, future, job, place, one, None if mask is None else mask[one])
            for one in windows
        )
        for window, _, checksum, error in cluster.results(tasks, **limits):
            if error:
                raise ValueError(f"{job.file}: {error}")
            yield window, checksum

    work = known.features, known.classifier, target, context
    streamed = stream_labels(file, *work, **about, spread=spread)
    return replace(streamed, doubt=known.doubt, is_inverted=known.is_inverted)


class _Opened(NamedTuple):
    """What is known of an image, of which each block is to be a task."""

    features: BlockFeatures
    classifier: PixelClassifier  # adapted to it
    doubt: float | None
    is_inverted: bool
    trained: tuple[str, int, FeatureOptions]


# From here on by the workers.
def _on_worker(
    job: Job, classifier: str, changed: int, options: FeatureOptions, run: Run
) -> Applied | _Opened:
    """Return what became of a file, or what its blocks need."""
    from napari_hrdv2.session import TaskContext
    from napari_hrdv2.session.batch import segment_file
    from napari_hrdv2.session.batch.streaming import open_blocks

    loaded, by_blocks = _loaded(classifier, changed, options), False
    with suppress(Exception):  # told below
        file, ratio, by_blocks = run.opened(job.file, options, loaded[0].pixel_size)
        by_blocks &= not hasattr(file.data, "volume_shape")  # which stays here
    if not by_blocks:
        return segment_file(job, *loaded, run)
    mask = None if run.exclusion is None else run.exclusion.mask_for(file.data.shape)
    given = file, *loaded, TaskContext(), mask, ratio
    _, read = open_blocks(*given)
    light = read.classifier.light_copy()
    light.trained_on = None  # it is as large as the training pixels
    told = read.doubt, read.is_inverted
    features = cast("BlockFeatures", read.features)
    return _Opened(features, light, *told, (classifier, changed, options))


def _block(known: _Opened, job: Job, place: Place, window: Window, mask: Any) -> int:
    from napari_hrdv2.session.batch.streaming import segment_block

    return segment_block(place, *_again(known, job), known.classifier, window, mask)


@lru_cache(maxsize=1)
def _again(known: _Opened, job: Job) -> tuple[Any, BlockFeatures]:
    """Return the image and its features, with the blocks that this worker keeps."""
    from napari_hrdv2.session.batch.streaming import lazily_grey

    trained, source = _loaded(*known.trained)
    data = open_image(job.file, source.options.channels).data
    image = source.as_trained(data, trained, lazily_grey)
    return image, known.features.again(image, source.backbone)


@lru_cache(maxsize=2)
def _loaded(classifier: str, changed: int, options: FeatureOptions) -> tuple[Any, Any]:
    """Classifier and backbone, loaded once by each worker; `changed` is its time."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.features import FeatureSource

    return PixelClassifier.load(classifier), FeatureSource(options, options.load())
