"""What adapting a backbone to the images of one source gains, beside a control.

Run with::

    python benchmarks/adapt.py CASES_DIR OUT_DIR [--source nasa_super] [--seeds 0 1 2]
        [--steps 100] [--rates 1e-4] [--losses neighbours invariance]

Run again to go on: OUT_DIR keeps checkpoints, weights, and ``rows.csv`` with a row for
each backbone: the mean IoU on the truth, trained on an image's own scribbles (`lo`,
`a`) and on those of the other images (`a`), and the scores on scribbles that `adapt`
chooses by. The control, `invariance`, asks that tokens be alike in the same two views.
"""

from __future__ import annotations

import argparse
import csv
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from torch.nn.functional import cosine_similarity

from napari_hrdv2 import load_backbone
from napari_hrdv2.cli.cases import Case, read_cases
from napari_hrdv2.cli.protocols import Run, from_scribbles, series
from napari_hrdv2.core.adaptation import Adaptation, AdaptationOptions
from napari_hrdv2.core.adaptation.choice import score_on_scribbles
from napari_hrdv2.core.features.options import FeatureOptions

HEADERS = (
    *("name", "lo", "a", "others a", "scribbles own", "scribbles others"),
    *("best step", "cases lo", "cases a", "cases others"),
)


class Invariance(Adaptation):
    """The control: the vectors of a place are to be alike, whatever its neighbours."""

    def _compared(self, student, teacher, rng):
        alike = cosine_similarity(student, teacher, dim=-1).mean()
        return 1 - alike, torch.zeros(())


KINDS = {"neighbours": Adaptation, "invariance": Invariance}


def cases_of(folder: Path, source: str, scribbles: str) -> list[Case]:
    """Return the cases of one source."""
    cases = read_cases(folder, scribbles, needed=True)
    return [case for case in cases if case.source == source]


def scored(folder: Path, source: str, weights: Path | None, backbone: str) -> list:
    """Return the cells of a row after its name, but for the best step."""
    options = FeatureOptions(backbone, weights=str(weights) if weights else None)
    run = Run(options.load(), options, lambda done, total: None)
    few, usual = (cases_of(folder, source, name) for name in ("lo", "a"))
    protocols = (from_scribbles, few), (from_scribbles, usual), (series, usual)
    mious = [[score.miou for score in way(cases, run)] for way, cases in protocols]
    arrays = [case.read() for case in usual]
    on_scribbles = score_on_scribbles(
        [each.image for each in arrays], [each.drawn for each in arrays], run.backbone
    )
    cells = [" ".join(f"{miou:.4f}" for miou in each) for each in mious]
    means = [*map(mean, mious), on_scribbles.own, on_scribbles.others]
    return [f"{value:.4f}" for value in means] + cells


def adapted(folder: Path, source: str, out: Path, kind: str, options, backbone: str):
    """Return the file of an adapted backbone and the step that it is of."""
    images = [case.read().image for case in cases_of(folder, source, "a")]
    loaded = load_backbone(backbone, precision="float32")
    training = KINDS[kind](loaded, images, options, out.with_suffix(".state"))
    training.run()
    training.save(out)
    return out, training.best_step


def main() -> None:
    """Fill in the rows that are missing and print all as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", default="nasa_super")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[100])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4])
    parser.add_argument("--losses", nargs="+", default=list(KINDS), choices=KINDS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "rows.csv"
    known = {row[0] for row in _rows(table)}
    runs = product(given.losses, given.rates, given.steps, given.seeds)
    for run in (None, *runs):
        name = f"{given.source} {given.backbone}"
        if run is not None:
            name += " {} {:g} {} {}".format(*run)
        if name in known:
            continue
        weights, step = None, 0
        if run is not None:
            loss, rate, steps, seed = run
            file = given.out / f"{name.replace(' ', '_').replace('/', '-')}.safetensors"
            options = AdaptationOptions(steps=steps, seed=seed, rate=rate)
            weights, step = adapted(
                given.folder, given.source, file, loss, options, given.backbone
            )
        cells = scored(given.folder, given.source, weights, given.backbone)
        with table.open("a", newline="") as rows:
            csv.writer(rows).writerow([name, *cells[:5], step, *cells[5:]])
    print("| " + " | ".join(HEADERS[:7]) + " |\n" + "|---" * 7 + "|")
    for row in _rows(table):
        print("| " + " | ".join(row[:7]) + " |")


def _rows(table: Path) -> list[list[str]]:
    if not table.exists():
        return []
    with table.open(newline="") as rows:
        return [row for row in csv.reader(rows) if row]


if __name__ == "__main__":
    main()
