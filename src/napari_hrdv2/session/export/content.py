"""What is exported: images with their results, and how these were made."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.features.options import FeatureOptions, ValueRange
from napari_hrdv2.core.measure import Fractions, phase_fractions_with_error
from napari_hrdv2.core.postprocess.exclusion import Rectangle, rectangles_of
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.planes import PlaneKey


@dataclass(frozen=True, eq=False)
class ExportImage:
    """One image, what was painted on it, and what became of it."""

    key: PlaneKey
    name: str  # what it is called
    stem: str  # what its files begin with; no other image's do
    image: Any  # (H, W) or (H, W, 3|4), or a Plane
    source: str | None = None  # its file, if that holds nothing else
    pixel_size: tuple[float | tuple[float, float], str] | None = None
    pixel_ratio: tuple[float, float] | None = None  # by which it was resized
    value_range: ValueRange | None = None  # grey levels that became 0 and 1
    channels: str = ""  # the names of its bands, where they are channels
    segmentation: NDArray[Any] | None = None  # (H, W), as it is shown
    scribbles: NDArray[Any] | None = None  # (H, W), as painted
    scribble_pixels: Mapping[int, int] = field(default_factory=dict)  # trained on
    exclusion: NDArray[np.bool_] | None = None  # (H, W)
    is_wanted: bool = True  # else it is there because it trained

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.image.shape[:2]
        return height, width

    @property
    def trains(self) -> bool:
        """Whether the classifier was trained on it."""
        return bool(self.scribble_pixels)

    @cached_property
    def rectangles(self) -> list[Rectangle]:
        """The exclusion mask as rectangles."""
        return [] if self.exclusion is None else rectangles_of(self.exclusion)


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


@dataclass(frozen=True)
class Provenance:
    """How segmentations were made, from features to refinement.

    `C`, `balanced`, `self_training`, `by_place` and `labels_hash` are those of the
    classifier.
    """

    options: FeatureOptions
    classes: Mapping[int, ClassInfo]  # those that were trained or painted
    C: float = 0.03
    balanced: bool = True
    self_training: bool = True
    by_place: bool = True
    classifier_file: str | None = None  # of one that was used as it was loaded
    labels_hash: str = ""
    refinement: Refinement | None = None
    weights_hashes: tuple[str, ...] = ()  # of each part of the backbone
    is_standardised: bool = False  # by the grey levels of each image, on the screen
    series: Normalisation | None = None  # of what was trained for other images
    interval: str = ""  # what error bars are, as "95 % confidence interval"
    versions: Mapping[str, str] = field(default_factory=software_versions)
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())


@dataclass(frozen=True, eq=False)
class ExportContent:
    """All that formats write files of."""

    folder: Path
    images: tuple[ExportImage, ...]  # those that trained, in that order, then others
    classes: dict[int, ClassInfo]
    provenance: Provenance | None = None  # none where nobody can tell
    classifier: PixelClassifier | None = None  # of a file, so that a script needs it
    # Called before each image of each format; ends the work if it is cancelled.
    step: Callable[[], None] = field(default=lambda: None)

    @property
    def wanted(self) -> list[ExportImage]:
        """The images whose results are written."""
        return [image for image in self.images if image.is_wanted]

    @property
    def names(self) -> dict[int, str]:
        """Class names by label id."""
        return {class_id: info.name for class_id, info in self.classes.items()}

    @property
    def colors(self) -> dict[int, str]:
        """Class colours by label id, as ``"#rrggbb"``."""
        return {class_id: info.color for class_id, info in self.classes.items()}

    def path(self, image: ExportImage, suffix: str) -> Path:
        """Return the file of an image with this end."""
        return self.folder / f"{image.stem}{suffix}"

    def each(self, images: Sequence[ExportImage]) -> Iterator[ExportImage]:
        """Yield one image after the other; Cancelled ends it."""
        for image in images:
            self.step()
            yield image

    @cached_property
    def fractions(self) -> dict[str, Fractions]:
        """Phase fractions with their errors, by the stem of the image."""
        measured = {}
        for image in self.each(self.wanted):
            if image.segmentation is None:
                continue
            found = {int(i) for i in np.unique(image.segmentation) if i}
            listed = [i for i in self.classes if i in found]
            ids = [*listed, *sorted(found - set(listed))]  # also classes that are gone
            measured[image.stem] = phase_fractions_with_error(
                image.segmentation, ids, exclusion=image.exclusion
            )
        return measured
