"""``segment``: one micrograph from its strokes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_hrdv2.cli import options as options
from napari_hrdv2.cli.report import Report, fractions_table


def segment(
    image: Annotated[Path, typer.Argument(help="The micrograph.")],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            "-l",
            help="Strokes: a TIFF or PNG (0 where none, else a class), an ilastik "
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
    backbone: options.BackboneName = "embedded",
    transforms: options.Transforms = "auto",
    stride: options.Stride = None,
    interpolation: options.Interpolation = "bilinear",
    debias: options.Debias = "none",
    device: options.Device = "auto",
    weights: options.Weights = None,
    smoothing: options.Smoothing = "none",
    radius: options.Radius = 8,
    strength: options.Strength = 0.5,
    min_object: options.MinObject = 0,
    fill_holes: options.FillHoles = 0,
    as_json: options.Json = False,
) -> None:
    """Train on the strokes of a micrograph and segment the whole of it."""
    from napari_hrdv2.cli.features import (
        check_outputs,
        check_scribbles,
        featurise,
        load,
        refinement_of,
        say_cost,
    )
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.measure.scores import phase_fractions
    from napari_hrdv2.files import import_labels, read_image
    from napari_hrdv2.session.batch.apply import with_preview, write_segmentation
    from napari_hrdv2.session.tasks.refinement import refined

    start = time.perf_counter()
    report = Report(as_json)
    refinement = refinement_of(smoothing, min_object, fill_holes, radius, strength)
    source = read_image(image)
    imported = import_labels(labels, source.data.shape[:2], image_name=image.name)
    strokes, classes = imported.labels, imported.classes
    check_scribbles(strokes, source.data, str(labels))
    out = out or image.with_name(f"{image.stem}_segmentation.tif")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--out: {out} is not a TIFF name; end it in .tif")
    planned = {"--out": with_preview(out)}
    if save_classifier is not None:
        planned["--save-classifier"] = [save_classifier]
    check_outputs(planned, [image, labels])

    chosen = FeatureOptions(
        backbone,
        transforms,
        stride,
        device,
        weights,
        interpolation=interpolation,
        debias=debias,
    )
    cost = say_cost(source.data.shape, chosen, report)
    features = featurise(source.data, load(chosen, report), chosen, report)
    classifier = PixelClassifier().fit(features, strokes)
    classifier.class_names, classifier.class_colors = classes.names, classes.colors
    if source.pixel_size is not None:
        classifier.pixel_size = (source.pixel_size, source.unit)
    segmentation = classifier.predict(features)
    if not refinement.is_off:
        segmentation = refined(
            segmentation, classifier, features, source.data, refinement
        )

    outputs = write_segmentation(out, segmentation, classifier, source)
    if save_classifier is not None:
        classifier.save(save_classifier)
        outputs.append(save_classifier)
    fractions = phase_fractions(segmentation)
    seconds = time.perf_counter() - start
    report.say(f"labels: {imported.note}")
    report.say(fractions_table(fractions, classes.names))
    for path in outputs:
        report.say(f"wrote {path}")
    report.finish(
        {
            "phase_fractions": {str(i): share for i, share in fractions.items()},
            "class_names": {str(i): name for i, name in classes.names.items()},
            "cost": cost,
            "seconds": round(seconds, 3),
            "outputs": [str(path) for path in outputs],
        }
    )
