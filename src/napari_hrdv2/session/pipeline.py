"""The one way from scribbles to phase fractions: fit, predict, refine, measure.

A frozen `PipelineInput` is run up to a `Stage` in any thread. Live painting, stacks,
folders of files, exports and the command line all come through `process_image`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import filled, with_missing
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.errors import Cancelled, explained_of
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.core.features.levels import Levels
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure import phase_fractions_with_error
from napari_hrdv2.core.postprocess.refinement import Refinement, clean, refine
from napari_hrdv2.core.series.reading import Reading, read_image
from napari_hrdv2.files.units import pixel_ratio

from .blocks import begun, reporting
from .features import FeatureSource
from .planes import Plane, PlaneKey
from .snapshots import (
    ImageSnapshot,
    Measured,
    Preview,
    Result,
    Stage,
    TrainingImage,
    Window,
    label_fractions,
)
from .tasks import TaskContext

# A scribble is answered at once rather than to the last digit; about 99 % of pixels
# come out as after a full fit, where classes are hard to tell apart.
LIVE_TOLERANCE = 1e-4

# Pixels; a smaller image is there at once, or soon, as a whole.
_PREVIEWED, _REFINED_IN_TWO_STEPS = 2**21, 2**22
_WHOLE = slice(None), slice(None)


@dataclass(frozen=True, eq=False)
class PipelineInput:
    """A snapshot of all that the pipeline reads.

    The stages of the target `shown` are partial answers one by one, and its errors are
    raised; errors of the others are collected.
    """

    targets: tuple[ImageSnapshot, ...]
    refinement: Refinement | None = None  # none leaves results as they are
    until: Stage = Stage.REFINEMENT
    training: tuple[TrainingImage, ...] = ()  # empty: the classifier is used as it is
    classifier: PixelClassifier | None = None  # or where the fit starts
    fingerprint: bytes = b""  # of the scribbles that the answer belongs to
    shown: PlaneKey | None = None
    visible: Window | None = None  # on the screen: answered first in a large image
    version: int = 0  # of the scribbles; 0 where the classifier is that in force
    options: FeatureOptions | None = None  # of the features of targets without any
    classes: tuple[int, ...] = ()  # the order of the phases that are measured
    apart: frozenset[PlaneKey] = frozenset()  # not measured together with the others
    note: str = ""  # what to mind about the measurement
    resamples: bool = False  # images of another pixel size to that of the training
    exchanges: bool = False  # light and dark, where that is right, see `read_image`

    @property
    def key(self) -> PlaneKey | None:
        """Of the image that it is for, if of one in particular."""
        return self.shown

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What there is to do, in this order."""
        todo = [one for one in self.targets if not one.is_final]
        refines = any(_is_to_refine(one.result, self.refinement) for one in todo)
        needed = {
            Stage.CLASSIFIER: bool(self.training),
            Stage.SEGMENTATION: any(one.result is None for one in todo),
            Stage.REFINEMENT: refines,
            Stage.MEASUREMENT: True,
        }
        return tuple(s for s in Stage if s <= self.until and needed[s])

    def __call__(self, context: TaskContext) -> PipelineResult:
        """Return what becomes of the targets when they are brought up to a stage."""
        given = replace(self, classifier=_fitted(self, context), training=())
        source = FeatureSource.load(given.options, context) if given.options else None
        run, done = _Run(given, context, source), []
        for number, target in enumerate(given.targets if given.until else ()):
            if target.result is None and target.key != given.shown:
                context.progress(
                    f"Segmenting {target.name}", number, len(given.targets)
                )
            context.stop_if_cancelled()
            done.append(run.processed(target))
        whole = [one for one in done if not (one.result and one.result.is_partial)]
        is_measured = given.until == Stage.MEASUREMENT and (whole or not done)
        measured = run.measured(whole) if is_measured else None
        return PipelineResult(tuple(done), given.classifier, measured)


@dataclass(frozen=True, eq=False)
class ProcessedImage:
    """An image after a stage, or the error why there is nothing of it.

    `snapshot` is what it was made from, `version` that of the `PipelineInput`.
    """

    snapshot: ImageSnapshot
    stage: Stage = Stage.CLASSIFIER
    result: Result | None = None
    error: str = ""
    version: int = 0

    @property
    def key(self) -> PlaneKey:
        """Of the image."""
        return self.snapshot.key


@dataclass(frozen=True, eq=False)
class PipelineResult:
    """What became of a `PipelineInput`, in the order of its targets.

    The results are there of the shown image and of what was measured; others were
    partial answers and are not kept.
    """

    images: tuple[ProcessedImage, ...]
    classifier: PixelClassifier | None = None
    measured: Measured | None = None


