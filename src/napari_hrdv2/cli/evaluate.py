"""``evaluate``: how well backbones segment micrographs of known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from napari_hrdv2.core.atomic import atomic_path, write_csv
from napari_hrdv2.core.features.options import FeatureOptions

from . import shared
from .cases import read_cases
from .protocols import PROTOCOLS, CaseScore, Run
from .shared import Json

_MEAN = "mean of {} cases"
_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Column:
    """The scores of a backbone by a protocol; `title` tells it from the others."""

    backbone: str
    protocol: str
    title: str
    scores: list[CaseScore] = field(default_factory=list)

    def by_case(self) -> dict[str, dict[str, float]]:
        """Return the scores by what they are of, "" for the first, and by case."""
        found = {"": {score.case.id: score.miou for score in self.scores}}
        for score in self.scores:
            for what, miou in score.others.items():
                found.setdefault(what, {})[score.case.id] = miou
        return found

    def by_source(self) -> dict[str, float]:
        """Return the mean IoU of the cases of each source."""
        groups: dict[str, list[float]] = {}
        for score in self.scores:
            groups.setdefault(score.case.source, []).append(score.miou)
        return {source: mean(mious) for source, mious in groups.items()}

    def means(self) -> dict[str, float]:
        """Return the mean of all cases by what it is of, "" for the first."""
        means = {what: mean(one.values()) for what, one in self.by_case().items()}
        # Of scores, not of names: ids in a manifest may be there twice.
        means[""] = mean(score.miou for score in self.scores)
        return means


def evaluate(
    cases_dir: Annotated[
        Path,
        typer.Argument(
            help="A folder with a manifest.json, or of images with dense labels: x.png "
            "and x_label.png, or folders images and labels."
        ),
    ],
    scribbles: Annotated[
        str, typer.Option(help="Which scribbles: a, b, lo or hi.", metavar="SET")
    ] = "a",
    protocol: Annotated[
        list[str],
        typer.Option(
            "--protocol",
            "-p",
            help=f"What trains and what is scored: {', '.join(PROTOCOLS)}; may be "
            "repeated.",
            metavar="P",
        ),
    ] = ["scribbles"],  # noqa: B006 - read only, and typer shows it
    backbone: Annotated[
        list[str],
        typer.Option(
            "--backbone",
            "-b",
            help="A name of `backbones` or a variant, facets after @, a Hub id, or "
            "a+b; may be repeated.",
            metavar="B",
        ),
    ] = ["embedded"],  # noqa: B006 - likewise
    ignore: Annotated[
        list[int] | None,
        typer.Option(
            help="An id of the labels that is no class, in a folder without a "
            "manifest; may be repeated.",
            metavar="ID",
        ),
    ] = None,
    clusters: Annotated[
        int, typer.Option(help="Of --protocol clusters, beside one for each class.")
    ] = 50,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table to this file.", metavar="FILE")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the scores, a dot for each case: a .png, .svg or .pdf.",
            metavar="FILE",
        ),
    ] = None,
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Score backbones on micrographs of known truth; --backbone may be repeated."""
    report = shared.Report(as_json)
    unknown = next((name for name in protocol if name not in PROTOCOLS), None)
    if unknown is not None:
        raise ValueError(
            f"--protocol: {unknown!r} is unknown; use {' or '.join(PROTOCOLS)}"
        )
    if clusters < 1:
        raise ValueError(f"--clusters: {clusters} is no number of clusters from 1")
    files = {"--csv": csv, "--plot": plot}
    shared.check_outputs({o: [path] for o, path in files.items() if path}, [])
    if plot is not None:
        _check_plot(plot)
    chosen = {name: PROTOCOLS[name] for name in protocol}
    needed = any(each.needs_scribbles for each in chosen.values())
    cases = read_cases(cases_dir, scribbles, needed=needed, ignored=ignore or ())
    columns, wide = [], max(len(case.id) for case in cases)
    for name, options in _options_of(features, backbone).items():
        loaded, progress = shared.load(options, report), report.progress("features")
        run = Run(loaded, options, progress, seed, clusters)
        for kind, how in chosen.items():
            title = f"{name}, {kind}" if len(chosen) > 1 else name
            columns.append(column := Column(name, kind, title))
            if len(chosen) > 1 or len(set(backbone)) > 1:
                report.say(f"{title}:")
            for score in how.scores(cases, run):
                _say_case(score, wide, report)
                column.scores.append(score)
            _say_means(column, wide, report)
    if len(columns) > 1:
        _say_table(columns, report)
    if csv is not None:
        _write_table(csv, columns)
    if plot is not None:
        _draw(plot, columns)
    results = [_as_json(column) for column in columns]
    report.finish({**results[0], "backbones": results})


def _options_of(
    features: FeatureOptions, backbones: Sequence[str]
) -> dict[str, FeatureOptions]:
    """Return the options of each backbone, by its name."""
    names = list(dict.fromkeys(backbones))
    if len(names) > 1 and features.weights not in (None, "random"):
        raise ValueError(
            f"--weights: {features.weights} is of one backbone, and there are "
            f"{len(names)}; evaluate them one by one"
        )
    return {name: replace(features, backbone=name) for name in names}


