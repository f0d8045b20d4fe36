"""What the commands have in common: features, training, results as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.cli.report import Report

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.high_resolution import Features
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.postprocess.refinement import Refinement


def load(options: FeatureOptions, report: Report) -> Backbone | JoinedBackbone:
    """Load the backbone, downloading it with a progress bar if need be."""
    if options.weights is None:
        say_licences(options.backbone.split("+"), report.note)
    return options.load(report.progress(f"downloading {options.backbone}"))


def say_licences(names: list[str], say: Callable[[str], None]) -> None:
    """Say what is about to be downloaded, of whom and under which licence."""
    from napari_hrdv2.core.backbones import backbone_info, backbone_state

    states = {name: backbone_state(name) for name in names}  # all names, before any
    for name, state in states.items():
        info = backbone_info(name)
        if state in ("download", "gated"):
            size = f"{info.download_bytes / 1e6:.0f} MB" if info.download_bytes else "?"
            say(f"{name}: {info.source}, {size}, licence: {info.licence}")


def featurise(
    image: NDArray[Any],
    backbone: Backbone | JoinedBackbone,
    options: FeatureOptions,
    report: Report,
) -> Features:
    """Compute the features of an image, with a progress bar."""
    from napari_hrdv2.core.features.compute import compute_with

    return compute_with(options, image, backbone, report.progress("features"))


def say_cost(
    shape: tuple[int, ...], options: FeatureOptions, report: Report
) -> dict[str, Any]:
    """Say in a terminal what features will cost; return the numbers."""
    from napari_hrdv2.session.cost import estimate_cost

    cost = estimate_cost(shape, options)
    report.note(f"features: {cost.text()}")
    return cost.as_dict()


def check_scribbles(labels: NDArray[Any], image: NDArray[Any], name: str) -> None:
    """Find what is wrong with labels before the features are computed."""
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"labels: {name} is {size(labels.shape)} and the image "
            f"{size(image.shape)} (width × height); draw them on this image"
        )
    classes = np.unique(labels[labels > 0])
    if len(classes) == 0:
        raise ValueError(
            f"labels: no pixel of {name} is labelled; draw strokes of two classes"
        )
    if len(classes) == 1:
        raise ValueError(
            f"labels: {name} has strokes of class {classes[0]} only; draw a second "
            "class"
        )


def refinement_of(
    smoothing: str, min_object: int, fill_holes: int, radius: int, strength: float
) -> Refinement:
    """Return what is to be done after the classifier, checked."""
    from napari_hrdv2.core.postprocess.refinement import Refinement

    refinement = Refinement(
        smoothing,  # type: ignore[arg-type]  # checked below
        radius=radius,
        strength=strength,
        min_object=min_object,
        fill_holes=fill_holes,
    )
    refinement.check()
    return refinement


def size(shape: tuple[int, ...]) -> str:
    """Return width × height of an image of this shape."""
    return f"{shape[1]} × {shape[0]}"


def make_folder(path: Path) -> None:
    """Make the folder of --out."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out: {path} is a file; give a folder")
    path.mkdir(parents=True, exist_ok=True)


def check_outputs(outputs: dict[str, list[Path]], inputs: list[Path]) -> None:
    """Find out before the work whether the results of each option have a place."""
    taken = dict.fromkeys((path.resolve() for path in inputs), "")
    for option, path in ((o, path) for o, paths in outputs.items() for path in paths):
        other = taken.setdefault(path.resolve(), option)
        if not other:
            raise ValueError(
                f"{option}: {path} would replace an input; name another file"
            )
        if other != option:
            raise ValueError(
                f"{option}: {path} is written by {other} already; name another file"
            )
        if not path.parent.is_dir():
            raise ValueError(f"{option}: there is no folder {path.parent}")
        if path.is_dir():
            raise ValueError(f"{option}: {path} is a folder; name a file in it")
