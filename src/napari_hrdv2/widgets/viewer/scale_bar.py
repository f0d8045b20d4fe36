"""The scale bar in an image: a line drawn over it tells its length in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import Signal
from superqt.utils import QSignalDebouncer

from . import layers
from .overlay import Overlay

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

NAME = "Scale bar"
_SHORTEST = 2.0  # pixels; less is a click


class ScaleBarOverlay(Overlay):
    """Lets the user draw one line, and tells how many pixels it is long."""

    role = "scale bar"
    measured = Signal(float)

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        # Inside of its own event, the layer cannot be taken away.
        self._drawn = QSignalDebouncer(parent=self)
        self._drawn.setTimeout(0)
        self._drawn.triggered.connect(self._read)

    def draw(self) -> None:
        """Put the line tool into the user's hand, for one line."""
        image = self._sync.image
        if self._session.current is None or image is None:
            self._session.say("Open an image first.")
            return
        self._remove()
        layer = Shapes(
            ndim=2,
            name=NAME,
            edge_color="#ffff00",
            edge_width=max(1.0, min(self._session.current.shape) / 400),
            metadata=self._mark(image),
            **layers.flat_metadata(image),
        )
        self._add(layer, image, on_top=True)
        self._viewer.layers.selection.active = layer
        layer.mode = "add_line"
        layer.events.data.connect(self._on_shapes)
        self._session.say("Drag a line over the scale bar, from end to end.")

    def _placement(self, image: Image, ndim: int) -> dict[str, Any]:
        return layers.flat_metadata(image)

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
