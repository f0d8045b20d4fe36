"""What is drawn on an image: the rectangles of its exclusion mask, a scale bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Shapes
from qtpy.QtCore import Signal

from napari_hrdv2.core.postprocess import exclusion
from napari_hrdv2.widgets.jobs import when_rested

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.session import ImageEntry
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

NAME = "Exclusion mask"
REST_TIME = 150  # milliseconds for which a rectangle rests before it counts
_ENDS = ("added", "changed", "removed")  # of what may be a long drag
_SHORTEST = 2.0  # pixels; a shorter line is a click
_FACE, _EDGE = "#00000099", "#ffffff"


class ExclusionOverlay(Overlay):
    """Shows the exclusion mask of the session as rectangles, and lets people draw it.

    The session holds the mask; what is drawn is handed over, or shown as it was where
    the session refuses it. A rectangle holds for all planes of a stack: a databar is on
    each. `is_answering` says whether a result for the new mask is on its way, so that
    the former may stay on the screen until then.
    """

    role = "exclusion"
    is_flat = True

    def __init__(
        self, sync: LayerSync, side: SideWork, is_answering: Callable[[], bool]
    ) -> None:
        super().__init__(sync, side)
        self._is_answering = is_answering
        self._offered: tuple[Any, Any] = (None, None)  # an image, and its databar
        self._is_armed = self._is_drawn = self._is_giving = False
        # The masks that were there last: another one came from a project or a script.
        self._seen: WeakKeyDictionary[ImageEntry, Any] = WeakKeyDictionary()
        self._rest = when_rested(self, REST_TIME, self.read)
        sync.images_changed.connect(self.follow)
        self._session.images_changed.connect(self.follow)
        self.follow()

    @property
    def fraction(self) -> float:
        """How much of the current image entry is excluded."""
        current = self._session.current
        if current is None or current.exclusion is None:
            return 0.0
        return float(current.exclusion.mean())

    @property
    def note(self) -> str:
        """What is excluded of the current image, or could be."""
        if self.fraction:
            return f"{self.fraction:.1%} of the image is excluded."
        if (found := self._offered[1]) is None:
            return ""
        there = f"at the bottom (rows {found[0]}–{found[2] - 1})"
        return f"A databar was found {there}: exclude it by <b>Databar</b>."

    def draw(self) -> None:
        """Put the rectangle tool into the user's hand, for one rectangle."""
        image = self._sync.image
        if self._session.current is None or image is None:
            self._session.say("Open an image first.")
            return
        if self.layer is None:
            self._make_layer(image)
        self._is_armed = True
        self.layer.visible = True
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "add_rectangle"
        self._session.say(
            "Drag a rectangle over what is to be excluded, such as a databar."
        )

    def exclude_databar(self) -> None:
        """Exclude the databar at the bottom of the image, if one is found there."""
        current = self._session.current
        found = None if current is None else exclusion.find_databar(current.image)
        if found is None:
            self._session.say("No databar was found; exclude a rectangle instead.")
            return
        if self.layer is None:
            self._make_layer(self._sync.image)
        self.layer.add([exclusion.outline_of(found)], shape_type="rectangle")
        self.read()

    def take_back(self) -> None:
        """Remove the selected rectangle, or the one that was drawn last."""
        if self.layer is None or not self.layer.nshapes:
            return
        is_chosen = self._viewer.layers.selection.active == self.layer
        if not (is_chosen and self.layer.selected_data):
            self.layer.selected_data = {self.layer.nshapes - 1}
        self.layer.remove_selected()

    def read(self) -> None:
        """Exclude what the layer covers now, on all planes; train again."""
        self._rest.cancel()
        current = self._session.current
        if current is None or self.layer is None:
            return
        mask, former = self._covered(current), current.exclusion
        if mask.all():
            error = ValueError("exclusion: this would leave nothing of the image")
            self._sync.refused.emit(error)
            self._show(former)
        else:
            self._exclude(self._family(), mask)
        if self._is_drawn:
            self._is_drawn = False
            self._sync.prepare_scribbles()
        self.changed.emit()

    def follow(self) -> None:
        """Show the mask of the current image; new planes of it get it too."""
        if self._is_giving:
            return
        image, current = self._sync.image, self._session.current
        layer = None if image is None else self._find(Shapes, self._mark(image))
        if (layer, image) != (self.layer, self._image):
            self._follow(layer, image)
        for entry in self._family() if current is not None else ():
            former = self._seen.get(entry)
            if entry.exclusion is not former:  # a project brought it
                self._seen[entry] = entry.exclusion
                self._show(entry.exclusion)
            elif entry not in self._seen:
                self._seen[entry] = None
                if self.layer is not None and not self._covered(entry).all():
                    self._give(entry, self._covered(entry))
        self._look_for_databar()
        self.changed.emit()

    def _look_for_databar(self) -> None:
        """Have it looked for, once after an image was chosen; nothing is excluded."""
        image = None if self._session.current is None else self._session.current.image
        if image is not self._offered[0]:
            self._offered = image, None
            if isinstance(image, np.ndarray):
                self._side.submit(
                    "databar",
                    lambda _: (image, exclusion.unasked_databar(image)),
                    self._offer,
                )

    def _offer(self, answer: tuple[Any, Any]) -> None:
        if answer[0] is self._offered[0]:
            self._offered = answer
            self.changed.emit()

    def _family(self) -> list[ImageEntry]:
        """Return all planes of the stack that is shown, or the one image."""
        current = self._session.current
        return [] if current is None else self._session.images.family(current.key)

    def _exclude(self, family: list[ImageEntry], mask: NDArray[np.bool_]) -> None:
        """Exclude this of all planes; answer the scribbles anew where it is news."""
        changes = [self._give(entry, mask) for entry in family]
        if any(changes) and self._session.current in family:
            self._sync.scribbles_changed.emit()
            if not self._is_answering() and self._session.segmentation is None:
                self._session.segmentation_changed.emit()  # none is to come

    def _give(self, entry: ImageEntry, mask: NDArray[np.bool_]) -> bool:
        """Exclude this of an image entry; return whether it changed."""
        former = entry.exclusion
        if not np.array_equal(mask, np.zeros_like(mask) if former is None else former):
            self._is_giving = True
            try:
                self._session.set_exclusion(mask, entry.key)
            finally:
                self._is_giving = False
        self._seen[entry] = entry.exclusion
        return entry.exclusion is not former

    def _covered(self, entry: ImageEntry) -> NDArray[np.bool_]:
        return exclusion.mask_of(map(np.asarray, self.layer.data), entry.shape)

    def _show(self, mask: NDArray[np.bool_] | None) -> None:
        if self.layer is None and self._sync.image is not None:
            self._make_layer(self._sync.image)
        found = [] if mask is None else exclusion.rectangles_of(mask)
        self.layer.data = []
        if found:
            outlines = [exclusion.outline_of(one) for one in found]
            self.layer.add(outlines, shape_type="rectangle")

    def _make_layer(self, image: Image) -> None:
        width = max(1.0, min(planes.label_shape(image)[-2:]) / 400)
        layer = Shapes(
            ndim=2,
            name=self._named(NAME, image),
            face_color=_FACE,
            edge_color=_EDGE,
            edge_width=width,
            metadata=self._mark(image),
            **self._placement(image, image.ndim),
        )
        layer.current_face_color = _FACE
        layer.current_edge_color = _EDGE
        layer.current_edge_width = width
        self._add(layer, image, on_top=True)

    def _follow(self, layer: Shapes | None, image: Image | None) -> None:
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_shapes)
        super()._follow(layer, image)
        if layer is not None:
            layer.events.data.connect(self._on_shapes)

    def _on_shapes(self, event: Any) -> None:
        if event.action not in _ENDS:  # the mouse has not been let go yet
            return
        if self._is_armed and event.action == "added":
            self._is_armed, self._is_drawn = False, True
        self._rest.throttle()

    def _on_layer_removed(self, event: Any) -> None:
        """Without its layer nothing of an image is excluded, shown or not."""
        mark = layers.mark_on(event.value)
        if mark.get("role") != self.role:
            return
        if self.layer is not None and self.layer not in self._viewer.layers:
            self._follow(None, None)
            self._rest.cancel()
        family = self._session.images.family(mark["image"])
        if family:
            self._exclude(family, np.zeros(family[0].shape, bool))
        self.changed.emit()

    def _close(self) -> None:
        self._rest.cancel()
        super()._close()
        self._sync.images_changed.disconnect(self.follow)


