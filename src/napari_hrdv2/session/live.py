"""What the session is at: the pipeline of the current image, and the next step."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.core.classifier.compatibility import other_channels, other_weights
from napari_hrdv2.core.features.options import FeatureOptions, absolute_range
from napari_hrdv2.files.units import common_size

from .blocks import BlockRequest, block_labels, block_request, take
from .blocks.maps import GuidanceMap
from .classes import Classes
from .classifier import (
    ClassifierState,
    normalisation_note,
    seen_size,
    size_note,
)
from .features import FeatureResult, FeatureStore
from .images import ImageEntry, Images
from .measurement import Measurement, Scope
from .pipeline import PipelineInput, PipelineResult, ProcessedImage
from .planes import PlaneKey
from .refinement import RefinementState
from .snapshots import ImageSnapshot, Preview, Result, Stage, Window

logger = logging.getLogger(__name__)

READY = "Features are ready."


class LivePipeline:
    """From scribbles to fractions of the current image: requests, stages, status."""

    stage_changed: ClassVar[Signal] = Signal(object)
    status_changed: ClassVar[Signal] = Signal(str)

    def __init__(
        self,
        images: Images,
        classes: Classes,
        features: FeatureStore,
        classifier: ClassifierState,
        refinement: RefinementState,
        measurement: Measurement,
    ) -> None:
        self._images, self._classes, self._features = images, classes, features
        self._classifier = classifier
        self._refinement, self._measurement = refinement, measurement
        self.stage: Stage | None = None  # that is being computed
        self.status = "Open an image to begin."
        self.map: GuidanceMap | None = None  # that is shown: filled where one looks
        self.whole: PlaneKey | None = None  # the image of which all is segmented
        self.is_far = False  # whether there are blocks in view that are left out
        self._refused: tuple[ImageEntry, FeatureOptions, str] | None = None
        self._stages: tuple[Stage, ...] = ()
        self._targets: tuple[ImageSnapshot, ...] = ()  # of what is being computed
        images.features_changed.connect(self.say_next_step)

    def say(self, text: str) -> None:
        """Set the status, and tell listeners."""
        self.status = text
        self.status_changed.emit(text)

    def say_next_step(self) -> None:
        """Say what to do next."""
        self.say(self.next_step())

    def refuse(self, entry: ImageEntry, reason: str) -> None:
        """Note why an image can have no features by the options as they are."""
        self._refused = (entry, self._features.options, reason)

    def next_step(self) -> str:
        """Return what to do next, in one or two sentences."""
        entry = self._images.current
        if entry is None:
            return "Open an image to begin."
        if entry.pending:
            return self._computing(entry)
        refusal = self._refusal(entry)
        if refusal:
            return refusal
        if self._classifier.is_loaded:
            return self._with_loaded(entry)
        if entry.features is None and entry.was_segmented:
            return (
                "The features of this image were given up when you left it; its last "
                "segmentation is shown. Press Compute features to go on."
            )
        if entry.features is None and entry.scribbles is None:
            return "Press Compute features. Press Paint to make a scribble layer."
        if entry.features is None:
            return "Press Compute features; you can paint meanwhile."
        if outdated := self.outdated(entry):
            return outdated
        if entry.scribbles is None:
            return "Press Paint to make a scribble layer."
        notes = self._paint(entry), self._map_note(entry), self._note(entry)
        return " ".join(filter(None, notes))

    def of_other_kind(self) -> list[ImageEntry]:
        """Return the painted images that train nothing beside the current one.

        Their features have other channels, or are upsampled otherwise.
        """
        current = self._images.current
        if current is None or current.features is None or current.options is None:
            return []
        return [
            one
            for one in self._images.painted()
            if one.training_features is not None
            and one.is_made_by(current.options)
            and not self._images.is_usable(one)
        ]

    def _note(self, entry: ImageEntry) -> str:
        """Return which scribbles do not count here, or are of another scale."""
        others = self.of_other_kind()
        if others:
            listed = ", ".join(one.name or str(one.key) for one in others)
            return (
                f"The scribbles on {listed} do not count here: grey and colour images "
                "are not trained together, nor a whole image with one in blocks that "
                "is upsampled otherwise."
            )
        usable = self._images.usable()
        if entry.result is None:
            return ""
        trained = common_size([seen_size(one) for one in usable])
        return size_note(entry, trained, is_live=True)

    def outdated(self, entry: ImageEntry) -> str:
        """Return what to do where options ask for other features than there are."""
        if not (outdated := self._features.outdated(entry)):
            return ""
        made, wanted = outdated
        what = "Features" if entry.result is None else "Result"
        return f"{what} from {made}; press Compute features to use {wanted}."

    def _map_note(self, entry: ImageEntry) -> str:
        """Return how much of the map that is shown is there, where not all."""
        if self.map is None or self.map.key != entry.key or not self.map.extent():
            return ""
        more = "; zoom in for more" * self.is_far
        return f"The map is there{self.map.extent()}{more}."

    def _computing(self, entry: ImageEntry) -> str:
        """Return what is being computed, and what there is meanwhile."""
        outdated = self._features.outdated(entry)
        if entry.features is None:
            return "Computing features; you can paint meanwhile."
        if outdated is None:
            return "Computing features again; you can paint meanwhile."
        made, wanted = outdated
        what = "features are" if entry.result is None else "result shown is"
        return f"Computing features by {wanted}; until then the {what} from {made}."

    def _refusal(self, entry: ImageEntry) -> str:
        """Return why no features can be computed, "" where they may."""
        if entry.features is not None:
            return ""
        if self._refused is not None:
            refused, options, reason = self._refused
            if refused is entry and options == self._features.options:
                return reason
        try:
            cost = self._features.cost(entry)
        except ValueError as error:  # an image smaller than a patch
            return str(error)
        return "" if cost.fits else cost.refusal()

    def _paint(self, entry: ImageEntry) -> str:
        usable = self._images.usable()
        painted = sorted({i for one in usable for i in one.class_ids})
        if not painted:
            return f"{READY} Paint a few scribbles of each class."
        if len(painted) == 1:
            name = self._classes[painted[0]].name
            return f"Only {name} has scribbles: choose another class and paint it too."
        if entry.result is None:
            return "Segmenting."
        if entry.result.is_partial:
            return self._in_part(entry.result, is_begun=self.whole == entry.key)
        others = [one for one in usable if one is not entry]
        where = "another image" if len(usable) == 1 else f"{len(usable)} images"
        scribbles = f", by the scribbles on {where}" if others else ""
        return f"Segmented{scribbles}. Paint where it is wrong, or save the classifier."

    def _in_part(self, result: Result, *, is_begun: bool) -> str:
        """Return how much of a result in blocks is there, and what to do for more."""
        assert result.blocks is not None
        done, total = len(result.blocks.done), result.blocks.total
        todo = "Paint where it is wrong; Segment all does the rest."
        if is_begun:
            todo = "Segment all is at work; another scribble would end it."
        elif self.is_far:
            todo = (
                "More are in view than are computed by themselves: zoom in to paint, "
                "or press Segment all."
            )
        there = f"{done} of {total} blocks" if done else "what is in view"
        return f"Segmented: {there}. {todo}"

    def _with_loaded(self, entry: ImageEntry) -> str:
        options, state = self._features.options, self._classifier
        wanted = f"{options.backbone} with {' and '.join(options.transform_sets)}"
        if entry.features is None:
            return f"The loaded classifier needs features by {wanted}: press Compute."
        mismatch = state.mismatch(entry)
        if not mismatch:
            assert state.classifier is not None
            size = state.classifier.pixel_size
            notes = (
                "Segmented by the loaded classifier. Painting trains a new one.",
                self._map_note(entry),
                self.outdated(entry) or size_note(entry, size),
                normalisation_note(state.classifier),
            )
            return " ".join(filter(None, notes))
        trained = state.classifier.part_options if state.classifier else ()
        if other_weights(trained, entry.features.part_options):
            return (
                f"{mismatch} Weights file… is under More choices; then press Compute."
            )
        if other_channels(trained, entry.features.part_options):
            return mismatch  # computing again would not help
        if options.value_range != absolute_range(trained):
            return f"{mismatch} Load it again to take over its grey levels."
        return f"{mismatch} Press Compute features to have them by {wanted}."

    def train_request(
        self, *, force: bool, visible: Window | None, until: Stage
    ) -> PipelineInput | None:
        """Return what to fit and segment, or None; see `Session.train_request`."""
        state, current = self._classifier, self._images.current
        was_loaded = state.is_loaded
        painted, usable = self._images.painted(), self._images.usable()
        has_features = current is not None and current.features is not None
        if not has_features and len({i for p in painted for i in p.class_ids}) > 1:
            state.drop_answers()  # the fit is of other images, and stays
            self.say_next_step()
            return None
        if current is not None and state.can_train(painted, usable, force):
            request = state.request(usable, current, force)
        else:
            request = state.request_as_loaded(current)
            self._follow_classifier(was_loaded)
            if request is None:
                self.clear_result()
                self.say_next_step()
        return request and replace(
            request,
            visible=visible,
            until=until,
            refinement=self._refinement.settings,
            classes=tuple(self._classes),
        )

    def result_request(
        self, *, visible: Window | None = None, refines: bool = True
    ) -> PipelineInput | None:
        """Return what there is to refine, if it `refines`, and to measure, or None."""
        measurement = self._measurement
        request = self._refinement.request(visible=visible) if refines else None
        if request is not None:
            classes = tuple(self._classes)
            return replace(request, until=self.wanted_stage, classes=classes)
        if not measurement.is_owed:
            return None
        try:
            every = measurement.scope is Scope.EVERY
            return measurement.fractions_request(every=every, refines=refines)
        except ValueError:
            return None

    def block_request(self, *, visible: Window | None = None) -> BlockRequest | None:
        """Return the request for blocks that result or map lack in what is visible."""
        entry, found, far = self._images.current, None, False
        if entry is not None and entry.result is not None and entry.is_in_blocks:
            snapshot, wanted = entry.snapshot(), []
            if entry.result.is_partial:
                wanted.append(block_labels(snapshot, entry.result))
            if self.map and self.map.blocks and self.map.of is entry.result.labels:
                wanted.append(self.map.blocks)
            found, far = block_request(snapshot, wanted, visible)
        if far != self.is_far:
            self.is_far = far
            self.say_next_step()
        return found

    @property
    def wanted_stage(self) -> Stage:
        """How far the current image is to come after a scribble."""
        is_measured = self._measurement.scope is Scope.CURRENT
        return Stage.MEASUREMENT if is_measured else Stage.REFINEMENT

    def show_map(self, found: GuidanceMap | None) -> None:
        """Note which map is shown: of an image in blocks it is filled in view."""
        is_told = any(one and one.blocks for one in (self.map, found))
        self.map = found
        if is_told:
            self.say_next_step()

    def begin(self, request: PipelineInput | None) -> None:
        """Note that a request is being computed, or that none is any more."""
        self._stages = () if request is None else request.stages
        self._targets = () if request is None else request.targets
        self._follow_stage(None)

    def accept(self, answer: ProcessedImage | PipelineResult | Preview) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        if isinstance(answer, Preview):
            return self._accept_block(answer)
        if isinstance(answer, ProcessedImage):
            return self._accept_image(answer)
        taken = [self._accept_image(one) for one in answer.images]
        if answer.measured is not None:
            return self._measurement.accept(answer)
        return bool(taken) and all(taken)

    def accept_features(self, result: FeatureResult) -> bool:
        """Take features over; return False if they are not wanted any more."""
        entry = self._features.accept(result)
        if entry is None:
            return False
        if entry is self._images.current:  # other features do not void its answers
            self._classifier.drop_answers()
            self._images.features_changed.emit()
            self._images.segmentation_changed.emit()
            text = self.next_step()
            self.say(text if text.startswith(READY) else f"{READY} {text}")
        return True

    def clear_result(self) -> None:
        """Show no result where nothing supports one."""
        state, entry = self._classifier, self._images.current
        if not state.is_loaded:
            state.give_up_fit()
        if entry is None or entry.result is None or not entry.is_shown:
            return
        if state.is_as_loaded(entry) and not state.mismatch(entry):
            return
        former = entry.result.labels
        entry.result = Result(np.zeros(former.shape, former.dtype), {}, b"")
        self._images.segmentation_changed.emit()

    def _accept_image(self, done: ProcessedImage) -> bool:
        entry, was_loaded = self._images.get(done.key), self._classifier.is_loaded
        former = None if entry is None or entry.result is None else entry.result.labels
        is_begun = any(done.snapshot is one for one in self._targets)  # no side work
        if is_begun and entry is self._images.current:
            self._follow_stage(done.stage)
        if not self._refinement.accept(done):
            logger.debug("dropped a segmentation that came too late")
            return False
        self._follow_classifier(was_loaded)
        if done.version and done.result and done.result.labels is not former:
            self.say_next_step()
        return True

    def _accept_block(self, part: Preview) -> bool:
        entry = self._images.get(part.key)
        result = take(entry.result, part) if entry and entry.result else None
        if entry is None or result is None:
            return False
        is_whole, entry.result = result is not entry.result, result
        if entry is self._images.current:
            if is_whole:
                self._images.segmentation_changed.emit()
            self.say_next_step()
        return True

    def _follow_stage(self, done: Stage | None) -> None:
        """Say which stage comes next after one that is done."""
        todo = [stage for stage in self._stages if done is None or stage > done]
        stage = todo[0] if todo else None
        if stage != self.stage:
            self.stage = stage
            self.stage_changed.emit(stage)

    def _follow_classifier(self, was_loaded: bool) -> None:
        """Take over the grey levels of a loaded classifier, while it is in force."""
        state = self._classifier
        if state.is_loaded == was_loaded or state.classifier is None:
            return
        parts = state.classifier.part_options if state.is_loaded else ()
        levels = absolute_range(parts)
        self._features.set_options(replace(self._features.options, value_range=levels))
