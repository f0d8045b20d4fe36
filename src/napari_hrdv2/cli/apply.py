"""``apply``: a trained classifier on many micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.cli import options as options
from napari_hrdv2.cli.report import Report

if TYPE_CHECKING:
    from napari_hrdv2.session.batch.apply import Applied, ApplyRequest


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
    radius: options.Radius = 8,
    strength: options.Strength = 0.5,
    min_object: options.MinObject = 0,
    fill_holes: options.FillHoles = 0,
    as_json: options.Json = False,
) -> None:
    """Segment micrographs with a classifier, on the features it was trained on."""
    from napari_hrdv2.cli.features import make_folder, refinement_of
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.files import image_files
    from napari_hrdv2.session.batch.apply import TABLE, ApplyRequest, jobs_for

    report = Report(as_json)
    refinement = refinement_of(smoothing, min_object, fill_holes, radius, strength)
    trained = PixelClassifier.load(classifier)
    FeatureOptions.of(
        trained.part_options
    )  # what cannot be used is told before all else
    files = image_files(images)
    if not files:
        raise ValueError(f"{', '.join(map(str, images))}: there are no images in there")
    make_folder(out)
    request = ApplyRequest(
        jobs_for(files, out), out / TABLE, trained, device, weights, refinement
    )
    if scheduler is None:
        results = _apply_here(request, report)
    else:
        results = _apply_there(request, report, scheduler, classifier)
    failed = [result for result in results if result.error]
    tables = [str(request.table)] if len(failed) < len(results) else []
    for table in tables:
        report.say(f"wrote {table}")
    report.finish(
        {
            "images": [_as_json(result) for result in results if not result.error],
            "failed": [
                {"image": str(result.job.file), "error": result.error}
                for result in failed
            ],
            "outputs": tables,
        }
    )
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be segmented")


def _apply_here(request: ApplyRequest, report: Report) -> list[Applied]:
    """Answer the request; after Ctrl-C the table has what was done before."""
    from napari_hrdv2.session.tasks.context import compute

    name = "+".join(part.backbone for part in request.classifier.part_options)
    draw = report.progress(f"downloading {name}")

    def show(stage: str, done: int, total: int) -> None:
        if stage == "Loading":
            draw(done, total)

    def say(result: Applied) -> None:
        _say(result, report)

    results: list[Applied] = compute(request, progress=show, partial=say)
    return results


def _apply_there(
    request: ApplyRequest, report: Report, scheduler: str, classifier: Path
) -> list[Applied]:
    """Let the workers of a cluster do it; the table is written when all is done."""
    from napari_hrdv2.cli.apply_cluster import segment_on_cluster
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.session.batch.apply import write_table

    parts = request.classifier.part_options
    chosen = FeatureOptions.of(parts, request.device, request.weights)
    refinement = request.refinement
    assert refinement is not None
    results = []
    for result in segment_on_cluster(
        scheduler, request.jobs, classifier, chosen, refinement
    ):
        _say(result, report)
        results.append(result)
    results.sort(key=lambda result: request.jobs.index(result.job))
    done = [result for result in results if not result.error]
    if done:
        write_table(request.table, done, request.classifier)
    return results


def _say(result: Applied, report: Report) -> None:
    if result.error:
        report.complain(result.error)
    else:
        report.say(f"{result.job.file} -> {result.outputs[0]}")


def _as_json(result: Applied) -> dict[str, Any]:
    return {
        "image": str(result.job.file),
        "phase_fractions": {str(i): share for i, share in result.fractions.items()},
        "seconds": round(result.seconds, 3),
        "outputs": [str(path) for path in result.outputs],
    }
