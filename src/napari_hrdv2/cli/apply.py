"""``apply``: a trained classifier on many micrographs, here or on a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.files import find_images

from . import shared
from .cluster import ClusterError, on_cluster
from .image_options import (
    Exclude,
    PixelSize,
    exclusion_of,
    first_image,
    offer_databar,
    parse_pixel_size,
)
from .shared import Blocks, Device, Json, Out, Weights

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.batch.applied import Applied

Tls = Annotated[
    Path | None,
    typer.Option(help="PEM file, of a scheduler at tls://.", metavar="FILE"),
]


def apply(
    classifier: Annotated[
        Path, typer.Argument(help="From `segment --save-classifier` or the plugin.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Micrographs, or folders.")],
    out: Out,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A dask scheduler that spreads the work.", metavar="ADDRESS"),
    ] = None,
    tls_ca: Tls = None,
    tls_cert: Tls = None,
    tls_key: Tls = None,
    device: Device = "auto",
    weights: Weights = None,
    exclude: Exclude = None,
    pixel_size: PixelSize = None,
    blocks: Blocks = False,
    *,
    refinement: Refinement,
    with_report: Annotated[
        bool, typer.Option("--report", help="Write report.html: pictures and plots.")
    ] = False,
    resample: Annotated[
        bool,
        typer.Option(
            help="Bring images of another pixel size to that of the training."
        ),
    ] = True,
    again: Annotated[
        bool, typer.Option(help="Segment anew what a former run has done alike.")
    ] = False,
    particles: Annotated[
        str | None,
        typer.Option(help="A class; its particles go into a table for each image."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment micrographs with a classifier, on the features it was trained on."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.batch import Applied, Job, Run, jobs_for, segment_file
    from napari_hrdv2.session.batch.applied import (
        log_of,
        most_doubtful,
        table_in,
        write_table,
    )
    from napari_hrdv2.session.export.report import (
        doubt_text,
        mean_of,
        mean_text,
        report_in,
        write_report,
    )
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
    seen = first_image(files, options.channels) if exclude else None
    excluded = exclusion_of(exclude, seen)
    offer_databar(exclude, files, report)
    shared.make_folder(out)
    jobs, table = jobs_for(files, out), table_in(out)
    if found.left_out:
        report.say(found.left_out)
    shared.say_normalisation(trained, report)
    run = Run(
        refinement, excluded, size, _class_id(trained, particles), blocks, resample
    )
    log = log_of(out, trained, run, weights)
    there = {job: None if again else Applied.found_in(log, job) for job in jobs}
    todo = [job for job, known in there.items() if known is None]
    coming: Iterator[Applied] = iter(())
    if todo and scheduler is None:
        source = FeatureSource(options, shared.load(options, report))

        def segmented(job: Job) -> Applied:
            with shared.goes_on(job.target.with_suffix(".zarr")):
                return segment_file(job, trained, source, run, report.context())

        coming = map(segmented, todo)
    elif todo and scheduler is not None:
        tls = {"ca_file": tls_ca, "client_cert": tls_cert, "client_key": tls_key}
        about = classifier, options, run, report.context(), tls
        coming = on_cluster(scheduler, todo, *about)

    results = [known for known in there.values() if known is not None]
    if results:
        report.say(f"{len(results)} of {len(jobs)} images are done already")
    problem = ""
    try:
        for result in coming:
            results.append(result)
            for note in result.notes:
                report.complain(f"warning: {note}")
            if result.error:
                report.complain(result.error)
            elif result.left_out:
                report.say(result.left_out)
            else:
                result.tell(log)
                flag = f" (doubt {doubt_text(result)})" * result.is_flagged
                report.say(f"{result.job.file} -> {result.outputs[0]}{flag}")
    except ClusterError as error:
        problem = str(error)
    finally:  # after Ctrl-C the table has what was done before
        tables: list[str] = []
        results.sort(key=lambda result: jobs.index(result.job))
        done = [result for result in results if result.is_done]
        failed = [result for result in results if result.error]
        if done:
            write_table(table, done, trained)
            tables = [str(table)]
        if done and with_report:
            page = report_in(out)
            settings = {"classifier": classifier, **run.described(options)}
            write_report(page, results, trained, settings)
            tables.append(str(page))
        for path in tables:
            report.say(f"wrote {path}")
    measured, _ = mean_of(done)
    phases = () if measured is None else measured.together.phases
    if len(done) > 1:
        report.say(mean_text(done, trained.class_names))
    following = most_doubtful(done)
    if following is not None and following.is_flagged:
        report.say(f"label this one next: {following.job.file}")
    report.finish(
        {
            "images": [_as_json(result) for result in done],
            "failed": [{"image": str(r.job.file), "error": r.error} for r in failed],
            "left_out": {
                "hidden": found.hidden,
                "results": found.results,
                "scribbles": sum(bool(result.left_out) for result in results),
            },
            "outputs": tables,
            "mean_phase_fractions": {str(p.class_id): p.fraction for p in phases},
            "label_next": str(following.job.file) if following else None,
            "normalisation": shared.normalisation_of(trained),
        }
    )
    if problem:
        raise ValueError(f"{problem}; {len(done)} of {len(files)} images are done")
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be segmented")


def _class_id(trained: PixelClassifier, name: str | None) -> int | None:
    """Return the class of a name or number."""
    known = {str(i): int(i) for i in trained.classes}
    known |= {text: i for i, text in trained.class_names.items()}
    if name is not None and name not in known:
        listed = ", ".join(known)
        raise ValueError(f"--particles: {name!r} is no class; there are {listed}")
    return None if name is None else known[name]


def _as_json(result: Applied) -> dict[str, Any]:
    return {
        "image": str(result.job.file),
        "phase_fractions": shared.by_id(result.fractions),
        "errors": shared.by_id(result.measured.errors if result.measured else {}),
        "doubt": result.doubt,
        "flagged": result.is_flagged,
        "was_there": result.was_there,
        "seconds": round(result.seconds, 3),
        "outputs": [str(path) for path in result.outputs],
        "notes": list(result.notes),
    }
