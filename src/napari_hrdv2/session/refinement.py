"""How results are refined: settings that can be undone, requests, and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from psygnal import Signal

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.refinement import Refinement

from .classifier import ClassifierState
from .images import ImageEntry, Images
from .pipeline import PipelineInput, ProcessedImage
from .planes import PlaneKey
from .snapshots import ImageSnapshot, Window
from .tasks import compute

_REMEMBERED = 100  # changes that can be undone


@dataclass(frozen=True, eq=False)
class Update:
    """What all images have in common that are measured, or written, together."""

    images: tuple[ImageEntry, ...]  # up to date, or will be by the request
    request: PipelineInput | None  # none where there is nothing to do
    skipped: tuple[ImageEntry, ...]  # outdated, without the features to change that
    in_part: tuple[ImageEntry, ...] = ()  # segmented in some blocks only

    @property
    def targets(self) -> dict[PlaneKey, ImageSnapshot]:
        """What the request will change, by key."""
        targets = () if self.request is None else self.request.targets
        return {one.key: one for one in targets}

    @property
    def note(self) -> str:
        """Which images are skipped, and why, in a sentence or two; "" for none."""
        older, in_part = (
            ", ".join(one.name or str(one.key) for one in some)
            for some in (self.skipped, self.in_part)
        )
        told = older and (
            "Not included, because they are of an older classifier or refined "
            f"otherwise: {older}; show them to bring them up to date."
        )
        more = in_part and (
            "Not included, because they are segmented in part: "
            f"{in_part}; show them and press Segment all."
        )
        return " ".join(filter(None, (told, more)))


class RefinementState:
    """How results are refined; each change can be undone, and none loses the result.

    Examples
    --------
    >>> from napari_hrdv2.session import Session
    >>> session = Session()
    >>> session.refinement.change(smoothing="guided", min_object=20)
    >>> session.refinement.change(min_object=50)
    >>> session.refinement.undo()
    >>> session.refinement.settings.min_object
    20
    """

    changed: ClassVar[Signal] = Signal()
    """The settings are other ones."""

    def __init__(self, images: Images, classifier: ClassifierState) -> None:
        self._images, self._classifier = images, classifier
        self.settings = Refinement()  # off
        self._former: list[Refinement] = []
        self._undone: list[Refinement] = []

    # Settings.

    def change(self, **changes: Any) -> None:
        """Change fields of `settings`; one that cannot be used raises ValueError."""
        settings = replace(self.settings, **changes)
        settings.check()
        if settings != self.settings:
            self._former = [*self._former, self.settings][-_REMEMBERED:]
            self._undone.clear()
            self._set(settings)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._former)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change that was taken back."""
        return bool(self._undone)

    def undo(self) -> None:
        """Take the last change of the settings back."""
        self._step(self._former, self._undone)

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        self._step(self._undone, self._former)

    def to_dict(self) -> dict[str, object]:
        """Return the settings as plain JSON values."""
        return asdict(self.settings)

    def from_dict(self, settings: Mapping[str, Any]) -> None:
        """Take settings that were saved; what is missing is as by default."""
        known = [field.name for field in fields(Refinement)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(
                f"refinement: {', '.join(unknown)} is no setting; there are "
                f"{', '.join(known)}"
            )
        restored = Refinement(**settings)
        try:
            restored.check()
        except TypeError as error:  # text where a number should be
            raise ValueError(f"refinement: {dict(settings)!r}: {error}") from error
        self._former.clear()
        self._undone.clear()
        self._set(restored)

    # The current image.

    @property
    def is_pending(self) -> bool:
        """Whether the result shown is not yet what the settings ask for."""
        return self._pending() is not None

    def request(self, *, visible: Window | None = None) -> PipelineInput | None:
        """Return what there is to do on the current image, or None."""
        entry = self._pending()
        if entry is None or entry.result is None:
            return None
        if self.settings.is_off:
            entry.result = entry.result.unrefined(entry.left_out)
            self._images.segmentation_changed.emit()
            return None
        result = replace(entry.result, classifier=self._classifier_of(entry))
        return PipelineInput(
            (entry.snapshot(result=result),),
            self.settings,
            classifier=result.classifier,
            fingerprint=result.fingerprint,
            shown=entry.key,
            visible=visible,
        )

    def refine(self) -> None:
        """Refine the current result here and now, for scripts."""
        request = self.request()
        if request is not None:
            for done in compute(request).images:
                self.accept(done)

    # All images.

    def update_of(
        self, entries: Iterable[ImageEntry], *, options: FeatureOptions | None = None
    ) -> Update:
        """Return how images come to be segmented and refined alike.

        With `options`, features of whole images that have none are computed on the way.
        """
        state, current = self._classifier, self._images.current
        fingerprint = state.fingerprint
        if state.classifier is None and current is not None and current.result:
            # The others are measured by what is shown.
            fingerprint = current.result.fingerprint
        alike, todo, skipped, in_part = [], [], [], []
        for one in entries:
            result = one.result if one.is_segmented else None
            if result is not None and result.fingerprint != fingerprint:
                result = None
            if result is not None and result.is_refined_by(self.settings):
                alike.append(one)
            elif one.is_in_blocks:
                in_part += [one] if one.is_shown else []
            elif (result and not self.settings.smooths) or state.can_segment(one):
                alike.append(one)
                todo.append(one.snapshot(result=result))
            elif one.is_segmented:
                skipped.append(one)
            elif options and not one.plane and one.features is None:
                alike.append(one)
                todo.append(one.snapshot())
        is_missing = any(o.features is None and o.result is None for o in todo)
        request = PipelineInput(
            tuple(todo),
            self.settings,
            classifier=state.classifier,
            fingerprint=fingerprint,
            options=options if is_missing else None,
        )
        found = tuple(alike), request if todo else None, tuple(skipped), tuple(in_part)
        return Update(*found)

    def accept(self, done: ProcessedImage) -> bool:
        """Take over a result; return False, and change nothing, if it is too old."""
        entry, result = self._images.get(done.key), done.result
        made_of = done.snapshot.features, done.snapshot.exclusion
        if entry is None or result is None or made_of[1] is not entry.left_out:
            return False
        if made_of[0] is not None and made_of[0] is not entry.features:
            return False
        if entry.result is result:
            return True
        if entry.result is not None and entry.result.labels is result.labels:
            is_wanted = result.is_refined_by(self.settings)
        else:  # what was only refined is not of what is there now
            is_new = done.snapshot.result is None
            is_wanted = is_new and self._classifier.accept(done, entry)
        if not is_wanted:
            return False
        entry.result = result
        if entry is self._images.current:
            self._images.segmentation_changed.emit()
        return True

    # Inside.

    def _step(self, source: list[Refinement], target: list[Refinement]) -> None:
        if source:
            target.append(self.settings)
            self._set(source.pop())

    def _set(self, settings: Refinement) -> None:
        self.settings = settings
        self.changed.emit()

    def _pending(self) -> ImageEntry | None:
        """Return the current image if its result is not as the settings say."""
        entry = self._images.current
        if entry is None or entry.result is None or not entry.is_segmented:
            return None
        if entry.result.is_refined_by(self.settings):
            return None
        can_smooth = entry.features is not None and self._classifier_of(entry)
        return entry if can_smooth or not self.settings.smooths else None

    def _classifier_of(self, entry: ImageEntry) -> PixelClassifier | None:
        result = entry.result
        return (result and result.classifier) or self._classifier.classifier
