"""What a trained ViT is worth on micrographs, by the way its features are made.

Run with::

    python benchmarks/trained.py WEIGHTS CASES_DIR OUT.csv [--only plain "lattice:2"]

WEIGHTS is a file of DINOv2-S/14 in Hugging Face's names, or of the ViT that
`--backbone` names; CASES_DIR is as for `evaluate`. Each case is segmented by its own
scribbles and scored on all other pixels. A line is written to OUT.csv after each case
and a run that is started again does what is missing, so that it may be stopped at any
time; the table that is printed last is of all lines that are there, and says of how
many cases they are. `--parity FILE.npz` compares the network with another program
first: ``image``, a batch as the network takes it, and ``tokens``, the class token
first.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.cli.bench import machine
from napari_hrdv2.cli.cases import CaseArrays, read_cases
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.measure.scores import mean_iou

SCRIBBLES = ("lo", "a")


@dataclass(frozen=True)
class Row:
    """How features are made; `{}` in the backbone's name stands for the ViT's."""

    backbone: str = "{}"
    transforms: str = "identity"
    stride: int | None = None
    interpolation: str = "bilinear"
    debias: str = "none"


BEST = "lattice:2"  # of few passes; what does not concern transforms is tried on it
ROWS = {
    "plain": Row(),
    **{name: Row(transforms=name) for name in ("shift:1,2", "lattice:2", "lattice:4")},
    "bilateral+2": Row(interpolation="bilateral+2", transforms=BEST),
    "with filters": Row("{}+filters", BEST),
    "with embedded": Row("{}+embedded", BEST),
    "embedded": Row("embedded"),
    "stride 7": Row(stride=7),
    "stride 7, lattice:2": Row(stride=7, transforms=BEST),
    **{
        facets: Row(f"{{}}@{facets}", BEST)
        for facets in ("t9", "t6", "t3", "k11", "k9", "k6", "q11", "v11", "t6,t11")
    },
    **{
        f"debias {how}": Row(debias=how, transforms=BEST) for how in ("mean", "project")
    },
    **{
        how: Row(interpolation=how, transforms=BEST)
        for how in ("bilinear+2", "bilateral", "bicubic", "interleaved")
    },
    **{name: Row(transforms=name) for name in ("flip", "lattice:2*flip")},
    "with embedded, plain": Row("{}+embedded"),
    "with embedded, auto": Row("{}+embedded", "auto"),
    "bilateral, plain": Row(interpolation="bilateral"),
    "with embedded, bilateral+2": Row("{}+embedded", BEST, interpolation="bilateral+2"),
    "t9 with embedded": Row("{}@t9+embedded", BEST),
    **{
        f"{facet}, bilateral+2": Row(f"{{}}@{facet}", BEST, interpolation="bilateral+2")
        for facet in ("t9", "t6")
    },
}


class Line(NamedTuple):
    """A line of the file."""

    row: str
    case: str
    scribbles: str
    miou: float
    seconds: float  # of the features, of one processor


# --- The file -------------------------------------------------------------------------
def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Line(*texts[:3], *map(float, texts[3:]))
            for texts in list(csv.reader(file))[1:]
        ]


def add_line(path: Path, line: Line) -> None:
    """Write a line at the end of a file, which begins with the names of the columns."""
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(Line._fields)
        writer.writerow([*line[:3], f"{line.miou:.6f}", f"{line.seconds:.1f}"])


# --- Scores ---------------------------------------------------------------------------
Variants = dict[str, CaseArrays]  # one case, by its sets of scribbles


def small_cases(folder: Path, megapixels: float) -> list[Variants]:
    """Return the cases below a size."""
    lists = [read_cases(folder, name, needed=True) for name in SCRIBBLES]
    read = ((case.read() for case in each) for each in zip(*lists, strict=True))
    variants = (dict(zip(SCRIBBLES, each, strict=True)) for each in read)
    return [v for v in variants if v[SCRIBBLES[0]].truth.size < 1e6 * megapixels]


@dataclass
class Passes:
    """The passes of ViTs over images, which rows of equal transforms have in common."""

    made: dict[tuple[str, int, bytes], tuple[torch.Tensor, float]] = field(
        default_factory=dict
    )
    seconds: float = 0.0  # what the passes took that were not made again

    def tokens(
        self, vit: ViTBackbone, make: Callable[..., torch.Tensor]
    ) -> Callable[..., torch.Tensor]:
        """Return what makes tokens only if they were not made before."""

        def tokens(images: torch.Tensor, *, stride: int, **given: Any) -> torch.Tensor:
            content = hashlib.sha256(images.cpu().numpy().tobytes()).digest()
            key = vit.name, stride, content
            if key in self.made:
                self.seconds += self.made[key][1]
            else:
                begin = time.process_time()
                made = make(images, stride=stride, **given)
                self.made[key] = made, time.process_time() - begin
            return self.made[key][0]

        return tokens


def scores(
    row: Row, variants: Variants, vit: str, weights: Path, passes: Passes
) -> Iterator[tuple[str, float, float]]:
    """Yield scribbles, mean IoU and the seconds of the features of one case."""
    name = row.backbone.format(vit)
    backbone = load_backbone(name, None if name == "embedded" else weights)
    for part in getattr(backbone, "parts", [backbone]):
        if isinstance(part, ViTBackbone) and row.transforms == BEST and not row.stride:
            part.tokens = passes.tokens(part, part.tokens)
    passes.seconds, begin = 0.0, time.process_time()
    features = compute_features(
        variants[SCRIBBLES[0]].image,
        backbone,
        row.transforms,
        row.stride,
        interpolation=row.interpolation,
        debias=row.debias,
    )
    seconds = time.process_time() - begin + passes.seconds
    for scribbles, arrays in variants.items():
        drawn = arrays.drawn
        assert drawn is not None, "they were asked for"
        made = PixelClassifier().fit(features, drawn).predict(features)
        unseen = drawn == 0
        score = mean_iou(arrays.truth[unseen], made[unseen], arrays.class_ids)
        yield scribbles, score, seconds


def table(lines: list[Line]) -> str:
    """Return the means as Markdown, in the order of `ROWS`."""
    head = ["features", "cases", *SCRIBBLES, "seconds"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in ROWS:
        own = [line for line in lines if line.row == name]
        if not own:
            continue
        means = [
            np.mean([line.miou for line in own if line.scribbles == scribbles])
            for scribbles in SCRIBBLES
        ]
        cells = [name, str(len({line.case for line in own}))]
        cells += [f"{mean:.3f}" for mean in means]
        cells.append(f"{np.median([line.seconds for line in own]):.1f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def parity(vit: str, weights: Path, file: Path) -> dict[str, tuple[float, float]]:
    """Return mean and least cosine of patch tokens with those of another program.

    With the backbone's own rule for positions on other grids, and with that of
    transformers, which asks for the size: the other program may have either.
    """
    backbone = load_backbone(vit, weights, "cpu", precision="float32")
    assert isinstance(backbone, ViTBackbone), "facets and joins are left out"
    own = backbone.model
    to_size = replace(own.config, position_offset=0.0, position_antialias=False)
    other = type(own)(to_size).eval()
    other.load_state_dict(own.state_dict())
    cosines = {}
    for rule, model in (("own rule", own), ("transformers' rule", other)):
        with np.load(file) as known, torch.no_grad():
            made = model(torch.from_numpy(known["image"])).flatten(1, 2)
            theirs = torch.from_numpy(known["tokens"])[:, -made.shape[1] :]
        each = torch.cosine_similarity(made, theirs, dim=-1)
        cosines[rule] = float(each.mean()), float(each.min())
    return cosines


def main(arguments: list[str] | None = None) -> None:
    """Write what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backbone", default="dinov2-small", help="The ViT's name.")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--cases", nargs="+", metavar="ID", help="All by default.")
    parser.add_argument("--megapixels", type=float, default=0.5, help="Cases below.")
    parser.add_argument("--parity", type=Path, metavar="NPZ")
    chosen = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    if chosen.parity:
        found = parity(chosen.backbone, chosen.weights, chosen.parity)
        for rule, (mean, least) in found.items():
            print(f"cosine with the other's tokens, positions by {rule}: ", end="")
            print(f"{mean:.6f}, least {least:.6f}")
    cases, passes = small_cases(chosen.folder, chosen.megapixels), Passes()
    for name in chosen.only or ROWS:
        for variants in cases:
            case = variants[SCRIBBLES[0]].case.id
            done = {line[:3] for line in read_lines(chosen.out)}
            wanted = chosen.cases is None or case in chosen.cases
            if not wanted or all((name, case, s) in done for s in SCRIBBLES):
                continue
            vit, weights = chosen.backbone, chosen.weights
            found = scores(ROWS[name], variants, vit, weights, passes)
            for scribbles, score, seconds in found:
                if (name, case, scribbles) not in done:
                    line = Line(name, case, scribbles, score, seconds)
                    add_line(chosen.out, line)
                    print(*line, flush=True)
    print(f"\n{table(read_lines(chosen.out))}")


if __name__ == "__main__":
    main()
