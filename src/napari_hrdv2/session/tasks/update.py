"""All open pictures by the present classifier, refined as the settings say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.errors import EXPECTED, Cancelled, explained
from napari_hrdv2.session import recipes
from napari_hrdv2.session.picture import Result
from napari_hrdv2.session.settings import difference
from napari_hrdv2.session.stacks import Plane
from napari_hrdv2.session.tasks.refinement import refined
from napari_hrdv2.session.tasks.training import shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.session.picture import Picture
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import ShouldStop, Talk


@dataclass(frozen=True, eq=False)
class PlaneDone:
    """The segmentation of a picture, or why there is none.

    Attributes
    ----------
    key : str
    result : Result or None
    error : str
    digest : bytes
        Names the strokes that the classifier was fitted to.
    excluded : (H, W) bool array or None
        What was left out: the very array that the picture had.
    refinement : Refinement or None
        What was done after the classifier.
    raw : dict of int to float
        The share of each class before that.
    """

    key: str
    result: Result | None = None
    error: str = ""
    digest: bytes = b""
    excluded: NDArray[np.bool_] | None = None
    refinement: Refinement | None = None
    raw: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OldPicture:
    """A picture that is to be brought up to date.

    Attributes
    ----------
    key, name : str
    image : (H, W) or (H, W, 3|4) array, or Plane
    features : Features or None
    excluded : (H, W) bool array or None
    labels : (H, W) int array or None
        What the classifier gave, where that is known already.
    """

    key: str
    name: str
    image: Any
    features: Any
    excluded: NDArray[np.bool_] | None = None
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

    pictures: tuple[OldPicture, ...]
    classifier: PixelClassifier | None
    digest: bytes
    refinement: Refinement

    def answer(self, talk: Talk) -> tuple[PlaneDone, ...]:
        """Take one picture after the other; errors are collected, not raised."""
        done = []
        for number, one in enumerate(self.pictures):
            talk.progress(f"Segmenting {one.name}", number, len(self.pictures))
            if talk.should_stop():
                raise Cancelled
            done.append(self._done(one, talk.should_stop))
        return tuple(done)

    def _done(self, one: OldPicture, should_stop: ShouldStop) -> PlaneDone:
        reads = isinstance(one.image, Plane) and self.refinement.smooths
        try:
            return plane_done(
                one,
                self.classifier,
                self.digest,
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

    pictures: tuple[Picture, ...]
    request: UpdateRequest | None
    left_out: tuple[Picture, ...]

    @property
    def keys(self) -> frozenset[str]:
        """Of the pictures that the request will change."""
        return frozenset(
            one.key for one in (self.request.pictures if self.request else ())
        )

    @property
    def note(self) -> str:
        """Which pictures are left out, and why, in one sentence; "" for none."""
        return left_out_note(one.name or one.key for one in self.left_out)


def left_out_note(names: Iterable[str]) -> str:
    """Return a sentence on pictures that are not like the others; "" for none."""
    listed = ", ".join(names)
    if not listed:
        return ""
    return (
        f"Left out, because they are of an older classifier or refined otherwise: "
        f"{listed}; show them to bring them up to date."
    )


def update_of(session: Session, pictures: Iterable[Picture]) -> Update:
    """Return how pictures come to be segmented and refined alike.

    Pictures without features that have no result are in none of the lists.
    """
    classifier, digest = session.classifier, session.classifier_digest
    current = session.current
    if classifier is None and current is not None and current.result is not None:
        digest = current.result.digest  # the others are measured by what is shown
    alike, to_do, left_out = [], [], []
    for one in pictures:
        labels = _labels(one, digest)
        if labels is not None and session.refining.is_done(one):
            alike.append(one)
        elif _can_be_done(session, one, labels):
            alike.append(one)
            to_do.append(_old(one, labels))
        elif one.result is not None and one.result.fractions:
            left_out.append(one)
    settings = session.refining.settings
    request = UpdateRequest(tuple(to_do), classifier, digest, settings)
    return Update(tuple(alike), request if to_do else None, tuple(left_out))


def plane_done(
    one: OldPicture,
    classifier: PixelClassifier | None,
    digest: bytes,
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
        if one.excluded is not None:
            labels[one.excluded] = 0
    found = classifier.classes if classifier is not None else np.unique(labels)
    classes = [int(i) for i in found if i]
    raw, shown = shares(labels, classes, one.excluded), None
    if refinement is not None and not refinement.is_off:
        shown = refined(
            labels,
            classifier,
            one.features,
            one.image,
            refinement,
            one.excluded,
            should_stop=should_stop,
        )
    fractions = raw if shown is None else shares(shown, classes, one.excluded)
    result = Result(labels, fractions, digest, shown)
    return PlaneDone(one.key, result, "", digest, one.excluded, refinement, raw)


def _old(one: Picture, labels: NDArray[np.integer[Any]] | None) -> OldPicture:
    name = one.name or one.key
    return OldPicture(one.key, name, one.image, one.features, one.excluded, labels)


def _labels(one: Picture, digest: bytes) -> NDArray[np.integer[Any]] | None:
    """Return what the classifier with this digest gave, if it is there."""
    result = one.result
    if result is None or not result.fractions or result.digest != digest:
        return None
    return result.labels


def _can_be_done(
    session: Session, one: Picture, labels: NDArray[np.integer[Any]] | None
) -> bool:
    """Whether all is there to segment, or at least to refine, a picture anew."""
    if labels is not None and not session.refining.settings.smooths:
        return True
    classifier = session.classifier
    if classifier is None or one.features is None or one.made_with is None:
        return False
    if session.is_loaded:
        return recipes.mismatch(classifier, one.features) == ""
    same = bool(one.features.shape[0] == classifier.weight.shape[1])
    return same and difference(one.made_with, session.made_with) is None
