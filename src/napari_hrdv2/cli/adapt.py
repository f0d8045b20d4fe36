"""``adapt``: a backbone, trained on in one's own images."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from napari_hrdv2.core.checks import check_choice
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.files import read_image, read_labels

from . import shared
from .cases import images_with_scribbles
from .shared import Json


def adapt(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder of images, with scribbles x_scribbles beside x, or in "
            "folders images and scribbles, or with a manifest.json."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The weights: a .safetensors file.")
    ],
    steps: Annotated[int, typer.Option(help="How long to train.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the views that are drawn.")] = 0,
    scribbles: Annotated[
        str, typer.Option(help="Which scribbles of a manifest.", metavar="SET")
    ] = "a",
    keep: Annotated[
        str,
        typer.Option(
            help="better writes the weights only if they are better on the scribbles, "
            "adapted in any case.",
            metavar="WHAT",
        ),
    ] = "better",
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Train a backbone on in a folder of images, without labels (experimental)."""
    from napari_hrdv2.session.batch.adapting import AdaptRequest, check_new

    report = shared.Report(as_json)
    check_choice("--keep", keep, ("better", "adapted"))
    check_new(out)
    shared.check_outputs({"--out": [out]}, [])
    found = images_with_scribbles(folder, scribbles)
    if not found:
        raise ValueError(f"{folder}: there are no images in there")
    images = [read_image(path).data for path, _ in found]
    labels = [None if path is None else read_labels(path) for _, path in found]
    for (_, path), image, drawn in zip(found, images, labels, strict=True):
        if path is not None and drawn is not None:
            shared.check_scribbles(drawn, image.shape, path, alone=False)
    if features.weights is None:
        shared.say_licences(features.backbone.split("+"), report.note)
    better = keep == "better"
    request = AdaptRequest(images, labels, features, out, steps, seed, better)
    adapted = request(replace(report.context(), partial=report.say))
    if adapted.is_kept:
        report.say(f"wrote {out}: --backbone {features.backbone} --weights {out}")
    else:
        report.say(f"{out} is not written; --keep adapted writes it")
    report.finish(
        {
            "backbone": features.backbone,
            "images": len(images),
            "steps": steps,
            "best_step": adapted.best_step,
            "loss": {"first": adapted.first_loss, "best": adapted.best_loss},
            "scores": {
                when: {k: None if math.isnan(x) else x for k, x in asdict(one).items()}
                for when, one in adapted.scores.items()
                if not math.isnan(one.mean)
            },
            "outputs": [str(out)] if adapted.is_kept else [],
        }
    )
