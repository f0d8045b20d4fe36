"""What the user has before him: pictures, classes, options, and a status line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session.classes import Classes
from napari_hrdv2.session.cost import Cost, estimate_cost
from napari_hrdv2.session.images import Images
from napari_hrdv2.session.planes import PlaneKey

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.scribbles import Scribbles


class Desk:
    """Pictures with their strokes, the classes, and the options for features.

    One picture is current: what the desk says of image, strokes, features and
    segmentation is of that one.

    Attributes
    ----------
    pictures : Pictures
        All of them by key, in the order in which they came.
    options : FeatureOptions
    classes : Classes
        Names and colours by label id.
    status : str
        What is going on and what to do next.
    """

    status_changed: ClassVar[Signal] = Signal(str)
    progress_changed: ClassVar[Signal] = Signal(str, int, int)
    options_changed: ClassVar[Signal] = Signal()
    classes_changed: ClassVar[Signal] = Signal()
    images_changed: ClassVar[Signal] = Signal()
    features_changed: ClassVar[Signal] = Signal()
    segmentation_changed: ClassVar[Signal] = Signal()
    relabelled: ClassVar[Signal] = Signal(PlaneKey)
    """The session itself changed the scribbles of the picture with this key."""

    def __init__(self) -> None:
        self.images = Images()
        self.images.changed.connect(self.images_changed.emit)
        self.options = FeatureOptions()
        self.classes = Classes()
        self.classes.changed.connect(self.classes_changed.emit)
        self.status = "Open an image to begin."

    @property
    def current(self) -> ImageEntry | None:
        """The picture that is worked on."""
        return self.images.current

    @property
    def image(self) -> Any:
        """The (H, W) or (H, W, 3|4) array of the current picture, or None."""
        return self.current.image if self.current else None

    @property
    def scribbles(self) -> Scribbles | None:
        """What is painted on the current picture."""
        return self.current.scribbles if self.current else None

    @property
    def features(self) -> Any:
        """The high-resolution features of the current picture, or None."""
        return self.current.features if self.current else None

    @property
    def segmentation(self) -> NDArray[np.integer[Any]] | None:
        """The (H, W) label ids shown; all 0 after the strokes ceased to suffice."""
        result = self.current.result if self.current else None
        return result.shown if result else None

    @property
    def options_in_use(self) -> FeatureOptions:
        """The options that the features of the current picture were made with."""
        made = self.current.options if self.current else None
        return made or self.options

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by going on to another image."""
        return self.current is None or not (
            self.current.features is not None
            or self.current.class_ids
            or self.current.pending
        )

    def set_trains(self, key: PlaneKey | str, trains: bool) -> None:
        """Let the strokes of a picture take part in the training, or not."""
        if self.images[key].trains != trains:
            self.images[key].trains = trains
            self.images_changed.emit()

    def set_scribbles(
        self, labels: ArrayLike | None, key: PlaneKey | str | None = None
    ) -> bool:
        """Take the strokes as they are now; return whether they changed.

        Parameters
        ----------
        labels : (H, W) int array or None
            0 where nothing is painted.
        key : PlaneKey or str, optional
            Of the picture; the current one by default.

        Raises
        ------
        ValueError
            If there is no image, or the labels are of another shape.
        """
        entry = self.images.find(key)
        if entry is None:
            if labels is None:
                return False
            raise ValueError("labels: there is no image yet; choose an image first")
        changed = entry.set_scribbles(labels)
        self.classes.ensure(entry.class_ids)
        if changed:
            self.images_changed.emit()
        return changed

    def set_exclusion(
        self, mask: ArrayLike | None, key: PlaneKey | str | None = None
    ) -> None:
        """Leave a part of a picture out of training, result and shares.

        Parameters
        ----------
        mask : (H, W) bool array or None
        key : PlaneKey or str, optional
            Of the picture; the current one by default.

        Raises
        ------
        ValueError
            If there is no image, or the mask does not fit or leaves nothing.
        """
        entry = self.images.find(key)
        if entry is None:
            raise ValueError("exclusion: there is no image yet; choose an image first")
        entry.set_exclusion(mask)
        entry.result = None
        self.images_changed.emit()

    def add_class(self) -> int:
        """Add a class and return its id."""
        return self.classes.add()

    def delete_class(self, class_id: int) -> None:
        """Take a class out, and erase its strokes on all pictures."""
        self.merge_class(class_id, 0)

    def merge_class(self, class_id: int, into: int) -> None:
        """Make the strokes of a class those of another one (0: of none).

        Raises
        ------
        ValueError
            If one of them is no class, or both are the same.
        """
        if class_id not in self.classes:
            raise ValueError(f"class_id: {class_id} is no class")
        if into == class_id or (into and into not in self.classes):
            raise ValueError(f"into: {into} is no other class; 0 erases the strokes")
        for entry in self.images.values():
            scribbles = entry.scribbles
            if scribbles is None or class_id not in scribbles.class_ids:
                continue
            labels = scribbles.labels
            entry.set_scribbles(np.where(labels == class_id, into, labels))
            self.relabelled.emit(entry.key)
        self.classes.remove(class_id)
        self.images_changed.emit()

    def cost(self) -> Cost:
        """Return passes and memory of the features that the options ask for."""
        if self.image is None:
            raise ValueError("image: there is none yet; open an image first")
        return estimate_cost(self.image.shape, self.options)

    def phase_fractions(self) -> dict[int, float]:
        """Return the share of each class in the segmentation; empty without one."""
        result = self.current.result if self.current else None
        return dict(result.fractions) if result else {}

    def say(self, status: str) -> None:
        """Set the status, and tell listeners."""
        self.status = status
        self.status_changed.emit(status)

    def _change_options(self, options: FeatureOptions) -> None:
        if options != self.options:
            self.options = options
            self.options_changed.emit()
