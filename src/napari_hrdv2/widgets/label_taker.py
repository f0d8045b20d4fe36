"""Labels of the user's own, painted over the scribbles of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels

from napari_hrdv2.core.checks import MOST_CLASSES
from napari_hrdv2.session.batch import scribbles_with

from .viewer import layers
from .viewer.layer_index import fits

if TYPE_CHECKING:
    from napari_hrdv2.session import ImageEntry
    from napari_hrdv2.session.planes import PlaneKey

    from .controller import Controller


class LabelTaker:
    """Finds labels layers that can be scribbles, and paints what they hold."""

    def __init__(self, controller: Controller) -> None:
        self._controller, self._link = controller, controller.link
        self._session = controller.session
        self._counts: WeakKeyDictionary[Labels, int] = WeakKeyDictionary()

    def layers(self) -> list[Labels]:
        """Return labels layers that are not the scribbles themselves."""
        labels = [one for one in self._link.viewer.layers if isinstance(one, Labels)]
        return [one for one in labels if one != self._link.scribbles]

    def offered(self) -> Labels | None:
        """Return the user's layer that may be meant as scribbles, if there is one."""
        image, entry = self._link.image, self._session.current
        if image is None or entry is None or entry.class_ids:
            return None
        for layer in self.layers():
            if "role" in layers.mark_on(layer) or not fits(layer, image):
                continue
            if layer not in self._counts:
                self._counts[layer] = np.unique(np.asarray(layer.data)).size
            if layer.visible and 1 < self._counts[layer] <= MOST_CLASSES + 1:
                return layer
        return None

    def take(self, layer: Labels) -> None:
        """Paint a labels layer over the scribbles of the current image."""
        self._controller.attempt(self._take, layer)

    def _take(self, layer: Labels) -> None:
        current, data = self.current(), np.asarray(layer.data)
        index = current.key.plane
        labels = data[index] if index and data.ndim == len(index) + 2 else data
        told = f"Scribbles taken from {layer.name}."
        self.paint(current.key, labels, told, names=layers.class_names_of(layer))

    def current(self) -> ImageEntry:
        """Return the image that is worked on, or raise ValueError."""
        if self._session.current is None:
            raise ValueError("image: there is none yet; open an image first")
        return self._session.current

    def paint(
        self, key: PlaneKey, labels: Any, told: str, **about: dict[int, str]
    ) -> None:
        """Paint labels over the scribbles of an image, and say so."""
        if key not in self._session.images:
            raise ValueError("labels: their image is no longer open")
        self._link.flush()
        session = self._session
        painted = scribbles_with(session.images, session.classes, key, labels, **about)
        self._link.write_scribbles(key, painted)
        self._controller.train()
        self._session.say(f"{told} Undo brings the former scribbles back.")
