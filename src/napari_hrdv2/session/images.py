"""The pictures of a session: which there are, which is current, which train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from psygnal import Signal

from napari_hrdv2.session.image_entry import ImageEntry
from napari_hrdv2.session.planes import Plane, PlaneKey, as_key


class Images(Mapping[PlaneKey, ImageEntry]):
    """The pictures by key, in the order in which they came.

    Attributes
    ----------
    current : Picture or None
        The one that is worked on.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(self) -> None:
        self._pictures: dict[PlaneKey, ImageEntry] = {}
        self.current: ImageEntry | None = None
        self._uses = 0

    def __getitem__(self, key: PlaneKey | str) -> ImageEntry:
        return self._pictures[as_key(key)]

    def __iter__(self) -> Iterator[PlaneKey]:
        return iter(self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def find(self, key: PlaneKey | str | None) -> ImageEntry | None:
        """Return the picture with this key; the current one for None."""
        return self.current if key is None else self._pictures.get(as_key(key))

    def family(self, key: PlaneKey | str) -> list[ImageEntry]:
        """Return all planes of the stack that a key belongs to, or the one image."""
        image = as_key(key).image
        return [one for one in self.values() if one.key.image == image]

    def use(self, entry: ImageEntry) -> None:
        """Note that a picture is in use, so that its features stay for longer."""
        self._uses += 1
        entry.last_used = self._uses

    def add(
        self, image: ArrayLike | Plane, key: PlaneKey | str, **about: Any
    ) -> ImageEntry:
        """Take a picture in; one that had this key goes.

        Raises
        ------
        ValueError
            If the array is not one grey or colour picture.
        """
        pixels = image if isinstance(image, Plane) else np.asarray(image)
        entry = ImageEntry(as_key(key), pixels, **about)
        self._pictures[entry.key] = entry
        self.changed.emit()
        return entry

    def show(
        self, image: ArrayLike | Plane | None, key: PlaneKey | str, **about: Any
    ) -> bool:
        """Make a picture the current one; return whether it is another image.

        With the key of a picture that is there, and the same array, that one is
        current again with all it had. Planes of one stack are one image.
        """
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
        """Give a picture up, with its strokes."""
        entry = self._pictures.pop(as_key(key), None)
        if entry is None:
            return
        if entry is self.current:
            self.current = None
        self.changed.emit()

    def painted(self) -> list[ImageEntry]:
        """Return the pictures whose strokes take part in the training."""
        return [one for one in self.values() if one.trains and one.class_ids]

    def usable(self) -> list[ImageEntry]:
        """Return the painted pictures that train with the current one's features."""
        return [entry for entry in self.painted() if self.is_usable(entry)]

    def is_usable(self, entry: ImageEntry) -> bool:
        """Whether what is known of a picture goes with the current one's features."""
        made, current = entry.options, self.current
        if current is None or current.features is None or current.options is None:
            return False
        if made is None or entry.training_features is None:
            return False
        alike = made.difference(current.options) is None
        channels = entry.training_features.shape[0]
        return alike and bool(channels == current.features.shape[0])
