"""``evaluate``: how well backbones segment micrographs of known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions

from . import shared
from .cases import Case, read_cases
from .protocols import PROTOCOLS, CaseScore, Run
from .shared import Json

_MEAN = "mean of {} cases"


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
        str,
        typer.Option(
            "--protocol",
            "-p",
            help=f"What trains and what is scored: {', '.join(PROTOCOLS)}.",
            metavar="P",
        ),
    ] = "scribbles",
    backbone: Annotated[
        list[str],
        typer.Option(
            "--backbone",
            "-b",
            help="A name of `backbones` or a variant, facets after @, a Hub id, or "
            "a+b; may be repeated.",
            metavar="B",
        ),
    ] = ["embedded"],  # noqa: B006 - read only, and typer shows it
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
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Score backbones on micrographs of known truth; --backbone may be repeated."""
    report = shared.Report(as_json)
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"--protocol: {protocol!r} is unknown; use {' or '.join(PROTOCOLS)}"
        )
    if clusters < 1:
        raise ValueError(f"--clusters: {clusters} is no number of clusters from 1")
    if csv is not None:
        shared.check_outputs({"--csv": [csv]}, [])
    chosen = PROTOCOLS[protocol]
    cases = read_cases(
        cases_dir, scribbles, needed=chosen.needs_scribbles, ignored=ignore or ()
    )
    each = _options_of(features, backbone)
    columns: dict[str, list[CaseScore]] = {}
    for name, options in each.items():
        if len(each) > 1:
            report.say(f"{name}:")
        loaded, progress = shared.load(options, report), report.progress("features")
        run = Run(loaded, options, progress, seed, clusters)
        columns[name] = []
        for score in chosen.scores(cases, run):
            _say_case(score, cases, report)
            columns[name].append(score)
        _say_means(columns[name], cases, report)
    if len(each) > 1:
        _say_table(columns, cases, report)
    if csv is not None:
        _write_table(csv, columns, protocol)
    results = [_as_json(name, scores) for name, scores in columns.items()]
    report.finish({**results[0], "protocol": protocol, "backbones": results})


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


def _width(cases: Sequence[Case]) -> int:
    return max(len(case.id) for case in cases)


def _say_case(score: CaseScore, cases: Sequence[Case], report: shared.Report) -> None:
    shown = " ".join("  -  " if iou != iou else f"{iou:.3f}" for iou in score.iou)
    others = "".join(f"  {what} {miou:.4f}" for what, miou in score.others.items())
    others += f"  {score.note}" if score.note else ""
    report.say(
        f"{score.case.id:<{_width(cases)}}  {score.miou:.4f}  {score.seconds:6.2f} s  "
        f"[{shown}]{others}"
    )


def _say_means(
    scores: Sequence[CaseScore], cases: Sequence[Case], report: shared.Report
) -> None:
    wide = _width(cases)
    report.say()
    for source, miou in _by_source(scores).items():
        report.say(f"{source:<{wide}}  {miou:.4f}")
    title = _MEAN.format(len(scores))
    report.say(f"{title:<{wide}}  {mean(score.miou for score in scores):.4f}")
    for what, miou in _other_means(scores).items():
        report.say(f"{title:<{wide}}  {miou:.4f}  {what}")


def _say_table(
    columns: Mapping[str, Sequence[CaseScore]],
    cases: Sequence[Case],
    report: shared.Report,
) -> None:
    """Print the scores of all backbones side by side."""
    table = {
        f"{name}, {what}" if what else name: values
        for name, scores in columns.items()
        for what, values in _columns(scores).items()
    }
    first = next(iter(table.values()))
    wide = max(_width(cases), len(_MEAN.format(len(first))))
    report.say()
    report.say("  ".join([" " * wide, *table]))
    for case in first:
        cells = (f"{values[case]:>{len(name)}.4f}" for name, values in table.items())
        report.say("  ".join([f"{case:<{wide}}", *cells]))
    means = (
        f"{mean(values.values()):>{len(name)}.4f}" for name, values in table.items()
    )
    report.say("  ".join([f"{_MEAN.format(len(first)):<{wide}}", *means]))


def _columns(scores: Sequence[CaseScore]) -> dict[str, dict[str, float]]:
    """Return the scores by what they are of, "" for the first, and by case."""
    found = {"": {score.case.id: score.miou for score in scores}}
    for score in scores:
        for what, miou in score.others.items():
            found.setdefault(what, {})[score.case.id] = miou
    return found


def _by_source(scores: Sequence[CaseScore]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for score in scores:
        groups.setdefault(score.case.source, []).append(score.miou)
    return {source: mean(mious) for source, mious in groups.items()}


def _other_means(scores: Sequence[CaseScore]) -> dict[str, float]:
    found = _columns(scores)
    return {what: mean(found[what].values()) for what in found if what}


def _write_table(
    path: Path, columns: Mapping[str, Sequence[CaseScore]], protocol: str
) -> None:
    """Write a line for each case and backbone, and one for their mean."""
    from napari_hrdv2.core.atomic import write_csv

    most = max(len(score.iou) for scores in columns.values() for score in scores)
    all_others = (what for scores in columns.values() for what in _other_means(scores))
    others = list(dict.fromkeys(all_others))
    rows: list[list[object]] = []
    for name, scores in columns.items():
        for score in scores:
            case, more = score.case, [score.others.get(what) for what in others]
            row: list[object] = [
                protocol,
                name,
                case.id,
                case.source,
                score.miou,
                *more,
                *score.iou,
            ]
            rows.append(row + [None] * (most - len(score.iou)))
        title, overall = _MEAN.format(len(scores)), mean(s.miou for s in scores)
        means = [_other_means(scores).get(what) for what in others]
        rows.append([protocol, name, title, None, overall, *means, *[None] * most])
    headers = ["protocol", "backbone", "case", "source", "mean IoU"]
    headers += [f"mean IoU, {what}" for what in others]
    write_csv(path, [*headers, *(f"IoU of class {k + 1}" for k in range(most))], rows)


def _as_json(backbone: str, scores: Sequence[CaseScore]) -> dict[str, Any]:
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

    return {
        "backbone": backbone,
        "mean_miou": mean(score.miou for score in scores),
        "mean_miou_by_source": _by_source(scores),
        "mean_others": _other_means(scores),
        "cases": [about(score) for score in scores],
    }
