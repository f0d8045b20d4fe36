"""What adapting a backbone to some images gains, beside a control.

Run with::

    python benchmarks/adapt.py CASES_DIR OUT_DIR [--sources nasa_super emps]
        [--seeds 0 1 2] [--steps 250] [--rate 4e-4] [--losses neighbours invariance]

Each run trains on the images of all sources together. Run again to go on: OUT_DIR keeps
checkpoints, weights, and ``rows.csv`` with a row for each backbone and image: the mean
IoU on the truth, trained on the image's own scribbles (`lo`, `a`) and on those of the
other images of its source (`a`, each with its own grey levels), and the scores on
scribbles that `adapt` chooses by, as if it were run on that source. The control,
`invariance`, asks that tokens be alike in the same two views.
"""

from __future__ import annotations

import argparse
import csv
from itertools import groupby, product
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.cli.cases import Case, read_cases
from napari_hrdv2.core.adaptation import Adaptation, AdaptationOptions
from napari_hrdv2.core.adaptation.choice import ScribbleScores, score_on_scribbles
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure.scores import mean_iou

HEADERS = (
    *("name", "best step", "source", "case"),
    *("lo", "a", "others a", "scribbles own", "scribbles others"),
)
TITLES = (
    *("run", "lo", "a", "others a", "better at lo", "kept for"),
    *("lo, kept", "a, kept", "others a, kept", "largest fall at a, kept"),
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
    """Return the cells of a source's rows, but for the name and the best step."""
    options = FeatureOptions(backbone, weights=str(weights) if weights else None)
    loaded, few, usual = (
        options.load(),
        *(
            [case.read() for case in cases_of(folder, source, name)]
            for name in ("lo", "a")
        ),
    )
    features = [compute_features(one.image, loaded, **options.choices) for one in usual]
    drawn = [one.drawn for one in usual]
    cells = []
    for i, one in enumerate(usual):
        rest = [j for j in range(len(usual)) if j != i]
        trained = (
            (features[i], few[i].drawn),
            (features[i], drawn[i]),
            ([features[j] for j in rest], [drawn[j] for j in rest]),
        )
        made = [PixelClassifier().fit(*each).predict(features[i]) for each in trained]
        seen = few[i].drawn == 0, drawn[i] == 0, one.truth > 0
        cells.append(
            [
                mean_iou(one.truth[where], labels[where], one.class_ids)
                for labels, where in zip(made, seen, strict=True)
            ]
        )
    chosen = score_on_scribbles(features, drawn)
    return [
        [source, one.case.id, *(f"{x:.4f}" for x in (*each, chosen.own, chosen.others))]
        for one, each in zip(usual, cells, strict=True)
    ]


def adapted(folder: Path, sources, out: Path, kind: str, options, backbone: str):
    """Return the file of an adapted backbone and the step that it is of."""
    cases = [case for source in sources for case in cases_of(folder, source, "a")]
    loaded = load_backbone(backbone, precision="float32")
    images = [case.read().image for case in cases]
    training = KINDS[kind](loaded, images, options, out.with_suffix(".state"))
    training.run()
    training.save(out)
    return out, training.best_step


def main() -> None:
    """Fill in the rows that are missing and print all as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    sources = ["nasa_super", "emps", "uhcs_spheroidite"]
    parser.add_argument("--sources", nargs="+", default=sources)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--losses", nargs="+", default=list(KINDS), choices=KINDS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "rows.csv"
    known = {row[0] for row in _rows(table)}
    for run in (None, *product(given.losses, given.seeds)):
        name, weights, step = given.backbone, None, 0
        if run is not None:
            loss, seed = run
            name += f" {loss} {given.rate:g} {given.steps} {seed}"
        if name in known:
            continue
        if run is not None:
            file = given.out / f"{name.replace(' ', '_').replace('/', '-')}.safetensors"
            options = AdaptationOptions(steps=given.steps, seed=seed, rate=given.rate)
            weights, step = adapted(
                given.folder, given.sources, file, loss, options, given.backbone
            )
        rows = [
            row
            for source in given.sources
            for row in scored(given.folder, source, weights, given.backbone)
        ]
        with table.open("a", newline="") as file:
            csv.writer(file).writerows([[name, step, *row] for row in rows])
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|")
    runs = [list(rows) for _, rows in groupby(_rows(table), key=lambda row: row[0])]
    for rows in runs:
        print("| " + " | ".join(summary(runs[0], rows)) + " |")


def summary(before: list[list[str]], after: list[list[str]]) -> list[str]:
    """Return the cells of a run: means over images, and after the default's choice."""
    old, new = (np.array([row[4:7] for row in rows], float) for rows in (before, after))
    kept = [
        ScribbleScores(*map(float, b[7:])).is_better_than(
            ScribbleScores(*map(float, a[7:]))
        )
        for a, b in zip(before, after, strict=True)
    ]
    chosen = np.where(np.array(kept)[:, None], new, old)
    sources = sorted({row[2] for row, keeps in zip(after, kept, strict=True) if keeps})
    better = f"{(new[:, 0] > old[:, 0]).sum()} of {len(new)}"
    means, means_kept = ([f"{x:.4f}" for x in a.mean(0)] for a in (new, chosen))
    fall = f"{(old - chosen)[:, 1].max():.4f}"
    return [
        after[0][0],
        *means,
        better,
        ", ".join(sources) or "none",
        *means_kept,
        fall,
    ]


def _rows(table: Path) -> list[list[str]]:
    if not table.exists():
        return []
    with table.open(newline="") as rows:
        return [row for row in csv.reader(rows) if row]


if __name__ == "__main__":
    main()