def _say_case(score: CaseScore, wide: int, report: shared.Report) -> None:
    shown = " ".join("  -  " if iou != iou else f"{iou:.3f}" for iou in score.iou)
    others = "".join(f"  {what} {miou:.4f}" for what, miou in score.others.items())
    others += f"  {score.note}" if score.note else ""
    report.say(
        f"{score.case.id:<{wide}}  {score.miou:.4f}  {score.seconds:6.2f} s  "
        f"[{shown}]{others}"
    )


def _say_means(column: Column, wide: int, report: shared.Report) -> None:
    report.say()
    for source, miou in column.by_source().items():
        report.say(f"{source:<{wide}}  {miou:.4f}")
    title = _MEAN.format(len(column.scores))
    for what, miou in column.means().items():
        told = f"  {what}" if what else ""
        report.say(f"{title:<{wide}}  {miou:.4f}{told}")


def _say_table(columns: Sequence[Column], report: shared.Report) -> None:
    """Print the scores of all backbones and protocols side by side."""
    table = {
        f"{column.title}, {what}" if what else column.title: values
        for column in columns
        for what, values in column.by_case().items()
    }
    counts = sorted({len(values) for values in table.values()})
    title = _MEAN.format(" or ".join(map(str, counts)))
    rows = {case: case for values in table.values() for case in values} | {"": title}
    wide = max(map(len, rows.values()))
    report.say()
    report.say("  ".join([" " * wide, *table]))
    for case, text in rows.items():
        cells = [f"{text:<{wide}}"]
        for name, values in table.items():
            found = values.get(case) if case else mean(values.values())
            shown = "-" if found is None else f"{found:.4f}"
            cells.append(f"{shown:>{len(name)}}")
        report.say("  ".join(cells))


def _write_table(path: Path, columns: Sequence[Column]) -> None:
    """Write a line for each case, backbone and protocol, and one for their mean."""
    most = max(len(score.iou) for column in columns for score in column.scores)
    every = dict.fromkeys(what for column in columns for what in column.means())
    others = [what for what in every if what]
    rows: list[list[object]] = []
    for column in columns:
        for score in column.scores:
            row: list[object] = [
                column.protocol,
                column.backbone,
                score.case.id,
                score.case.source,
                score.miou,
                *(score.others.get(what) for what in others),
                *score.iou,
            ]
            rows.append(row + [None] * (most - len(score.iou)))
        means = column.means()
        row = [
            column.protocol,
            column.backbone,
            _MEAN.format(len(column.scores)),
            None,
            means[""],
            *(means.get(what) for what in others),
        ]
        rows.append(row + [None] * most)
    headers = ["protocol", "backbone", "case", "source", "mean IoU"]
    headers += [f"mean IoU, {what}" for what in others]
    write_csv(path, [*headers, *(f"IoU of class {k + 1}" for k in range(most))], rows)


def _as_json(column: Column) -> dict[str, Any]:
    def about(score: CaseScore) -> dict[str, Any]:
        ious = [None if iou != iou else iou for iou in score.iou]
        return {
            "id": score.case.id,
            "miou": score.miou,
            "seconds": round(score.seconds, 3),
            "iou": ious,
            **({"others": score.others} if score.others else {}),
            **({"note": score.note} if score.note else {}),
        }

    means = column.means()
    return {
        "backbone": column.backbone,
        "protocol": column.protocol,
        "mean_miou": means[""],
        "mean_miou_by_source": column.by_source(),
        "mean_others": {what: miou for what, miou in means.items() if what},
        "cases": [about(score) for score in column.scores],
    }


def _check_plot(path: Path) -> None:
    """Raise an error, before hours of work, if no plot can be drawn to a path."""
    if path.suffix.lower() not in _PICTURES:
        raise ValueError(f"--plot: {path} is to end in {' or '.join(_PICTURES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "--plot: matplotlib is not installed; install it with "
            'pip install "napari-hrdv2[plot]"'
        ) from error


def _draw(path: Path, columns: Sequence[Column]) -> None:
    """Draw a bar for each mean, in groups, and a dot for each case, in their order."""
    from matplotlib.figure import Figure

    groups: dict[str, dict[str, list[float]]] = {}
    for column in columns:
        for what, values in column.by_case().items():
            group = f"{column.protocol},\n{what}" if what else column.protocol
            groups.setdefault(group, {})[column.backbone] = list(values.values())
    backbones = list(dict.fromkeys(column.backbone for column in columns))
    width = 0.8 / len(backbones)
    figure = Figure((2 + 0.9 * len(groups) * len(backbones), 4), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(backbones):
        middle = width * (number - (len(backbones) - 1) / 2)
        for place, mious in enumerate(group[name] for group in groups.values()):
            x, each = place + middle, len(mious) + 1
            label = name if place == 0 else None
            axes.bar(x, mean(mious), width * 0.95, color=f"C{number}", label=label)
            dots = [x + width * (k / each - 0.5) for k in range(1, each)]
            axes.plot(dots, mious, ".", color="black", alpha=0.5)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylim(0, 1)
    axes.set_ylabel("mean IoU")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(backbones), frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())
