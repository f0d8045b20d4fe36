"""What tells whether a run would give the store that another one began."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.files.labels import LabelClasses

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.files import ImageFile


def store_fingerprint(
    file: ImageFile,
    features: Features,
    classifier: PixelClassifier,
    exclusion: NDArray[np.bool_] | None,
    refinement: Refinement,
    colors: Mapping[int, str] | None,
) -> str:
    """Return what all runs of `stream_labels` have in common that give one store."""
    classes = LabelClasses(dict(classifier.class_names), dict(colors or {}))
    made = hashlib.blake2b(digest_size=16)
    for array in (classifier.weight, classifier.bias, classifier.classes):
        made.update(np.ascontiguousarray(array).data.cast("B"))
    image = file.data
    size = file.pixel_size, file.unit, getattr(image, "spacing", None)
    seen = image_fingerprint(image), getattr(image, "width", 0), size
    cut = getattr(features, "seen", None)
    about = features.part_options, refinement, classes, seen, cut
    made.update(repr(about).encode("utf-8", "backslashreplace"))
    if exclusion is not None:
        made.update(np.packbits(exclusion).data.cast("B"))
    return made.hexdigest()
