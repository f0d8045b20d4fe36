"""``apply``: a trained classifier on many micrographs, here or on a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement

from . import shared
from .cluster import ClusterError, Run, on_cluster
from .image_options import (
    Exclude,
    PixelSize,
    exclusion_of,
    first_shape,
    parse_pixel_size,
)
from .shared import Device, Json, Weights

if TYPE_CHECKING:
    from napari_hrdv2.session.batch import Applied


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
    exclude: Exclude = None,
    pixel_size: PixelSize = None,
    *,
    refinement: Refinement,
    as_json: Json = False,
) -> None:
    """Segment micrographs with a classifier, on the features it was trained on."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.files import find_images
    from napari_hrdv2.session.batch import jobs_for, table_in, write_table
    from napari_hrdv2.session.features import FeatureSource

    report = shared.Report(as_json)
    refinement.check()
    size = parse_pixel_size(pixel_size)
    trained = PixelClassifier.load(classifier)
    options = FeatureOptions.of(trained.part_options, device, weights)
    found = find_images(images)
    files = found.files
    if not files:
        told = f" ({found.left_out})" if found.left_out else ""
        named = ", ".join(map(str, images))
        raise ValueError(f"{named}: there are no images in there{told}")
    excluded = exclusion_of(exclude, first_shape(files)) if exclude else None
    shared.make_folder(out)
    jobs, table = jobs_for(files, out), table_in(out)
    if found.left_out:
        report.say(found.left_out)
    shared.say_normalisation(trained, report)
    run = Run(refinement, excluded, size)
    if scheduler is None:
        source = FeatureSource(options, shared.load(options, report))
        results: Iterator[Applied] = (run.segment(job, trained, source) for job in jobs)
    else:
        results = on_cluster(scheduler, jobs, classifier, options, run)

    done: list[Applied] = []
    failed: list[Applied] = []
    left_out: list[Applied] = []
    problem = ""
    try:
        for result in results:
            for note in result.notes:
                report.complain(f"warning: {note}")
            if result.error:
                failed.append(result)
                report.complain(result.error)
            elif result.left_out:
                left_out.append(result)
                report.say(result.left_out)
            else:
                done.append(result)
                report.say(f"{result.job.file} -> {result.outputs[0]}")
    except ClusterError as error:
        problem = str(error)
    finally:  # after Ctrl-C the table has what was done before
        tables: list[str] = []
        if done:
            done.sort(key=lambda result: jobs.index(result.job))
            write_table(table, done, trained)
            tables = [str(table)]
            report.say(f"wrote {tables[0]}")
    report.finish(
        {
            "images": [_as_json(result) for result in done],
            "failed": [{"image": str(r.job.file), "error": r.error} for r in failed],
            "left_out": {
                "hidden": found.hidden,
                "results": found.results,
                "scribbles": len(left_out),
            },
            "outputs": tables,
            "normalisation": shared.normalisation_of(trained),
        }
    )
    if problem:
        raise ValueError(f"{problem}; {len(done)} of {len(files)} images are done")
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be segmented")


def _as_json(result: Applied) -> dict[str, Any]:
    return {
        "image": str(result.job.file),
        "phase_fractions": shared.by_id(result.fractions),
        "seconds": round(result.seconds, 3),
        "outputs": [str(path) for path in result.outputs],
        "notes": list(result.notes),
    }
