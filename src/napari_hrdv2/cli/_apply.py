"""``apply``: a trained classifier on many micrographs."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options as options
from ._report import Report

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier import PixelClassifier


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
    as_json: options.Json = False,
) -> None:
    """Segment micrographs with a classifier, on the features it was trained on."""
    from napari_hrdv2.core.classifier import PixelClassifier
    from napari_hrdv2.files import image_files

    from ._apply_work import segment_file, segment_on_cluster
    from ._work import load, make_folder, settings_of

    report = Report(as_json)
    trained = PixelClassifier.load(classifier)
    chosen = settings_of(trained, device, weights)
    files = image_files(images)
    if not files:
        raise ValueError(f"{', '.join(map(str, images))}: there are no images in there")
    make_folder(out)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    jobs = list(zip(files, _targets(files, out), strict=True))
    results: Iterator[dict[str, Any]]
    if scheduler is None:
        backbone = load(chosen, report)
        results = (
            segment_file(file, target, trained, backbone, chosen, report)
            for file, target in jobs
        )
    else:
        results = segment_on_cluster(scheduler, jobs, classifier, chosen)
    for result in results:
        if "error" in result:
            failed.append(result)
            report.complain(result["error"])
            continue
        done.append(result)
        report.say(f"{result['image']} -> {result['outputs'][0]}")
    done.sort(key=lambda result: files.index(Path(result["image"])))
    table = out / "phase_fractions.csv"
    _write_table(table, done, trained)
    report.say(f"wrote {table}")
    report.finish({"images": done, "failed": failed, "outputs": [str(table)]})
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be segmented")


def _targets(files: list[Path], out: Path) -> list[Path]:
    """One result per file; a number tells apart what would be the same file."""
    from ._work import with_picture

    taken = {path.resolve() for path in files}
    stems = {file.stem for file in files}
    targets = []
    for file in files:
        for number in itertools.count(1):
            stem = f"{file.stem}_{number}" if number > 1 else file.stem
            if number > 1 and stem in stems:
                continue  # the name of another file's result
            target = out / f"{stem}_segmentation.tif"
            written = {path.resolve() for path in with_picture(target)}
            if not written & taken:
                break
        taken |= written
        targets.append(target)
    return targets


def _write_table(
    path: Path, done: list[dict[str, Any]], classifier: PixelClassifier
) -> None:
    from napari_hrdv2.core.atomic import atomic_path

    ids = [int(i) for i in classifier.classes]
    names = [classifier.class_names.get(i, f"class {i}") for i in ids]
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "segmentation", *names])
        for result in done:
            shares = [result["phase_fractions"].get(str(i), 0.0) for i in ids]
            written = Path(result["outputs"][0]).name
            writer.writerow([result["image"], written, *(f"{s:.6f}" for s in shares)])
