"""The state a user builds up: image, strokes, classes, features, result."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.session import classifier_files, recipes
from napari_hrdv2.session.advice import next_step
from napari_hrdv2.session.classes import ClassInfo, default_classes, merged_classes
from napari_hrdv2.session.cost import Cost, estimate_cost
from napari_hrdv2.session.requests import (
    FeatureRequest,
    FeatureResult,
    LoadedBackbone,
    TrainRequest,
    TrainResult,
)
from napari_hrdv2.session.scribbles import Scribbles
from napari_hrdv2.session.settings import FeatureSettings
from napari_hrdv2.session.training import Training
from napari_hrdv2.session.work import compute

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.classifier import PixelClassifier

logger = logging.getLogger(__name__)


class Session:
    """One image on its way from strokes to a segmentation.

    It knows no window: a script drives it directly; a window shows it and listens to
    its signals. Long work is split in three, so that a window can do the middle part
    in another thread: a request is taken (`feature_request`, `train_request`),
    answered by `session.compute`, and the answer is handed back (`accept`).

    Attributes
    ----------
    image : (H, W) or (H, W, 3|4) array or None
    pixel_size : tuple of float and str, or None
    settings : FeatureSettings
    classes : dict of int to ClassInfo
    scribbles : Scribbles or None
    made_with : FeatureSettings
        The settings that the features were made with.
    was_segmented : bool
        Whether a segmentation of this image is left from an earlier visit.
    status : str
        What is going on and what to do next.

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

    status_changed: ClassVar[Signal] = Signal(str)
    progress_changed: ClassVar[Signal] = Signal(str, int, int)
    settings_changed: ClassVar[Signal] = Signal()
    classes_changed: ClassVar[Signal] = Signal()
    features_changed: ClassVar[Signal] = Signal()
    segmentation_changed: ClassVar[Signal] = Signal()

    def __init__(self) -> None:
        self.image: NDArray[Any] | None = None
        self.pixel_size: tuple[float, str] | None = None
        self.settings = FeatureSettings()
        self.classes: dict[int, ClassInfo] = default_classes()
        self.scribbles: Scribbles | None = None
        self.made_with = self.settings
        self.was_segmented = False
        self.status = "Open an image to begin."
        self._training = Training()
        self._loaded: LoadedBackbone | None = None
        self._generation = 0
        self._awaited = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by going on to another image."""
        painted = self.scribbles is not None and bool(self.scribbles.class_ids)
        return self.features is None and not painted and not self._awaited

    @property
    def features(self) -> Any:
        """The high-resolution features of the image, or None."""
        return self._training.features

    @property
    def classifier(self) -> PixelClassifier | None:
        """The classifier of the strokes, or of a file."""
        return self._training.classifier

    @property
    def is_loaded(self) -> bool:
        """Whether the classifier came from a file, not from the strokes."""
        return self._training.is_loaded

    @property
    def segmentation(self) -> NDArray[np.integer[Any]] | None:
        """The (H, W) label ids; all 0 after the strokes ceased to suffice."""
        return self._training.segmentation

    def set_image(
        self,
        image: ArrayLike | None,
        *,
        pixel_size: tuple[float, str] | None = None,
        was_segmented: bool = False,
    ) -> None:
        """Take another image; features, strokes and result of the last one go.

        Of the classes, those stay that were painted or that a loaded classifier has.

        Parameters
        ----------
        image : (H, W) or (H, W, 3|4) array or None
        pixel_size : tuple of float and str, optional
            Length of a pixel's side and its unit.
        was_segmented : bool, optional
            Whether a segmentation of it is left from an earlier visit.

        Raises
        ------
        ValueError
            If the array is not one grey or colour picture.
        """
        array = None if image is None else np.asarray(image)
        if array is not None and not _is_picture(array.shape):
            raise ValueError(
                f"image: shape {array.shape} is not one micrograph; choose a 2-D grey "
                "or RGB image"
            )
        if self.image is not None:
            self._leave_image()
        self.image, self.pixel_size = array, pixel_size
        self.was_segmented = was_segmented
        self.scribbles = None
        self._begin(None)
        self.say(next_step(self))

    def configure(self, **changes: Any) -> None:
        """Change fields of `settings`; a choice that cannot work raises ValueError."""
        settings = replace(self.settings, **changes)
        if settings.backbone != self.settings.backbone:
            settings = replace(settings, value_range=changes.get("value_range"))
        if settings == self.settings:
            return
        settings.check()
        self.settings = settings
        self.settings_changed.emit()
        if self.features is not None:
            self.say(next_step(self))

    def set_scribbles(self, labels: ArrayLike | None) -> bool:
        """Take the strokes as they are now; return whether they changed.

        Parameters
        ----------
        labels : (H, W) int array or None
            0 where nothing is painted.

        Raises
        ------
        ValueError
            If there is no image, or the labels are of another shape.
        """
        former, self.scribbles = self.scribbles, None
        if labels is not None:
            if self.image is None:
                raise ValueError("labels: there is no image yet; choose an image first")
            self.scribbles = Scribbles(np.asarray(labels), self.image.shape[:2])
            self.ensure_classes(self.scribbles.class_ids)
        return getattr(former, "digest", None) != getattr(
            self.scribbles, "digest", None
        )

    def ensure_classes(
        self,
        ids: tuple[int, ...],
        *,
        names: dict[int, str] | None = None,
        colors: dict[int, str] | None = None,
    ) -> None:
        """Add the classes that are missing, and take over names and colours."""
        merged = merged_classes(self.classes, ids, names=names, colors=colors)
        if merged != self.classes:
            self.classes = merged
            self.classes_changed.emit()

    def add_class(self) -> int:
        """Add a class and return its id."""
        class_id = max(self.classes, default=0) + 1
        self.ensure_classes((class_id,))
        return class_id

    def cost(self) -> Cost:
        """Return passes and memory of the features that the settings ask for."""
        if self.image is None:
            raise ValueError("image: there is none yet; open an image first")
        return estimate_cost(self.image.shape, self.settings)

    def feature_request(self) -> FeatureRequest:
        """Return the request for features; an older one's answer will be dropped.

        Raises
        ------
        ValueError
            If there is no image, or not enough memory.
        """
        cost = self.cost()
        if not cost.fits:
            raise ValueError(cost.refusal())
        assert self.image is not None
        self._generation += 1
        self._awaited = True
        self.say(f"Computing features: {cost.text()}.")
        return FeatureRequest(self._generation, self.image, self.settings, self._loaded)

    def drop_request(self, reason: str = "Cancelled.") -> None:
        """Wait no longer for the answer to the last feature request, and say why."""
        self._generation += 1
        self._awaited = False
        self.say(f"{reason} {next_step(self)}")

    def compute_features(self) -> None:
        """Compute the features here and now, for scripts."""
        request = self.feature_request()
        self.accept(compute(request, progress=self.progress_changed.emit))

    def train_request(self, *, force: bool = False) -> TrainRequest | None:
        """Return the next piece of training, or None if there is nothing to do.

        The status then says what is missing. Strokes that were trained on before, as
        after an undo, bring their former classifier and exactly the former result.

        Parameters
        ----------
        force : bool, optional
            Train again although nothing changed.
        """
        strokes, was_loaded = self.scribbles, self.is_loaded
        if strokes is not None and self._training.can_train(strokes, force=force):
            return self._training.request(strokes, force=force)
        request = self._training.request_as_is()
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
            self._loaded = result.loaded
            if result.generation != self._generation:
                return False
            self.made_with, self.was_segmented = result.settings, False
            self._begin(result.features)
            self.say(f"Features are ready. {next_step(self)}")
            return True
        was_loaded = self.is_loaded
        if not self._training.accept(result):
            logger.debug("dropped a segmentation that came too late")
            return False
        self._follow_classifier(was_loaded)
        self.segmentation_changed.emit()
        self.say(next_step(self))
        return True

    def phase_fractions(self) -> dict[int, float]:
        """Return the share of each class in the segmentation; empty without one."""
        return dict(self._training.fractions)

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
        path = classifier_files.save(
            self.classifier, path, classes=self.classes, pixel_size=self.pixel_size
        )
        self.say(f"Classifier saved to {path}.")

    def load_classifier(self, path: str | os.PathLike[str]) -> None:
        """Take the classifier of a file; `train_request` then asks to segment by it.

        If it was trained on features of another recipe, the settings change to that.

        Raises
        ------
        ValueError, OSError
            If the file is not a classifier, or needs features that cannot be made
            here; nothing has changed then.
        """
        classifier, settings = classifier_files.load(path, self.settings)
        ids = tuple(int(class_id) for class_id in classifier.classes)
        self.ensure_classes(
            ids, names=classifier.class_names, colors=classifier.class_colors
        )
        self._training.adopt(classifier, self.scribbles)
        self._change_settings(settings)
        if self.loaded_mismatch():
            self._clear_result()
        self.say(next_step(self))

    def loaded_mismatch(self) -> str:
        """Return why the loaded classifier cannot be used on the features, or ""."""
        return self._training.mismatch()

    def say(self, status: str) -> None:
        """Set the status, and tell listeners."""
        self.status = status
        self.status_changed.emit(status)

    def _begin(self, features: Any) -> None:
        # Answers on the way belong to the image or features given up here.
        self._generation += 1
        self._awaited = False
        self._training.begin(features)
        self.features_changed.emit()
        self.segmentation_changed.emit()

    def _leave_image(self) -> None:
        """Give up what was only meant for the image that there was."""
        self._training.forget_replaced()
        self._change_settings(replace(self.settings, value_range=None))
        kept = set(self.scribbles.class_ids if self.scribbles else ())
        if self.is_loaded and self.classifier is not None:
            kept.update(self.classifier.classes.tolist())
        classes = default_classes() | {i: self.classes[i] for i in sorted(kept)}
        if classes != self.classes:
            self.classes = classes
            self.classes_changed.emit()

    def _clear_result(self) -> None:
        if self._training.clear():
            self.segmentation_changed.emit()

    def _follow_classifier(self, was_loaded: bool) -> None:
        """Take over the grey levels of a loaded classifier, while it is in force."""
        classifier = self.classifier
        if self.is_loaded == was_loaded or classifier is None:
            return
        levels = recipes.value_range(classifier) if self.is_loaded else None
        self._change_settings(replace(self.settings, value_range=levels))

    def _change_settings(self, settings: FeatureSettings) -> None:
        if settings != self.settings:
            self.settings = settings
            self.settings_changed.emit()


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
