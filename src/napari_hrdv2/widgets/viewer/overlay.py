"""Overlays: layers derived from an answer about an image entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal

from . import layers, planes

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

_LEAST_OF_VIEW = 0.1  # of the view: where what is looked at takes less, it is zoomed in


class Overlay(QObject):
    """A layer derived from an answer of `side`: asked for, marked, placed, forgotten.

    A subclass asks by `_ask`, shows the answer by `put` or `_add`, and does in
    `_on_removed` what follows when the user removes the layer. It ends with the
    `LayerSync`; its layer stays then.
    """

    changed = Signal()
    role = ""
    """What the mark of the layer says it is."""
    is_flat = False
    """Whether what is drawn on it counts on all planes of a stack."""

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync)
        self._sync, self._side = sync, side
        self._session, self._viewer = sync.session, sync.viewer
        self.layer: Any = None
        self._image: Image | None = None  # that the layer lies on
        self._key: PlaneKey | None = None  # of the entry that was shown last
        self._viewer.layers.events.removed.connect(self._on_layer_removed)
        sync.closing.connect(self._close)

    def _ask(
        self,
        kind: str,
        make_request: Callable[[], Any],
        hear: Callable[[Any], None],
        *,
        hear_failure: Callable[[Exception], None] | None = None,
        silent: bool = False,
    ) -> bool:
        """Ask for an answer; say why, and return False, if there can be none."""
        try:
            request = make_request()
        except ValueError as error:
            if not silent:
                self._session.say(str(error))
            return False
        self._side.submit(kind, request, hear, hear_failure=hear_failure)
        return True

    def _look_at(self, row: float, column: float, radius: float) -> None:
        """Move the view to a part of the image, with the brush in the hand."""
        image, scribbles = self._sync.image, self._sync.scribbles
        if image is not None:
            point = (*self._sync.index, row, column)
            planes.look_at(
                self._viewer, image, point, radius, least_of_view=_LEAST_OF_VIEW
            )
        if scribbles is not None:
            self._viewer.layers.selection.active = scribbles

    def _mark(self, image: Image, **more: Any) -> dict[str, Any]:
        mark = layers.mark_of(self.role, self._sync.layers.id_of(image), **more)
        return {layers.METADATA_KEY: mark}

    def _named(self, title: str, image: Image) -> str:
        return f"{title}: {image.name}"

    def _find(self, kind: type, metadata: dict[str, Any]) -> Any:
        """Return the layer of a kind that has this mark already, or None."""
        mark = metadata[layers.METADATA_KEY]
        for layer in self._viewer.layers:
            if isinstance(layer, kind) and layers.mark_on(layer) == mark:
                return layer
        return None

    def put(
        self,
        kind: type,
        values: NDArray[Any],
        key: PlaneKey,
        *,
        mark: dict[str, Any] | None = None,
        keeps_look: bool = True,
        **look: Any,
    ) -> None:
        """Show (…, H, W) values on their plane, in the layer with the mark if any.

        With ``rgb=True`` they are (H, W, 3).
        """
        image = self._sync.layers.image_of(key)
        if image is None:  # it has gone meanwhile
            return
        ones = (1,) * len(key.plane)
        last = 3 if look.get("rgb") else 2  # axes of a plane
        values = values.reshape(*values.shape[:-last], *ones, *values.shape[-last:])
        look["name"] = self._named(look["name"], image)
        metadata = self._mark(image, **(mark or {}))
        former, self._key = self._find(kind, metadata), key
        if former is not None and keeps_look and former.data.shape == values.shape:
            former.name = look["name"]
            planes.show_values(former, values)
            self._follow(former, image)
            return
        if former is not None:
            self._follow(former, image)
            self._remove()
        look |= self._placement(image, values.ndim + 2 - last)
        data = layers.in_levels(values) if last == 2 else values
        self._add(kind(data, metadata=metadata, **look), image)

    def _add(self, layer: Any, image: Image, *, on_top: bool = False) -> None:
        """Add a layer, beneath the scribbles or on top; what is selected stays so."""
        above = None if on_top else self._sync.scribbles
        layers.insert_beneath(self._viewer, layer, above)
        self._follow(layer, image)

    def _add_shapes(self, image: Image, name: str, **look: Any) -> Any:
        """Add a layer of shapes on top, and return it."""
        look |= self._placement(image, image.ndim)
        layer = Shapes(name=name, metadata=self._mark(image), **look)
        self._add(layer, image, on_top=True)
        return layer

    def _placement(self, image: Image, ndim: int) -> dict[str, Any]:
        """Return what places a layer of so many dimensions on its image."""
        if self.is_flat:
            return layers.flat_metadata(image)
        return layers.plane_metadata(image, self._key.plane if self._key else ())

    def _follow(self, layer: Any, image: Image | None) -> None:
        """Take this as the layer from now on, and move it with its image."""
        if self._image is not None:
            for event in layers.place_events(self._image):
                event.disconnect(self._on_moved)
        self.layer, self._image = layer, None if layer is None else image
        if self._image is not None:
            for event in layers.place_events(self._image):
                event.connect(self._on_moved)
            self._on_moved()

    def _remove(self) -> None:
        layer = self.layer
        self._follow(None, None)
        if layer is not None and layer in self._viewer.layers:
            active = self._viewer.layers.selection.active
            self._viewer.layers.remove(layer)
            if active is not None and active in self._viewer.layers:
                self._viewer.layers.selection.active = active

    def _on_moved(self, event: object = None) -> None:
        if self._image is not None:
            layers.place(self.layer, self._placement(self._image, self.layer.ndim))

    def _on_layer_removed(self, event: Any) -> None:
        if self.layer is not None and self.layer not in self._viewer.layers:
            self._follow(None, None)
            self._on_removed()

    def _on_removed(self) -> None:
        """The user removed the layer."""

    def forget(self) -> None:
        """Take the layer away for good: what it lay on has gone."""
        self._remove()
        self._sync.closing.disconnect(self._close)
        self._close()
        self.deleteLater()

    def _close(self) -> None:
        """Let go of the viewer; its layers stay as they are."""
        self._follow(None, None)
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)


class MapOverlay(Overlay):
    """Maps of one image entry, which stay when another one is chosen.

    They have (H, W) values, or one map for each head.
    """

    def __init__(self, sync: LayerSync, side: SideWork, role: str) -> None:
        super().__init__(sync, side)
        self.role = role

    def _placement(self, image: Image, ndim: int) -> dict[str, Any]:
        if self._key is not None and ndim > image.ndim:
            return layers.heads_metadata(image, self._key.plane)
        return super()._placement(image, ndim)