def process_image(
    snapshot: ImageSnapshot,
    classifier: PixelClassifier | None,
    refinement: Refinement | None = None,
    context: TaskContext = TaskContext(),  # noqa: B008 - frozen
    *,
    source: FeatureSource | None = None,
    resamples: bool = False,
) -> Result:
    """Return the segmentation of one image: predicted, excluded, refined, counted."""
    given = PipelineInput((snapshot,), refinement, classifier=classifier)
    given = replace(given, resamples=resamples, exchanges=True)
    return list(_Run(given, context, source).stages(snapshot))[-1][1]


def refine_labels(
    result: Result,
    snapshot: ImageSnapshot,
    refinement: Refinement,
    context: TaskContext,
    *,
    window: Window = _WHOLE,
) -> NDArray[np.integer[Any]]:
    """Return a segmentation smoothed and cleaned, in a window as if it were alone."""
    exclusion = None if snapshot.exclusion is None else snapshot.exclusion[window]
    if not refinement.smooths:
        return clean(
            result.labels[window],
            refinement.min_object,
            refinement.fill_holes,
            exclusion=exclusion,
            should_stop=context.should_stop,
        )
    classifier, stop = result.classifier, context.should_stop
    assert classifier is not None
    guide = np.asarray(snapshot.image)[window]
    if any(part.channel for part in classifier.part_options):
        guide = guide[..., 0]  # of the first channel: they are no colours
    return refine(
        classifier.predict_proba(snapshot.features, region=window, should_stop=stop),
        guide,
        classifier.classes,
        refinement,
        exclusion=exclusion,
        should_stop=stop,
    )


@dataclass(frozen=True)
class _Run:
    """One run of the pipeline."""

    given: PipelineInput
    context: TaskContext
    source: FeatureSource | None

    def processed(self, target: ImageSnapshot) -> ProcessedImage:
        """Return one target after its last stage; hand over what is new of it."""
        given, is_shown = self.given, target.key == self.given.shown
        done = ProcessedImage(target, given.until, target.result, version=given.version)
        try:
            for stage, result in self.stages(target):
                done = replace(done, stage=stage, result=result)
                if is_shown and result is not target.result:
                    self.context.partial(done)
        except Cancelled:
            raise
        except Exception as error:
            if is_shown:
                raise
            text = explained_of(target.name, error)
            done = replace(done, result=None, error=text)
        finally:
            reads = self.source or (given.refinement and given.refinement.smooths)
            if isinstance(target.image, Plane) and reads and not is_shown:
                target.image.forget()  # all planes of a stack may not fit into memory
        if is_shown or given.until == Stage.MEASUREMENT:
            return done
        self.context.partial(done)
        bare = ImageSnapshot(target.key, None, target.name)
        return replace(done, snapshot=bare, result=None)

    def stages(self, snapshot: ImageSnapshot) -> Iterator[tuple[Stage, Result]]:
        """Yield the result after each stage."""
        given = self.given
        is_needed = snapshot.result is None or (
            given.refinement is not None and given.refinement.smooths
        )
        if snapshot.features is None and self.source is not None and is_needed:
            snapshot, read = self._read(snapshot, self.source)
            if read is not None:
                run = replace(self, given=replace(given, classifier=read.classifier))
                for stage, result in run.stages(snapshot):
                    result = replace(result, doubt=read.doubt)
                    yield stage, replace(result, is_inverted=read.is_inverted)
                return
        visible = given.visible if snapshot.key == given.shown else None
        result = snapshot.result or self._segmented(snapshot, visible)
        yield Stage.SEGMENTATION, result
        refinement = None if snapshot.is_final else given.refinement
        if given.until >= Stage.REFINEMENT and _is_to_refine(result, refinement):
            assert refinement is not None
            result = replace(result, classifier=result.classifier or given.classifier)
            result = self._refined(result, snapshot, refinement, visible)
            yield Stage.REFINEMENT, result

    def _read(
        self, snapshot: ImageSnapshot, source: FeatureSource
    ) -> tuple[ImageSnapshot, Reading | None]:
        """Return an image with features, and as the classifier sees it, if any does."""
        given, context = self.given, self.context
        image, classifier = np.asarray(snapshot.image), given.classifier
        exclusion = with_missing(snapshot.exclusion, image)
        trained = classifier if classifier is not None and given.resamples else None
        size = source.options.pixel_size if trained is None else trained.pixel_size
        ratio = pixel_ratio(snapshot.pixel_size, size)

        def compute(part: NDArray[Any], levels: Levels | None) -> Any:
            return source.features(
                part, context, reports=False, levels=levels, pixel_ratio=ratio
            )

        wanted, read = source.as_trained(filled(image), classifier), None
        if classifier is None:
            features = compute(wanted, None)
        else:
            read = read_image(
                classifier,
                wanted,
                compute,
                exclusion=exclusion,
                exchanges=given.exchanges,
                should_stop=context.should_stop,
            )
            features = read.features
        snapshot = replace(snapshot, image=image, exclusion=exclusion)
        return replace(snapshot, features=features), read

    def _segmented(self, snapshot: ImageSnapshot, visible: Window | None) -> Result:
        classifier, stop = self.given.classifier, self.context.should_stop
        assert classifier is not None
        if isinstance(snapshot.features, BlockFeatures):
            given = self.given.fingerprint, visible, self.context
            return begun(snapshot, classifier, *given)

        def predict(window: Window) -> NDArray[np.integer[Any]]:
            features = snapshot.features
            labels = classifier.predict(features, region=window, should_stop=stop)
            if snapshot.exclusion is not None:
                labels[snapshot.exclusion[window]] = 0
            return labels

        _, height, width = snapshot.features.shape
        if visible is not None and height * width > _PREVIEWED:
            self.context.partial(Preview(snapshot.key, visible, predict(visible)))
        labels = predict(_WHOLE)
        fractions = label_fractions(labels, snapshot.exclusion, classifier)
        return Result(labels, fractions, self.given.fingerprint, classifier=classifier)

    def _refined(
        self,
        result: Result,
        snapshot: ImageSnapshot,
        refinement: Refinement,
        visible: Window | None,
    ) -> Result:
        if refinement.is_off:
            return result.unrefined(snapshot.exclusion)
        is_large = result.labels.size > _REFINED_IN_TWO_STEPS
        if visible is not None and is_large and refinement.smooths:
            preview = _preview(result, snapshot, refinement, self.context, visible)
            self.context.partial(preview)
        labels = refine_labels(result, snapshot, refinement, self.context)
        by = result.classifier if refinement.smooths else None
        counted = label_fractions(labels, snapshot.exclusion, by)
        return replace(result, refined=labels, refinement=refinement, fractions=counted)

    def measured(self, done: Sequence[ProcessedImage]) -> Measured:
        """Return the fractions of all that have a result."""
        found = [(one.snapshot, one.result) for one in done if one.result is not None]
        classes = _phases(self.given, (result for _, result in found))
        images = {}
        for number, (snapshot, result) in enumerate(found):
            self.context.progress("Measuring", number, len(found))
            self.context.stop_if_cancelled()
            fractions = snapshot.measured if result is snapshot.result else None
            if not fractions or classes != tuple(p.class_id for p in fractions.phases):
                fractions = phase_fractions_with_error(
                    result.shown, classes, exclusion=snapshot.exclusion
                )
            images[snapshot.key] = fractions
        errors = (f"{one.error}." for one in done if one.error)
        return Measured.of(
            images,
            {snapshot.key: snapshot.name for snapshot, _ in found},
            {snapshot.key: snapshot.pixel_size for snapshot, _ in found},
            apart=self.given.apart,
            note=" ".join(filter(None, (self.given.note, *errors))),
        )


