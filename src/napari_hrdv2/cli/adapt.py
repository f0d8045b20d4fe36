"""``adapt``: a backbone, trained on in one's own images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions

from . import shared
from .cases import images_with_scribbles
from .shared import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.adaptation import Adaptation
    from napari_hrdv2.core.adaptation.choice import ScribbleScores

KEEP = ("better", "adapted")


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
    from napari_hrdv2.core.adaptation import Adaptation, AdaptationOptions
    from napari_hrdv2.core.backbones import load_backbone
    from napari_hrdv2.core.checks import check_choice, filled, grey_if_equal
    from napari_hrdv2.files import read_image

    report = shared.Report(as_json)
    check_choice("--keep", keep, KEEP)
    if out.suffix != ".safetensors" or out.exists():
        problem = "is there already" if out.exists() else "is no such name"
        raise ValueError(f"--out: {out} {problem}; name a new file ….safetensors")
    shared.check_outputs({"--out": [out]}, [])
    found = images_with_scribbles(folder, scribbles)
    if not found:
        raise ValueError(f"{folder}: there are no images in there")
    images = [filled(grey_if_equal(read_image(path).data)) for path, _ in found]
    painted = _painted(found, images)
    if features.weights is None:
        shared.say_licences(features.backbone.split("+"), report.note)
    backbone = load_backbone(
        features.backbone, features.weights, features.device, precision="float32"
    )
    state = out.with_name(f"{out.stem}.state.safetensors")
    options = AdaptationOptions(steps=steps, seed=seed)
    training = Adaptation(backbone, images, options, state)
    report.say(
        f"{features.backbone} is adapted to {len(images)} images in {steps} steps, "
        f"{training.check_memory()}"
    )
    if training.step:
        report.say(f"goes on after step {training.step}")
    scores = [_scores(painted, features, report)] if painted else []
    training.run(_said(training, report))
    first, best = training.checks[0], training.checks[training.best_step]
    report.say(f"step {training.best_step} is the best: {first:.3f} became {best:.3f}")
    if training.best_step == 0:
        report.say("the loss has not fallen: these are the weights as they were")
    if painted:
        with tempfile.TemporaryDirectory() as place:
            training.save(Path(place) / out.name)
            adapted = replace(features, weights=str(Path(place) / out.name))
            scores.append(_scores(painted, adapted, report))
    is_kept = _say_scores(scores, report) or keep == "adapted"
    if is_kept:
        training.save(out)
        state.unlink(missing_ok=True)
        report.say(f"wrote {out}: --backbone {features.backbone} --weights {out}")
    else:
        report.say(f"{out} is not written; --keep adapted writes it")
    names = "before", "after"
    report.finish(
        {
            "backbone": features.backbone,
            "images": len(images),
            "steps": steps,
            "best_step": training.best_step,
            "excess": {"first": first, "best": best},
            "scores": {
                name: {key: x if x == x else None for key, x in asdict(each).items()}
                for name, each in zip(names, scores, strict=False)
            },
            "outputs": [str(out)] if is_kept else [],
        }
    )


Painted = list[tuple["NDArray[Any]", "NDArray[Any]"]]  # images and their scribbles


def _painted(
    found: Sequence[tuple[Path, Path | None]], images: Sequence[NDArray[Any]]
) -> Painted:
    """Return the images that have scribbles, and these."""
    from napari_hrdv2.files import read_labels

    painted = []
    for (_, path), image in zip(found, images, strict=True):
        if path is not None:
            drawn = read_labels(path)
            shared.check_scribbles(drawn, image.shape, path, alone=False)
            painted.append((image, drawn))
    return painted


def _scores(
    painted: Painted, features: FeatureOptions, report: shared.Report
) -> ScribbleScores:
    """Return how well features carry from scribbles to scribbles."""
    from napari_hrdv2.core.adaptation.choice import score_on_scribbles

    images, drawn = zip(*painted, strict=True)
    return score_on_scribbles(
        images,
        drawn,
        features.load(),
        progress=report.progress("scoring on the scribbles"),
        **features.choices,
    )


def _said(training: Adaptation, report: shared.Report) -> Callable[[int, int], None]:
    """Return a progress that says how the loss goes, and the time left."""
    from napari_hrdv2.core.adaptation.training import CHECK_EVERY
    from napari_hrdv2.session.tasks import TimeLeft

    left, start, draw = TimeLeft(), training.step, report.progress("adapting")
    left.text("", 0, 1)  # the clock runs from here

    def say(done: int, total: int) -> None:
        draw(done, total)
        if done % CHECK_EVERY == 0:
            time = left.text("", done - start, total - start)
            loss = mean(training.excess[-CHECK_EVERY:])
            report.say(f"step {done} of {total}, loss {loss:.3f}, {time}")

    return say


def _say_scores(scores: Sequence[ScribbleScores], report: shared.Report) -> bool:
    """Print scores before and after; return whether the adapted backbone is kept."""
    if not scores or any(each.mean != each.mean for each in scores):
        report.say(
            "nothing could be compared: two scribbles of a class in an image, or two "
            "images with scribbles, are needed"
        )
        return True
    before, after = scores
    report.say("mean IoU on scribbles  before   after")
    for title, one, other in (
        ("the image's others", before.own, after.own),
        ("the other images'", before.others, after.others),
    ):
        report.say(f"{title:<21}  {one:6.4f}  {other:6.4f}")
    return after.is_better_than(before)
