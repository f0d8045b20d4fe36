"""Phase fractions with error bars, objects and their particles, of what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from psygnal import Signal

from napari_hrdv2.core.postprocess.instances import METHODS, Method
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.tasks.context import compute
from napari_hrdv2.session.tasks.measurement import (
    FractionsRequest,
    Measured,
    Objects,
    ObjectsRequest,
    Seen,
    as_updated,
)
from napari_hrdv2.session.tasks.update import left_out_note, update_of

if TYPE_CHECKING:
    from napari_hrdv2.core.measure import Fractions, PixelSize
    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.session import Session

__all__ = [
    "METHODS",
    "FractionsRequest",
    "Measured",
    "Measurement",
    "Objects",
    "ObjectsRequest",
    "Seen",
]


class Measurement:
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
        self._known: dict[PlaneKey, tuple[Seen, Fractions]] = {}
        session.segmentation_changed.connect(self._on_segmentation_changed)

    # For scripts: here and now.

    def measure(self, *, every: bool = False) -> Measured:
        """Return the fractions of the current picture, or of all."""
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

    def segmented(self) -> list[ImageEntry]:
        """Return the pictures that are measured together, the current one first.

        Each has a result of the present classifier, refined as the settings say, or has
        what is needed for one.
        """
        return list(update_of(self._session, self._ordered()).images)

    def fractions_request(self, *, every: bool = False) -> FractionsRequest:
        """Return the request for fractions.

        Parameters
        ----------
        every : bool, optional
            Of all pictures, not of the current one alone. They are segmented by the
            present classifier and refined alike first; those that cannot be are left
            out, and the note says which.

        Raises
        ------
        ValueError
            If there is no result.
        """
        if not every:
            self._requested = (_seen(self._current()),)
            classes = self._classes([self._current()])
            known = self._still_true(classes, frozenset())
            return FractionsRequest(
                self._requested, classes, self._generation, known=known
            )
        update = update_of(self._session, self._ordered())
        images, apart = list(update.images), frozenset[PlaneKey]()
        current = self._session.current
        if current in update.skipped:  # it is measured, but not with the others
            images, apart = [self._current(), *images], frozenset([current.key])
        if not images:
            self._current()
        self._requested = tuple(_seen(one) for one in images)
        classes = self._classes([p for p in images if p.key not in update.keys])
        return FractionsRequest(
            self._requested,
            classes,
            self._generation,
            self._still_true(classes, update.keys),
            update.request,
            apart,
            left_out_note(one.name or str(one.key) for one in update.skipped),
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
        entry = self._current()
        seen = _seen(entry, pixel_size)
        return ObjectsRequest(
            seen, entry.image, class_id, method, min_distance, self._generation
        )

    def accept(self, answer: Measured | Objects) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        if answer.generation != self._generation:
            return False
        if isinstance(answer, Measured):
            for done in answer.updated:
                self._session.take_result(done)
            self.measured = replace(answer, updated=()) if answer.updated else answer
            self._known |= {
                one.key: (one, answer.images[one.key])
                for one in as_updated(self._requested, answer.updated)
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

    def _current(self) -> ImageEntry:
        entry = self._session.current
        if entry is None or entry.result is None or not entry.result.fractions:
            raise ValueError(
                "There is no result to measure yet: compute features and paint two "
                "classes first."
            )
        return entry

    def _ordered(self) -> list[ImageEntry]:
        """Return all pictures, the current one first."""
        current = self._session.current
        every = self._session.images.values()
        return sorted(every, key=lambda one: one is not current)

    def _classes(self, images: Sequence[ImageEntry]) -> tuple[int, ...]:
        """Return the classes that there are; those no longer in the list come last."""
        known = {i for one in images if one.result for i in one.result.fractions}
        if self._session.classifier is not None:
            known |= set(self._session.classifier.classes.tolist())
        listed = [i for i in self._session.classes if i in known]
        return (*listed, *sorted(known - set(listed)))

    def _still_true(
        self, classes: tuple[int, ...], old: frozenset[PlaneKey]
    ) -> dict[PlaneKey, Fractions]:
        """Return what is known of pictures whose results are as they were."""
        true = {}
        for one in self._requested:
            if one.key in old:
                continue
            former, fractions = self._known.get(one.key, (None, None))
            if former is None or fractions is None:
                continue
            same = former.labels is one.labels and former.exclusion is one.exclusion
            if same and classes == tuple(p.class_id for p in fractions.phases):
                true[one.key] = fractions
        return true

    def _on_segmentation_changed(self) -> None:
        """Fractions are of a former result now; so are objects, of this picture."""
        current, images = self._session.current, self._session.images
        self._known = {k: v for k, v in self._known.items() if k in images}
        self._generation += 1
        self.measured = None
        if self.objects is not None:
            if current is None or current.key != self.objects.key:
                self.objects, self.is_stale = None, False
            else:
                self.is_stale = True
        self.changed.emit()


def _seen(entry: ImageEntry, pixel_size: PixelSize | None = None) -> Seen:
    result = entry.result
    return Seen(
        entry.key,
        entry.name or str(entry.key),
        result.shown if result is not None and result.fractions else None,
        entry.exclusion,
        pixel_size or entry.pixel_size,
    )
