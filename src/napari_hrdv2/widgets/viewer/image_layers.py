"""The image layers of the viewer: by which ids the session knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_hrdv2.widgets.viewer import layers as make

if TYPE_CHECKING:
    import napari.components

_LIST_EVENTS = ("inserted", "removed", "reordered", "renamed")
_PLACE_EVENTS = ("scale", "translate", "rotate", "shear", "affine", "units")


class ImageLayers(QObject):
    """Watches which images there are, where they lie, and what they show.

    Attributes
    ----------
    ids : dict of Image to str
        All image layers, also those that have just gone until `settled` told so.
    settled : Signal
        Emitted once after layers came, went, or changed name or order.
    replaced, moved, renamed_axes : Signal
        Emitted with the image whose data, place, or axis labels changed.
    """

    settled = Signal()
    replaced = Signal(object)
    moved = Signal(object)
    renamed_axes = Signal(object)

    def __init__(self, viewer: napari.components.ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.ids: dict[Image, str] = {}
        self._listed: list[Image] = []  # when stock was taken last
        # Several layers often arrive together; their order must not matter.
        self._listing = QSignalDebouncer(parent=self)
        self._listing.setTimeout(0)
        self._listing.triggered.connect(self.settled)
        for name in _LIST_EVENTS:
            getattr(viewer.layers.events, name).connect(self._on_list_changed)

    def present(self) -> list[Image]:
        """Return the image layers that are not of our making, bottom first."""
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image)
            and "role" not in layer.metadata.get(make.METADATA_KEY, {})
        ]

    def id_of(self, image: Image) -> str:
        """Return the id of an image, which it keeps from now on."""
        if image not in self.ids:
            known = make.id_of(self._viewer, image)
            if self.find(known) is not None:  # a copy, moved below the original
                known = make.renew_id(image)
            self.ids[image] = known
            for events, slot in self._connections(image):
                events.connect(slot)
        return self.ids[image]

    def find(self, image_id: str) -> Image | None:
        """Return the image with an id, unless it is gone."""
        found = (image for image, known in self.ids.items() if known == image_id)
        return next((image for image in found if image in self._viewer.layers), None)

    def take_stock(self) -> tuple[list[Image], list[str]]:
        """Return the images that came, and the ids of those that went."""
        present = self.present()
        came = [image for image in present if image not in self._listed]
        self._listed = present
        for image in came:
            self.id_of(image)
        gone = [image for image in self.ids if image not in present]
        return came, [self._forget(image) for image in gone]

    def look(self) -> None:
        """Emit `settled` soon, as if something had changed."""
        self._listing.throttle()

    def close(self) -> None:
        """Let go of the viewer."""
        self._listing.cancel()
        for name in _LIST_EVENTS:
            getattr(self._viewer.layers.events, name).disconnect(self._on_list_changed)
        for image in list(self.ids):
            self._forget(image)

    def _forget(self, image: Image) -> str:
        for events, slot in self._connections(image):
            events.disconnect(slot)
        return self.ids.pop(image)

    def _connections(self, image: Image) -> list[tuple[Any, Any]]:
        events = image.events
        placed = [(getattr(events, name), self._on_moved) for name in _PLACE_EVENTS]
        return [
            (events.data, self._on_replaced),
            (events.axis_labels, self._on_axes),
            *placed,
        ]

    def _on_list_changed(self, event: object = None) -> None:
        self._listing.throttle()

    def _on_replaced(self, event: Any) -> None:
        self._tell(self.replaced, event)

    def _on_moved(self, event: Any) -> None:
        self._tell(self.moved, event)

    def _on_axes(self, event: Any) -> None:
        self._tell(self.renamed_axes, event)

    def _tell(self, signal: Any, event: Any) -> None:
        # The event has the layer itself, we may know it by a proxy.
        image = next((one for one in self.ids if one == event.source), None)
        if image is not None:
            signal.emit(image)
