"""``demo``: a micrograph segmented from its strokes, with nothing to download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_hrdv2.cli import options as options
from napari_hrdv2.cli.report import Report

if TYPE_CHECKING:
    from napari_hrdv2.core.samples import Sample


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the pictures.")
    ] = Path("demo"),
    gui: Annotated[
        bool,
        typer.Option(
            "--gui", help="Show it in napari; of the options, --kind alone counts."
        ),
    ] = False,
    kind: Annotated[
        str, typer.Option(help="The micrograph: grains, particles, stain, random, …")
    ] = "grains",
    backbone: options.BackboneName = "embedded",
    transforms: options.Transforms = "auto",
    stride: options.Stride = None,
    interpolation: options.Interpolation = "bilinear",
    debias: options.Debias = "none",
    device: options.Device = "auto",
    weights: options.Weights = None,
    as_json: options.Json = False,
) -> None:
    """Make a sample micrograph, train on its strokes, segment it, show it."""
    report = Report(as_json)
    if gui:
        from napari_hrdv2.cli.demo_window import launch

        launch(kind)
        report.finish({"outputs": []})
        return
    from napari_hrdv2.cli.features import featurise, load, make_folder
    from napari_hrdv2.cli.figure import write_picture
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.measure.scores import mean_iou, phase_fractions
    from napari_hrdv2.core.samples import make_sample
    from napari_hrdv2.files import ImageFile
    from napari_hrdv2.session.batch.apply import class_colors, write_segmentation

    sample = make_sample(kind)
    ids = range(1, len(sample.class_names) + 1)
    names = dict(zip(ids, sample.class_names, strict=True))
    make_folder(out)

    start = time.perf_counter()
    chosen = FeatureOptions(
        backbone,
        transforms,
        stride,
        device,
        weights,
        interpolation=interpolation,
        debias=debias,
    )
    features = featurise(sample.image, load(chosen, report), chosen, report)
    classifier = PixelClassifier().fit(features, sample.scribbles)
    classifier.class_names = names
    classifier.class_colors = class_colors(classifier)
    segmentation = classifier.predict(features)
    seconds = time.perf_counter() - start

    unseen = sample.scribbles == 0
    miou = mean_iou(sample.labels[unseen], segmentation[unseen], list(ids))
    fractions, truth = phase_fractions(segmentation), phase_fractions(sample.labels)
    path = out / "segmentation.tif"
    outputs = write_segmentation(
        path, segmentation, classifier, ImageFile(sample.image)
    )
    outputs += _write_inputs(out, sample, classifier.class_colors)
    entry = out / "demo.png"
    write_picture(entry, sample, segmentation, classifier.class_colors, miou)

    height, width = sample.labels.shape
    report.say(
        f"A sample micrograph ({kind}, {width} × {height}), {(~unseen).mean():.1%} of "
        f"it under strokes, segmented with {backbone} features in {seconds:.1f} s."
    )
    report.say(f"mIoU on the pixels without a stroke: {miou:.3f}")
    report.say("phase fractions (true):")
    wide = max(map(len, names.values()))
    for i, name in names.items():
        report.say(
            f"  {name:<{wide}}  {fractions.get(i, 0):6.1%}  ({truth.get(i, 0):.1%})"
        )
    report.say(f"The picture is {entry}")
    report.finish(
        {
            "miou": miou,
            "phase_fractions": {str(i): share for i, share in fractions.items()},
            "class_names": {str(i): name for i, name in names.items()},
            "seconds": round(seconds, 3),
            "outputs": [str(entry), *map(str, outputs)],
        }
    )


def _write_inputs(out: Path, sample: Sample, colors: dict[int, str]) -> list[Path]:
    """Write what `segment` needs to do the same again."""
    import tifffile

    from napari_hrdv2.core.atomic import atomic_path
    from napari_hrdv2.files import write_labels

    names = dict(enumerate(sample.class_names, start=1))
    image, scribbles = out / "micrograph.tif", out / "scribbles.tif"
    photometric = "rgb" if sample.image.ndim == 3 else "minisblack"
    with atomic_path(image) as temporary:
        tifffile.imwrite(temporary, sample.image, photometric=photometric)
    write_labels(scribbles, sample.scribbles, class_names=names, class_colors=colors)
    return [image, scribbles]
