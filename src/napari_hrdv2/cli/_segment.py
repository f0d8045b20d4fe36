"""``segment``: one micrograph from its strokes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from . import _options as options
from ._report import Report, fractions_table


def segment(
    image: Annotated[Path, typer.Argument(help="The micrograph.")],
    labels: Annotated[
        Path,
        typer.Option("--labels", "-l", help="Strokes: 0 where none, else a class."),
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
    as_json: options.Json = False,
) -> None:
    """Train on the strokes of a micrograph and segment the whole of it."""
    from napari_hrdv2.core.classifier import PixelClassifier
    from napari_hrdv2.core.scores import phase_fractions
    from napari_hrdv2.files import read_image, read_label_classes, read_labels
    from napari_hrdv2.session.applying import with_picture, write_segmentation
    from napari_hrdv2.session.feature_options import FeatureOptions

    from ._work import check_outputs, check_strokes, featurise, load

    start = time.perf_counter()
    report = Report(as_json)
    source = read_image(image)
    strokes = read_labels(labels)
    check_strokes(strokes, source.data, str(labels))
    out = out or image.with_name(f"{image.stem}_segmentation.tif")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--out: {out} is not a TIFF name; end it in .tif")
    planned = {"--out": with_picture(out)}
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
    features = featurise(source.data, load(chosen, report), chosen, report)
    classifier = PixelClassifier().fit(features, strokes)
    classes = read_label_classes(labels)
    classifier.class_names, classifier.class_colors = classes.names, classes.colors
    if source.pixel_size is not None:
        classifier.pixel_size = (source.pixel_size, source.unit)
    segmentation = classifier.predict(features)

    outputs = write_segmentation(out, segmentation, classifier, source)
    if save_classifier is not None:
        classifier.save(save_classifier)
        outputs.append(save_classifier)
    fractions = phase_fractions(segmentation)
    seconds = time.perf_counter() - start
    report.say(fractions_table(fractions, classes.names))
    for path in outputs:
        report.say(f"wrote {path}")
    report.finish(
        {
            "phase_fractions": {str(i): share for i, share in fractions.items()},
            "class_names": {str(i): name for i, name in classes.names.items()},
            "seconds": round(seconds, 3),
            "outputs": [str(path) for path in outputs],
        }
    )
