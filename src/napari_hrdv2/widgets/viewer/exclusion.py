"""Rectangles that are left out, such as a databar, as a layer of shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_hrdv2.session.exclusion import mask_of, outline_of, rectangles_of
from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer.camera import flat_metadata, on_moved, place

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.session import ImageEntry
    from napari_hrdv2.widgets.controller import Controller

NAME, ROLE = "Left out", "left out"
REST_TIME = 150  # milliseconds for which a rectangle rests before it counts
_ENDS = ("added", "changed", "removed")  # of what may be a long drag
_FACE, _EDGE = "#00000099", "#ffffff"


class Exclusion(QObject):
    """Leaves what rectangles cover out of training, result and fractions.

    A rectangle holds for all planes of a stack: a databar is on each. The layer shows
    what the session leaves out; one that is removed leaves nothing out.

    Attributes
    ----------
    layer : Shapes or None
        Of the current image.
    """

    changed = Signal()

    def __init__(
        self, viewer: napari.components.ViewerModel, controller: Controller
    ) -> None:
        super().__init__(controller)
        self._viewer, self._controller = viewer, controller
        self._session, self._link = controller.session, controller.link
        self.layer: Shapes | None = None
        self._image: Any = None
        self._is_armed = self._is_drawn = self._is_giving = self._is_refused = False
        self._given: WeakKeyDictionary[ImageEntry, Any] = WeakKeyDictionary()
        self._end_listening: list[Callable[[], None]] = []
        self._rest = QSignalDebouncer(parent=self)
        self._rest.setTimeout(REST_TIME)
        self._rest.triggered.connect(self.read)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self._link.images_changed.connect(self.follow)
        self._session.images_changed.connect(self.follow)
        controller.closing.connect(self._close)
        self.follow()

    @property
    def share(self) -> float:
        """How much of the current picture is left out."""
        current = self._session.current
        if current is None or current.exclusion is None:
            return 0.0
        return float(current.exclusion.mean())

    def draw(self) -> None:
        """Put the rectangle tool into the user's hand, for one rectangle."""
        if self._session.current is None:
            self._session.say("Open an image first.")
            return
        if self.layer is None:
            self._make_layer([])
        assert self.layer is not None
        self._is_armed = True
        self.layer.visible = True
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "add_rectangle"
        self._session.say(
            "Drag a rectangle over what is to be left out, such as a databar."
        )

    def take_back(self) -> None:
        """Remove the rectangles that are selected in the layer, or the last one."""
        if self.layer is None or not self.layer.nshapes:
            return
        is_chosen = self._viewer.layers.selection.active == self.layer
        if not (is_chosen and self.layer.selected_data):
            self.layer.selected_data = {self.layer.nshapes - 1}
        self.layer.remove_selected()

    def read(self) -> None:
        """Leave out what the layer covers now, on all planes; train again."""
        self._rest.cancel()
        current = self._session.current
        if current is None or self.layer is None:
            return
        self._is_refused = False
        changes = [self._give(one) for one in self._family(current.key)]
        if self._is_refused:
            self._take_back_what_covers_all(current.shape)
        if self._is_drawn:
            self._is_drawn = False
            self._link.prepare_scribbles()
        if any(changes):
            self._train()
        self.changed.emit()

    def follow(self) -> None:
        """Show what is left out of the current image; new planes of it get it too."""
        if self._is_giving:
            return
        image, current = self._link.image, self._session.current
        self._listen(None if image is None else self._find_layer(image))
        if current is not None and image is not None:
            for entry in self._family(current.key):
                former = self._given.get(entry)
                if entry.exclusion is not former:  # a project brought it
                    self._adopt(entry)
                elif entry not in self._given:
                    self._given[entry] = None
                    if self.layer is not None:
                        self._give(entry, silent=True)
        self.changed.emit()

    # The session.

    def _family(self, key: str) -> list[ImageEntry]:
        return self._session.images.family(key)

    def _give(self, entry: ImageEntry, *, silent: bool = False) -> bool:
        """Leave out of a picture what the layer covers; return whether it changed."""
        mask = mask_of(self._outlines(), entry.shape)
        former = entry.exclusion
        is_same = not mask.any() if former is None else np.array_equal(mask, former)
        if not is_same:
            self._set(entry, mask, silent=silent)
        self._given[entry] = entry.exclusion
        return entry.exclusion is not former

    def _set(
        self, entry: ImageEntry, mask: NDArray[np.bool_] | None, *, silent: bool
    ) -> None:
        self._is_giving = True
        try:
            self._session.set_exclusion(mask, entry.key)
        except ValueError as error:  # nothing would be left
            if not silent:
                self._is_refused = True
                self._controller.report(error)
        finally:
            self._is_giving = False

    def _take_back_what_covers_all(self, shape: tuple[int, int]) -> None:
        """Remove the last rectangle without which something would be left."""
        outlines = self._outlines()
        numbers = list(reversed(range(len(outlines))))
        last = next(
            (
                number
                for number in numbers
                if not mask_of(outlines[:number] + outlines[number + 1 :], shape).all()
            ),
            numbers[0],  # more than one is too much: the others follow
        )
        self.layer.selected_data = {last}
        self.layer.remove_selected()

    def _adopt(self, entry: ImageEntry) -> None:
        """Show in the layer what the session leaves out."""
        mask = self._given[entry] = entry.exclusion
        outlines = [] if mask is None else [*map(outline_of, rectangles_of(mask))]
        if self.layer is None:
            self._make_layer(outlines)
        else:
            self.layer.data = []
            if outlines:
                self.layer.add(outlines, shape_type="rectangle")

    def _train(self) -> None:
        """Answer the strokes anew; show no result where there can be none."""
        self._controller.train()
        if not self._controller.is_busy and self._session.segmentation is None:
            self._session.segmentation_changed.emit()

    # The layer.

    def _outlines(self) -> list[NDArray[np.float64]]:
        return (
            [] if self.layer is None else [np.asarray(one) for one in self.layer.data]
        )

    def _find_layer(self, image: Any) -> Shapes | None:
        mark = {"role": ROLE, "image": make.id_of(self._viewer, image)}
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes) and _mark_of(layer) == mark:
                return layer
        return None

    def _make_layer(self, outlines: list[NDArray[np.float64]]) -> None:
        """Add the layer on top; what is selected stays selected."""
        image, layers = self._link.image, self._viewer.layers
        active = layers.selection.active
        layer = Shapes(
            outlines or None,
            ndim=2,
            shape_type="rectangle",
            name=NAME,
            face_color=_FACE,
            edge_color=_EDGE,
            edge_width=max(1.0, min(self._session.current.shape) / 400),
            metadata=make.mark_of(ROLE, make.id_of(self._viewer, image)),
            **flat_metadata(image),
        )
        layer.current_face_color, layer.current_edge_color = _FACE, _EDGE
        layers.append(layer)
        if active is not None and active in layers:
            layers.selection.active = active
        self._listen(layer)

    def _listen(self, layer: Shapes | None) -> None:
        image = self._link.image
        if (layer, image) == (self.layer, self._image):
            return
        for end in self._end_listening:
            end()
        self._end_listening, self.layer, self._image = [], layer, image
        if layer is None or image is None:
            return
        layer.events.data.connect(self._on_shapes)
        self._end_listening = [
            partial(layer.events.data.disconnect, self._on_shapes),
            on_moved(image, self._on_moved),
        ]
        self._on_moved()

    def _on_moved(self, event: object = None) -> None:
        if self.layer is not None and self._link.image is not None:
            place(self.layer, flat_metadata(self._link.image))

    def _on_shapes(self, event: Any) -> None:
        if event.action not in _ENDS:  # the mouse has not been let go yet
            return
        if self._is_armed and event.action == "added":
            self._is_armed, self._is_drawn = False, True
        self._rest.throttle()

    def _on_layer_removed(self, event: Any) -> None:
        """A layer that the user removed leaves nothing out."""
        mark = _mark_of(event.value)
        if mark.get("role") != ROLE:
            return
        if self.layer is not None and self.layer not in self._viewer.layers:
            self._listen(None)
            self._rest.cancel()
        family = self._family(str(mark.get("image")))
        for entry in family:
            if entry.exclusion is not None:
                self._set(entry, None, silent=True)
            self._given[entry] = entry.exclusion
        if self._session.current in family:
            self._train()
        self.changed.emit()

    def _close(self) -> None:
        """Let go of the viewer; the layer stays as it is."""
        self._rest.cancel()
        self._listen(None)
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self._link.images_changed.disconnect(self.follow)


def _mark_of(layer: Any) -> dict[str, Any]:
    return dict(layer.metadata.get(make.METADATA_KEY, {}))
