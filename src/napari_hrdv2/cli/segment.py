"""``segment``: micrographs from their scribbles."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from napari_hrdv2.core.checks import filled, with_missing
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.files import (
    ImageFile,
    LabelClasses,
    import_labels,
    is_ours,
    open_image,
)
from napari_hrdv2.files.label_store import check_store
from napari_hrdv2.files.units import common_size, pixel_ratio

from . import shared
from .image_options import (
    Exclude,
    PixelSize,
    exclusion_of,
    offer_databar,
    parse_pixel_size,
)
from .shared import Blocks, Json

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.session import TaskContext


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
            "micrograph; of a volume, one of its shape.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="By default IMAGE_segmentation.tif, or .zarr by blocks."
        ),
    ] = None,
    save_classifier: Annotated[
        Path | None, typer.Option(help="Keep the trained classifier in this file.")
    ] = None,
    exclude: Exclude = None,
    pixel_size: PixelSize = None,
    blocks: Blocks = False,
    channels: Annotated[
        str,
        typer.Option(
            help="Channels of the images that are taken together, each through the "
            "backbone by itself: names that the file gives, or 'channel 1' and so on.",
            metavar="A,B",
        ),
    ] = "",
    planes: Annotated[
        str,
        typer.Option(
            help="Of a volume: z, each plane by itself; xyz, the mean of slices along "
            "all three axes; z+2 or z+1.5um, with context so far along the axis.",
            metavar="z|xyz",
        ),
    ] = FeatureOptions.planes,
    *,
    features: FeatureOptions,
    refinement: Refinement,
    as_json: Json = False,
) -> None:
    """Train on the scribbles of micrographs or volumes and segment all of them."""
    from napari_hrdv2.core.features.cost import estimate_cost
    from napari_hrdv2.core.features.resampled import resampling_factors, resized_shape
    from napari_hrdv2.files.volumes import open_stack
    from napari_hrdv2.session import ImageSnapshot, process_image
    from napari_hrdv2.session.batch import write_segmentation
    from napari_hrdv2.session.batch.streaming import BLOCK, check_volume, is_by_blocks
    from napari_hrdv2.session.classifier import magnification_note
    from napari_hrdv2.session.planes import PlaneKey

    start, report = time.perf_counter(), shared.Report(as_json)
    refinement.check()
    _check_arguments(image, labels, out)
    features = replace(features, channels=channels, planes=planes)
    size = parse_pixel_size(pixel_size)
    opened = [open_stack(one, channels, planes) for one in image]
    if size is not None:
        opened = [replace(one, pixel_size=size[0], unit=size[1]) for one in opened]
    trained_size = common_size([file.size for file in opened])
    ratios = [pixel_ratio(file.size, trained_size) for file in opened]
    by_blocks, notes = blocks, []
    for path, file, ratio in zip(image, opened, ratios, strict=True):
        by_blocks |= is_by_blocks(file.data, features, ratio)
        resamples = not hasattr(file.data, "volume_shape")
        notes.append(magnification_note(trained_size, file.size, resamples=resamples))
        if notes[-1]:
            report.complain(f"warning: {path}: {notes[-1]}")
    given = [
        _read(
            path,
            file,
            drawn,
            out,
            exclude,
            by_blocks=by_blocks,
            alone=len(image) == 1,
            channels=channels,
        )
        for path, file, drawn in zip(image, opened, labels, strict=True)
    ]
    offer_databar(exclude, image, report)
    _check_outputs(given, out, save_classifier, by_blocks=by_blocks)
    painted = {i for one in given for i in np.unique(one.scribbles[one.scribbles > 0])}
    for one in given:
        check_volume(one.source.data, refinement, classes=len(painted))
    shapes = []
    for one, ratio in zip(given, ratios, strict=True):
        shape = one.source.data.shape
        plane = getattr(one.source.data, "plane_shape", None)
        factors = None if plane else resampling_factors(ratio)
        shapes.append(resized_shape((*(plane or shape[:2]), *shape[2:]), factors))
    largest = max(shapes, key=math.prod)
    cost = estimate_cost(largest, features, block=BLOCK if by_blocks else None)
    report.note(f"features: {cost.text()}")

    trained = shared.train(
        [one.source.data for one in given],
        [one.scribbles for one in given],
        shared.load(features, report),
        features,
        report,
        exclusion=[one.mask for one in given],
        blocks=by_blocks,
        pixel_ratios=ratios,
    )
    classifier = trained.classifier
    classes = [one.classes for one in reversed(given)]  # what the first calls it counts
    names = {i: name for one in classes for i, name in one.names.items()}
    classifier.class_names = names
    classifier.class_colors = {i: c for one in classes for i, c in one.colors.items()}
    classifier.pixel_size = trained_size

    outputs: list[Path] = []
    results: list[dict[str, Any]] = []
    inputs = {path.resolve() for path in (*image, *labels)}
    for one, note, made in zip(given, notes, trained.features, strict=True):
        if by_blocks:
            written = one.outputs
            fractions = _by_blocks(
                one, made, classifier, refinement, report.context(), inputs
            )
        else:
            snapshot = ImageSnapshot(
                PlaneKey(one.path.name),
                one.source.data,
                features=made,
                exclusion=one.mask,
            )
            result = process_image(snapshot, classifier, refinement)
            written = write_segmentation(
                one.outputs[0], result.shown, classifier, one.source
            )
            fractions = result.fractions
        outputs += written
        results.append(
            {
                "image": str(one.path),
                "phase_fractions": shared.by_id(fractions),
                "outputs": [str(path) for path in written],
                "notes": [note] * bool(note),
            }
        )
        if len(given) > 1:
            report.say(str(one.path))
        report.say(f"labels: {one.note}")
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
    drawn: Path  # the file of the scribbles
    source: ImageFile  # its data as they are segmented
    scribbles: NDArray[Any]
    classes: LabelClasses
    note: str  # on the scribbles
    mask: NDArray[np.bool_] | None
    store: Path  # where labels by blocks go, also if a TIFF is made of them
    outputs: list[Path]


def _check_arguments(
    images: Sequence[Path], labels: Sequence[Path], out: Path | None
) -> None:
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


def _check_outputs(
    given: Sequence[_Given], out: Path | None, kept: Path | None, *, by_blocks: bool
) -> None:
    """Raise ValueError or FileExistsError where something may not be written."""
    planned = {f"--out of {one.path.name}": [*one.outputs, one.store] for one in given}
    if len(given) == 1:
        planned = {"--out": planned.popitem()[1]}
    if kept is not None:
        planned["--save-classifier"] = [kept]
    inputs = [path for one in given for path in (one.path, one.drawn)]
    shared.check_outputs(planned, inputs)
    for one in given if by_blocks else ():
        check_store(one.store)
    for path in (path for one in given for path in one.outputs if one.store != path):
        if path != out and path.exists() and not is_ours(path):
            raise ValueError(
                f"--out: {path}, which goes with it, would replace a file that "
                "napari-hrdv2 did not write; name another file"
            )


def _read(
    image: Path,
    source: ImageFile,
    drawn: Path,
    out: Path | None,
    exclude: Exclude,
    *,
    by_blocks: bool,
    alone: bool,
    channels: str,
) -> _Given:
    """Read a micrograph, unless it goes by blocks, and its scribbles."""
    from napari_hrdv2.core.classifier.samples import SparseLabels, labelled_pixels
    from napari_hrdv2.files.volumes import (
        LazyVolume,
        first_plane,
        mask_of,
        volume_labels,
    )
    from napari_hrdv2.session.batch import with_preview
    from napari_hrdv2.session.batch.streaming import lazily_grey

    if not by_blocks:
        source = replace(source, data=np.asarray(source.data))
    shape = source.data.shape[:2]
    if is_volume := isinstance(source.data, LazyVolume):
        imported = volume_labels(drawn, source.data)
    else:
        imported = import_labels(drawn, shape, image_name=image.name)
    mask = mask_of(exclusion_of(exclude, first_plane(source.data)), source.data)
    pixels = source.data if channels else lazily_grey(source.data)
    scribbles = imported.labels
    if not by_blocks:  # where it goes by blocks, so do missing pixels
        mask, pixels = with_missing(mask, pixels), filled(pixels)
    source = replace(source, data=pixels)
    if mask is not None:
        scribbles = np.where(mask, 0, scribbles)
    shared.check_scribbles(scribbles, shape, drawn, alone=alone)
    if by_blocks:  # memory in which nothing was written is none that is taken
        painted = labelled_pixels(scribbles)
        scribbles = np.asarray(SparseLabels(shape, painted, scribbles.ravel()[painted]))
    ending = ".zarr" if by_blocks else ".tif"
    target = out or image.with_name(f"{image.stem}_segmentation{ending}")
    is_store = by_blocks and target.suffix == ".zarr"
    is_tiff = not is_volume and target.suffix.lower() in (".tif", ".tiff")
    if not (is_store or is_tiff):
        kind = "OME-Zarr or TIFF" if by_blocks else "TIFF"
        kind = "Zarr" if is_volume else kind
        raise ValueError(f"--out: {target} is not a {kind} name; end it in {ending}")
    hidden = target.with_name(f".{target.name}.blocks.zarr")
    store = target if is_store else hidden
    outputs = [target] if by_blocks else with_preview(target)
    return _Given(
        path=image,
        drawn=drawn,
        source=source,
        scribbles=scribbles,
        classes=imported.classes,
        note=imported.note,
        mask=mask,
        store=store,
        outputs=outputs,
    )


def _by_blocks(
    one: _Given,
    features: Features,
    classifier: PixelClassifier,
    refinement: Refinement,
    context: TaskContext,
    inputs: set[Path],
) -> dict[int, float]:
    """Segment a micrograph or volume block by block; return the phase fractions."""
    from napari_hrdv2.session.batch import class_colors, write_segmentation
    from napari_hrdv2.session.batch.streaming import stream_labels

    with shared.goes_on(one.store):
        streamed = stream_labels(
            one.source,
            features,
            classifier,
            one.store,
            context,
            exclusion=one.mask,
            refinement=refinement,
            colors=class_colors(classifier),
        )
    if one.outputs != [one.store]:  # a TIFF was asked for
        labelled = open_image(one.store).data
        write_segmentation(one.outputs[0], labelled, classifier, one.source)
        shutil.rmtree(one.store)
        stale = one.outputs[0].with_suffix(".png").resolve()  # shows other labels
        if is_ours(stale) and stale not in inputs:
            stale.unlink()
    return streamed.by_class
