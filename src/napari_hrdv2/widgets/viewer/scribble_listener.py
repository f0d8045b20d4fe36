"""When the layer of scribbles is worth reading: the hand rests after painting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_hrdv2.widgets.jobs import when_rested

if TYPE_CHECKING:
    from napari.layers import Labels

SETTLE_TIME = 30  # milliseconds without a change after which a stroke is done


class ScribbleListener(QObject):
    """Listens to the layer of scribbles, and says when it is worth reading.

    Attributes
    ----------
    is_wide : bool
        Whether other planes than those that were painted before may have scribbles.
    is_local : bool
        Whether nothing but the plane that is shown was painted.
    """

    settled = Signal()  # the hand rests after painting
    label_selected = Signal(int)  # the brush holds it

    def __init__(self) -> None:
        super().__init__()
        self.layer: Labels | None = None
        self.is_wide = self.is_local = False
        self._timer = when_rested(self, SETTLE_TIME, self.settled)

    def listen(self, layer: Labels | None) -> None:
        """Listen to this layer from now on, and to no other one."""
        if self.layer is not None:
            for events, slot in self._connections(self.layer):
                events.disconnect(slot)
        self.layer, self.is_local = layer, False
        if layer is not None:
            self.is_wide = True  # it may have been painted long ago
            for events, slot in self._connections(layer):
                events.connect(slot)

    def wait(self, event: object = None) -> None:
        """Emit `settled` when nothing more has happened for a while."""
        self._timer.throttle()

    def stop_waiting(self) -> None:
        """Do not emit `settled` for what has happened so far."""
        self._timer.cancel()

    def _connections(self, layer: Labels) -> list[tuple[Any, Any]]:
        events = layer.events
        return [
            (events.paint, self._on_painted),
            (events.set_data, self.wait),  # perhaps an undo, on whatever plane
            (events.data, self._on_replaced),
            (events.selected_label, self._on_label_selected),
        ]

    def _on_painted(self, event: object = None) -> None:
        # Some of these events come before the array is written: read it later.
        if self.layer is not None and self.layer.n_edit_dimensions > 2:
            self.is_wide = True
        self.is_local = True
        self.wait()

    def _on_replaced(self, event: object = None) -> None:
        self.is_wide = True
        self.wait()

    def _on_label_selected(self, event: object = None) -> None:
        if self.layer is not None:
            self.label_selected.emit(int(self.layer.selected_label))
