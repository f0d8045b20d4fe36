"""Phase fractions with error bars, objects and their particles, of what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.instances import METHODS, Method, instances
from napari_hrdv2.core.measure import (
    Fractions,
    ParticleTable,
    PixelSize,
    combined_fractions,
    particle_table,
    phase_fractions_with_error,
)
from napari_hrdv2.session.stacks import image_id
from napari_hrdv2.session.talk import compute

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.session.picture import Picture
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.talk import Talk

__all__ = [
    "METHODS",
    "FractionsRequest",
    "Measured",
    "Measuring",
    "Objects",
    "ObjectsRequest",
    "Seen",
]


@dataclass(frozen=True)
class Seen:
    """What is measured of one picture: the labels that were shown."""

    key: str
    name: str
    labels: NDArray[np.integer[Any]]
    excluded: NDArray[np.bool_] | None
    pixel_size: PixelSize | None


@dataclass(frozen=True)
class Measured:
    """Phase fractions of pictures.

    Attributes
    ----------
    images : dict of str to Fractions
        By the key of the picture.
    names : dict of str to str
        What the pictures are called, by key; no name occurs twice.
    together : Fractions
        Of all of them.
    note : str
        What to mind about the pictures together, "" if nothing.
    generation : int
        Of the results.
    """

    images: dict[str, Fractions]
    names: dict[str, str]
    together: Fractions
    note: str
    generation: int = 0


@dataclass(frozen=True)
class FractionsRequest:
    """The fractions of classes in one picture or more."""

    seen: tuple[Seen, ...]
    classes: tuple[int, ...]
    generation: int = 0
    known: Mapping[str, Fractions] = field(default_factory=dict)  # by key

    def answer(self, talk: Talk) -> Measured:
        """Measure one picture after the other."""
        images = {}
        for done, one in enumerate(self.seen):
            talk.progress("Measuring", done, len(self.seen))
            if talk.should_stop():
                raise Cancelled
            images[one.key] = self.known.get(one.key) or phase_fractions_with_error(
                one.labels, self.classes, excluded=one.excluded
            )
        areas, note = self._areas(list(images.values()))
        together = combined_fractions(list(images.values()), areas=areas)
        return Measured(images, _names(self.seen), together, note, self.generation)

    def _areas(self, fractions: list[Fractions]) -> tuple[list[float] | None, str]:
        """Return areas to weight by where all are known, and what to mind."""
        notes = []
        of_one = [image_id(one.key) for one in self.seen]
        if len(set(of_one)) < len(of_one):
            notes.append(
                "Planes of one stack are alike: the error of all together is too small."
            )
        sizes = [one.pixel_size for one in self.seen if one.pixel_size is not None]
        if len(sizes) == len(self.seen) and len({unit for _, unit in sizes}) == 1:
            pairs = zip(fractions, sizes, strict=True)
            areas = [one.pixels * _area(size) for one, (size, _) in pairs]
            return areas, " ".join(notes)
        if len({None if one is None else one.pixel_size for one in self.seen}) > 1:
            notes.append(
                "Images count by their pixels: not all have a pixel size in one unit."
            )
        return None, " ".join(notes)


@dataclass(frozen=True)
class Objects:
    """The single objects of a class.

    Attributes
    ----------
    key : str
        Of the picture.
    class_id : int
    labels : (H, W) int32 array
        Objects by number from 1.
    table : ParticleTable
    generation : int
        Of the result that they are in.
    """

    key: str
    class_id: int
    labels: NDArray[np.int32]
    table: ParticleTable
    generation: int = 0


@dataclass(frozen=True)
class ObjectsRequest:
    """The objects of one class in one picture, and their particle table."""

    seen: Seen
    image: ArrayLike
    class_id: int
    method: Method = "components"
    min_distance: int = 5
    generation: int = 0

    def answer(self, talk: Talk) -> Objects:
        """Find the objects, and measure them."""
        seen = self.seen
        talk.progress("Splitting", 0, 2)
        labels = instances(
            seen.labels,
            self.class_id,
            method=self.method,
            min_distance=self.min_distance,
            excluded=seen.excluded,
        )
        talk.progress("Measuring", 1, 2)
        image = np.asarray(self.image)
        table = particle_table(
            labels,
            pixel_size=seen.pixel_size,
            image=image if image.ndim == 2 else None,  # colours have no mean
            excluded=seen.excluded,
        )
        return Objects(seen.key, self.class_id, labels, table, self.generation)


class Measuring:
    """What was measured of the results that are shown.

    Requests are taken here, answered by `session.compute` in any thread, and handed
    back to `accept`; scripts have it all at once by `measure` and `split`.

    Attributes
    ----------
    measured : Measured or None
        Fractions of the current picture, or of all; None when results changed.
    objects : Objects or None
        Those that were found last on the current picture.
    is_stale : bool
        Whether the objects are of a former result.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.measured: Measured | None = None
        self.objects: Objects | None = None
        self.is_stale = False
        self._generation = 0
        self._requested: tuple[Seen, ...] = ()
        self._known: dict[str, tuple[Seen, Fractions]] = {}
        session.segmentation_changed.connect(self._on_segmentation_changed)

    # For scripts: here and now.

    def measure(self, *, every: bool = False) -> Measured:
        """Return the fractions of the current picture, or of all that have a result."""
        measured: Measured = compute(self.fractions_request(every=every))
        self.accept(measured)
        return measured

    def split(
        self, class_id: int, method: Method = "components", min_distance: int = 5
    ) -> Objects:
        """Return the objects of a class in the current picture."""
        objects: Objects = compute(
            self.objects_request(class_id, method, min_distance=min_distance)
        )
        self.accept(objects)
        return objects

    # For windows: request, and answer.

    def segmented(self) -> list[Picture]:
        """Return the pictures that have a result, the current one first."""
        current = self._session.current
        pictures = sorted(
            self._session.pictures.values(), key=lambda one: one is not current
        )
        return [one for one in pictures if one.result and one.result.fractions]

    def fractions_request(self, *, every: bool = False) -> FractionsRequest:
        """Return the request for fractions.

        Parameters
        ----------
        every : bool, optional
            Of all pictures that have a result, not of the current one alone.

        Raises
        ------
        ValueError
            If there is no result.
        """
        pictures = self.segmented() if every else [self._current()]
        if not pictures:
            self._current()
        known = {i for one in pictures if one.result for i in one.result.fractions}
        if self._session.classifier is not None:
            known |= set(self._session.classifier.classes.tolist())
        classes = [i for i in self._session.classes if i in known]
        self._requested = tuple(_seen(one) for one in pictures)
        return FractionsRequest(
            self._requested,
            tuple(classes) or tuple(sorted(known)),
            self._generation,
            self._still_true(tuple(classes)),
        )

    def objects_request(
        self,
        class_id: int,
        method: Method = "components",
        *,
        min_distance: int = 5,
        pixel_size: PixelSize | None = None,
    ) -> ObjectsRequest:
        """Return the request for the objects of a class in the current picture.

        Parameters
        ----------
        class_id : int
        method : "components" or "watershed"
        min_distance : int
            Of two objects' middles, in pixels, for the watershed.
        pixel_size : tuple, optional
            As `core.measure.particle_table` takes it; by default that of the picture.

        Raises
        ------
        ValueError
            If there is no result.
        """
        picture = self._current()
        seen = _seen(picture, pixel_size)
        return ObjectsRequest(
            seen, picture.image, class_id, method, min_distance, self._generation
        )

    def accept(self, answer: Measured | Objects) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        if answer.generation != self._generation:
            return False
        if isinstance(answer, Measured):
            self.measured = answer
            self._known |= {
                one.key: (one, answer.images[one.key])
                for one in self._requested
                if one.key in answer.images
            }
        else:
            self.objects, self.is_stale = answer, False
        self.changed.emit()
        return True

    def drop_objects(self) -> None:
        """Forget the objects; the result stays."""
        if self.objects is not None:
            self.objects, self.is_stale = None, False
            self.changed.emit()

    # Inside.

    def _current(self) -> Picture:
        picture = self._session.current
        if picture is None or picture.result is None or not picture.result.fractions:
            raise ValueError(
                "There is no result to measure yet: compute features and paint two "
                "classes first."
            )
        return picture

    def _still_true(self, classes: tuple[int, ...]) -> dict[str, Fractions]:
        """Return what is known of pictures whose results are as they were."""
        true = {}
        for one in self._requested:
            former, fractions = self._known.get(one.key, (None, None))
            if former is None or fractions is None:
                continue
            same = former.labels is one.labels and former.excluded is one.excluded
            if same and classes == tuple(p.class_id for p in fractions.phases):
                true[one.key] = fractions
        return true

    def _on_segmentation_changed(self) -> None:
        """Fractions are of a former result now; so are objects, of this picture."""
        current, pictures = self._session.current, self._session.pictures
        self._known = {k: v for k, v in self._known.items() if k in pictures}
        self._generation += 1
        self.measured = None
        if self.objects is not None:
            if current is None or current.key != self.objects.key:
                self.objects, self.is_stale = None, False
            else:
                self.is_stale = True
        self.changed.emit()


def _seen(picture: Picture, pixel_size: PixelSize | None = None) -> Seen:
    assert picture.result is not None
    return Seen(
        picture.key,
        picture.name or picture.key,
        picture.result.shown,
        picture.excluded,
        pixel_size or picture.pixel_size,
    )


def _area(size: float | tuple[float, float]) -> float:
    height, width = size if isinstance(size, tuple) else (size, size)
    return height * width


def _names(seen: tuple[Seen, ...]) -> dict[str, str]:
    """Return names by key; those that occur twice are told apart by a number."""
    names: dict[str, str] = {}
    for one in seen:
        name, number = one.name, 2
        while name in names.values():
            name, number = f"{one.name} ({number})", number + 1
        names[one.key] = name
    return names
