"""Measuring: requests for fractions and objects, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.measure import (
    Fractions,
    ParticleTable,
    PixelSize,
    combined_fractions,
    particle_table,
    phase_fractions_with_error,
)
from napari_hrdv2.core.postprocess.instances import Method, instances

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.session.tasks.update import PlaneDone, UpdateRequest


@dataclass(frozen=True)
class Seen:
    """What is measured of one picture: the labels that were shown, None for none."""

    key: PlaneKey
    name: str
    labels: NDArray[np.integer[Any]] | None
    exclusion: NDArray[np.bool_] | None
    pixel_size: PixelSize | None


@dataclass(frozen=True)
class Measured:
    """Phase fractions of pictures.

    Attributes
    ----------
    images : dict of PlaneKey to Fractions
        By the key of the picture.
    names : dict of PlaneKey to str
        What the pictures are called, by key; no name occurs twice.
    together : Fractions
        Of all of them that are of one classifier, and refined alike.
    note : str
        What to mind about the pictures together, "" if nothing.
    generation : int
        Of the results.
    updated : tuple of PlaneDone
        Results that were made anew for that.
    """

    images: dict[PlaneKey, Fractions]
    names: dict[PlaneKey, str]
    together: Fractions
    note: str
    generation: int = 0
    updated: tuple[PlaneDone, ...] = ()


@dataclass(frozen=True)
class FractionsRequest:
    """The fractions of classes in one picture or more.

    Attributes
    ----------
    seen : tuple of Seen
    classes : tuple of int
    generation : int
    known : mapping of str to Fractions
        What was measured before, by key.
    update : UpdateRequest or None
        What brings pictures up to date first.
    apart : frozenset of PlaneKey
        Pictures that are measured, but not with the others.
    note : str
    """

    seen: tuple[Seen, ...]
    classes: tuple[int, ...]
    generation: int = 0
    known: Mapping[PlaneKey, Fractions] = field(default_factory=dict)  # by key
    update: UpdateRequest | None = None
    apart: frozenset[PlaneKey] = frozenset()
    note: str = ""

    def answer(self, context: TaskContext) -> Measured:
        """Bring the pictures up to date, and measure one after the other."""
        updated = self.update.answer(context) if self.update else ()
        seen = as_updated(self.seen, updated)
        images = {}
        for done, one in enumerate(seen):
            context.progress("Measuring", done, len(seen))
            if context.should_stop():
                raise Cancelled
            if one.labels is not None:
                images[one.key] = self.known.get(one.key) or phase_fractions_with_error(
                    one.labels, self.classes, exclusion=one.exclusion
                )
        seen = tuple(one for one in seen if one.key in images)
        failed = {one.key: one.error for one in updated if one.error}
        alone = self.apart | set(failed)
        joined = [one for one in seen if one.key not in alone] or list(seen)
        fractions = [images[one.key] for one in joined]
        areas, note = self._areas(joined, fractions)
        notes = filter(None, (note, self.note, *(f"{e}." for e in failed.values())))
        return Measured(
            images,
            _names(seen),
            combined_fractions(fractions, areas=areas),
            " ".join(notes),
            self.generation,
            updated,
        )

    @staticmethod
    def _areas(
        seen: list[Seen], fractions: list[Fractions]
    ) -> tuple[list[float] | None, str]:
        """Return areas to weight by where all are known, and what to mind."""
        notes = []
        of_one = [one.key.image for one in seen]
        if len(set(of_one)) < len(of_one):
            notes.append(
                "Planes of one stack are alike: the error of all together is too small."
            )
        sizes = [one.pixel_size for one in seen if one.pixel_size is not None]
        if len(sizes) == len(seen) and len({unit for _, unit in sizes}) == 1:
            pairs = zip(fractions, sizes, strict=True)
            areas = [one.pixels * _area(size) for one, (size, _) in pairs]
            return areas, " ".join(notes)
        if len({one.pixel_size for one in seen}) > 1:
            notes.append(
                "Images count by their pixels: not all have a pixel size in one unit."
            )
        return None, " ".join(notes)


@dataclass(frozen=True)
class Objects:
    """The single objects of a class.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    class_id : int
    labels : (H, W) int32 array
        Objects by number from 1.
    table : ParticleTable
    generation : int
        Of the result that they are in.
    """

    key: PlaneKey
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

    def answer(self, context: TaskContext) -> Objects:
        """Find the objects, and measure them."""
        seen = self.seen
        assert seen.labels is not None
        context.progress("Splitting", 0, 2)
        labels = instances(
            seen.labels,
            self.class_id,
            method=self.method,
            min_distance=self.min_distance,
            exclusion=seen.exclusion,
        )
        context.progress("Measuring", 1, 2)
        image = np.asarray(self.image)
        table = particle_table(
            labels,
            pixel_size=seen.pixel_size,
            image=image if image.ndim == 2 else None,  # colours have no mean
            exclusion=seen.exclusion,
        )
        return Objects(seen.key, self.class_id, labels, table, self.generation)


def as_updated(
    seen: tuple[Seen, ...], updated: tuple[PlaneDone, ...]
) -> tuple[Seen, ...]:
    """Return the pictures with the results that were made anew."""
    labels = {one.key: one.result.shown for one in updated if one.result}
    return tuple(replace(one, labels=labels.get(one.key, one.labels)) for one in seen)


def _area(size: float | tuple[float, float]) -> float:
    height, width = size if isinstance(size, tuple) else (size, size)
    return height * width


def _names(seen: tuple[Seen, ...]) -> dict[PlaneKey, str]:
    """Return names by key; those that occur twice are told apart by a number."""
    names: dict[PlaneKey, str] = {}
    for one in seen:
        name, number = one.name, 2
        while name in names.values():
            name, number = f"{one.name} ({number})", number + 1
        names[one.key] = name
    return names
