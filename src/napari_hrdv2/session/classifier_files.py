"""Classifiers in files: how the session writes them and takes them over."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hrdv2.core.features.options import FeatureOptions

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.classes import ClassInfo


def named(
    classifier: PixelClassifier | None,
    classes: Mapping[int, ClassInfo],
    pixel_size: tuple[float, str] | None,
) -> PixelClassifier:
    """Return a copy with class names and colours, and the pixel size.

    Raises
    ------
    ValueError
        If there is none.
    """
    if classifier is None:
        raise ValueError(
            "There is no classifier yet: compute features and paint two classes first."
        )
    ids = [int(class_id) for class_id in classifier.classes]
    known = {class_id: classes[class_id] for class_id in ids if class_id in classes}
    classifier = copy.copy(classifier)
    classifier.class_names = {i: info.name for i, info in known.items()}
    classifier.class_colors = {i: info.color for i, info in known.items()}
    classifier.pixel_size = pixel_size
    return classifier


def save(classifier: PixelClassifier, path: str | os.PathLike[str]) -> Path:
    """Write a classifier, and return where it is: a suffix is added if missing."""
    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(".safetensors")
    classifier.save(path)
    return path


def load(
    path: str | os.PathLike[str], options: FeatureOptions
) -> tuple[PixelClassifier, FeatureOptions]:
    """Return the classifier of a file, and the options changed to what it needs."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier

    classifier = PixelClassifier.load(path)
    options = options_for(classifier, options)
    options.check()
    return classifier, options


def options_for(classifier: PixelClassifier, options: FeatureOptions) -> FeatureOptions:
    """Return the options changed to those that a classifier was trained with.

    The device stays. A local weights file is kept if the backbone stays the same.
    """
    if not classifier.part_options:
        return options
    wanted = FeatureOptions.of(classifier.part_options, options.device)
    if wanted.backbone == options.backbone:
        wanted = replace(wanted, weights=options.weights)
    if wanted.patch_size > 1:
        method = wanted.interpolation.partition("@")[0]
        return replace(wanted, interpolation=method)
    # It ran once, on every pixel, whatever these say.
    return replace(
        wanted, transforms=options.transforms, interpolation=options.interpolation
    )
