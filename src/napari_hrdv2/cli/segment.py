"""``segment``: one micrograph from its scribbles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement

from . import shared
from .micrographs import (
    Exclude,
    PixelSize,
    exclusion_of,
    parse_pixel_size,
    with_pixel_size,
)
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
    exclude: Exclude = None,
    pixel_size: PixelSize = None,
    *,
    features: FeatureOptions,
    refinement: Refinement,
    as_json: Json = False,
) -> None:
    """Train on the scribbles of a micrograph and segment the whole of it."""
    from napari_hrdv2.core.checks import grey_if_equal, with_missing
    from napari_hrdv2.files import import_labels, is_ours, read_image
    from napari_hrdv2.session.batch import with_preview, write_segmentation
    from napari_hrdv2.session.features import estimate_cost
    from napari_hrdv2.session.pipeline import process_image
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.snapshots import ImageSnapshot

    start = time.perf_counter()
    report = shared.Report(as_json)
    refinement.check()
    source = with_pixel_size(read_image(image), parse_pixel_size(pixel_size))
    micrograph, shape = grey_if_equal(source.data), source.data.shape[:2]
    imported = import_labels(labels, shape, image_name=image.name)
    excluded = exclusion_of(exclude or (), shape)
    mask = None if excluded is None else excluded.mask_for(shape)
    scribbles = imported.labels.copy()
    if mask is not None:
        scribbles[mask] = 0
    shared.check_scribbles(scribbles, shape, labels)
    named_out, out = out, out or image.with_name(f"{image.stem}_segmentation.tif")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--out: {out} is not a TIFF name; end it in .tif")
    planned = {"--out": with_preview(out)}
    if save_classifier is not None:
        planned["--save-classifier"] = [save_classifier]
    shared.check_outputs(planned, [image, labels])
    for path in with_preview(out):
        if path != named_out and path.exists() and not is_ours(path):
            raise ValueError(
                f"--out: {path}, which goes with it, would replace a file that "
                "napari-hrdv2 did not write; name another file"
            )

    cost = estimate_cost(micrograph.shape, features)
    report.note(f"features: {cost.text()}")
    backbone = shared.load(features, report)
    made, classifier = shared.train(
        micrograph, scribbles, backbone, features, report, exclusion=mask
    )
    names = imported.classes.names
    classifier.class_names, classifier.class_colors = names, imported.classes.colors
    if source.pixel_size is not None:
        classifier.pixel_size = (source.pixel_size, source.unit)
    left_out = with_missing(mask, micrograph)
    snapshot = ImageSnapshot(
        PlaneKey(image.name), micrograph, features=made, exclusion=left_out
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
