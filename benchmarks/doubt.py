"""How well doubt tells images whose mean IoU is below 0.5.

Run with::

    python benchmarks/doubt.py CASES_DIR [--series 60] [--first 700] [--out doubt.csv]

Of each generated series, of one material, one or two images are scribbled on, and two
others, one that was changed and one of another material are segmented; each case by the
scribbles of all others of its source, and of each other one alone. A line is written
after each image, and a run that is started again does what is missing. The formula was
fitted to the 96 series from 500 on and to the cases; to the 60 from 700 on it was not.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import roc_auc_score

from napari_hrdv2 import load_backbone, train_series
from napari_hrdv2.cli.bench import machine
from napari_hrdv2.cli.cases import read_cases
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.core.series.doubt import FLAGGED_FROM
from napari_hrdv2.core.series.reading import reading_of
from samples import Picture, make_series

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

GENERATED, OTHERS, ONE = "generated", "by the others of the source", "by one image"
FOREIGN = "of another material"


class Task(NamedTuple):
    """What is trained on, and what is segmented."""

    group: str
    series: str
    trained: list[Picture]
    tested: list[Picture]
    classes: int


class Line(NamedTuple):
    """A line of the file."""

    group: str
    series: str
    image: str
    miou: float
    doubt: float


def changed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Return it as another day or another instrument might show it."""
    how = str(rng.choice(["noise", "blur", "zoom", "gamma", "invert", "shade"]))
    _, image, truth, drawn = picture
    if how == "noise":
        deviation = image.std() * rng.uniform(0.3, 1.5)
        image = image + deviation * rng.standard_normal(image.shape)
    elif how == "blur":
        image = gaussian_filter(image, rng.uniform(1, 3))
    elif how == "zoom":
        factor = rng.choice([0.5, 2.0])
        image, truth = zoom(image, factor, order=1), zoom(truth, factor, order=0)
    elif how == "gamma":
        image = image ** rng.choice([0.4, 2.5])
    elif how == "invert":
        image = 1 - image
    else:
        image = image + image.std() * np.linspace(-2, 2, image.shape[1])
    return Picture(how, np.clip(image, 0, 1).astype(np.float32), truth, drawn)


def generated(seeds: range, size: int) -> Iterator[Task]:
    """Yield generated series."""
    for seed in seeds:
        exposure = ("varies", "stays", "stretched")[seed % 3]
        made = make_series(seed, 5, size, exposure)
        trained, k = made[: 2 - seed % 2], int(made[0].truth.max())
        if len(np.unique([p.drawn for p in trained])) < 3:
            continue  # one class is no task
        tested = [*made[2:4], changed(made[4], np.random.default_rng([seed, 77]))]
        others = (
            make_series(100_000 + seed * 50 + i, 1, size, "") for i in range(1, 40)
        )
        alike = (p for (p,) in others if p.truth.max() == k)
        tested += [p._replace(name=FOREIGN) for p in [next(alike, None)] if p]
        yield Task(GENERATED, str(seed), trained, tested, k)


def real(folder: Path) -> Iterator[Task]:
    """Yield the sources of a folder of cases that have two images or more."""
    sources = defaultdict(list)
    for arrays in (case.read() for case in read_cases(folder, "a", needed=True)):
        key = arrays.case.source, arrays.image.ndim, len(arrays.class_ids)
        read = arrays.image, arrays.truth, np.asarray(arrays.drawn)
        sources[key].append(Picture(arrays.case.id, *read))
    for (source, _, k), pictures in sources.items():
        for one in pictures if len(pictures) > 1 else ():
            rest = [other for other in pictures if other is not one]
            yield Task(OTHERS, source, rest, [one], k)
            if len(rest) > 1:
                yield Task(ONE, f"{source}: {one.name}", [one], rest, k)


def lines_of(task: Task, backbone: Backbone) -> Iterator[Line]:
    """Yield mean IoU and doubt of each image of a task."""
    images, drawn = [p.image for p in task.trained], [p.drawn for p in task.trained]
    trained = train_series(images, drawn, backbone, normalisation="matched").classifier
    for name, image, truth, _ in task.tested:
        read = reading_of(trained, image, backbone)
        known, found = truth > 0, read.predict()
        miou = mean_iou(truth[known], found[known], list(range(1, task.classes + 1)))
        assert read.doubt is not None, "it was trained here"
        yield Line(*task[:2], name, miou, read.doubt)


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file; none if there is no file."""
    with open(path, "a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        return [Line(*row[:3], *map(float, row[3:])) for row in csv.reader(file)]


def table(lines: list[Line]) -> str:
    """Return AUROC and what is flagged as Markdown."""
    own = [line for line in lines if line.image != FOREIGN]
    parts = {name: [x for x in own if x.group == name] for name in (GENERATED, OTHERS)}
    parts["real, both ways"] = [line for line in own if line.group != GENERATED]
    kept = [x for x in own if x.group == GENERATED and x.image != "invert"]
    parts["generated, but for reversed grey levels"] = kept
    parts |= {"all": own, FOREIGN: [line for line in lines if line.image == FOREIGN]}
    rows = ["| | images | below 0.5 | AUROC | of these flagged | others flagged |"]
    rows.append("|---" * 6 + "|")
    for name, part in parts.items():
        bad = np.array([line.miou < 0.5 for line in part], bool)
        doubt = np.array([line.doubt for line in part])
        tells = 0 < bad.sum() < len(bad)
        area = f"{roc_auc_score(bad, doubt):.2f}" if tells else ""
        flags = [doubt[which] >= FLAGGED_FROM for which in (bad, ~bad)]
        told = [f"{flag.sum()} of {len(flag)}" for flag in flags]
        cells = name, len(part), bad.sum(), area, *told
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Write what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--series", type=int, default=60, help="How many are generated."
    )
    parser.add_argument("--first", type=int, default=700, help="Seed of the first.")
    parser.add_argument(
        "--size", type=int, default=192, help="Side of a generated image."
    )
    parser.add_argument("--out", type=Path, default=Path("doubt.csv"))
    chosen = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    backbone, done = load_backbone("embedded"), {x[:3] for x in read_lines(chosen.out)}
    seeds = range(chosen.first, chosen.first + chosen.series)
    for tasks in (real(chosen.folder), generated(seeds, chosen.size)):
        for task in tasks:
            left = [p for p in task.tested if (*task[:2], p.name) not in done]
            for line in lines_of(task._replace(tested=left), backbone) if left else ():
                with open(chosen.out, "a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerow(line)
                print(*line[:3], *(f"{x:.3f}" for x in line[3:]), flush=True)
    print(f"\n{table(read_lines(chosen.out))}")


if __name__ == "__main__":
    main()
