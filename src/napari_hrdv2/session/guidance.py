"""Where to paint next: maps of doubt, places to go to, strokes to look at again."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.session.tasks.context import compute

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.guidance import Place, Suspect
    from napari_hrdv2.session.picture import Picture
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import Talk


@dataclass(frozen=True)
class DoubtMap:
    """How sure the classifier is at every pixel of a picture.

    Attributes
    ----------
    key : str
        Of the picture.
    class_id : int or None
        Whose probability it is; None for the uncertainty.
    values : (H, W) uint8 array
        In 255ths; 0 where the picture is excluded.
    """

    key: str
    class_id: int | None
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class DoubtRequest:
    """A map of the uncertainty, or of the probability of one class."""

    key: str
    classifier: PixelClassifier
    features: Any
    excluded: NDArray[np.bool_] | None
    class_id: int | None = None

    def answer(self, talk: Talk) -> DoubtMap:
        """Compute the map."""
        from napari_hrdv2.core.guidance import probability_of, uncertainty_of

        if self.class_id is None:
            values = uncertainty_of(
                self.classifier, self.features, should_stop=talk.should_stop
            )
        else:
            values = probability_of(
                self.classifier,
                self.features,
                self.class_id,
                should_stop=talk.should_stop,
            )
        if self.excluded is not None:
            values[self.excluded] = 0
        return DoubtMap(self.key, self.class_id, values)


@dataclass(frozen=True)
class Places:
    """Places of a picture where a stroke would help, the best first."""

    key: str
    generation: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class PlacesRequest:
    """Where the classifier is undecided, away from the strokes so far."""

    generation: int
    doubt: DoubtRequest
    labels: NDArray[Any] | None

    def answer(self, talk: Talk) -> Places:
        """Compute the uncertainty, and find the places."""
        from napari_hrdv2.core.guidance import explained_by, uncertain_places

        asked = self.doubt
        places = uncertain_places(
            asked.answer(talk).values,
            labelled=self.labels,
            explain=explained_by(asked.classifier, asked.features),
        )
        return Places(asked.key, self.generation, tuple(places))


@dataclass(frozen=True)
class Suspects:
    """The strokes of a picture that all the others contradict, the surest first."""

    key: str
    digest: bytes  # of the strokes that were judged
    suspects: tuple[Suspect, ...]


@dataclass(frozen=True)
class SuspectsRequest:
    """Which strokes of a picture are likely of the wrong class."""

    key: str
    classifier: PixelClassifier
    features: Any
    labels: NDArray[Any]
    excluded: NDArray[np.bool_] | None
    digest: bytes

    def answer(self, talk: Talk) -> Suspects:
        """Judge every stroke by the others."""
        from napari_hrdv2.core.guidance import contradicted_strokes

        # Not with the cache of the training, which may be at work in another thread.
        suspects = contradicted_strokes(
            self.features,
            self.labels,
            classifier=self.classifier,
            excluded=self.excluded,
            should_stop=talk.should_stop,
        )
        return Suspects(self.key, self.digest, tuple(suspects))


class Guiding:
    """What the session knows of where to paint next on the current picture.

    Requests are taken here, answered by `session.compute` in any thread, and handed
    back to `accept`; scripts have it all at once by `find_places` and `check_strokes`.

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
        self.suspects: tuple[Suspect, ...] = ()
        self.has_checked = False
        self._checked = ("", b"")  # picture and digest of the strokes of the suspects
        self._is_correcting = False
        self._places: Places | None = None
        self._next = 0
        self._generation = 0
        session.segmentation_changed.connect(self._on_segmentation_changed)
        session.pictures_changed.connect(self._on_pictures_changed)

    # For scripts: here and now.

    def uncertainty(self) -> NDArray[np.uint8]:
        """Return the (H, W) uncertainty of the current picture in 255ths."""
        return np.asarray(compute(self.doubt_request()).values)

    def probability(self, class_id: int) -> NDArray[np.uint8]:
        """Return the (H, W) probability of a class in 255ths."""
        return np.asarray(compute(self.doubt_request(class_id)).values)

    def find_places(self) -> tuple[Place, ...]:
        """Return where to paint next on the current picture, the best first."""
        self.accept(compute(self.places_request()))
        return self.places

    def check_strokes(self) -> tuple[Suspect, ...]:
        """Return the strokes of the current picture that the others contradict."""
        self.accept(compute(self.suspects_request()))
        return self.suspects

    # For windows: request, and answer.

    def doubt_request(self, class_id: int | None = None) -> DoubtRequest:
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
        picture, classifier = self._ready()
        known = classifier.classes.tolist()
        if class_id is not None and class_id not in known:
            raise ValueError(
                f"{self._name(class_id)} has no strokes yet; paint it to see its "
                "probability."
            )
        return DoubtRequest(
            picture.key, classifier, picture.features, picture.excluded, class_id
        )

    def places_request(self) -> PlacesRequest:
        """Return the request for places; ValueError as for `doubt_request`."""
        picture, _ = self._ready()
        labels = None if picture.strokes is None else picture.strokes.labels
        return PlacesRequest(self._generation, self.doubt_request(), labels)

    def suspects_request(self) -> SuspectsRequest:
        """Return the request for likely mislabels.

        Raises
        ------
        ValueError
            If there is no classifier, or nothing is painted on the current picture.
        """
        picture, classifier = self._ready()
        if picture.strokes is None or not picture.class_ids:
            raise ValueError("There are no strokes to check on this image.")
        return SuspectsRequest(
            picture.key,
            classifier,
            picture.features,
            picture.strokes.labels,
            picture.excluded,
            picture.strokes_digest,
        )

    def accept(self, answer: Places | Suspects) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        current = self._session.current
        if current is None or answer.key != current.key:
            return False
        if isinstance(answer, Places):
            if answer.generation != self._generation:
                return False
            self._places, self._next = answer, 0
        else:
            if answer.digest != current.strokes_digest:
                return False
            self._checked, self.has_checked = (answer.key, answer.digest), True
            self.suspects = answer.suspects
        self.changed.emit()
        return True

    # What was found.

    @property
    def has_places(self) -> bool:
        """Whether places were looked for since the last answered stroke."""
        return self._places is not None

    @property
    def places(self) -> tuple[Place, ...]:
        """Where to paint next, the best first; empty if it was not looked for."""
        return self._places.places if self._places else ()

    def next_place(self) -> Place | None:
        """Return one place after the other, round and round; None if there is none."""
        if not self.places:
            return None
        place = self.places[self._next % len(self.places)]
        self._next += 1
        return place

    def relabel(self, suspect: Suspect, class_id: int) -> None:
        """Make a stroke one of another class (0: of none); the layer can undo it."""
        picture = self._session.pictures.get(self._checked[0])
        if picture is None or picture.scribbles is None:
            return
        labels = picture.scribbles.labels.copy()
        painted = labels.flat[suspect.pixels] == suspect.class_id
        labels.flat[suspect.pixels[painted]] = class_id
        self._is_correcting = True
        try:
            has_changed = self._session.set_scribbles(labels, picture.key)
        finally:
            self._is_correcting = False
        if has_changed:
            self._session.relabelled.emit(picture.key)

    def erase(self, suspect: Suspect) -> None:
        """Take a stroke away; the layer can undo it."""
        self.relabel(suspect, 0)

    def drop_suspects(self) -> None:
        """Forget what the check of the strokes found."""
        if self.has_checked:
            self.suspects, self.has_checked = (), False
            self.changed.emit()

    def _ready(self) -> tuple[Picture, PixelClassifier]:
        """Return the current picture and the classifier, with the names of today."""
        picture, classifier = self._session.current, self._session.classifier
        if (
            picture is None
            or picture.features is None
            or classifier is None
            or picture.result is None  # the classifier may be of other features
            or not picture.result.fractions
        ):
            raise ValueError(
                "There is no result yet: compute features and paint two classes first."
            )
        classifier = copy.copy(classifier)
        classifier.class_names = {
            int(class_id): self._name(int(class_id)) for class_id in classifier.classes
        }
        return picture, classifier

    def _name(self, class_id: int) -> str:
        info = self._session.classes.get(class_id)
        return f"Class {class_id}" if info is None else info.name

    def _still_painted(self, picture: Picture) -> tuple[Suspect, ...]:
        """Return the suspects that are painted as when they came under suspicion."""
        strokes = picture.strokes
        return tuple(
            suspect
            for suspect in self.suspects
            if strokes is not None
            and np.any(strokes.labels.flat[suspect.pixels] == suspect.class_id)
        )

    def _on_segmentation_changed(self) -> None:
        """Another classifier, or picture: what was found of the last one is old."""
        self._generation += 1
        if self._places is not None:
            self._places = None
            self.changed.emit()

    def _on_pictures_changed(self) -> None:
        """Other strokes, or another picture: what was said of the former is old."""
        current = self._session.current
        if not self.has_checked:
            return
        if current is None or current.key != self._checked[0]:
            self.drop_suspects()
        elif current.strokes_digest == self._checked[1]:
            return
        elif not self._is_correcting:
            self.drop_suspects()
        else:  # the other suspects are so still
            self._checked = (current.key, current.strokes_digest)
            self.suspects = self._still_painted(current)
            self.changed.emit()
