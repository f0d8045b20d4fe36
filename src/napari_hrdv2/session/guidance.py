"""Where to paint next: maps of doubt, places to go to, strokes to look at again."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.tasks.context import compute

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.guidance import LabelIssue, UncertainRegion
    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import TaskContext


@dataclass(frozen=True)
class UncertaintyMap:
    """How sure the classifier is at every pixel of a picture.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    class_id : int or None
        Whose probability it is; None for the uncertainty.
    values : (H, W) uint8 array
        In 255ths; 0 where the picture is excluded.
    """

    key: PlaneKey
    class_id: int | None
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class UncertaintyRequest:
    """A map of the uncertainty, or of the probability of one class."""

    key: PlaneKey
    classifier: PixelClassifier
    features: Any
    exclusion: NDArray[np.bool_] | None
    class_id: int | None = None

    def answer(self, context: TaskContext) -> UncertaintyMap:
        """Compute the map."""
        from napari_hrdv2.core.guidance import probability_of, uncertainty_of

        if self.class_id is None:
            values = uncertainty_of(
                self.classifier, self.features, should_stop=context.should_stop
            )
        else:
            values = probability_of(
                self.classifier,
                self.features,
                self.class_id,
                should_stop=context.should_stop,
            )
        if self.exclusion is not None:
            values[self.exclusion] = 0
        return UncertaintyMap(self.key, self.class_id, values)


@dataclass(frozen=True)
class UncertainRegions:
    """Places of a picture where a stroke would help, the best first."""

    key: PlaneKey
    generation: int
    places: tuple[UncertainRegion, ...]


@dataclass(frozen=True)
class UncertainRegionsRequest:
    """Where the classifier is undecided, away from the strokes so far."""

    generation: int
    doubt: UncertaintyRequest
    labels: NDArray[Any] | None

    def answer(self, context: TaskContext) -> UncertainRegions:
        """Compute the uncertainty, and find the places."""
        from napari_hrdv2.core.guidance import explained_by, uncertain_regions

        asked = self.doubt
        places = uncertain_regions(
            asked.answer(context).values,
            labelled=self.labels,
            explain=explained_by(asked.classifier, asked.features),
        )
        return UncertainRegions(asked.key, self.generation, tuple(places))


@dataclass(frozen=True)
class LabelIssues:
    """The strokes of a picture that all the others contradict, the surest first."""

    key: PlaneKey
    fingerprint: bytes  # of the strokes that were judged
    label_issues: tuple[LabelIssue, ...]


@dataclass(frozen=True)
class LabelIssuesRequest:
    """Which strokes of a picture are likely of the wrong class."""

    key: PlaneKey
    classifier: PixelClassifier
    features: Any
    labels: NDArray[Any]
    exclusion: NDArray[np.bool_] | None
    fingerprint: bytes

    def answer(self, context: TaskContext) -> LabelIssues:
        """Judge every stroke by the others."""
        from napari_hrdv2.core.guidance import find_label_issues

        label_issues = find_label_issues(
            self.features,
            self.labels,
            classifier=self.classifier,
            exclusion=self.exclusion,
            should_stop=context.should_stop,
        )
        return LabelIssues(self.key, self.fingerprint, tuple(label_issues))


class Guidance:
    """What the session knows of where to paint next on the current picture.

    Requests are taken here, answered by `session.compute` in any thread, and handed
    back to `accept`; scripts call `find_uncertain_regions` and `check_scribbles`.

    Attributes
    ----------
    suspects : tuple of Suspect
        The likely mislabels found last; those that were put right by `relabel` and
        `erase` are gone, and all are once other strokes change.
    has_checked : bool
        Whether the strokes of this picture, as they are, have been checked.

    Examples
    --------
    >>> from napari_hrdv2.session import Session
    >>> session = Session()
    >>> rows, columns = np.mgrid[:64, :64]
    >>> session.set_image(np.where(columns < 32, 0.2, 0.6) + rows % 2 * 0.1)
    >>> labels = np.zeros((64, 64), np.uint8)
    >>> labels[4:8, 4:8], labels[4:8, 54:58] = 1, 2
    >>> session.set_scribbles(labels)
    True
    >>> session.compute_features()
    >>> session.train()
    >>> guiding = Guiding(session)
    >>> guiding.uncertainty().shape
    (64, 64)
    """

    changed: ClassVar[Signal] = Signal()
    """The suspects are other ones, or places are no longer those to paint at."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.label_issues: tuple[LabelIssue, ...] = ()
        self.has_checked = False
        self._checked = (
            PlaneKey(""),
            b"",
        )  # picture and digest of the strokes of the suspects
        self._is_correcting = False
        self._places: UncertainRegions | None = None
        self._next = 0
        self._generation = 0
        session.segmentation_changed.connect(self._on_segmentation_changed)
        session.images_changed.connect(self._on_images_changed)

    # For scripts: here and now.

    def uncertainty(self) -> NDArray[np.uint8]:
        """Return the (H, W) uncertainty of the current picture in 255ths."""
        return np.asarray(compute(self.uncertainty_request()).values)

    def probability(self, class_id: int) -> NDArray[np.uint8]:
        """Return the (H, W) probability of a class in 255ths."""
        return np.asarray(compute(self.uncertainty_request(class_id)).values)

    def find_uncertain_regions(self) -> tuple[UncertainRegion, ...]:
        """Return where to paint next on the current picture, the best first."""
        self.accept(compute(self.uncertain_regions_request()))
        return self.places

    def check_scribbles(self) -> tuple[LabelIssue, ...]:
        """Return the strokes of the current picture that the others contradict."""
        self.accept(compute(self.label_issues_request()))
        return self.label_issues

    # For windows: request, and answer.

    def uncertainty_request(self, class_id: int | None = None) -> UncertaintyRequest:
        """Return the request for a map of the current picture.

        Parameters
        ----------
        class_id : int, optional
            Whose probability is wanted; by default it is the uncertainty.

        Raises
        ------
        ValueError
            If there is nothing to tell it by, or the classifier does not know the
            class.
        """
        entry, classifier = self._ready()
        known = classifier.classes.tolist()
        if class_id is not None and class_id not in known:
            raise ValueError(
                f"{self._name(class_id)} has no strokes yet; paint it to see its "
                "probability."
            )
        return UncertaintyRequest(
            entry.key, classifier, entry.features, entry.exclusion, class_id
        )

    def uncertain_regions_request(self) -> UncertainRegionsRequest:
        """Return the request for places; ValueError as for `uncertainty_request`."""
        entry, _ = self._ready()
        labels = None if entry.strokes is None else entry.strokes.labels
        return UncertainRegionsRequest(
            self._generation, self.uncertainty_request(), labels
        )

    def label_issues_request(self) -> LabelIssuesRequest:
        """Return the request for likely mislabels.

        Raises
        ------
        ValueError
            If there is no classifier, or nothing is painted on the current picture.
        """
        entry, classifier = self._ready()
        if entry.strokes is None or not entry.class_ids:
            raise ValueError("There are no strokes to check on this image.")
        return LabelIssuesRequest(
            entry.key,
            classifier,
            entry.features,
            entry.strokes.labels,
            entry.exclusion,
            entry.scribbles_fingerprint,
        )

    def accept(self, answer: UncertainRegions | LabelIssues) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        current = self._session.current
        if current is None or answer.key != current.key:
            return False
        if isinstance(answer, UncertainRegions):
            if answer.generation != self._generation:
                return False
            self._places, self._next = answer, 0
        else:
            if answer.fingerprint != current.scribbles_fingerprint:
                return False
            self._checked, self.has_checked = (answer.key, answer.fingerprint), True
            self.label_issues = answer.label_issues
        self.changed.emit()
        return True

    # What was found.

    @property
    def has_uncertain_regions(self) -> bool:
        """Whether places were looked for since the last answered stroke."""
        return self._places is not None

    @property
    def places(self) -> tuple[UncertainRegion, ...]:
        """Where to paint next, the best first; empty if it was not looked for."""
        return self._places.places if self._places else ()

    def next_uncertain_region(self) -> UncertainRegion | None:
        """Return one place after the other, round and round; None if there is none."""
        if not self.places:
            return None
        place = self.places[self._next % len(self.places)]
        self._next += 1
        return place

    def relabel(self, label_issue: LabelIssue, class_id: int) -> None:
        """Make a stroke one of another class (0: of none); the layer can undo it."""
        entry = self._session.images.get(self._checked[0])
        if entry is None or entry.scribbles is None:
            return
        labels = entry.scribbles.labels.copy()
        painted = labels.flat[label_issue.pixels] == label_issue.class_id
        labels.flat[label_issue.pixels[painted]] = class_id
        self._is_correcting = True
        try:
            has_changed = self._session.set_scribbles(labels, entry.key)
        finally:
            self._is_correcting = False
        if has_changed:
            self._session.relabelled.emit(entry.key)

    def erase(self, label_issue: LabelIssue) -> None:
        """Take a stroke away; the layer can undo it."""
        self.relabel(label_issue, 0)

    def drop_label_issues(self) -> None:
        """Forget what the check of the strokes found."""
        if self.has_checked:
            self.label_issues, self.has_checked = (), False
            self.changed.emit()

    def _ready(self) -> tuple[ImageEntry, PixelClassifier]:
        """Return the current picture and the classifier, with the names of today."""
        entry, classifier = self._session.current, self._session.classifier
        if (
            entry is None
            or entry.features is None
            or classifier is None
            or entry.result is None  # the classifier may be of other features
            or not entry.result.fractions
        ):
            raise ValueError(
                "There is no result yet: compute features and paint two classes first."
            )
        classifier = copy.copy(classifier)
        classifier.class_names = {
            int(class_id): self._name(int(class_id)) for class_id in classifier.classes
        }
        return entry, classifier

    def _name(self, class_id: int) -> str:
        info = self._session.classes.get(class_id)
        return f"Class {class_id}" if info is None else info.name

    def _still_painted(self, entry: ImageEntry) -> tuple[LabelIssue, ...]:
        """Return the suspects that are painted as when they came under suspicion."""
        strokes = entry.strokes
        return tuple(
            label_issue
            for label_issue in self.label_issues
            if strokes is not None
            and np.any(strokes.labels.flat[label_issue.pixels] == label_issue.class_id)
        )

    def _on_segmentation_changed(self) -> None:
        """Another classifier, or picture: what was found of the last one is old."""
        self._generation += 1
        if self._places is not None:
            self._places = None
            self.changed.emit()

    def _on_images_changed(self) -> None:
        """Other strokes, or another picture: what was said of the former is old."""
        current = self._session.current
        if not self.has_checked:
            return
        if current is None or current.key != self._checked[0]:
            self.drop_label_issues()
        elif current.scribbles_fingerprint == self._checked[1]:
            return
        elif not self._is_correcting:
            self.drop_label_issues()
        else:  # the other suspects are so still
            self._checked = (current.key, current.scribbles_fingerprint)
            self.label_issues = self._still_painted(current)
            self.changed.emit()
