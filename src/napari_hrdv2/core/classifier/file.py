"""The file of a classifier: arrays and JSON in one safetensors file, no pickle."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import MOST_PER_CLASS
from napari_hrdv2.core.features.options import PartOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "napari-hrdv2 classifier"
VERSION = 2  # 1 was that of napari-hrdv2 0.1.0


def save_classifier(classifier: PixelClassifier, path: str | os.PathLike[str]) -> None:
    """Write a trained classifier; see :meth:`PixelClassifier.save`."""
    if not classifier.is_fitted:
        raise ValueError("classifier: it was not trained, so there is nothing to save")
    tensors: dict[str, NDArray[Any]] = {
        "weight": np.ascontiguousarray(classifier.weight),
        "bias": np.ascontiguousarray(classifier.bias),
        "classes": np.ascontiguousarray(classifier.classes),
    }
    content = save(tensors, {"format": FORMAT, "description": _describe(classifier)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_classifier(path: str | os.PathLike[str]) -> PixelClassifier:
    """Read a classifier; see :meth:`PixelClassifier.load`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"classifier: there is no file {path}")
    try:
        with safe_open(str(path), "numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise _not_ours(path, "it is no safetensors file, or it is cut off") from error
    if metadata.get("format") != FORMAT:
        raise _not_ours(path, "it is a safetensors file of something else")
    try:
        return _restore(tensors, json.loads(metadata["description"]))
    except _NewerFormatError as error:
        raise ValueError(f"classifier: {path} {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_ours(path, "its content is damaged") from error


class _NewerFormatError(Exception):
    pass


def _describe(classifier: PixelClassifier) -> str:
    """Everything but the arrays, as JSON."""
    from importlib.metadata import version

    return json.dumps(
        {
            "version": VERSION,
            "C": classifier.C,
            "balanced": classifier.balanced,
            "tolerance": classifier.tolerance,
            "self_training": classifier.self_training,
            "most_per_class": classifier.most_per_class,
            "part_options": [asdict(part) for part in classifier.part_options],
            "class_names": classifier.class_names,
            "class_colors": classifier.class_colors,
            "pixel_size": classifier.pixel_size,
            "labels_hash": classifier.labels_hash,
            "software": {name: version(name) for name in ("numpy", "torch")},
        },
        sort_keys=True,
    )


def _restore(tensors: dict[str, Any], described: dict[str, Any]) -> PixelClassifier:
    if described["version"] > VERSION:
        raise _NewerFormatError(
            f"has format {described['version']}; this version of napari-hrdv2 reads "
            f"up to {VERSION}, a newer one is needed"
        )
    classifier = PixelClassifier(
        C=described["C"],
        balanced=described["balanced"],
        tolerance=described["tolerance"],
        # The first files did not tell: they were trained without.
        self_training=described.get("self_training", False),
        most_per_class=described.get("most_per_class", MOST_PER_CLASS),
    )
    weight, bias, classes = (tensors[name] for name in ("weight", "bias", "classes"))
    _check_arrays(weight, bias, classes)
    classifier.weight, classifier.bias, classifier.classes = weight, bias, classes
    parts = described["recipes" if described["version"] < 2 else "part_options"]
    classifier.part_options = tuple(_part_options(entry) for entry in parts)
    classifier.class_names = _by_id(described["class_names"])
    classifier.class_colors = _by_id(described["class_colors"])
    if described["pixel_size"] is not None:
        size, unit = described["pixel_size"]
        classifier.pixel_size = (float(size), str(unit))
    classifier.labels_hash = described["labels_hash"]
    return classifier


def _check_arrays(
    weight: NDArray[Any], bias: NDArray[Any], classes: NDArray[Any]
) -> None:
    if not (weight.dtype == bias.dtype == np.float32 and classes.dtype == np.int64):
        raise ValueError("arrays of other types")
    if weight.ndim != 2 or not bias.shape == classes.shape == weight.shape[:1]:
        raise ValueError("arrays that do not fit each other")
    if len(classes) < 2 or classes[0] < 1 or (np.diff(classes) < 1).any():
        raise ValueError("label ids that are none")
    if not np.isfinite(weight).all() or not np.isfinite(bias).all():
        raise ValueError("weights that are no numbers")


def _part_options(entry: dict[str, Any]) -> PartOptions:
    known = {field.name for field in fields(PartOptions)}
    # The first files did not tell.
    entry = {"debias": "none", "partition": "own", **entry}
    if set(entry) != known:
        raise ValueError(f"fields of part_options {sorted(entry)}")
    low, high = entry["value_range"]
    return PartOptions(**{**entry, "value_range": (float(low), float(high))})


def _by_id(entries: dict[str, str]) -> dict[int, str]:
    return {int(label): str(value) for label, value in entries.items()}


def _not_ours(path: str | os.PathLike[str], reason: str) -> ValueError:
    return ValueError(
        f"classifier: {path} is not a classifier of napari-hrdv2: {reason}"
    )