def _fitted(given: PipelineInput, context: TaskContext) -> PixelClassifier | None:
    """Return the classifier of the training images, or the one that is there."""
    if not given.training:
        return given.classifier
    # A copy, so that the classifier in use never changes under its owner.
    start = copy.copy(given.classifier) or PixelClassifier(tolerance=LIVE_TOLERANCE)
    features = [one.features for one in given.training]
    with reporting(features, context):
        return start.fit(
            features,
            [one.labels for one in given.training],
            exclusion=[one.exclusion for one in given.training],
            should_stop=context.should_stop,
        )


def _is_to_refine(result: Result | None, refinement: Refinement | None) -> bool:
    if refinement is None or result is None:
        return refinement is not None and not refinement.is_off
    return not result.is_refined_by(refinement)


def _preview(
    result: Result,
    snapshot: ImageSnapshot,
    refinement: Refinement,
    context: TaskContext,
    visible: Window,
) -> Preview:
    """Smooth what is on the screen; objects may be cut off, so none are removed."""
    margin = 2 * refinement.radius  # beyond it, hardly anything has a say
    rows, columns = (
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, size in zip(visible, result.labels.shape, strict=True)
    )
    alone = replace(refinement, min_object=0, fill_holes=0)
    labels = refine_labels(result, snapshot, alone, context, window=(rows, columns))
    inner = tuple(
        slice(part.start - around.start, part.stop - around.start)
        for part, around in zip(visible, (rows, columns), strict=True)
    )
    return Preview(snapshot.key, visible, labels[inner])


def _phases(given: PipelineInput, results: Iterable[Result]) -> tuple[int, ...]:
    """Return the classes to measure; those no longer in the list come last."""
    known = {i for result in results for i in result.fractions}
    if given.classifier is not None:
        known |= {int(i) for i in given.classifier.classes}
    listed = [i for i in given.classes if i in known]
    return (*listed, *sorted(known - set(listed)))
