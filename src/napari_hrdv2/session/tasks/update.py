"""All open pictures by the present classifier, refined as the settings say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.errors import EXPECTED, Cancelled, explained
from napari_hrdv2.session.image_entry import Result
from napari_hrdv2.session.planes import Plane, PlaneKey
from napari_hrdv2.session.tasks.refinement import refined
from napari_hrdv2.session.tasks.training import shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import ShouldStop, TaskContext


@dataclass(frozen=True, eq=False)
class PlaneDone:
    """The segmentation of a picture, or why there is none.

    Attributes
    ----------
    key : PlaneKey
    result : Result or None
    error : str
    digest : bytes
        Names the strokes that the classifier was fitted to.
    exclusion : (H, W) bool array or None
        What was left out: the very array that the picture had.
    refinement : Refinement or None
        What was done after the classifier.
    raw : dict of int to float
        The share of each class before that.
    """

    key: PlaneKey
    result: Result | None = None
    error: str = ""
    fingerprint: bytes = b""
    exclusion: NDArray[np.bool_] | None = None
    refinement: Refinement | None = None
    raw: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ImageSnapshot:
    """A picture that is to be brought up to date.

    Attributes
    ----------
    key : PlaneKey
    name : str
    image : (H, W) or (H, W, 3|4) array, or Plane
    features : Features or None
    exclusion : (H, W) bool array or None
    labels : (H, W) int array or None
        What the classifier gave, where that is known already.
    """

    key: PlaneKey
    name: str
    image: Any
    features: Any
    exclusion: NDArray[np.bool_] | None = None
    labels: NDArray[np.integer[Any]] | None = None


@dataclass(frozen=True, eq=False)
class UpdateRequest:
    """Pictures are to be segmented and refined in the same way, on what is there.

    Attributes
    ----------
    pictures : tuple of OldPicture
    classifier : PixelClassifier or None
        None where all labels are known.
    digest : bytes
    refinement : Refinement
    """

    images: tuple[ImageSnapshot, ...]
    classifier: PixelClassifier | None
    fingerprint: bytes
    refinement: Refinement

    def answer(self, context: TaskContext) -> tuple[PlaneDone, ...]:
        """Take one picture after the other; errors are collected, not raised."""
        done = []
        for number, one in enumerate(self.images):
            context.progress(f"Segmenting {one.name}", number, len(self.images))
            if context.should_stop():
                raise Cancelled
            done.append(self._done(one, context.should_stop))
        return tuple(done)

    def _done(self, one: ImageSnapshot, should_stop: ShouldStop) -> PlaneDone:
        reads = isinstance(one.image, Plane) and self.refinement.smooths
        try:
            return plane_done(
                one,
                self.classifier,
                self.fingerprint,
                self.refinement,
                should_stop=should_stop,
            )
        except EXPECTED as error:
            return PlaneDone(one.key, error=f"{one.name}: {explained(error)}")
        finally:
            if reads:
                one.image.forget()  # all planes of a stack may not fit into memory


@dataclass(frozen=True, eq=False)
class Update:
    """What all pictures have in common that are measured, or written, together.

    Attributes
    ----------
    pictures : tuple of Picture
        Those that are up to date, or will be by `request`.
    request : UpdateRequest or None
        None where there is nothing to do.
    left_out : tuple of Picture
        Those with a result of another classifier, or refined in another way, whose
        features are not there to make it anew.
    """

    images: tuple[ImageEntry, ...]
    request: UpdateRequest | None
    skipped: tuple[ImageEntry, ...]

    @property
    def keys(self) -> frozenset[PlaneKey]:
        """Of the pictures that the request will change."""
        return frozenset(
            one.key for one in (self.request.images if self.request else ())
        )

    @property
    def note(self) -> str:
        """Which pictures are left out, and why, in one sentence; "" for none."""
        return left_out_note(one.name or str(one.key) for one in self.skipped)


def left_out_note(names: Iterable[str]) -> str:
    """Return a sentence on pictures that are not like the others; "" for none."""
    listed = ", ".join(names)
    if not listed:
        return ""
    return (
        f"Left out, because they are of an older classifier or refined otherwise: "
        f"{listed}; show them to bring them up to date."
    )


def update_of(session: Session, images: Iterable[ImageEntry]) -> Update:
    """Return how pictures come to be segmented and refined alike.

    Pictures without features that have no result are in none of the lists.
    """
    classifier, fingerprint = session.classifier, session.classifier_fingerprint
    current = session.current
    if classifier is None and current is not None and current.result is not None:
        fingerprint = (
            current.result.fingerprint
        )  # the others are measured by what is shown
    alike, to_do, skipped = [], [], []
    for one in images:
        labels = _labels(one, fingerprint)
        if labels is not None and session.refinement.is_done(one):
            alike.append(one)
        elif _can_be_done(session, one, labels):
            alike.append(one)
            to_do.append(_old(one, labels))
        elif one.result is not None and one.result.fractions:
            skipped.append(one)
    settings = session.refinement.settings
    request = UpdateRequest(tuple(to_do), classifier, fingerprint, settings)
    return Update(tuple(alike), request if to_do else None, tuple(skipped))


def plane_done(
    one: ImageSnapshot,
    classifier: PixelClassifier | None,
    fingerprint: bytes,
    refinement: Refinement | None,
    *,
    should_stop: ShouldStop,
) -> PlaneDone:
    """Return the segmentation of one picture, refined.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    """
    labels = one.labels
    if labels is None:
        assert classifier is not None
        labels = classifier.predict(one.features, should_stop=should_stop)
        if one.exclusion is not None:
            labels[one.exclusion] = 0
    found = classifier.classes if classifier is not None else np.unique(labels)
    classes = [int(i) for i in found if i]
    raw, shown = shares(labels, classes, one.exclusion), None
    if refinement is not None and not refinement.is_off:
        shown = refined(
            labels,
            classifier,
            one.features,
            one.image,
            refinement,
            one.exclusion,
            should_stop=should_stop,
        )
    fractions = raw if shown is None else shares(shown, classes, one.exclusion)
    result = Result(labels, fractions, fingerprint, shown)
    return PlaneDone(one.key, result, "", fingerprint, one.exclusion, refinement, raw)


def _old(one: ImageEntry, labels: NDArray[np.integer[Any]] | None) -> ImageSnapshot:
    name = one.name or str(one.key)
    return ImageSnapshot(one.key, name, one.image, one.features, one.exclusion, labels)


def _labels(one: ImageEntry, fingerprint: bytes) -> NDArray[np.integer[Any]] | None:
    """Return what the classifier with this digest gave, if it is there."""
    result = one.result
    if result is None or not result.fractions or result.fingerprint != fingerprint:
        return None
    return result.labels


def _can_be_done(
    session: Session, one: ImageEntry, labels: NDArray[np.integer[Any]] | None
) -> bool:
    """Whether all is there to segment, or at least to refine, a picture anew."""
    if labels is not None and not session.refinement.settings.smooths:
        return True
    classifier = session.classifier
    if classifier is None or one.features is None or one.options is None:
        return False
    if session.is_loaded:
        return classifier.mismatch(one.features) == ""
    same = bool(one.features.shape[0] == classifier.weight.shape[1])
    return same and one.options.difference(session.options_in_use) is None
