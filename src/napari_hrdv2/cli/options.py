"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

BackboneName = Annotated[
    str,
    typer.Option(
        "--backbone",
        "-b",
        help="A name of `backbones` or a variant, facets after @, a Hub id, or a+b.",
        metavar="B",
    ),
]
Transforms = Annotated[
    str,
    typer.Option(
        "--transforms",
        "-t",
        help="For instance shift:1,2 or lattice:4; auto is what suits the backbone.",
        metavar="S",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(help="Pixels between patches; the patch size by default."),
]
Interpolation = Annotated[
    str,
    typer.Option(
        "--interpolation",
        "-i",
        help="How tokens become pixels: nearest, bilinear, bicubic, interleaved (for "
        "lattices), bilateral (follows the image's edges: better where classes differ "
        "in grey level, worse where they do not), jbu (learnt, from a file); +1 "
        "or +2 sharpens, as in bilinear+2.",
        metavar="I",
    ),
]
Debias = Annotated[
    str,
    typer.Option(
        help="What to take out of tokens that tells where they are: none, mean or "
        "project; of use on even surfaces.",
        metavar="D",
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", metavar="DEVICE")
]
Weights = Annotated[
    str | None,
    typer.Option(help="A local file or folder; or random, for tests.", metavar="PATH"),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line.")
]
Smoothing = Annotated[
    str,
    typer.Option(
        help="none, guided or crf: follow the image's edges, and keep thin phases.",
        metavar="METHOD",
    ),
]
Radius = Annotated[
    int, typer.Option(help="How far smoothing asks, in pixels.", metavar="PIXELS")
]
Strength = Annotated[
    float, typer.Option(help="Of smoothing, in 0..1; up to 0.5 keeps thin lines.")
]
MinObject = Annotated[
    int,
    typer.Option(help="Objects of fewer pixels go to the class around them."),
]
FillHoles = Annotated[
    int, typer.Option(help="Holes of fewer pixels go to the class around them.")
]
