"""What is seen: the chosen image and what belongs to it, and no other image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_hrdv2.widgets.jobs import when_rested

from . import layers, planes

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from .layer_index import LayerIndex

REMOVED = "(image removed)"


class ChosenView(QObject):
    """Hides the layers of the images that are not chosen, and brings them back.

    What the user hid stays hidden when its image returns; what is shown by hand of
    another image, to compare, stays until the next choice. Layers that belong to no
    image are left alone. `picked` tells which image was chosen in napari's layer list.
    """

    picked = Signal(object)

    def __init__(self, viewer: ViewerModel, index: LayerIndex) -> None:
        super().__init__()
        self._viewer, self._index = viewer, index
        self._image: Image | None = None  # that is shown
        self._hidden: WeakSet[Any] = WeakSet()  # layers that we hid
        self._known: list[Any] = list(viewer.layers)
        self._cameras: WeakKeyDictionary[Image, Any] = WeakKeyDictionary()
        self._clicked: Image | None = None
        # Inside of its own event, napari's selection must not be changed.
        self._later = when_rested(self, 0, self._pick)
        viewer.layers.selection.events.active.connect(self._on_active)

    def show(self, image: Image | None) -> None:
        """Show this image and what belongs to it, as it was left; hide the others."""
        if image == self._image or image is None:
            self._image = image
            self.show_arrived()
            return
        former, self._image = self._image, image
        if not image.visible:  # napari drops the tool of one that is seen already
            image.visible = True
        self._put_beneath(image)
        for layer in self._viewer.layers:
            owner = self._owner(layer)
            if owner == self._index.id_of(image):
                self._unhide(layer)
            elif owner:
                self._hide(layer)
        self._known = list(self._viewer.layers)
        self._move_camera(former, image)

    def show_arrived(self) -> None:
        """Hide what has come since, where it belongs to an image not chosen."""
        former, self._known = self._known, list(self._viewer.layers)
        if self._image not in self._known:
            self._image = None
            return
        chosen = self._index.id_of(self._image)
        for layer in self._known:
            if layer not in former and self._owner(layer) not in ("", chosen):
                self._hide(layer)

    def is_whole(self) -> bool:
        """Whether the chosen image is seen from edge to edge."""
        image = self._image
        if image is None:
            return False
        height, width = planes.label_shape(image)[-2:]
        return planes.visible(image, (height, width)) is None

    def fit(self) -> None:
        """Show the chosen image from edge to edge."""
        if self._image is not None:
            planes.fit(self._viewer, self._image)

    def part_with(self, image_id: str) -> list[Any]:
        """Remove what belonged to an image that has gone; return what is kept.

        What was drawn by hand is kept, hidden, and says so; it comes back with its
        image.
        """
        kept = []
        for layer in list(self._viewer.layers):
            role = layers.mark_on(layer).get("role", "")
            if not role or self._owner(layer) != image_id:
                continue
            is_excluding = role == "exclusion" and layer.nshapes
            if is_excluding or (role == "scribbles" and np.any(layer.data)):
                self._hide(layer)
                name = layer.name.removesuffix(f" {REMOVED}")
                layers.rename(layer, role, f"{name} {REMOVED}")
                kept.append(layer)
            else:
                self._viewer.layers.remove(layer)
        return kept

    def close(self) -> None:
        """Let go of the viewer; what was hidden is seen again."""
        self._later.cancel()
        self._viewer.layers.selection.events.active.disconnect(self._on_active)
        for layer in list(self._viewer.layers):
            self._unhide(layer)

    def _owner(self, layer: Any) -> str:
        """Return the id of the image that a layer is or belongs to, "" for none."""
        mark = layers.mark_on(layer)
        if "role" in mark:
            return str(mark.get("image", ""))
        return self._index.id_of(layer) if isinstance(layer, Image) else ""

    def _put_beneath(self, image: Image) -> None:
        """Move an image that has come back beneath what belongs to it."""
        present, chosen = self._viewer.layers, self._index.id_of(image)
        mine = [present.index(one) for one in present if self._owner(one) == chosen]
        if present.index(image) != min(mine):
            present.move(present.index(image), min(mine))

    def _hide(self, layer: Any) -> None:
        if layer.visible:
            layer.visible = False
            self._hidden.add(layer)

    def _unhide(self, layer: Any) -> None:
        if layer in self._hidden:
            self._hidden.discard(layer)
            layer.visible = True

    def _move_camera(self, former: Image | None, image: Image) -> None:
        """Look at an image as it was left; one of another size is shown whole."""
        camera, size = planes.camera_of(self._viewer), planes.canvas_size(self._viewer)
        if former is not None:
            self._cameras[former] = (camera.center, camera.zoom, size)
        others = self._index.images() if former is None else [former]
        there = planes.extent(image)
        if all(np.allclose(planes.extent(one), there) for one in others):
            return
        center, zoom, former_size = self._cameras.get(image, (None, None, None))
        if former_size == size:
            camera.center, camera.zoom = center, zoom
        else:  # not seen yet, or in a window of another size
            planes.fit(self._viewer, image)

    def _on_active(self, event: Any) -> None:
        # The list also selects when a layer comes or goes; that is nobody's choice.
        is_choice = list(self._viewer.layers) == self._known
        self._clicked = event.value if is_choice else None
        self._later.throttle()

    def _pick(self) -> None:
        clicked, self._clicked = self._clicked, None
        if isinstance(clicked, Image) and clicked in self._index.images():
            self.picked.emit(clicked)
