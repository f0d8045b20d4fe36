"""``apply``: a trained classifier on many micrographs, here or on a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement

from . import shared
from .shared import Device, Json, Weights

if TYPE_CHECKING:
    from napari_hrdv2.session.batch import Applied, Job


def apply(
    classifier: Annotated[
        Path, typer.Argument(help="From `segment --save-classifier` or the plugin.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Micrographs, or folders.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the results.")
    ],
    scheduler: Annotated[
        str | None,
        typer.Option(help="A dask scheduler that spreads the work.", metavar="ADDRESS"),
    ] = None,
    device: Device = "auto",
    weights: Weights = None,
    *,
    refinement: Refinement,
    as_json: Json = False,
) -> None:
    """Segment micrographs with a classifier, on the features it was trained on."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.files import image_files
    from napari_hrdv2.session.batch import (
        TABLE,
        jobs_for,
        segment_file,
        write_table,
    )
    from napari_hrdv2.session.features import FeatureSource

    report = shared.Report(as_json)
    refinement.check()
    trained = PixelClassifier.load(classifier)
    options = FeatureOptions.of(trained.part_options, device, weights)
    files = image_files(images)
    if not files:
        raise ValueError(f"{', '.join(map(str, images))}: there are no images in there")
    shared.make_folder(out)
    jobs = jobs_for(files, out)
    if scheduler is None:
        source = FeatureSource(options, shared.load(options, report))
        results: Iterator[Applied] = (
            segment_file(job, trained, source, refinement) for job in jobs
        )
    else:
        results = _on_cluster(scheduler, jobs, classifier, options, refinement)

    done: list[Applied] = []
    failed: list[Applied] = []
    tables: list[str] = []
    try:
        for result in results:
            if result.error:
                failed.append(result)
                report.complain(result.error)
            else:
                done.append(result)
                report.say(f"{result.job.file} -> {result.outputs[0]}")
    finally:  # after Ctrl-C the table has what was done before
        if done:
            done.sort(key=lambda result: jobs.index(result.job))
            write_table(out / TABLE, done, trained)
            tables = [str(out / TABLE)]
            report.say(f"wrote {tables[0]}")
    report.finish(
        {
            "images": [_as_json(result) for result in done],
            "failed": [{"image": str(r.job.file), "error": r.error} for r in failed],
            "outputs": tables,
        }
    )
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be segmented")


def _as_json(result: Applied) -> dict[str, Any]:
    return {
        "image": str(result.job.file),
        "phase_fractions": shared.by_id(result.fractions),
        "seconds": round(result.seconds, 3),
        "outputs": [str(path) for path in result.outputs],
    }


def _on_cluster(
    address: str,
    jobs: Sequence[Job],
    classifier: Path,
    options: FeatureOptions,
    refinement: Refinement,
) -> Iterator[Applied]:
    """Yield the results of the workers as they come; all see the same files."""
    from napari_hrdv2.core.errors import explained
    from napari_hrdv2.session.batch import Applied, Job

    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise ImportError(
            "--scheduler: dask.distributed is not installed; install it with "
            'pip install "napari-hrdv2[distributed]"'
        ) from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"--scheduler: {address} cannot be reached: {explained(error)}"
        ) from error
    with client:
        pending = {}
        file = str(classifier.resolve())
        for job in jobs:
            there = Job(job.file.resolve(), job.target.resolve())
            work = there, file, options, refinement
            pending[client.submit(_on_worker, *work, pure=False)] = job
        for future in as_completed(list(pending), loop=client.loop):
            job = pending[future]
            if future.status != "finished":  # a worker died, or has no napari-hrdv2
                yield Applied(job, error=f"{job.file}: {future.exception()}")
                continue
            result = future.result()
            names = tuple(job.target.with_name(path.name) for path in result.outputs)
            yield replace(result, job=job, outputs=names)


def _on_worker(
    job: Job, classifier: str, options: FeatureOptions, refinement: Refinement
) -> Applied:
    from napari_hrdv2.session.batch import segment_file

    changed = Path(classifier).stat().st_mtime_ns
    trained, source = _loaded(classifier, changed, options)
    return segment_file(job, trained, source, refinement)


@lru_cache(maxsize=2)
def _loaded(classifier: str, changed: int, options: FeatureOptions) -> tuple[Any, Any]:
    """Classifier and backbone, loaded once by each worker; `changed` is its time."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.features import FeatureSource

    return PixelClassifier.load(classifier), FeatureSource(options, options.load())
