"""Classifiers in files: how the session writes them and takes them over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hrdv2.session import recipes

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier import PixelClassifier
    from napari_hrdv2.session.classes import ClassInfo
    from napari_hrdv2.session.settings import FeatureSettings


def save(
    classifier: PixelClassifier | None,
    path: str | os.PathLike[str],
    *,
    classes: Mapping[int, ClassInfo],
    pixel_size: tuple[float, str] | None,
) -> Path:
    """Write a classifier with its class names and colours; return where it is."""
    if classifier is None:
        raise ValueError(
            "There is no classifier to save yet: compute features and paint two "
            "classes first."
        )
    ids = [int(class_id) for class_id in classifier.classes]
    known = {class_id: classes[class_id] for class_id in ids if class_id in classes}
    classifier.class_names = {i: info.name for i, info in known.items()}
    classifier.class_colors = {i: info.color for i, info in known.items()}
    classifier.pixel_size = pixel_size
    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(".safetensors")
    classifier.save(path)
    return path


def load(
    path: str | os.PathLike[str], settings: FeatureSettings
) -> tuple[PixelClassifier, FeatureSettings]:
    """Return the classifier of a file, and the settings changed to what it needs."""
    from napari_hrdv2.core.classifier import PixelClassifier

    classifier = PixelClassifier.load(path)
    settings = recipes.settings_for(classifier, settings)
    settings.check()
    return classifier, settings
