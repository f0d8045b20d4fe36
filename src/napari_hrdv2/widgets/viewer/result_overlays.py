"""Layers that follow the result: its errors by a truth, and the objects of a class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import Signal

from napari_hrdv2.core.errors import EXPECTED, explained
from napari_hrdv2.session.classes import default_class
from napari_hrdv2.session.measurement import Compared, Objects, Truth, compare_result

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from napari_hrdv2.core.measure import PixelSize
    from napari_hrdv2.core.postprocess.instances import Method
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync


class ResultFollower(Overlay):
    """Asks again whenever the result changes, until its layer is removed.

    What was `_asked` for begins with the key of the image entry.
    """

    job = ""
    """What the side work calls it."""

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self._asked: tuple[PlaneKey, *tuple[Any, ...]] | None = None
        self._session.segmentation_changed.connect(self._on_result)

    def _ask_again(self) -> bool:
        raise NotImplementedError

    def _on_result(self) -> None:
        """Follow what is shown now; not what will be refined in a moment."""
        current, session = self._session.current, self._session
        if self._asked is None:
            return
        if current is None or current.key != self._asked[0]:
            self._on_removed()  # its layer stays
        elif current.is_segmented and not session.refinement.is_pending:
            self._ask_again()

    def _on_removed(self) -> None:
        self._asked = None
        self._side.cancel(self.job)
        self._follow(None, None)
        self.changed.emit()


class ErrorOverlay(ResultFollower):
    """Compares the result with a truth, until the layer of errors is removed."""

    role = "errors"
    job = "comparison"
    refused = Signal(str)

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self.answer: Compared | None = None
        self._choices: dict[str, Any] = {}
        self._without_scribbles = True

    def truth_layers(self) -> list[Labels]:
        """Return the labels layers that may be the truth of the current image."""
        there = self._sync.layers.labels_on(self._sync.image)
        own = (self._sync.scribbles, self._sync.segmentation)
        others = [layer for layer in there if layer not in own]
        return [one for one in others if layers.mark_on(one).get("role") != self.role]

    def compare(
        self,
        truth: Labels | Path,
        *,
        boundary_width: int,
        without_scribbles: bool = True,
        match: Mapping[int, int] | None = None,
    ) -> None:
        """Compare the result with a truth now, and whenever it changes."""
        self._sync.flush()
        current = self._session.current
        if current is None or not current.is_segmented:
            first = "compute features and paint two classes first"
            self.refused.emit(f"There is no result to compare yet: {first}.")
            return
        self._choices = {"boundary_width": boundary_width, "match": match}
        self._without_scribbles = without_scribbles
        self._asked = (current.key, truth)
        self._ask_again()

    def _ask_again(self) -> bool:
        return self._ask(
            self.job, self._request, self._on_compared, hear_failure=self._on_failure
        )

    def _request(self) -> Any:
        """Return the task; the truth of a layer is copied, as it may be painted on."""
        current = self._session.current
        assert self._asked is not None
        assert current is not None
        assert current.result is not None
        _, source = self._asked
        if isinstance(source, Path):
            truth = Truth(source.name, source, {})
        else:
            plane = planes.labels_on_plane(source, self._sync.index, current.shape)
            names = layers.class_names_of(source)
            truth = Truth(source.name, np.array(plane), names)
        drawn = current.scribbles if self._without_scribbles else None
        return partial(
            compare_result,
            result=current.result.shown,
            image_name=current.name or str(current.key),
            truth=truth,
            class_names={i: one.name for i, one in self._session.classes.items()},
            left_out=(current.left_out, None if drawn is None else drawn.labels),
            **self._choices,
        )

    def _on_compared(self, answer: Compared) -> None:
        if self._asked is None or self._sync.image is None:
            return
        current, key = self._session.current, self._asked[0]
        result = None if current is None or current.key != key else current.result
        if result is None or result.shown is not answer.source:
            return
        self.answer = answer
        self.put(Labels, answer.errors, key, mark={"plane": key.plane}, name="Errors")
        if self.layer is not None:
            self.layer.colormap = layers.colormap_of(self._session.classes)
            self.layer.editable = False
        self.changed.emit()

    def _on_failure(self, error: Exception) -> None:
        self._asked = self.answer = None
        self._remove()  # it is of a former result, or another truth
        self.changed.emit()
        if not isinstance(error, EXPECTED):
            raise error  # told by the side work
        self.refused.emit(explained(error))

    def _on_removed(self) -> None:
        self.answer = None
        super()._on_removed()


class InstanceOverlay(ResultFollower):
    """Splits a class into objects, and shows them until their layer is removed."""

    role = "instances"
    job = "objects"

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
        if not self._ask_again():
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

    def _ask_again(self) -> bool:
        assert self._asked is not None
        _, class_id, method, distance = self._asked
        request = partial(
            self._session.measurement.objects_request,
            class_id,
            method,
            min_distance=distance,
            pixel_size=_pixel_size(self._sync.image),
        )
        return self._ask(self.job, request, self._on_objects)

    def _on_objects(self, answer: Objects) -> None:
        key, class_id = answer.key, answer.class_id
        if self._asked is None or self._asked[:2] != (key, class_id):
            return
        if self._sync.image is not None and self._session.measurement.accept(answer):
            info = self._session.classes.get(class_id, default_class(class_id))
            mark = {"plane": key.plane, "class": class_id}
            title = f"Instances of {info.name}"
            self.put(Labels, answer.labels, key, mark=mark, name=title)
            if self.layer is not None:
                self.layer.editable = False
            self.changed.emit()

    def _on_removed(self) -> None:
        super()._on_removed()
        self._session.measurement.drop_objects()


def _pixel_size(image: Image | None) -> PixelSize | None:
    """Return height, width and unit of a pixel, or None if nobody said."""
    size = None if image is None else layers.pixel_size_of(image)
    if image is None or size is None:
        return None
    height, width = (abs(float(side)) for side in image.scale[-2:])
    return (height, width), size[1]
