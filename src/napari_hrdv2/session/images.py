"""The images of a session: which there are, which is current, which train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from psygnal import Signal

from .image_entry import ImageEntry
from .planes import Plane, PlaneKey, as_key


class Images(Mapping[PlaneKey, ImageEntry]):
    """The image entries by key, in the order in which they came."""

    changed: ClassVar[Signal] = Signal()
    """Images came or went, or their scribbles, exclusion masks or features did."""
    features_changed: ClassVar[Signal] = Signal()
    """The current image has other features."""
    segmentation_changed: ClassVar[Signal] = Signal()
    """The current image has another result."""
    relabelled: ClassVar[Signal] = Signal(PlaneKey)
    """The session itself changed the scribbles of the image with this key."""

    def __init__(self) -> None:
        self._entries: dict[PlaneKey, ImageEntry] = {}
        self.current: ImageEntry | None = None
        self._uses = 0

    def __getitem__(self, key: PlaneKey | str) -> ImageEntry:
        return self._entries[as_key(key)]

    def __iter__(self) -> Iterator[PlaneKey]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: PlaneKey | str | None) -> ImageEntry | None:
        """Return the image with this key; the current one for None."""
        return self.current if key is None else self._entries.get(as_key(key))

    def family(self, key: PlaneKey | str) -> list[ImageEntry]:
        """Return all planes of the stack that a key belongs to, or the one image."""
        image = as_key(key).image
        return [one for one in self.values() if one.key.image == image]

    def use(self, entry: ImageEntry) -> None:
        """Note that an image is in use, so that its features stay for longer."""
        self._uses += 1
        entry.last_used = self._uses

    def add(
        self, image: ArrayLike | Plane, key: PlaneKey | str, **about: Any
    ) -> ImageEntry:
        """Take an image in; one that had this key goes."""
        pixels = image if isinstance(image, Plane) else np.asarray(image)
        entry = ImageEntry(as_key(key), pixels, **about)
        self._entries[entry.key] = entry
        self.changed.emit()
        return entry

    def show(
        self, image: ArrayLike | Plane | None, key: PlaneKey | str, **about: Any
    ) -> bool:
        """Make an image the current one; return whether it is another image."""
        former, chosen = self.current, None
        if image is not None:
            chosen = self.find(key)
            if chosen is None or chosen.image is not image:
                chosen = self.add(image, key, **about)
            for name, value in about.items():
                setattr(chosen, name, value)
            self.use(chosen)
        self.current = chosen
        self.changed.emit()
        if former is None or chosen is None or former is chosen:
            return False
        is_plane = bool(former.plane and chosen.plane)
        return not (is_plane and former.key.image == chosen.key.image)

    def remove(self, key: PlaneKey | str) -> None:
        """Give an image up, with its scribbles."""
        entry = self._entries.pop(as_key(key), None)
        if entry is None:
            return
        if entry is self.current:
            self.current = None
        self.changed.emit()

    def merge_class(self, class_id: int, into: int) -> None:
        """Make the scribbles of a class those of another one on all images."""
        for entry in self.values():
            scribbles = entry.scribbles
            if scribbles is not None and class_id in scribbles.class_ids:
                labels = scribbles.labels
                entry.set_scribbles(np.where(labels == class_id, into, labels))
                self.relabelled.emit(entry.key)

    def painted(self) -> list[ImageEntry]:
        """Return the images whose scribbles take part in the training."""
        return [one for one in self.values() if one.trains and one.class_ids]

    def usable(self) -> list[ImageEntry]:
        """Return the painted images that train with the current one's features."""
        return [entry for entry in self.painted() if self.is_usable(entry)]

    def is_usable(self, entry: ImageEntry) -> bool:
        """Whether what is known of an image goes with the current one's features."""
        made, current = entry.options, self.current
        if current is None or current.features is None or current.options is None:
            return False
        if made is None or entry.training_features is None:
            return False
        alike = made.difference(current.options) is None
        channels = entry.training_features.shape[0]
        return alike and bool(channels == current.features.shape[0])
