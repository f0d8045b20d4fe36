"""What is shown, measured: phase fractions, objects of a class, errors by a truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_hrdv2.core.measure import (
    Fractions,
    ParticleTable,
    PixelSize,
    particle_table,
)
from napari_hrdv2.core.measure.comparison import Comparison, compare, error_map
from napari_hrdv2.core.measure.numbering import MatchedClass, match_labels
from napari_hrdv2.core.postprocess.instances import METHODS, Method, instances
from napari_hrdv2.files import import_labels

from .classes import Classes
from .images import ImageEntry, Images
from .pipeline import PipelineInput, PipelineResult
from .planes import PlaneKey
from .refinement import RefinementState
from .snapshots import Measured, Result, Stage
from .tasks import Task, TaskContext, compute

__all__ = ["METHODS", "Measured", "Measurement", "Objects", "Scope"]


class Scope(Enum):
    """Which images are measured whenever their results change."""

    NONE = "none"
    CURRENT = "current"
    EVERY = "every"


@dataclass(frozen=True)
class Objects:
    """The single objects of a class."""

    key: PlaneKey
    class_id: int
    labels: NDArray[np.int32]  # objects by number from 1
    table: ParticleTable
    source: NDArray[np.integer[Any]]  # the labels that they are in


class Measurement:
    """What was measured of the results that are shown."""

    changed: ClassVar[Signal] = Signal()
    scope_changed: ClassVar[Signal] = Signal()

    def __init__(
        self, images: Images, classes: Classes, refinement: RefinementState
    ) -> None:
        self._images, self._classes, self._refinement = images, classes, refinement
        self.measured: Measured | None = None
        self.scope = Scope.NONE
        self.objects: Objects | None = None
        self.is_stale = False
        self._is_owed = True
        self._known: WeakKeyDictionary[Result, Fractions] = WeakKeyDictionary()
        images.segmentation_changed.connect(self._on_segmentation_changed)

    # For scripts: here and now.

    def measure(self, *, every: bool = False) -> Measured:
        """Return the fractions of the current image, or of all."""
        answer: PipelineResult = compute(self.fractions_request(every=every))
        for one in answer.images:
            self._refinement.accept(one)
        self.accept(answer)
        assert answer.measured is not None
        return answer.measured

    def split(
        self, class_id: int, method: Method = "components", min_distance: int = 5
    ) -> Objects:
        """Return the objects of a class in the current image."""
        request = self.objects_request(class_id, method, min_distance=min_distance)
        objects: Objects = compute(request)
        self.accept(objects)
        return objects

    # For windows: request, and answer.

    def set_scope(self, scope: Scope) -> None:
        """Measure these images from now on, whenever their results change."""
        if scope != self.scope:
            self.scope = scope
            self._is_owed = True
            self.scope_changed.emit()

    @property
    def is_owed(self) -> bool:
        """Whether something in the scope is to be measured."""
        return self.scope is not Scope.NONE and self._is_owed

    def segmented(self) -> list[ImageEntry]:
        """Return the images that are measured together, the current one first."""
        return list(self._refinement.update_of(self._ordered()).images)

    def fractions_request(
        self, *, every: bool = False, refines: bool = True
    ) -> PipelineInput:
        """Return the request for fractions; the current image may stay unrefined."""
        if not every:
            target = self._current().snapshot(**self._what_is_known(self._current()))
            return self._measures(PipelineInput((target,)))
        update = self._refinement.update_of(self._ordered())
        entries, apart, current = list(update.images), frozenset[PlaneKey](), None
        if self._images.current in update.skipped:  # measured, but not with the others
            current = self._current()
            entries, apart = [current, *entries], frozenset([current.key])
        if not entries:
            self._current()
        todo = update.targets
        shown, note = self._images.current, update.note
        if not refines and shown is not None and shown.key in todo:
            todo[shown.key] = replace(todo[shown.key], is_final=True)
            if len(entries) > 1:
                apart |= {shown.key}
                name = shown.name or str(shown.key)
                note = f"{note} Not included, because it is not refined: {name}."
        targets = [
            todo.get(one.key)
            or one.snapshot(**self._what_is_known(one), is_final=one is current)
            for one in entries
        ]
        return self._measures(
            replace(
                update.request or PipelineInput(()),
                targets=tuple(targets),
                shown=None if shown is None else shown.key,
                apart=apart,
                note=note.strip(),
            )
        )

    def objects_request(
        self,
        class_id: int,
        method: Method = "components",
        *,
        min_distance: int = 5,
        pixel_size: PixelSize | None = None,
    ) -> Task:
        """Return the request for the objects of a class in the current image."""
        entry = self._current()
        image, size = entry.snapshot(), pixel_size or entry.pixel_size
        assert entry.result is not None
        labels = entry.result.shown

        def find(context: TaskContext) -> Objects:
            context.progress("Splitting", 0, 2)
            found = instances(
                labels,
                class_id,
                method=method,
                min_distance=min_distance,
                exclusion=image.exclusion,
            )
            context.progress("Measuring", 1, 2)
            pixels = np.asarray(image.image)
            table = particle_table(
                found,
                pixel_size=size,
                image=pixels if pixels.ndim == 2 else None,  # colours have no mean
                exclusion=image.exclusion,
            )
            return Objects(image.key, class_id, found, table, labels)

        return find

    def accept(self, answer: PipelineResult | Objects) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        if isinstance(answer, Objects):
            current = self._images.current
            result = current.result if current is not None else None
            if result is None or result.shown is not answer.source:
                return False
            self.objects, self.is_stale = answer, False
        elif not self._remember(answer):
            return False
        self.changed.emit()
        return True

    def drop_objects(self) -> None:
        """Forget the objects; the result stays."""
        if self.objects is not None:
            self.objects, self.is_stale = None, False
            self.changed.emit()

    # Inside.

    def _current(self) -> ImageEntry:
        entry = self._images.current
        if entry is None or not entry.is_segmented:
            raise ValueError(
                "There is no result to measure yet: compute features and paint two "
                "classes first."
            )
        return entry

    def _ordered(self) -> list[ImageEntry]:
        """Return all images, the current one first."""
        current = self._images.current
        return sorted(self._images.values(), key=lambda one: one is not current)

    def _measures(self, request: PipelineInput) -> PipelineInput:
        return replace(request, until=Stage.MEASUREMENT, classes=tuple(self._classes))

    def _what_is_known(self, entry: ImageEntry) -> dict[str, object]:
        """Return the result of an image, and what was measured of that very result."""
        result = entry.result
        known = result and (self._known.get(result) or result.counted)
        return {"result": result, "measured": known}

    def _remember(self, answer: PipelineResult) -> bool:
        """Take fractions over, unless the current image has another result by now."""
        measured, current = answer.measured, self._images.current
        results = {one.key: one.result for one in answer.images if one.result}
        if measured is None or current is None:
            return False
        is_there = current.key in results or current.is_segmented
        if is_there and results.get(current.key) is not current.result:
            return False
        if self.scope is Scope.CURRENT and set(results) != {current.key}:
            self._is_owed = True  # all were wanted when it was asked for
        else:
            self.measured = measured
            is_every = self.scope is Scope.EVERY
            self._is_owed = is_every and len(answer.images) < len(self.segmented())
        for key, fractions in measured.images.items():
            self._known[results[key]] = fractions
        return True

    def _on_segmentation_changed(self) -> None:
        """Fractions are of a former result now; so are objects, of this image."""
        current = self._images.current
        self.measured, self._is_owed = None, True
        if self.objects is not None:
            if current is None or current.key != self.objects.key:
                self.objects, self.is_stale = None, False
            else:
                self.is_stale = True
        self.changed.emit()


@dataclass(frozen=True, eq=False)
class Truth:
    """What an image shows, as (H, W) labels or a file of them.

    `names` are the classes that the labels are known to have, by id.
    """

    name: str
    labels: NDArray[Any] | Path
    names: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Compared:
    """How the result of an image and its truth agree.

    `errors` has the true class where the result is wrong, 0 elsewhere; `rule` says
    which class of the truth was taken for which.
    """

    truth: Truth
    comparison: Comparison
    classes: tuple[MatchedClass, ...]
    errors: NDArray[Any]
    rule: str
    source: NDArray[np.integer[Any]]  # the result


def compare_result(
    context: TaskContext,
    *,
    result: NDArray[np.integer[Any]],
    image_name: str,
    truth: Truth,
    class_names: Mapping[int, str],
    left_out: Sequence[NDArray[Any] | None],
    boundary_width: int,
    match: Mapping[int, int] | None = None,
) -> Compared:
    """Return how the (H, W) result of an image agrees with a truth.

    Pixels do not count where one of the masks, or labels, that are `left_out` is not 0.
    The rest is as for `match_labels` and `compare`.
    """
    labels, names = truth.labels, truth.names
    if isinstance(labels, Path):
        context.progress(f"Reading {labels.name}", 0, 2)
        size = result.shape[0], result.shape[1]
        read = import_labels(labels, size, image_name=image_name, grey_levels=False)
        labels, names = read.labels, read.classes.listed
    context.stop_if_cancelled()
    context.progress("Comparing", 1, 2)
    exclude = np.zeros(result.shape, bool)
    for mask in left_out:
        if mask is not None:
            exclude |= mask != 0
    matched = match_labels(
        result, labels, segmentation_names=class_names, truth_names=names, match=match
    )
    pair = matched.truth, matched.segmentation
    found = compare(*pair, exclude=exclude, boundary_width=boundary_width)
    context.stop_if_cancelled()
    errors = error_map(*pair, exclude=exclude)
    classes = tuple(
        one._replace(name=class_names.get(one.segmentation_id, "") or one.name)
        if one.segmentation_id is not None
        else one
        for one in matched.classes
    )
    narrow = errors.astype(np.min_scalar_type(int(errors.max())))
    return Compared(truth, found, classes, narrow, matched.rule, result)
