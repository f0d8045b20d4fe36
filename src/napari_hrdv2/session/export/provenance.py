"""What was done in a window, so that a script can do it again and a paper can say it.

A `Provenance` is a plain record: whoever shows the images fills it in.
`python_script` and `methods_paragraph` read nothing else.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.postprocess.exclusion import Rectangle
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.session.classes import ClassInfo


@dataclass(frozen=True)
class PhaseFractionRecord:
    """A measured phase fraction, 0 to 1, and the ends of its error bar if known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ImageRecord:
    """One image, what was painted on it and what was measured.

    Attributes
    ----------
    name : str
    shape : tuple of two int
        (H, W) in pixels.
    path : str, optional
        Its file, where that holds this image and nothing else.
    pixel_size : tuple of float and str, optional
        Length of a pixel's side and its unit.
    value_range : tuple of two float, optional
        The grey levels that became 0 and 1.
    scribble_pixels : mapping of int to int
        Pixels painted of each class and used for training; empty for none.
    exclusion : tuple of Rectangle
        The excluded rectangles, see `exclusion.rectangles_of`.
    fractions : mapping of int to PhaseFractionRecord
        Of each class, of the pixels that were not left out; empty if not measured.
    """

    name: str
    shape: tuple[int, int]
    path: str | None = None
    pixel_size: tuple[float, str] | None = None
    value_range: tuple[float, float] | None = None
    scribble_pixels: Mapping[int, int] = field(default_factory=dict)
    exclusion: tuple[Rectangle, ...] = ()
    fractions: Mapping[int, PhaseFractionRecord] = field(default_factory=dict)

    @property
    def excluded_pixels(self) -> int:
        """How many pixels were left out."""
        return sum((b - t) * (r - left) for t, left, b, r in self.exclusion)


def software_versions() -> dict[str, str]:
    """Return the versions at work here, by name."""
    found = {"napari-hrdv2": "napari-hrdv2", "PyTorch": "torch", "NumPy": "numpy"}
    versions = {"Python": platform.python_version()}
    for name, package in found.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:  # a source tree that was never installed
            versions[name] = "unknown"
    return versions


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True)
class Provenance:
    """A segmentation from its images and scribbles to the measured phase fractions.

    Attributes
    ----------
    images : tuple of ImageRecord
        Those that were painted in the order in which they were trained on.
    features : FeatureOptions
    classes : mapping of int to ClassInfo
        Names and colours by label id.
    C, balanced, self_training
        Of the `PixelClassifier`.
    classifier_file : str, optional
        A saved classifier that was used as it was, in place of a training.
    labels_hash : str
        Digest of the scribbles, the attribute of the `PixelClassifier`.
    refinement : Refinement, optional
        What was done after the classifier.
    weights_hashes : tuple of str
        Of each part of the backbone, empty where a part has none.
    interval : str
        What the error bars are, for instance "95 % confidence interval, block
        bootstrap".
    versions : mapping of str to str
        By default those at work here.
    date : str
        Day, as 2026-12-31; by default today.
    """

    images: tuple[ImageRecord, ...]
    features: FeatureOptions
    classes: Mapping[int, ClassInfo]
    C: float = 0.03
    balanced: bool = True
    self_training: bool = True
    classifier_file: str | None = None
    labels_hash: str = ""
    refinement: Refinement | None = None
    weights_hashes: tuple[str, ...] = ()
    interval: str = ""
    versions: Mapping[str, str] = field(default_factory=software_versions)
    date: str = field(default_factory=_today)

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("images: there is none; a record needs at least one image")
        trained = any(image.scribble_pixels for image in self.images)
        if not trained and self.classifier_file is None:
            raise ValueError(
                "images: none has scribbles, and there is no classifier_file; give one "
                "of them"
            )


def scribble_pixels(
    labels: ArrayLike, exclusion: NDArray[np.bool_] | None = None
) -> dict[int, int]:
    """Return how many pixels of each class are painted, outside of what is excluded."""
    array: NDArray[Any] = np.asarray(labels)
    painted = array[array > 0 if exclusion is None else (array > 0) & ~exclusion]
    ids, counts = np.unique(painted, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))
