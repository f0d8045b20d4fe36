"""``segment``: one micrograph from its scribbles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement

from . import shared
from .shared import Json


def segment(
    image: Annotated[Path, typer.Argument(help="The micrograph.")],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            "-l",
            help="Scribbles: a TIFF or PNG (0 where none, else a class), an ilastik "
            "project, a Labkit labeling, ImageJ regions or an OME-Zarr.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="By default IMAGE_segmentation.tif."),
    ] = None,
    save_classifier: Annotated[
        Path | None, typer.Option(help="Keep the trained classifier in this file.")
    ] = None,
    *,
    features: FeatureOptions,
    refinement: Refinement,
    as_json: Json = False,
) -> None:
    """Train on the scribbles of a micrograph and segment the whole of it."""
    from napari_hrdv2.core.checks import missing_pixels
    from napari_hrdv2.files import import_labels, read_image
    from napari_hrdv2.session.batch import with_preview, write_segmentation
    from napari_hrdv2.session.features import estimate_cost
    from napari_hrdv2.session.pipeline import process_image
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.snapshots import ImageSnapshot

    start = time.perf_counter()
    report = shared.Report(as_json)
    refinement.check()
    source = read_image(image)
    imported = import_labels(labels, source.data.shape[:2], image_name=image.name)
    shared.check_scribbles(imported.labels, source.data.shape, labels)
    out = out or image.with_name(f"{image.stem}_segmentation.tif")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--out: {out} is not a TIFF name; end it in .tif")
    planned = {"--out": with_preview(out)}
    if save_classifier is not None:
        planned["--save-classifier"] = [save_classifier]
    shared.check_outputs(planned, [image, labels])

    cost = estimate_cost(source.data.shape, features)
    report.note(f"features: {cost.text()}")
    made, classifier = shared.train(
        source.data, imported.labels, shared.load(features, report), features, report
    )
    names = imported.classes.names
    classifier.class_names, classifier.class_colors = names, imported.classes.colors
    if source.pixel_size is not None:
        classifier.pixel_size = (source.pixel_size, source.unit)
    missing = missing_pixels(source.data)
    snapshot = ImageSnapshot(
        PlaneKey(image.name), source.data, features=made, exclusion=missing
    )
    result = process_image(snapshot, classifier, refinement)

    outputs = write_segmentation(out, result.shown, classifier, source)
    if save_classifier is not None:
        classifier.save(save_classifier)
        outputs.append(save_classifier)
    fractions = result.fractions
    seconds = time.perf_counter() - start
    report.say(f"labels: {imported.note}")
    shown = {i: names.get(i, f"class {i}") for i in fractions}
    width = max(map(len, shown.values()), default=0)
    for i, fraction in fractions.items():
        report.say(f"  {shown[i]:<{width}}  {fraction:6.1%}")
    for path in outputs:
        report.say(f"wrote {path}")
    report.finish(
        {
            "phase_fractions": shared.by_id(fractions),
            "class_names": shared.by_id(names),
            "cost": cost.as_dict(),
            "seconds": round(seconds, 3),
            "outputs": [str(path) for path in outputs],
        }
    )
