"""What the status says: what there is, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from psygnal import Signal

from napari_hrdv2.core.features.options import FeatureOptions, absolute_range

if TYPE_CHECKING:
    from .classes import Classes
    from .classifier import ClassifierState
    from .features import FeatureStore
    from .image_entry import ImageEntry
    from .images import Images


class Status:
    """The line that says what is going on, or what to do next."""

    changed: ClassVar[Signal] = Signal(str)

    def __init__(
        self,
        images: Images,
        classes: Classes,
        features: FeatureStore,
        classifier: ClassifierState,
    ) -> None:
        self._images, self._classes = images, classes
        self._features, self._classifier = features, classifier
        self.text = "Open an image to begin."

    def say(self, text: str) -> None:
        """Set the text, and tell listeners."""
        self.text = text
        self.changed.emit(text)

    def say_next_step(self) -> None:
        """Say what to do next."""
        self.say(self.next_step())

    def next_step(self) -> str:
        """Return what to do next, in one or two sentences."""
        entry, options = self._images.current, self._features.options
        if entry is None:
            return "Open an image to begin."
        if self._classifier.is_loaded:
            return _with_loaded(entry, options, self._classifier)
        if entry.features is None:
            return _without_features(entry)
        outdated = (entry.options or options).difference(options)
        if outdated:
            made, wanted = outdated
            what = "Features" if entry.result is None else "Result"
            return f"{what} from {made}; press Compute features to use {wanted}."
        return _paint(self._images, entry, self._classes)


def _without_features(entry: ImageEntry) -> str:
    if entry.was_segmented:
        return (
            "The features of this image were given up when you left it; its last "
            "segmentation is shown. Press Compute features to go on."
        )
    if entry.scribbles is None:
        return "Press Compute features. Press Paint to make a scribble layer."
    return "Press Compute features; you can paint meanwhile."


def _paint(images: Images, entry: ImageEntry, classes: Classes) -> str:
    if entry.scribbles is None:
        return "Press Paint to make a scribble layer."
    usable = images.usable()
    painted = sorted({i for one in usable for i in one.class_ids})
    if not painted:
        return "Paint a few scribbles of each class."
    if len(painted) == 1:
        name = classes[painted[0]].name
        return f"Only {name} has scribbles: choose another class and paint it too."
    if entry.result is None:
        return "Segmenting."
    others = [one for one in usable if one is not entry]
    where = "another image" if len(usable) == 1 else f"{len(usable)} images"
    scribbles = f", by the scribbles on {where}" if others else ""
    return f"Segmented{scribbles}. Paint where it is wrong, or save the classifier."


def _with_loaded(
    entry: ImageEntry, options: FeatureOptions, state: ClassifierState
) -> str:
    wanted = f"{options.backbone} with {' and '.join(options.transform_sets)}"
    if entry.features is None:
        return f"The loaded classifier needs features by {wanted}: press Compute."
    mismatch = state.mismatch(entry)
    if mismatch:
        from napari_hrdv2.core.classifier.pixel_classifier import other_channels

        trained = state.classifier.part_options if state.classifier else ()
        if other_channels(trained, entry.features.part_options):
            return mismatch  # computing again would not help
        levels = absolute_range(trained)
        if options.value_range != levels:
            return f"{mismatch} Load it again to take over its grey levels."
        return f"{mismatch} Press Compute features to have them by {wanted}."
    return "Segmented by the loaded classifier. Painting trains a new one."
