"""How well few labelled images of a generated series serve the others.

Run with::

    python benchmarks/generated_series.py [--weights FILE] [--out generated_series.csv]

Each series is of five pictures of one material, which no training run sees. The first
one, two or four have two short scribbles a class; the others are segmented as `apply`
does it. Prints mean IoU, and the AUROC of doubt for "mean IoU below 0.5". A line is
written after each picture, and a run that is started again does what is missing.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import roc_auc_score

from doubt import Line, read_lines
from napari_hrdv2 import load_backbone, train_series
from napari_hrdv2.cli.bench import machine
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.core.series.reading import reading_of
from samples import draw_scribbles, random_series

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

FIRST_SEED = (1 << 62) + 10_000  # training draws its seeds below, others before
PICTURES, LABELLED = 5, (1, 2, 4)
SCRIBBLES, LENGTH = 2, (8.0, 30.0)  # a class; pixels


def lines_of(
    name: str, backbone: Backbone, number: int, size: int, labelled: int
) -> Iterator[Line]:
    """Yield mean IoU and doubt of each unlabelled picture of a series."""
    made = random_series(FIRST_SEED + number, PICTURES, size)
    images, k = [each.image for each in made], int(made[0].labels.max())
    drawn = [
        draw_scribbles(
            np.random.default_rng([number, i]), each.labels, SCRIBBLES, length=LENGTH
        )
        for i, each in enumerate(made)
    ]
    trained = train_series(images[:labelled], drawn[:labelled], backbone).classifier
    for index in range(labelled, PICTURES):
        read = reading_of(trained, images[index], backbone)
        miou = mean_iou(made[index].labels, read.predict(), range(1, k + 1))
        told = float("nan") if read.doubt is None else read.doubt
        yield Line(f"{name}, {labelled}", str(number), str(index), miou, told)


def table(lines: list[Line]) -> str:
    """Return means and AUROC as Markdown."""
    rows = ["| | series | mean IoU | below 0.5 | AUROC of doubt |", "|---" * 5 + "|"]
    for group in sorted({line.group for line in lines}):
        part = [line for line in lines if line.group == group]
        bad = np.array([line.miou < 0.5 for line in part])
        doubt = np.array([line.doubt for line in part])
        tells = 0 < bad.sum() < len(bad) and np.isfinite(doubt).all()
        area = f"{roc_auc_score(bad, doubt):.2f}" if tells else ""
        series = len({line.series for line in part})
        mean = np.mean([line.miou for line in part])
        rows.append(
            f"| {group} labelled | {series} | {mean:.3f} "
            f"| {bad.sum()} of {len(bad)} | {area} |"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Write what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=40)
    parser.add_argument("--size", type=int, default=320, help="Side of a picture.")
    parser.add_argument("--weights", help="Of embedded, in place of those that ship.")
    parser.add_argument("--backbones", nargs="+", default=["embedded", "filters"])
    parser.add_argument("--out", type=Path, default=Path("generated_series.csv"))
    chosen = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    done = {(line.group, line.series) for line in read_lines(chosen.out)}
    for number in range(chosen.series):
        for name in chosen.backbones:
            weights = chosen.weights if name == "embedded" else None
            backbone = load_backbone(name, weights=weights)
            for labelled in LABELLED:
                if (f"{name}, {labelled}", str(number)) in done:
                    continue
                made = list(lines_of(name, backbone, number, chosen.size, labelled))
                with open(chosen.out, "a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows(made)
    print(f"\n{table(read_lines(chosen.out))}")


if __name__ == "__main__":
    main()