class ScaleBarOverlay(Overlay):
    """Lets the user draw one line, and tells how many pixels it is long."""

    role = "scale bar"
    is_flat = True
    measured = Signal(float)

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        # Inside of its own event, the layer cannot be taken away.
        self._drawn = when_rested(self, 0, self._read)

    def draw(self) -> None:
        """Put the line tool into the user's hand, for one line."""
        image = self._sync.image
        if self._session.current is None or image is None:
            self._session.say("Open an image first.")
            return
        self._remove()
        layer = self._add_shapes(
            image,
            "Scale bar",
            ndim=2,
            edge_color="#ffff00",
            edge_width=max(1.0, min(self._session.current.shape) / 400),
        )
        self._viewer.layers.selection.active = layer
        layer.mode = "add_line"
        layer.events.data.connect(self._on_shapes)
        self._session.say("Drag a line over the scale bar, from end to end.")

    def _on_shapes(self, event: Any) -> None:
        if event.action == "added":
            self._drawn.throttle()

    def _read(self) -> None:
        layer = self.layer
        if layer is None or not layer.nshapes:
            return
        first, last = np.asarray(layer.data[-1], float)[[0, -1]][:, -2:]
        length = float(np.linalg.norm(last - first))
        self._remove()
        self._sync.prepare_scribbles()
        if length < _SHORTEST:
            self._session.say("That was a click: drag a line over the scale bar.")
        else:
            self.measured.emit(length)

    def _close(self) -> None:
        self._drawn.cancel()
        super()._close()
