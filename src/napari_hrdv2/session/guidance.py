"""Where to paint: places, uncertainty, uncertain regions, label issues, validation."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_hrdv2.core import guidance as core
from napari_hrdv2.core.classifier.cross_validation import (
    HeldOut,
    leave_one_image_out,
    summary,
)
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import blank_labels

from .blocks import reporting
from .blocks.maps import UNLIKE, map_of
from .classes import Classes
from .classifier import ClassifierState
from .images import ImageEntry, Images
from .planes import PlaneKey
from .snapshots import TrainingImage, Window
from .tasks import Task, TaskContext, compute


@dataclass(frozen=True)
class UncertainRegions:
    """Regions of an image where a scribble would help, the best first."""

    key: PlaneKey
    version: int
    regions: tuple[core.UncertainRegion, ...]


@dataclass(frozen=True)
class LabelIssues:
    """The scribbles of an image that all the others contradict, the surest first."""

    key: PlaneKey
    fingerprint: bytes  # of the scribbles that were judged
    label_issues: tuple[core.LabelIssue, ...]


@dataclass(frozen=True, eq=False)
class ProposedPlaces:
    """Places to name on some images; `Place.image` is a position in `keys`."""

    keys: tuple[PlaneKey, ...]
    places: tuple[core.Place, ...]
    text: str = ""  # what was looked at, where that is not all

    def key_of(self, place: core.Place) -> PlaneKey:
        """Return the image that a place is on."""
        return self.keys[place.image]


@dataclass(frozen=True)
class ValidationResult:
    """How well each image is predicted from the scribbles on all others."""

    scores: dict[PlaneKey, HeldOut]
    mean: float  # IoU of those that could be scored; NaN if none could
    text: str


class Guidance:
    """What is known of where to paint next on the current image.

    Requests are taken here, answered by `session.compute` in any thread, and handed
    back to `accept`; scripts call `find_uncertain_regions` and `check_scribbles`.
    """

    changed: ClassVar[Signal] = Signal()
    """The label issues are other ones, or the uncertain regions are."""

    def __init__(
        self, images: Images, classes: Classes, classifier: ClassifierState
    ) -> None:
        self._images, self._classes, self._classifier = images, classes, classifier
        self.label_issues: tuple[core.LabelIssue, ...] = ()
        self.has_checked = False
        self._checked = PlaneKey(""), b""  # key and fingerprint of the scribbles
        self._regions: UncertainRegions | None = None
        self._next = 0
        self._version = 0
        images.segmentation_changed.connect(self._on_segmentation_changed)
        images.changed.connect(self._on_images_changed)

    # For scripts: here and now.

    def uncertainty(self) -> NDArray[np.uint8]:
        """Return the (H, W) uncertainty of the current image in 255ths.

        It and the other maps raise ValueError for an image in blocks.
        """
        return self._whole_map()

    def probability(self, class_id: int) -> NDArray[np.uint8]:
        """Return the (H, W) probability of a class in 255ths."""
        return self._whole_map(class_id)

    def unlike_painted(self) -> NDArray[np.uint8]:
        """Return how unlike what was painted the current image is, in 255ths."""
        return self._whole_map(UNLIKE)

    def _whole_map(self, class_id: int | None = None) -> NDArray[np.uint8]:
        request = self.uncertainty_request(class_id)
        if reason := self._images.why_not_together():
            raise ValueError(f"map: {reason}")
        return np.asarray(compute(request).values)

    def propose_places(self, count: int = 16) -> ProposedPlaces:
        """Return places of the images with features whose names tell the most."""
        found: ProposedPlaces = compute(self.places_request(count))
        return found

    def find_uncertain_regions(self) -> tuple[core.UncertainRegion, ...]:
        """Return where to paint next on the current image, the best first."""
        self.accept(compute(self.uncertain_regions_request()))
        return self.uncertain_regions

    def check_scribbles(self) -> tuple[core.LabelIssue, ...]:
        """Return the scribbles of the current image that the others contradict."""
        self.accept(compute(self.label_issues_request()))
        return self.label_issues

    def name_place(
        self, key: PlaneKey, place: core.Place, class_id: int
    ) -> NDArray[np.int64]:
        """Paint a place, but for pixels that have a scribble; return those it painted.

        The layer can undo it.
        """
        entry = self._images[key]
        labels = blank_labels(entry.shape)
        if entry.scribbles is not None:
            labels = np.asarray(entry.scribbles.sparse)
        is_free = labels.ravel()[place.pixels] == 0
        pixels: NDArray[np.int64] = place.pixels[is_free]
        labels.flat[pixels] = class_id
        if entry.set_scribbles(labels):
            self._classes.ensure(entry.class_ids)
            self._tell_painted(entry)
        return pixels

    # For windows: request, and answer.

    def places_request(self, count: int) -> Task:
        """Return the request for places; ValueError if there are no features."""
        if reason := self._images.why_not_together(whole=False):
            raise ValueError(f"places: {reason}")
        entries = self._images.together()
        features, keys = [one.features for one in entries], [one.key for one in entries]
        masks, text = [one.not_to_paint() for one in entries], ""
        if entries[0].is_in_blocks:
            grid, pixels = features[0].axes, features[0].background_pixels()
            total = math.prod(grid.counts)
            text = f"Looked for in {len(grid.apart(pixels))} of {total} blocks."

        def find(context: TaskContext) -> ProposedPlaces:
            with reporting(features, context):
                found = core.propose_places(
                    features,
                    count,
                    exclusion=masks,
                    progress=partial(context.progress, "Looking for places"),
                    should_stop=context.should_stop,
                )
            return ProposedPlaces(tuple(keys), tuple(found), text)

        return find

    def uncertainty_request(
        self, class_id: int | None = None, *, visible: Window | None = None
    ) -> Task:
        """Return the request for a map of the current image, or of what is visible."""
        entry, classifier = self._ready()
        ids = UNLIKE, *classifier.classes.tolist()
        if class_id is not None and class_id not in ids:
            raise ValueError(
                f"{self._name(class_id)} has no scribbles yet; paint it to see its "
                "probability."
            )
        painted: list[TrainingImage] = []
        has_points = self._classifier.is_loaded and classifier.painted
        if class_id == UNLIKE and not has_points:
            painted = self._classifier.trained_by(self._images.usable())
            if not painted:
                raise ValueError(
                    "The file of this classifier does not keep what was painted: save "
                    "it anew in the window where it was trained."
                )
        image = entry.snapshot(result=entry.result)
        return partial(map_of, image, classifier, class_id, painted, visible)

    def uncertain_regions_request(self) -> Task:
        """Return the request for regions; ValueError where there is no result.

        Of an image in blocks they are among those whose features are in memory.
        """
        entry, classifier = self._ready()
        image, version = entry.snapshot(), self._version
        windows = image.features.kept if entry.is_in_blocks else [None]
        if not windows:
            raise ValueError("No block is kept: look at a part of the image first.")
        labels = None if entry.counted is None else entry.counted.labels

        def find(context: TaskContext) -> UncertainRegions:
            found = core.regions_within(
                windows,
                classifier,
                image.features,
                scribbles=labels,
                exclusion=image.exclusion,
                should_stop=context.should_stop,
            )
            return UncertainRegions(image.key, version, tuple(found))

        return find

    def label_issues_request(self) -> Task:
        """Return the request for likely mislabels."""
        entry, classifier = self._ready()
        image, counted = entry.snapshot(), entry.counted
        if counted is None or not counted.class_ids:
            raise ValueError("There are no scribbles to check on this image.")

        def find(context: TaskContext) -> LabelIssues:
            found = core.find_label_issues(
                image.features,
                counted.labels,
                classifier=classifier,
                exclusion=image.exclusion,
                should_stop=context.should_stop,
            )
            return LabelIssues(image.key, counted.fingerprint, tuple(found))

        return find

    def validation_request(self) -> Task:
        """Return the request to score each image by the scribbles on the others."""
        usable = self._images.usable()
        if len(usable) < 2:
            waits = len(self._images.painted()) > len(usable)
            todo = "compute features first" if waits else "paint on another image too"
            raise ValueError(
                f"images: {len(usable)} of them has scribbles and features, two at "
                f"least are needed to leave one out; {todo}"
            )
        images = [one.training_image() for one in usable]
        names = {one.key: one.name or str(one.key) for one in usable}
        classifier = self._classifier.classifier
        classes = {i: info.name for i, info in self._classes.items()}

        def validate(context: TaskContext) -> ValidationResult:
            results = leave_one_image_out(
                [one.features for one in images],
                [one.labels for one in images],
                classifier=classifier,
                exclusion=[one.exclusion for one in images],
                progress=partial(context.progress, "Leaving one image out"),
                should_stop=context.should_stop,
            )
            scored = [one.miou for one in results if not np.isnan(one.miou)]
            text = summary(results, names=tuple(names.values()), class_names=classes)
            if len({key.image for key in names}) < len(names):
                text += (
                    " Planes of one stack resemble each other: do not expect as much "
                    "of another specimen."
                )
            mean = float(np.mean(scored)) if scored else float("nan")
            return ValidationResult(dict(zip(names, results, strict=True)), mean, text)

        return validate

    def accept(self, answer: UncertainRegions | LabelIssues) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        current = self._images.current
        if current is None or answer.key != current.key:
            return False
        if isinstance(answer, UncertainRegions):
            if answer.version != self._version:
                return False
            self._regions, self._next = answer, 0
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
        """Whether regions were looked for since the last answered scribble."""
        return self._regions is not None

    @property
    def uncertain_regions(self) -> tuple[core.UncertainRegion, ...]:
        """Where to paint next, the best first; empty if it was not looked for."""
        return self._regions.regions if self._regions else ()

    def next_uncertain_region(self) -> core.UncertainRegion | None:
        """Return one region after the other, round and round; None if there is none."""
        regions, self._next = self.uncertain_regions, self._next + 1
        return regions[(self._next - 1) % len(regions)] if regions else None

    def relabel(self, label_issue: core.LabelIssue, class_id: int) -> None:
        """Make a scribble one of another class (0: of none); the layer can undo it."""
        entry = self._images.get(self._checked[0])
        if entry is None or entry.scribbles is None:
            return
        labels = np.asarray(entry.scribbles.sparse)
        painted = labels.flat[label_issue.pixels] == label_issue.class_id
        labels.flat[label_issue.pixels[painted]] = class_id
        if not entry.set_scribbles(labels):
            return
        self._classes.ensure(entry.class_ids)
        if self.has_checked:  # the others are so still
            counted = entry.counted
            self._checked = entry.key, entry.scribbles_fingerprint
            self.label_issues = tuple(
                one
                for one in self.label_issues
                if counted and np.any(counted.labels.flat[one.pixels] == one.class_id)
            )
            self.changed.emit()
        self._tell_painted(entry)

    def _tell_painted(self, entry: ImageEntry) -> None:
        self._images.changed.emit()
        self._images.relabelled.emit(entry.key)

    def erase(self, label_issue: core.LabelIssue) -> None:
        """Take a scribble away; the layer can undo it."""
        self.relabel(label_issue, 0)

    def drop_label_issues(self) -> None:
        """Forget what the check of the scribbles found."""
        if self.has_checked:
            self.label_issues, self.has_checked = (), False
            self.changed.emit()

    def _ready(self) -> tuple[ImageEntry, PixelClassifier]:
        """Return the current image and the classifier, with the names of today."""
        entry, classifier = self._images.current, self._classifier.classifier
        # Without a result, the classifier may be of other features.
        is_ready = entry and entry.features is not None and entry.is_shown
        if entry is None or classifier is None or not is_ready:
            raise ValueError(
                "There is no result yet: compute features and paint two classes first."
            )
        classifier = copy.copy(classifier)
        ids = classifier.classes.tolist()
        classifier.class_names = {i: self._name(i) for i in ids}
        return entry, classifier

    def _name(self, class_id: int) -> str:
        info = self._classes.get(class_id)
        return f"Class {class_id}" if info is None else info.name

    def _on_segmentation_changed(self) -> None:
        """Another classifier, or image: what was found of the last one is old."""
        self._version += 1
        if self._regions is not None:
            self._regions = None
            self.changed.emit()

    def _on_images_changed(self) -> None:
        """Other scribbles, or another image: what was said of the former is old."""
        current = self._images.current
        now = current and (current.key, current.scribbles_fingerprint)
        if now != self._checked:
            self.drop_label_issues()
