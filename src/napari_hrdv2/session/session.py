"""The state a user builds up: pictures, strokes, classes, features, result."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.features.options import FeatureOptions, absolute_range
from napari_hrdv2.session import classifier_files
from napari_hrdv2.session.classifier import ClassifierState
from napari_hrdv2.session.desk import Desk
from napari_hrdv2.session.features import FeatureStore
from napari_hrdv2.session.guidance import Guidance
from napari_hrdv2.session.image_entry import Result
from napari_hrdv2.session.inspection import Inspection
from napari_hrdv2.session.measurement import Measurement
from napari_hrdv2.session.next_step import next_step
from napari_hrdv2.session.refinement import RefinementState
from napari_hrdv2.session.tasks.context import compute
from napari_hrdv2.session.tasks.features import FeatureRequest, FeatureResult

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.training import Region, TrainRequest, TrainResult
    from napari_hrdv2.session.tasks.update import PlaneDone

logger = logging.getLogger(__name__)

# Options that come from a loaded classifier alone: another backbone does not want them.
_OF_A_CLASSIFIER: dict[str, Any] = {
    "value_range": None,
    "boundary": FeatureOptions.boundary,
    "compat": FeatureOptions.compat,
}


class Session(Desk):
    """Pictures on their way from strokes to segmentations by one classifier.

    It knows no window: a script drives it directly; a window shows it and listens to
    its signals. Long work is split in three, so that a window can do
    the middle part in another thread: a request is taken (`feature_request`,
    `train_request`), answered by `session.compute`, and the answer is handed back
    (`accept`).

    Attributes
    ----------
    guiding : Guiding
        Where to paint next, and which strokes to look at again.
    refining : Refining
        What is done after the classifier.
    measuring : Measuring
        What is measured on the results.

    Examples
    --------
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

    def __init__(self) -> None:
        super().__init__()
        self._training = ClassifierState()
        self._feature_store = FeatureStore(self.images)
        self.inspection = Inspection(self, self._feature_store)
        self.guidance = Guidance(self)
        self.refinement = RefinementState(self)
        self.measurement = Measurement(self)

    @property
    def classifier(self) -> PixelClassifier | None:
        """The classifier of the strokes, or of a file."""
        return self._training.classifier

    @property
    def classifier_fingerprint(self) -> bytes:
        """Names the strokes that the classifier was fitted to."""
        return self._training.fingerprint

    @property
    def is_loaded(self) -> bool:
        """Whether the classifier came from a file, not from the strokes."""
        return self._training.is_loaded

    def set_image(
        self, image: ArrayLike | None, key: PlaneKey | str = "image", **about: Any
    ) -> None:
        """Make a picture the current one; None leaves the session without one.

        Parameters
        ----------
        image : (H, W) or (H, W, 3|4) array or None
        key : PlaneKey or str, optional
            By which it is known. With the key of a picture that is there, and the same
            array, that one is current again with all it had; with another array it
            begins anew.
        **about
            ``name``, ``pixel_size``, ``source``, ``plane`` and ``was_segmented`` of
            `Picture`.

        Raises
        ------
        ValueError
            If the array is not one grey or colour picture.
        """
        if self.images.show(image, key, **about):
            self._change_options(replace(self.options, value_range=None))
        self._training.drop_answers()
        self.features_changed.emit()
        self.segmentation_changed.emit()
        self.say(next_step(self))

    def remove_image(self, key: PlaneKey | str) -> None:
        """Give a picture up, with its strokes."""
        was_current = self.images.find(key) is self.current
        self.images.remove(key)
        if was_current:
            self.set_image(None)

    def configure(self, **changes: Any) -> None:
        """Change fields of `options`; a choice that cannot work raises ValueError."""
        options = replace(self.options, **changes)
        if options.backbone != self.options.backbone:
            options = replace(options, **{**_OF_A_CLASSIFIER, **changes})
        if options == self.options:
            return
        options.check()
        self._change_options(options)
        if self.features is not None:
            self.say(next_step(self))

    def set_exclusion(
        self, mask: ArrayLike | None, key: PlaneKey | str | None = None
    ) -> None:
        """Leave a part of a picture out; see `Desk.set_excluded`."""
        super().set_exclusion(mask, key)
        self._training.drop_answers()  # they show what is left out now

    def feature_request(self, key: PlaneKey | str | None = None) -> FeatureRequest:
        """Return the request for features; an older one's answer will be dropped.

        Parameters
        ----------
        key : PlaneKey or str, optional
            Of the picture; the current one by default. The features of another one are
            made as those of the current one were.

        Raises
        ------
        ValueError
            If there is no image, or not enough memory.
        """
        entry = self.images.find(key)
        if entry is None:
            raise ValueError("image: there is none yet; open an image first")
        if entry is not self.current:
            return self._feature_store.request(entry, self.options_in_use)
        request = self._feature_store.request(entry, self.options)
        self.say(f"Computing features: {self.cost().text()}.")
        return request

    def next_feature_request(
        self, ahead: Iterable[PlaneKey | str] = ()
    ) -> FeatureRequest | None:
        """Return a request for features that are wanted though nobody asked, or None.

        Pictures that were painted on come first, then those with the keys `ahead`,
        which the user may look at next.
        """
        request = self._feature_store.next_request(ahead, self.options)
        if request is not None and self.images.find(request.key) is self.current:
            self.say(f"Computing features: {self.cost().text()}.")
        return request

    def drop_request(
        self, reason: str = "Cancelled.", key: PlaneKey | str | None = None
    ) -> None:
        """Wait no longer for features of a picture, and say why."""
        entry = self.images.find(key)
        if entry is None:
            return
        entry.pending = 0
        if entry is self.current:
            self.say(f"{reason} {next_step(self)}")

    def compute_features(self) -> None:
        """Compute the features here and now, for scripts."""
        request: FeatureRequest | None = self.feature_request()
        while request is not None:
            self.accept(compute(request, progress=self.progress_changed.emit))
            request = self.next_feature_request()

    def train_request(
        self, *, force: bool = False, visible: Region | None = None
    ) -> TrainRequest | None:
        """Return the next piece of training, or None if there is nothing to do.

        The status then says what is missing. Strokes that were trained on before, as
        after an undo, bring their former classifier and exactly the former result.

        Parameters
        ----------
        force : bool, optional
            Train again although nothing changed.
        visible : tuple of two slices, optional
            The part of the picture to be segmented first.
        """
        was_loaded, current = self.is_loaded, self.current
        painted, usable = self.images.painted(), self.images.usable()
        if self.features is None and len({i for p in painted for i in p.class_ids}) > 1:
            self._training.drop_answers()  # the fit is of other pictures, and stays
            self.say(next_step(self))
            return None
        if current is not None and self._training.can_train(
            painted, usable, force=force
        ):
            return self._training.request(usable, current, force=force, visible=visible)
        request = self._training.request_as_is(current, visible=visible)
        self._follow_classifier(was_loaded)
        if request is None:
            self._clear_result()
            self.say(next_step(self))
        return request

    def train(self, *, force: bool = False) -> None:
        """Train and segment here and now, for scripts."""
        request = self.train_request(force=force)
        if request is not None:
            self.accept(compute(request))

    def accept(self, result: FeatureResult | TrainResult) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        if isinstance(result, FeatureResult):
            return self._accept_features(result)
        was_loaded = self.is_loaded
        entry = self.images.get(result.key)
        if entry is None or not self._training.accept(result):
            logger.debug("dropped a segmentation that came too late")
            return False
        entry.result = Result(result.segmentation, result.fractions, result.fingerprint)
        self._follow_classifier(was_loaded)
        self.segmentation_changed.emit()
        self.say(next_step(self))
        return True

    def take_result(self, done: PlaneDone) -> bool:
        """Take over the segmentation of a picture that was made beside the screen.

        Return False, and change nothing, if there is none, or if the classifier or what
        is left out are other ones by now.
        """
        entry = self.images.get(done.key)
        if entry is None or done.result is None:
            return False
        if done.fingerprint != self.classifier_fingerprint:
            return False
        if entry.exclusion is not done.exclusion:
            return False
        entry.result = done.result
        self.refinement.remember(entry, done.refinement, done.raw)
        if entry is self.current:
            self.segmentation_changed.emit()
        return True

    def named_classifier(self) -> PixelClassifier:
        """Return the classifier with class names and colours.

        Raises
        ------
        ValueError
            If there is none yet.
        """
        pixel_size = self.current.pixel_size if self.current else None
        return classifier_files.named(self.classifier, self.classes, pixel_size)

    def save_classifier(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier with its class names and colours.

        A path without a suffix gets ``.safetensors``.

        Raises
        ------
        ValueError
            If there is no classifier yet.
        OSError
            If the file cannot be written; an older file is then untouched.
        """
        path = classifier_files.save(self.named_classifier(), path)
        self.say(f"Classifier saved to {path}.")

    def load_classifier(self, path: str | os.PathLike[str]) -> None:
        """Take the classifier of a file; `train_request` then asks to segment by it.

        If it was trained on features by other options, they change to those.

        Raises
        ------
        ValueError, OSError
            If the file is not a classifier, or needs features that cannot be made
            here; nothing has changed then.
        """
        self.adopt_classifier(*classifier_files.load(path, self.options))

    def adopt_classifier(
        self, classifier: PixelClassifier, options: FeatureOptions
    ) -> None:
        """Use a classifier from elsewhere, and the options that it needs."""
        self.classes.ensure(
            (int(class_id) for class_id in classifier.classes),
            names=classifier.class_names,
            colors=classifier.class_colors,
        )
        self._training.adopt(classifier, self.images.painted())
        self._change_options(options)
        if self.loaded_mismatch():
            self._clear_result()
        self.say(next_step(self))

    def loaded_mismatch(self) -> str:
        """Return why the loaded classifier cannot be used on the features, or ""."""
        return self._training.mismatch(self.current)

    def _accept_features(self, result: FeatureResult) -> bool:
        entry = self._feature_store.accept(result)
        if entry is None:
            return False
        self._training.drop_answers()
        if entry is self.current:
            self.features_changed.emit()
            self.segmentation_changed.emit()
            self.say(f"Features are ready. {next_step(self)}")
        return True

    def _clear_result(self) -> None:
        """Show no result where nothing supports one."""
        if not self.is_loaded:
            self._training.give_up_fit()
        entry = self.current
        if entry is None or entry.result is None or not entry.result.fractions:
            return
        if self._training.is_as_loaded(entry) and not self.loaded_mismatch():
            return
        entry.result = Result(np.zeros_like(entry.result.labels), {}, b"")
        self.segmentation_changed.emit()

    def _follow_classifier(self, was_loaded: bool) -> None:
        """Take over the grey levels of a loaded classifier, while it is in force."""
        classifier = self.classifier
        if self.is_loaded == was_loaded or classifier is None:
            return
        parts = classifier.part_options if self.is_loaded else ()
        levels = absolute_range(parts)
        self._change_options(replace(self.options, value_range=levels))
