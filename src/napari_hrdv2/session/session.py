"""The state a user builds up: images, scribbles, classes, features, results."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.cost import Cost
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.files.units import common_size

from .classes import Classes
from .classifier import ClassifierState, PixelSize, named, options_for, seen_size
from .features import FeatureRequest, FeatureResult, FeatureStore
from .guidance import Guidance
from .images import ImageEntry, Images
from .inspection.backbone import Inspection
from .inspection.looking import Looking
from .live import LivePipeline
from .measurement import Measurement
from .pipeline import PipelineInput, PipelineResult, ProcessedImage
from .planes import PlaneKey
from .refinement import RefinementState
from .series import Series
from .snapshots import Scribbles, Stage, Window
from .tasks import compute

if TYPE_CHECKING:
    import numpy as np


class Session:
    """Images on their way from scribbles to segmentations by one classifier.

    A script drives it directly; a window shows it and listens to its signals. Long work
    is split in three, so that a window can do the middle part in another thread: a
    request is taken (such as `train_request`), answered by `session.compute`, and
    handed back (`accept`). One image is current.

    Attributes
    ----------
    images, classes : Images, Classes
        Image entries by key; names and colours by label id.
    guidance, refinement, measurement, inspection, series, live
        Where to paint next; what is done after the classifier; what is measured on the
        results; what the backbone looks at; the classifier for other images; what the
        session is at.

    Examples
    --------
    >>> import numpy as np
    >>> session = Session()
    >>> rows, columns = np.mgrid[:32, :32]
    >>> session.set_image((columns >= 16) * 0.5 + (rows % 2) * 0.1)
    >>> labels = np.zeros((32, 32), np.uint8)
    >>> labels[4:8, 4:8], labels[4:8, 24:28] = 1, 2
    >>> session.set_scribbles(labels)
    True
    >>> session.compute_features()
    >>> session.train()
    >>> session.segmentation[20, [2, 30]].tolist()
    [1, 2]
    """

    progress_changed: ClassVar[Signal] = Signal(str, int, int)

    def __init__(self) -> None:
        self.images, self.classes = Images(), Classes()
        self._classifier = ClassifierState()
        self._features = FeatureStore(self.images)
        self.inspection = Inspection(self.images, self._features)
        self.looking = Looking(self.images)
        self.series = Series(self.images, self._features, self._classifier)
        self.guidance = Guidance(self.images, self.classes, self._classifier)
        self.refinement = RefinementState(self.images, self._classifier)
        self.measurement = Measurement(self.images, self.classes, self.refinement)
        parts = self._features, self._classifier, self.refinement, self.measurement
        self.live = LivePipeline(self.images, self.classes, *parts)
        self.images_changed = self.images.changed
        self.features_changed = self.images.features_changed
        self.segmentation_changed = self.images.segmentation_changed
        self.relabelled = self.images.relabelled
        self.classes_changed = self.classes.changed
        self.options_changed = self._features.options_changed
        self.status_changed = self.live.status_changed

    # What there is.

    @property
    def current(self) -> ImageEntry | None:
        """The image that is worked on."""
        return self.images.current

    @property
    def image(self) -> Any:
        """The (H, W) or (H, W, 3|4) array of the current image, or None."""
        return self.current.image if self.current else None

    @property
    def scribbles(self) -> Scribbles | None:
        """What is painted on the current image."""
        return self.current.scribbles if self.current else None

    @property
    def features(self) -> Any:
        """The high-resolution features of the current image, or None."""
        return self.current.features if self.current else None

    @property
    def segmentation(self) -> NDArray[np.integer[Any]] | None:
        """The (H, W) label ids shown; all 0 after the scribbles ceased to suffice."""
        result = self.current.result if self.current else None
        return result.shown if result else None

    @property
    def options(self) -> FeatureOptions:
        """What the next features are computed with."""
        return self._features.options

    @property
    def options_in_use(self) -> FeatureOptions:
        """The options that the features of the current image were made with."""
        return self._features.options_in_use

    @property
    def classifier(self) -> PixelClassifier | None:
        """The classifier of the scribbles, or of a file."""
        return self._classifier.classifier

    @property
    def classifier_fingerprint(self) -> bytes:
        """Of the scribbles that the classifier was fitted to."""
        return self._classifier.fingerprint

    @property
    def is_loaded(self) -> bool:
        """Whether the classifier came from a file, not from the scribbles."""
        return self._classifier.is_loaded

    @property
    def status(self) -> str:
        """What is going on and what to do next."""
        return self.live.status

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by going on to another image."""
        return self.current is None or self.current.is_untouched

    def phase_fractions(self) -> dict[int, float]:
        """Return the fraction of each class in what is shown; empty without one."""
        result = self.current.result if self.current else None
        return dict(result.fractions) if result else {}

    def cost(self) -> Cost:
        """Return passes and memory of the features that the options ask for."""
        if self.current is None:
            raise ValueError("image: there is none yet; open an image first")
        return self._features.cost(self.current)

    def next_step(self) -> str:
        """Return what to do next, in one or two sentences."""
        return self.live.next_step()

    def say(self, text: str) -> None:
        """Set the status, and tell listeners."""
        self.live.say(text)

    # Images, scribbles, classes.

    def set_image(
        self, image: ArrayLike | None, key: PlaneKey | str = "image", **about: Any
    ) -> None:
        """Make an (H, W) or (H, W, 3|4) image the current one; None for none.

        With the key of an image that is there, and the same array, that one is current
        again with all it had; with another array it begins anew. `about` are fields of
        `ImageEntry`. What is not one grey or colour image raises ValueError.
        """
        if self.images.show(image, key, **about):
            self._features.set_options(replace(self.options, value_range=None))
        self._classifier.drop_answers()
        self.features_changed.emit()
        self.segmentation_changed.emit()
        self.live.say_next_step()

    def remove_image(self, key: PlaneKey | str) -> None:
        """Give an image up, with its scribbles."""
        was_current = self.images.find(key) is self.current
        self.images.remove(key)
        if was_current:
            self.set_image(None)

    def set_trains(self, key: PlaneKey | str, trains: bool) -> None:
        """Let the scribbles of an image take part in the training, or not."""
        if self.images[key].trains != trains:
            self.images[key].trains = trains
            self.images_changed.emit()

    def set_scribbles(
        self, labels: ArrayLike | Scribbles | None, key: PlaneKey | str | None = None
    ) -> bool:
        """Take the scribbles of an image as they are now; return whether they changed.

        `labels` is an (H, W) int array, 0 where nothing is painted; one that does not
        fit raises ValueError. None: there is nothing to paint on.
        """
        if labels is None and self.images.find(key) is None:
            return False
        entry = self._entry("labels", key)
        changed = entry.set_scribbles(labels)
        self.classes.ensure(entry.class_ids)
        if changed:
            self.images_changed.emit()
        return changed

    def set_exclusion(
        self, mask: ArrayLike | None, key: PlaneKey | str | None = None
    ) -> None:
        """Exclude where an (H, W) mask is set from training, result and fractions.

        A mask that does not fit, or leaves nothing, raises ValueError.
        """
        entry = self._entry("exclusion", key)
        entry.set_exclusion(mask)
        entry.result = None
        self.images_changed.emit()
        self._classifier.drop_answers()  # they show what is excluded now

    def add_class(self) -> int:
        """Add a class and return its id."""
        return self.classes.add()

    def delete_class(self, class_id: int) -> None:
        """Take a class out, and erase its scribbles on all images."""
        self.merge_class(class_id, 0)

    def merge_class(self, class_id: int, into: int) -> None:
        """Make the scribbles of a class those of another one (0: of none)."""
        if class_id not in self.classes:
            raise ValueError(f"class_id: {class_id} is no class")
        if into == class_id or (into and into not in self.classes):
            raise ValueError(f"into: {into} is no other class; 0 erases the scribbles")
        self.images.merge_class(class_id, into)
        self.classes.remove(class_id)
        self.images_changed.emit()

    # Features.

    def configure(self, **changes: Any) -> None:
        """Change fields of `options`; a choice that cannot work raises ValueError."""
        if self._features.configure(**changes) and self.features is not None:
            self.live.say_next_step()

    def note_pixel_sizes(self) -> None:
        """Tell that pixel sizes are others: images may be to be seen otherwise."""
        self.options_changed.emit()
        self.live.say_next_step()

    def feature_request(self, key: PlaneKey | str | None = None) -> FeatureRequest:
        """Return the request for features; an older one's answer will be dropped.

        Those of another than the current image are made as the current one's were. No
        image, or not enough memory, raises ValueError.
        """
        return self._computing(self._features.request(self._entry("image", key)))

    def next_feature_request(
        self, ahead: Iterable[PlaneKey | str] = ()
    ) -> FeatureRequest | None:
        """Return a request for what nobody asked for: painted images, then `ahead`."""
        request = self._features.next_request(ahead)
        return None if request is None else self._computing(request)

    def drop_request(
        self, reason: str = "Cancelled.", key: PlaneKey | str | None = None
    ) -> None:
        """Wait no longer for features of an image, and say why."""
        entry = self.images.find(key)
        if entry is None:
            return
        entry.pending = 0
        if entry is self.current:
            self.say(f"{reason} {self.next_step()}".lstrip())

    def compute_features(self) -> None:
        """Compute the features here and now, for scripts."""
        request: FeatureRequest | None = self.feature_request()
        while request is not None:
            self.accept(compute(request, progress=self.progress_changed.emit))
            request = self.next_feature_request()

    # The pipeline: from scribbles to fractions.

    def train_request(
        self,
        *,
        force: bool = False,
        visible: Window | None = None,
        until: Stage = Stage.SEGMENTATION,
    ) -> PipelineInput | None:
        """Return what to fit and segment, or None if there is nothing to do.

        The status then says what is missing. Scribbles that were trained on before, as
        after an undo, bring their former classifier and exactly the former result.
        `force` trains again although nothing changed, `visible` is segmented first, and
        `until` goes on to refine, and to measure, the current image.
        """
        return self.live.train_request(force=force, visible=visible, until=until)

    def train(self, *, force: bool = False) -> None:
        """Train and segment here and now, for scripts."""
        request = self.train_request(force=force)
        if request is not None:
            self.accept(compute(request))

    def accept(self, answer: FeatureResult | ProcessedImage | PipelineResult) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        if isinstance(answer, FeatureResult):
            return self.live.accept_features(answer)
        return self.live.accept(answer)

    # Classifiers in files.

    def named_classifier(self, given: PixelClassifier | None = None) -> PixelClassifier:
        """Return the classifier with class names and colours; ValueError for none."""
        given = given or self.classifier
        return named(given, self.classes, self._trained_pixel_size())

    def save_classifier(
        self, path: str | os.PathLike[str], given: PixelClassifier | None = None
    ) -> None:
        """Write the classifier, or the one `given`, with class names and colours.

        A path without a suffix gets ``.safetensors``; an older file is replaced whole.
        """
        path = Path(path)
        path = path if path.suffix else path.with_suffix(".safetensors")
        classifier = self.named_classifier(given)
        compute(self.series.with_painted(classifier)).save(path)
        self.say(f"Classifier saved to {path}.")

    def load_classifier(self, path: str | os.PathLike[str]) -> None:
        """Take the classifier of a file; `train_request` then asks to segment by it.

        The options change to those that it was trained with. A file that cannot be used
        here raises ValueError or OSError, and nothing has changed then.
        """
        classifier = PixelClassifier.load(path)
        options = options_for(classifier, self.options)
        options.check()
        self.adopt_classifier(classifier, options)

    def adopt_classifier(
        self, classifier: PixelClassifier, options: FeatureOptions
    ) -> None:
        """Use a classifier from elsewhere, and the options that it needs."""
        self.classes.ensure(
            (int(class_id) for class_id in classifier.classes),
            names=classifier.class_names,
            colors=classifier.class_colors,
        )
        self._classifier.adopt(classifier, self.images.painted())
        self._features.set_options(options)
        if self._classifier.mismatch(self.current):
            self.live.clear_result()
        self.live.say_next_step()

    # Inside.

    def _trained_pixel_size(self) -> PixelSize | None:
        """Return that of the classifier's file, or of what it was trained on."""
        if self.is_loaded and self.classifier is not None:
            return self.classifier.pixel_size
        trained = self.series.labelled() or self.images.painted()
        trained = trained or list(filter(None, [self.current]))
        made = self._classifier.options
        return common_size([seen_size(one, made) for one in trained])

    def _entry(self, argument: str, key: PlaneKey | str | None) -> ImageEntry:
        entry = self.images.find(key)
        if entry is None:
            raise ValueError(f"{argument}: there is no image yet; open an image first")
        return entry

    def _computing(self, request: FeatureRequest) -> FeatureRequest:
        if self.images.find(request.key) is self.current:
            self.say(f"Computing features: {self.cost().text()}.")
        return request
