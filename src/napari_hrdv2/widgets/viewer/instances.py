"""The objects of a class as a layer, which follows the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer.camera import (
    look_at,
    on_moved,
    pixel_size_of,
    place,
    plane_metadata,
)

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.core.postprocess.instances import Method
    from napari_hrdv2.session.measurement import Objects
    from napari_hrdv2.widgets.controller import Controller

ROLE = "instances"
JOB = "objects"  # what the side work calls it


class InstanceOverlay(QObject):
    """Splits a class into objects, and shows them until their layer is removed.

    Attributes
    ----------
    layer : Labels or None
        That of the objects that the session knows.
    """

    changed = Signal()

    def __init__(
        self, viewer: napari.components.ViewerModel, controller: Controller
    ) -> None:
        super().__init__(controller)
        self._viewer, self._controller = viewer, controller
        self._session, self._link = controller.session, controller.link
        self.layer: Labels | None = None
        self._asked: tuple[str, int, Method, int] | None = None
        self._end_following: Callable[[], None] | None = None
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self._session.segmentation_changed.connect(self._on_result)
        controller.closing.connect(self._close)

    @property
    def class_id(self) -> int | None:
        """The class that is split, and followed; None if none is."""
        return None if self._asked is None else self._asked[1]

    def split(self, class_id: int, method: Method, min_distance: int) -> None:
        """Find the objects of a class now, and whenever the result changes."""
        current = self._session.current
        if current is None:
            self._session.say("Open an image first.")
            return
        self._asked = (current.key, class_id, method, min_distance)
        if not self._ask():
            self._forget()

    def go_to(self, number: int) -> None:
        """Take the view to an object, and select it in the layer."""
        objects, image = self._session.measurement.objects, self._link.image
        if objects is None or self.layer is None or image is None:
            return
        rows, columns = np.nonzero(objects.labels == number)
        if not rows.size:
            return
        self.layer.selected_label = number
        middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
        radius = max(np.ptp(rows), np.ptp(columns)) / 2 + 1
        point = (*objects.key.plane, *middle)
        look_at(self._viewer, image, point, radius)

    def show_alone(self, alone: bool) -> None:
        """Show the selected object alone, or all."""
        if self.layer is not None:
            self.layer.show_selected_label = alone

    # Asking, and hearing.

    def _ask(self) -> bool:
        assert self._asked is not None
        _, class_id, method, min_distance = self._asked
        try:
            request = self._session.measurement.objects_request(
                class_id,
                method,
                min_distance=min_distance,
                pixel_size=pixel_size_of(self._link.image),
            )
        except ValueError as error:
            self._session.say(str(error))
            return False
        self._controller.side.submit(JOB, request, self._on_objects)
        return True

    def _on_objects(self, answer: Objects) -> None:
        if self._asked is None or self._asked[:2] != (answer.key, answer.class_id):
            return
        if not self._session.measurement.accept(answer):
            return
        self._show(answer)
        self.changed.emit()

    def _on_result(self) -> None:
        """Split what is shown now; not what will be refined in a moment."""
        current = self._session.current
        if self._asked is None:
            return
        if current is None or current.key != self._asked[0]:
            self._forget()  # its layer stays
        elif (
            self._session.phase_fractions() and not self._session.refinement.is_pending
        ):
            self._ask()

    def _forget(self) -> None:
        self._asked = None
        self._controller.side.cancel(JOB)
        self._follow(None)
        self._session.measurement.drop_objects()
        self.changed.emit()

    # The layer.

    def _show(self, objects: Objects) -> None:
        labels = self._shaped(objects)
        layer = self._find_layer(objects)
        if layer is None:
            layer = self._make_layer(objects, labels)
        else:
            layer.data = labels
        layer.editable = False
        self._follow(layer)

    def _shaped(self, objects: Objects) -> NDArray[np.int32]:
        """Return labels with the axes of the image, and one plane along them."""
        ones = (1,) * len(objects.key.plane)
        return objects.labels.reshape(*ones, *objects.labels.shape)

    def _mark(self, objects: Objects) -> dict[str, Any]:
        image = make.id_of(self._viewer, self._link.image)
        mark = make.mark_of(ROLE, image)
        mark[make.METADATA_KEY] |= {
            "class": objects.class_id,
            "plane": objects.key.plane,
        }
        return mark

    def _find_layer(self, objects: Objects) -> Labels | None:
        mark = self._mark(objects)[make.METADATA_KEY]
        for layer in self._viewer.layers:
            known = layer.metadata.get(make.METADATA_KEY, {})
            if isinstance(layer, Labels) and known == mark:
                return layer
        return None

    def _make_layer(self, objects: Objects, labels: NDArray[np.int32]) -> Labels:
        """Add a layer beneath the scribbles; what is selected stays selected."""
        layers, above = self._viewer.layers, self._link.scribbles
        info = self._session.classes.get(objects.class_id)
        name = f"Class {objects.class_id}" if info is None else info.name
        layer = Labels(
            labels,
            name=f"Instances of {name}",
            metadata=self._mark(objects),
            **plane_metadata(self._link.image, objects.key.plane),
        )
        active = layers.selection.active
        position = layers.index(above) if above in layers else len(layers)
        layers.insert(position, layer)
        layers.selection.active = active
        return layer

    def _follow(self, layer: Labels | None) -> None:
        if self._end_following is not None:
            self._end_following()
            self._end_following = None
        self.layer = layer
        if layer is not None and self._link.image is not None:
            self._end_following = on_moved(self._link.image, self._on_moved)
            self._on_moved()

    def _on_moved(self, event: object = None) -> None:
        image = self._link.image
        if self.layer is not None and image is not None and self._asked is not None:
            place(self.layer, plane_metadata(image, self._asked[0].plane))

    def _on_layer_removed(self, event: object = None) -> None:
        if self.layer is not None and self.layer not in self._viewer.layers:
            self._forget()  # the user wants them no more

    def _close(self) -> None:
        """Let go of the viewer; its layers stay as they are."""
        self._follow(None)
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)
