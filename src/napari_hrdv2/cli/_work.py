"""What the commands have in common: features, training, results as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._options import FeatureOptions
from ._report import Report

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier import PixelClassifier
    from napari_hrdv2.core.features import Features
    from napari_hrdv2.files import ImageFile


def load(options: FeatureOptions, report: Report) -> Backbone | JoinedBackbone:
    """Load the backbone, downloading it with a progress bar if need be."""
    from napari_hrdv2.core.backbones import load_backbone

    return load_backbone(
        options.backbone,
        weights=options.weights,
        device=options.device,
        progress=report.progress(f"downloading {options.backbone}"),
    )


def featurise(
    image: NDArray[Any],
    backbone: Backbone | JoinedBackbone,
    options: FeatureOptions,
    report: Report,
) -> Features:
    """Compute the features of an image, with a progress bar."""
    from napari_hrdv2.core.compute import compute_features

    return compute_features(
        image,
        backbone,
        options.transforms,
        options.stride,
        report.progress("features"),
        value_range=options.value_range,
        boundary=options.boundary,
        interpolation=options.interpolation,
        compat=options.compat,
        debias=options.debias,
    )


def check_strokes(labels: NDArray[Any], image: NDArray[Any], name: str) -> None:
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


def size(shape: tuple[int, ...]) -> str:
    """Return width × height of an image of this shape."""
    return f"{shape[1]} × {shape[0]}"


def class_colors(classifier: PixelClassifier) -> dict[int, str]:
    """Colour of each class: its own, or the default of its number."""
    from napari_hrdv2.session.classes import default_color

    return {
        int(i): classifier.class_colors.get(int(i)) or default_color(int(i))
        for i in classifier.classes
    }


def write_segmentation(
    path: Path,
    segmentation: NDArray[Any],
    classifier: PixelClassifier,
    source: ImageFile,
) -> list[Path]:
    """Write the label TIFF and, beside it, a PNG to look at; return both paths."""
    from napari_hrdv2.files import write_color_png, write_labels

    colors = class_colors(classifier)
    write_labels(
        path,
        segmentation,
        pixel_size=source.pixel_size,
        unit=source.unit,
        class_names=classifier.class_names,
        class_colors=colors,
    )
    _, picture = outputs = with_picture(path)
    write_color_png(picture, segmentation, colors)
    return outputs


def settings_of(
    classifier: PixelClassifier, device: str, weights: str | None
) -> FeatureOptions:
    """Return how the features were made that a classifier was trained on."""
    recipes = classifier.recipes
    if not recipes:
        raise ValueError(
            "classifier: its file does not say which features it was trained on; "
            "train it again with `segment --save-classifier`"
        )
    from napari_hrdv2.session.recipes import (
        debias_of,
        main_of,
        stride_of,
        transforms_of,
        value_range,
    )

    main = main_of(recipes)
    return FeatureOptions(
        backbone="+".join(recipe.backbone for recipe in recipes),
        transforms=transforms_of(recipes),
        stride=stride_of(recipes),
        device=device,
        weights=weights,
        value_range=value_range(classifier),
        boundary=main.boundary,
        interpolation=main.interpolation,
        compat=main.compat,
        debias=debias_of(recipes),
    )


def with_picture(path: Path) -> list[Path]:
    """Return the two files of a segmentation: labels, and the PNG to look at."""
    return [path, path.with_suffix(".png")]


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
