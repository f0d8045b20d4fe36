"""What is exported: images with their results, and how they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.postprocess.exclusion import rectangles_of

from .provenance import ImageRecord, PhaseFractionRecord, scribble_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.measure import Fractions
    from napari_hrdv2.session.classes import ClassInfo
    from napari_hrdv2.session.planes import PlaneKey

    from .provenance import Provenance


@dataclass(frozen=True, eq=False)
class ExportImage:
    """One image as it is exported.

    Attributes
    ----------
    key : PlaneKey
        Of the image entry.
    name, stem : str
        What it is called, and what its files begin with; no other image's do.
    image : array or Plane
    source : str or None
        Its file, where that holds this image and nothing else.
    pixel_size : tuple of float and str, or None
    value_range : tuple of two float, or None
        The grey levels that became 0 and 1.
    segmentation : (H, W) int array or None
        What is shown; None where results of it are not wanted.
    scribbles, training_scribbles : (H, W) int array or None
        As painted, and those that were trained on.
    exclusion : (H, W) bool array or None
    is_wanted : bool
        Whether results are written; else it is there because it trained.
    trains : bool
        Whether the classifier was trained on it.
    """

    key: PlaneKey
    name: str
    stem: str
    image: Any
    source: str | None
    pixel_size: tuple[float, str] | None
    value_range: tuple[float, float] | None
    segmentation: NDArray[Any] | None
    scribbles: NDArray[Any] | None
    training_scribbles: NDArray[Any] | None
    exclusion: NDArray[Any] | None
    is_wanted: bool
    trains: bool


@dataclass(frozen=True, eq=False)
class ExportContent:
    """All that formats write files of.

    Attributes
    ----------
    folder : pathlib.Path
    images : tuple of ExportImage
        Those that trained, in that order, then the others.
    classes : dict of int to ClassInfo
    provenance : callable or None
        Makes the `Provenance` of images; None where nobody can say how the results
        were made.
    classifier : PixelClassifier or None
    is_loaded : bool
        Whether the classifier was used as it was loaded, so that a script needs it.
    step : callable
        Called before each image of each format; ends the work if it is cancelled.
    """

    folder: Path
    images: tuple[ExportImage, ...]
    classes: dict[int, ClassInfo]
    provenance: Callable[..., Provenance] | None = None
    classifier: PixelClassifier | None = None
    is_loaded: bool = False
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
        from napari_hrdv2.core.measure import phase_fractions_with_error

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

    def record(self, image: ExportImage) -> ImageRecord:
        """Return what script and methods say of an image."""
        found = self.fractions.get(image.stem)
        painted, exclusion = image.training_scribbles, image.exclusion
        return ImageRecord(
            name=image.name,
            shape=image.image.shape[:2],
            path=image.source,
            pixel_size=image.pixel_size,
            value_range=image.value_range,
            scribble_pixels={} if painted is None else scribble_pixels(painted),
            exclusion=() if exclusion is None else tuple(rectangles_of(exclusion)),
            fractions={
                phase.class_id: PhaseFractionRecord(
                    phase.fraction, *(phase.interval or (None, None))
                )
                for phase in (found.phases if found else ())
            },
        )
