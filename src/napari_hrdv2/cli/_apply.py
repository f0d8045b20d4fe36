"""``apply``: a trained classifier on many micrographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options as options
from ._report import Report

if TYPE_CHECKING:
    from napari_hrdv2.session.applying import Applied


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
        typer.Option(help="A dask scheduler that shares the work.", metavar="ADDRESS"),
    ] = None,
    device: options.Device = "auto",
    weights: options.Weights = None,
    smoothing: options.Smoothing = "none",
    min_object: options.MinObject = 0,
    fill_holes: options.FillHoles = 0,
    as_json: options.Json = False,
) -> None:
    """Segment micrographs with a classifier, on the features it was trained on."""
    from napari_hrdv2.core.classifier import PixelClassifier
    from napari_hrdv2.files import image_files
    from napari_hrdv2.session.applying import (
        TABLE,
        jobs_for,
        segment_file,
        write_table,
    )
    from napari_hrdv2.session.feature_options import options_of

    from ._apply_cluster import segment_on_cluster
    from ._work import load, make_folder, refinement_of

    report = Report(as_json)
    refinement = refinement_of(smoothing, min_object, fill_holes)
    trained = PixelClassifier.load(classifier)
    chosen = options_of(trained, device, weights)
    files = image_files(images)
    if not files:
        raise ValueError(f"{', '.join(map(str, images))}: there are no images in there")
    make_folder(out)
    done: list[Applied] = []
    failed: list[Applied] = []
    jobs = jobs_for(files, out)
    results: Iterator[Applied]
    if scheduler is None:
        backbone = load(chosen, report)
        results = (
            segment_file(job, trained, backbone, chosen, refinement=refinement)
            for job in jobs
        )
    else:
        results = segment_on_cluster(scheduler, jobs, classifier, chosen, refinement)
    for result in results:
        if result.error:
            failed.append(result)
            report.complain(result.error)
            continue
        done.append(result)
        report.say(f"{result.job.file} -> {result.outputs[0]}")
    done.sort(key=lambda result: jobs.index(result.job))
    table = out / TABLE
    write_table(table, done, trained)
    report.say(f"wrote {table}")
    report.finish(
        {
            "images": [_as_json(result) for result in done],
            "failed": [
                {"image": str(result.job.file), "error": result.error}
                for result in failed
            ],
            "outputs": [str(table)],
        }
    )
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be segmented")


def _as_json(result: Applied) -> dict[str, Any]:
    return {
        "image": str(result.job.file),
        "phase_fractions": {str(i): share for i, share in result.fractions.items()},
        "seconds": round(result.seconds, 3),
        "outputs": [str(path) for path in result.outputs],
    }
