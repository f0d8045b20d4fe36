"""``score``: a segmentation against a truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared
from .shared import Json

if TYPE_CHECKING:
    from napari_hrdv2.core.measure.comparison import Comparison
    from napari_hrdv2.core.measure.numbering import MatchedLabels
    from napari_hrdv2.files import ImportedLabels


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
    from napari_hrdv2.core.atomic import write_csv
    from napari_hrdv2.core.measure.comparison import compare, error_map
    from napari_hrdv2.core.measure.numbering import match_labels, pairs_from_text
    from napari_hrdv2.core.measure.scores import score_table
    from napari_hrdv2.files import import_labels

    report = shared.Report(as_json)
    pairs = None if match is None else pairs_from_text(match)
    if errors is not None and errors.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--errors: {errors} is not a TIFF name; end it in .tif")
    outputs = {"--csv": csv, "--errors": errors}
    inputs = [path for path in (segmentation, truth, scribbles) if path is not None]
    shared.check_outputs({o: [path] for o, path in outputs.items() if path}, inputs)

    made = import_labels(segmentation, grey_levels=False)
    shape = made.labels.shape[:2]
    true = import_labels(truth, (shape[0], shape[1]), grey_levels=False)
    drawn = None
    if scribbles is not None:
        drawn = import_labels(scribbles, (shape[0], shape[1])).labels != 0
    matched = match_labels(
        made.labels,
        true.labels,
        segmentation_names=_listed_classes(made),
        truth_names=_listed_classes(true),
        match=pairs,
    )
    compared = compare(
        matched.truth,
        matched.segmentation,
        exclude=drawn,
        boundary_width=boundary_width,
    )
    headers, rows = score_table(compared, matched.classes)
    if csv is not None:
        write_csv(csv, headers, rows)
    if errors is not None:
        wrong = error_map(matched.truth, matched.segmentation, exclude=drawn)
        _write_errors(errors, wrong, matched, made)
    _say_table(report, compared, matched, rows)
    written = [str(path) for path in (csv, errors) if path is not None]
    report.finish({**_as_json(compared, matched), "outputs": written})


def _listed_classes(labels: ImportedLabels) -> dict[int, str]:
    """Return the classes that a file lists, with their names or ""."""
    names = labels.classes.names
    return {i: names.get(i, "") for i in sorted({*names, *labels.classes.colors})}


def _write_errors(
    path: Path, wrong: Any, matched: MatchedLabels, made: ImportedLabels
) -> None:
    from napari_hrdv2.files import write_labels

    colors = made.classes.colors
    write_labels(
        path,
        wrong,
        class_names={one.id: one.name for one in matched.classes},
        class_colors={
            one.id: colors[one.segmentation_id]
            for one in matched.classes
            if one.segmentation_id in colors
        },
    )


def _say_table(
    report: shared.Report,
    compared: Comparison,
    matched: MatchedLabels,
    rows: Sequence[Sequence[Any]],
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
    report.say(
        f"{compared.pixels} pixels scored, boundaries {compared.boundary_width} px "
        f"wide; {matched.rule}"
    )


def _as_json(compared: Comparison, matched: MatchedLabels) -> dict[str, Any]:
    """Return what --json prints; null where a class has no such score."""

    def number(value: float) -> float | None:
        return None if value != value else float(value)

    known = {one.id: one for one in matched.classes}
    classes = [
        {
            "name": known[i].name,
            "segmentation_id": known[i].segmentation_id,
            "truth_id": known[i].truth_id,
            "iou": number(compared.iou[k]),
            "boundary_iou": number(compared.boundary_iou[k]),
            "truth_pixels": int(compared.true_pixels[k]),
            "segmentation_pixels": int(compared.found_pixels[k]),
            "unsegmented_pixels": int(compared.unsegmented[k]),
        }
        for k, i in enumerate(compared.classes)
    ]
    return {
        "mean_iou": compared.mean_iou,
        "accuracy": compared.accuracy,
        "mean_boundary_iou": number(compared.mean_boundary_iou),
        "boundary_width": compared.boundary_width,
        "pixels": compared.pixels,
        "classes": classes,
        "confusion": compared.confusion.tolist(),
        "numbering": matched.rule,
    }
