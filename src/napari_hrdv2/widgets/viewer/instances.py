"""The objects of a class as a layer, which follows the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_hrdv2.session.classes import default_class

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_hrdv2.core.measure import PixelSize
    from napari_hrdv2.core.postprocess.instances import Method
    from napari_hrdv2.session.measurement import Objects
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

JOB = "objects"  # what the side work calls it


class InstanceOverlay(Overlay):
    """Splits a class into objects, and shows them until their layer is removed."""

    role = "instances"

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self._asked: tuple[PlaneKey, int, Method, int] | None = None
        self._session.segmentation_changed.connect(self._on_result)

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
        if not self._ask_objects():
            self._on_removed()

    def go_to(self, number: int) -> None:
        """Take the view to an object, and select it in the layer."""
        objects, image = self._session.measurement.objects, self._sync.image
        if objects is None or self.layer is None or image is None:
            return
        rows, columns = np.nonzero(objects.labels == number)
        if not rows.size:
            return
        self.layer.selected_label = number
        middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
        radius = max(np.ptp(rows), np.ptp(columns)) / 2 + 1
        planes.look_at(self._viewer, image, (*objects.key.plane, *middle), radius)

    def show_alone(self, alone: bool) -> None:
        """Show the selected object alone, or all."""
        if self.layer is not None:
            self.layer.show_selected_label = alone

    def _ask_objects(self) -> bool:
        assert self._asked is not None
        _, class_id, method, min_distance = self._asked
        measurement, size = self._session.measurement, _pixel_size(self._sync.image)
        return self._ask(
            JOB,
            lambda: measurement.objects_request(
                class_id, method, min_distance=min_distance, pixel_size=size
            ),
            self._on_objects,
        )

    def _on_objects(self, answer: Objects) -> None:
        key, class_id = answer.key, answer.class_id
        if self._asked is None or self._asked[:2] != (key, class_id):
            return
        if self._sync.image is not None and self._session.measurement.accept(answer):
            info = self._session.classes.get(class_id, default_class(class_id))
            mark = {"plane": key.plane, "class": class_id}
            title = f"Instances of {info.name}"
            self._put(Labels, answer.labels, key, mark=mark, name=title)
            if self.layer is not None:
                self.layer.editable = False
            self.changed.emit()

    def _on_result(self) -> None:
        """Split what is shown now; not what will be refined in a moment."""
        current, session = self._session.current, self._session
        if self._asked is None:
            return
        if current is None or current.key != self._asked[0]:
            self._on_removed()  # its layer stays
        elif session.phase_fractions() and not session.refinement.is_pending:
            self._ask_objects()

    def _on_removed(self) -> None:
        """Follow the result no more."""
        self._asked = None
        self._side.cancel(JOB)
        self._follow(None, None)
        self._session.measurement.drop_objects()
        self.changed.emit()


def _pixel_size(image: Image | None) -> PixelSize | None:
    """Return height, width and unit of a pixel, or None if nobody said."""
    size = None if image is None else layers.pixel_size_of(image)
    if image is None or size is None:
        return None
    height, width = (abs(float(side)) for side in image.scale[-2:])
    return (height, width), size[1]
