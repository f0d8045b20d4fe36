"""``score``: a segmentation against a truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.atomic import write_csv
from napari_hrdv2.core.measure.numbering import pairs_from_text
from napari_hrdv2.core.measure.scores import score_table
from napari_hrdv2.files import import_labels, write_labels

from . import shared
from .shared import Json

if TYPE_CHECKING:
    from napari_hrdv2.session.measurement import Compared


def score(
    segmentation: Annotated[Path, typer.Argument(help="A label image of any kind.")],
    truth: Annotated[Path, typer.Argument(help="What it should be, likewise.")],
    scribbles: Annotated[
        Path | None,
        typer.Option(help="Labels whose pixels are not scored.", metavar="FILE"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table to this file.", metavar="FILE")
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            help="Write a label TIFF: where it is wrong the true class, else 0.",
            metavar="FILE",
        ),
    ] = None,
    boundary_width: Annotated[
        int, typer.Option(help="Of boundary IoU.", metavar="PIXELS")
    ] = 3,
    match: Annotated[
        str | None,
        typer.Option(
            help="Which id of TRUTH is which of SEGMENTATION, as 0=1,255=2; by "
            "default by names, or by a rule that refuses to guess.",
            metavar="PAIRS",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Compare a segmentation with a truth: IoU, confusion, accuracy, boundary IoU."""
    from napari_hrdv2.session import TaskContext
    from napari_hrdv2.session.measurement import Truth, compare_result

    report = shared.Report(as_json)
    pairs = None if match is None else pairs_from_text(match)
    if errors is not None and errors.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--errors: {errors} is not a TIFF name; end it in .tif")
    outputs = {"--csv": csv, "--errors": errors}
    inputs = [path for path in (segmentation, truth, scribbles) if path is not None]
    shared.check_outputs({o: [path] for o, path in outputs.items() if path}, inputs)

    made = import_labels(segmentation, grey_levels=False)
    shape, drawn = made.labels.shape, None
    if scribbles is not None:
        drawn = import_labels(scribbles, (shape[0], shape[1])).labels
    compared = compare_result(
        TaskContext(),
        result=made.labels,
        image_name="",
        truth=Truth(truth.name, truth, {}),
        class_names=made.classes.listed,
        left_out=(drawn,),
        boundary_width=boundary_width,
        match=pairs,
    )
    headers, rows = score_table(compared.comparison, compared.classes)
    if csv is not None:
        write_csv(csv, headers, rows)
    if errors is not None:
        ids = {one.id: one.segmentation_id for one in compared.classes}
        colors = made.classes.colors
        write_labels(
            errors,
            compared.errors,
            class_names={one.id: one.name for one in compared.classes},
            class_colors={i: colors[j] for i, j in ids.items() if j in colors},
        )
    _say_table(report, compared, rows)
    written = [str(path) for path in (csv, errors) if path is not None]
    report.finish({**_as_json(compared), "outputs": written})


def _say_table(
    report: shared.Report, compared: Compared, rows: Sequence[Sequence[Any]]
) -> None:
    wide = max(len(str(row[0])) for row in rows)
    report.say(f"{'class':<{wide}}     IoU  boundary IoU  accuracy      pixels")
    for name, _, _, *numbers in rows:
        shown = ["-" if number != number else f"{number:.4f}" for number in numbers[:3]]
        line = f"{name:<{wide}}  {shown[0]:>6}  {shown[1]:>12}  {shown[2]:>8}"
        report.say(f"{line}  {numbers[3]:>10}")
    report.say()
    names = [str(row[0]) for row in rows[:-1]]
    cells = [max(len(name), 8) for name in [*names, "no class"]]
    titles = [f"{n:>{c}}" for n, c in zip([*names, "no class"], cells, strict=True)]
    report.say("  ".join([f"{'truth':<{wide}}", *titles]))
    for name, row in zip(names, rows, strict=False):
        counts = [f"{n:>{c}}" for n, c in zip(row[8:], cells, strict=True)]
        report.say("  ".join([f"{name:<{wide}}", *counts]))
    report.say()
    found = compared.comparison
    report.say(
        f"{found.pixels} pixels scored, boundaries {found.boundary_width} px wide; "
        f"{compared.rule}"
    )


def _as_json(compared: Compared) -> dict[str, Any]:
    """Return what --json prints; null where a class has no such score."""

    def number(value: float) -> float | None:
        return None if value != value else float(value)

    found, known = compared.comparison, {one.id: one for one in compared.classes}
    classes = [
        {
            "name": known[i].name,
            "segmentation_id": known[i].segmentation_id,
            "truth_id": known[i].truth_id,
            "iou": number(found.iou[k]),
            "boundary_iou": number(found.boundary_iou[k]),
            "truth_pixels": int(found.true_pixels[k]),
            "segmentation_pixels": int(found.found_pixels[k]),
            "unsegmented_pixels": int(found.unsegmented[k]),
        }
        for k, i in enumerate(found.classes)
    ]
    return {
        "mean_iou": found.mean_iou,
        "accuracy": found.accuracy,
        "mean_boundary_iou": number(found.mean_boundary_iou),
        "boundary_width": found.boundary_width,
        "pixels": found.pixels,
        "classes": classes,
        "confusion": found.confusion.tolist(),
        "numbering": compared.rule,
    }
