"""``segment``: micrographs from their scribbles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement

from . import shared
from .image_options import (
    Exclude,
    PixelSize,
    exclusion_of,
    parse_pixel_size,
    with_pixel_size,
)
from .shared import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_hrdv2.files import ImageFile, ImportedLabels


def segment(
    image: Annotated[
        list[Path],
        typer.Argument(help="The micrograph, or several that train one classifier."),
    ],
    labels: Annotated[
        list[Path],
        typer.Option(
            "--labels",
            "-l",
            help="Scribbles: a TIFF or PNG (0 where none, else a class), an ilastik "
            "project, a Labkit labeling, ImageJ regions or an OME-Zarr. Once for each "
            "micrograph.",
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
    """Train on the scribbles of micrographs and segment the whole of them."""
    from napari_hrdv2.core.features.cost import estimate_cost
    from napari_hrdv2.files import is_ours
    from napari_hrdv2.session.batch import with_preview, write_segmentation
    from napari_hrdv2.session.pipeline import process_image
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.snapshots import ImageSnapshot

    start = time.perf_counter()
    report = shared.Report(as_json)
    refinement.check()
    given = _read(image, labels, out, exclude, pixel_size)
    planned = {f"--out of {one.path.name}": with_preview(one.out) for one in given}
    if len(given) == 1:
        planned = {"--out": with_preview(given[0].out)}
    if save_classifier is not None:
        planned["--save-classifier"] = [save_classifier]
    shared.check_outputs(planned, [*image, *labels])
    for path in (path for one in given for path in with_preview(one.out)):
        if path != out and path.exists() and not is_ours(path):
            raise ValueError(
                f"--out: {path}, which goes with it, would replace a file that "
                "napari-hrdv2 did not write; name another file"
            )

    cost = estimate_cost(given[0].micrograph.shape, features)
    report.note(f"features: {cost.text()}")
    trained = shared.train(
        [one.micrograph for one in given],
        [one.scribbles for one in given],
        shared.load(features, report),
        features,
        report,
        exclusion=[one.mask for one in given],
    )
    classifier, first = trained.classifier, given[0]
    names, colors = first.imported.classes.names, first.imported.classes.colors
    for one in given[1:]:
        names = one.imported.classes.names | names
        colors = one.imported.classes.colors | colors
    classifier.class_names, classifier.class_colors = names, colors
    if first.source.pixel_size is not None:
        classifier.pixel_size = (first.source.pixel_size, first.source.unit)

    outputs: list[Path] = []
    results: list[dict[str, Any]] = []
    for one, made in zip(given, trained.features, strict=True):
        snapshot = ImageSnapshot(
            PlaneKey(one.path.name), one.micrograph, features=made, exclusion=one.mask
        )
        result = process_image(snapshot, classifier, refinement)
        written = write_segmentation(one.out, result.shown, classifier, one.source)
        outputs += written
        fractions = result.fractions
        results.append(
            {
                "image": str(one.path),
                "phase_fractions": shared.by_id(fractions),
                "outputs": [str(path) for path in written],
            }
        )
        if len(given) > 1:
            report.say(str(one.path))
        report.say(f"labels: {one.imported.note}")
        shown = {i: names.get(i, f"class {i}") for i in fractions}
        width = max(map(len, shown.values()), default=0)
        for i, fraction in fractions.items():
            report.say(f"  {shown[i]:<{width}}  {fraction:6.1%}")
    if save_classifier is not None:
        classifier.save(save_classifier)
        outputs.append(save_classifier)
    seconds = time.perf_counter() - start
    if len(given) > 1:
        shared.say_normalisation(classifier, report)
    for path in outputs:
        report.say(f"wrote {path}")
    report.finish(
        {
            "phase_fractions": results[0]["phase_fractions"],
            "class_names": shared.by_id(names),
            "cost": cost.as_dict(),
            "seconds": round(seconds, 3),
            "outputs": [str(path) for path in outputs],
            "images": results,
            "normalisation": shared.normalisation_of(classifier),
        }
    )


@dataclass(frozen=True)
class _Given:
    """A micrograph, its scribbles, and where its segmentation is to be written."""

    path: Path
    source: ImageFile
    micrograph: NDArray[Any]
    imported: ImportedLabels
    scribbles: NDArray[Any]
    mask: NDArray[np.bool_] | None
    out: Path


def _read(
    images: Sequence[Path],
    labels: Sequence[Path],
    out: Path | None,
    exclude: Exclude,
    pixel_size: PixelSize,
) -> list[_Given]:
    """Read micrographs and their scribbles, after checks of the arguments."""
    from napari_hrdv2.core.checks import filled, grey_if_equal, with_missing
    from napari_hrdv2.files import import_labels, read_image

    if len(images) != len(labels):
        raise ValueError(
            f"--labels: given {len(labels)} times for {len(images)} images; give it "
            "once for each, in their order"
        )
    if out is not None and len(images) > 1:
        raise ValueError(
            f"--out: {out} is one file for {len(images)} images; leave it out, and "
            "each result is written beside its image"
        )
    given = []
    for image, drawn in zip(images, labels, strict=True):
        source = with_pixel_size(read_image(image), parse_pixel_size(pixel_size))
        shape = source.data.shape[:2]
        imported = import_labels(drawn, shape, image_name=image.name)
        excluded = exclusion_of(exclude or (), shape)
        micrograph = grey_if_equal(source.data)
        mask = None if excluded is None else excluded.mask_for(shape)
        mask = with_missing(mask, micrograph)
        scribbles = imported.labels.copy()
        if mask is not None:
            scribbles[mask] = 0
        alone = len(images) == 1
        shared.check_scribbles(scribbles, shape, drawn, alone=alone)
        target = out or image.with_name(f"{image.stem}_segmentation.tif")
        if target.suffix.lower() not in (".tif", ".tiff"):
            raise ValueError(f"--out: {target} is not a TIFF name; end it in .tif")
        given.append(
            _Given(image, source, filled(micrograph), imported, scribbles, mask, target)
        )
    return given
