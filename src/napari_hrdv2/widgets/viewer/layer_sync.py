"""Between the viewer's layers and the session: what is painted, what is shown."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_hrdv2.session.planes import PlaneKey, neighbours
from napari_hrdv2.widgets.jobs import when_rested

from . import layers, planes
from .chosen_view import REMOVED, ChosenView
from .layer_index import LayerIndex, fits
from .scribble_listener import ScribbleListener

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import ArrayLike

    from napari_hrdv2.session import Preview, Session

    from .planes import Index

SCROLL_TIME = 100  # milliseconds for which a slider rests before its plane is taken
_DIMS_EVENTS = ("current_step", "ndisplay", "order")


class LayerSync(QObject):
    """Finds the image, makes the layer to paint on, and shows the result.

    It outlives the dock widget, to disconnect after it. `image` is the layer that is
    segmented; the session has no image while that has no plane to work on: in a 3-D
    view, or until an axis has a name. All planes of a stack share one scribble layer.
    """

    images_changed = Signal()
    scribbles_changed = Signal()
    label_selected = Signal(int)
    refused = Signal(object)
    closing = Signal()

    def __init__(self, viewer: ViewerModel, session: Session) -> None:
        super().__init__()
        self.viewer, self.session = viewer, session
        self.layers = LayerIndex(viewer, session)
        self.image: Image | None = None
        self._travel = (0, 1)  # along which axis and in which direction the user goes
        self._ahead: list[PlaneKey] = []
        self._arrives = self._is_fresh = False
        self._trouble = ""
        self._named: set[str] = set()  # images whose layers were asked for class names
        self.view = ChosenView(viewer, self.layers)
        self.view.picked.connect(self.select_image)
        self._listener = ScribbleListener()
        self._listener.settled.connect(self._read_painted)
        self._listener.label_selected.connect(self.label_selected)
        self._scrolled = when_rested(self, SCROLL_TIME, self._read_painted)
        self.layers.settled.connect(self._on_layers_settled)
        self.layers.replaced.connect(self._on_data_replaced)
        self.layers.renamed_axes.connect(self._on_axes_named)
        for name in _DIMS_EVENTS:
            getattr(viewer.dims.events, name).connect(self._on_scrolled)
        session.segmentation_changed.connect(self._show_segmentation)
        session.classes_changed.connect(self._show_classes)
        self.layers.changes()
        self.layers.look()

    @property
    def index(self) -> Index:
        """Which plane of the image is worked on; () for a flat image."""
        current = self.session.current
        return () if current is None else current.key.plane

    @property
    def scribbles(self) -> Labels | None:
        """The layer that is painted on."""
        return self.layers.labels_of(self.image, "scribbles")

    @property
    def segmentation(self) -> Labels | None:
        """The layer that shows the result."""
        return self.layers.labels_of(self.image, "segmentation")

    # Which image entry is worked on.

    def select_first(self) -> None:
        """Choose the image that the user most likely means: active, or on top."""
        images, active = self.layers.images(), self.viewer.layers.selection.active
        flat = [image for image in images if image.ndim == 2]
        if isinstance(active, Image) and active in images:
            self.select_image(active)
        elif images:
            self.select_image((flat or images)[-1])

    def select_image(self, image: Image | None) -> None:
        """Work on this image from now on; make a layer to paint on if it has none."""
        if image == self.image:
            return
        self.flush()
        self._listener.listen(None)
        self.image, self._travel = image, (0, 1)
        if image is None:
            self.session.set_image(None)
        else:
            self.view.show(image)
            self._show_entry(image)
        self.images_changed.emit()

    def show_image(self, key: PlaneKey) -> None:
        """Go to an image entry: its image, and by the sliders its plane."""
        image = self.layers.image_of(key)
        if image is None:
            return
        planes.go_to(self.viewer, image, key.plane)
        self.select_image(image)
        self.flush()

    def prepare_scribbles(self) -> None:
        """Make the layer to paint on unless it is there, and arm the brush."""
        image, entry, layer = self.image, self.session.current, self._listener.layer
        if image is None or entry is None:
            return
        if layer is None or layer not in self.viewer.layers:
            self._listener.listen(None)
            try:
                layer = self.layers.made_labels(image, "scribbles")
            except ValueError as error:
                self.refused.emit(error)
                return
            if entry.key.image not in self._named:  # from then on the classes say
                self._named.add(entry.key.image)
                layers.take_classes(self.session.classes, layer)
            layers.show_classes(layer, self.session.classes)
            self._listener.listen(layer)
        layers.arm_brush(self.viewer, layer, entry.shape)
        self._listener.wait()

    def flush(self) -> None:
        """Read scribbles now that may still wait for the hand to rest."""
        self._listener.stop_waiting()
        self._scrolled.cancel()
        self._read_painted()

    def select_label(self, class_id: int) -> None:
        """Paint this class from now on."""
        if self.scribbles is not None:
            self.scribbles.selected_label = class_id

    def visible_region(self) -> tuple[slice, slice] | None:
        """Return the rows and columns of the image that are on the screen."""
        entry = self.session.current
        if self.image is None or entry is None:
            return None
        # Of an image in levels, napari knows only which parts of a file are seen.
        layer = self._listener.layer if self.image.multiscale else None
        return planes.visible(layer or self.image, entry.shape)

    def keys_ahead(self) -> list[PlaneKey]:
        """Return the planes that the user may look at next."""
        image, index, self._ahead = self.image, self.index, []
        if image is not None and index:
            axis, step = self._travel
            near = neighbours(index, planes.sizes(image), axis=axis, step=step)
            with suppress(ValueError):  # the stack has just become another one
                self._ahead = [self.layers.add_entry(image, one) for one in near]
        return self._ahead

    def may_wait(self, key: PlaneKey) -> bool:
        """Whether an entry's features were begun ahead while others are looked for."""
        current = self.session.current
        if current is None or current.features is not None or current.key == key:
            return False
        entry = self.session.images.find(key)
        return key in self._ahead and (entry is None or not entry.class_ids)

    def unnamed_axes(self) -> list[tuple[int, int]]:
        """Return the axes of the image that must be named first, and their sizes."""
        if self.image is None:
            return []
        sizes = planes.sizes(self.image)
        return [(axis, sizes[axis]) for axis in planes.unnamed(self.image)]

    def name_axis(self, axis: int, name: str) -> None:
        """Say what an axis of the image is."""
        if self.image is not None:
            planes.name_axis(self.image, axis, name)

    def close(self) -> None:
        """Let go of the viewer and the session."""
        self.closing.emit()
        self._listener.stop_waiting()
        self._scrolled.cancel()
        self._listener.listen(None)
        self.view.close()
        self.layers.close()
        for name in _DIMS_EVENTS:
            getattr(self.viewer.dims.events, name).disconnect(self._on_scrolled)
        self.session.segmentation_changed.disconnect(self._show_segmentation)
        self.session.classes_changed.disconnect(self._show_classes)

    def _show_entry(
        self, image: Image, *, are_new: bool = False, scrolled: bool = False
    ) -> None:
        """Make the plane that is shown current; say so if there can be none."""
        session = self.session
        self._trouble = planes.trouble(self.viewer, image)
        if self._trouble:
            self._arrives = not are_new
            session.set_image(None)
            self._arrives = False
            session.say(self._trouble)
            return
        key, layer = self.layers.key_of(image), self.segmentation
        about = self.layers.about(image, key.plane)
        about["was_segmented"] = (layer is not None and not are_new) and bool(
            np.any((layer.data[-1] if layer.multiscale else layer.data)[key.plane])
        )
        known = None if are_new else session.images.find(key)
        # The session says that its result is gone; one from before is kept.
        self._arrives = not are_new
        try:
            pixels = known.image if known else planes.pixels(image, key.plane)
            session.set_image(pixels, key, **about)
        except ValueError as error:
            self._leave_image()
            self.refused.emit(error)
            return
        finally:
            self._arrives = False
        self._is_fresh = True
        if session.segmentation is not None:
            self._show_segmentation()
        if not scrolled:  # the hand may hold another tool by now
            self._show_classes()
            self.prepare_scribbles()

    def _leave_image(self) -> None:
        self._listener.listen(None)
        self.image = None
        self.session.set_image(None)

    def _on_scrolled(self, event: object = None) -> None:
        if self.image is not None and self.image.ndim > 2:
            self._scrolled.throttle()

    def _follow_view(self) -> None:
        """Take the plane that is shown, where it is another one."""
        image = self.image
        if image is None or image.ndim == 2 or image not in self.viewer.layers:
            return
        former, self._trouble = self._trouble, planes.trouble(self.viewer, image)
        self._listener.is_wide |= bool(former or self._trouble)  # strokes cross planes
        if self._trouble:
            if self._trouble != former:
                self.session.say(self._trouble)
            return
        index, scrolled = planes.shown(self.viewer, image), bool(self.session.current)
        if index == self.index and scrolled:
            if former:
                self.session.say(self.session.next_step())
            return
        for axis, (now, before) in enumerate(zip(index, self.index, strict=False)):
            if now != before:
                self._travel = (axis, 1 if now > before else -1)
        self._show_entry(image, scrolled=scrolled)
        self.images_changed.emit()

    # Layers come, go and change.

    def _on_layers_settled(self) -> None:
        session, present = self.session, list(self.viewer.layers)
        if self._listener.layer is not None and self._listener.layer not in present:
            self._listener.listen(None)
            self._listener.wait()
        if self.image is not None and self.image not in present:
            self._leave_image()
        came, gone = self.layers.changes()
        kept = [layer for image_id in gone for layer in self.view.part_with(image_id)]
        for image_id in gone:
            for entry in session.images.family(image_id):
                session.remove_image(entry.key)
        opened = self.viewer.layers.selection.active  # by the user, in napari
        if self.image is None:
            self.select_first()
        elif came and (session.is_idle or opened in came):
            self.select_image(opened if opened in came else came[-1])
        for image in self.layers.ids:
            self.layers.describe(image)
        self.view.show_arrived()
        self.images_changed.emit()
        if kept:
            names = (layer.name.removesuffix(f" {REMOVED}") for layer in kept)
            show_info(f"Kept, hidden: {', '.join(names)}")  # a toast is short

    def _on_data_replaced(self, image: Image) -> None:
        """Begin anew on other pixels; scribbles stay if they still fit."""
        session, former = self.session, self.session.current
        for entry in session.images.family(self.layers.id_of(image)):
            if entry is not former:
                session.remove_image(entry.key)
        if image == self.image:
            layer = self._listener.layer
            if layer is not None and not fits(layer, image):
                self._listener.listen(None)
            self._listener.is_wide = True
            self._show_entry(image, are_new=True)
            kept = former and session.images.get(former.key)
            if former and former is kept is not session.current:
                session.remove_image(former.key)  # a plane that is there no more
        elif not planes.unnamed(image):
            layer = self.layers.labels_of(image, "scribbles")
            if layer is not None:
                self.layers.read_scribbles(image, layer, everywhere=True)
        self.images_changed.emit()

    def _on_axes_named(self, image: Image) -> None:
        self.layers.describe(image)
        if image == self.image:
            self._follow_view()
        self.images_changed.emit()

    # From the layer of scribbles to the session, and back.

    def _read_painted(self) -> None:
        former = self.session.current
        self._follow_view()
        current, listener = self.session.current, self._listener
        if self.image is None or current is None:
            return
        near = [current.key, *([former.key] if former else [])]
        only = near if listener.is_local else []  # perhaps before the slider went on
        about: Any = {"everywhere": listener.is_wide, "only": only}
        listener.is_wide = listener.is_local = False
        try:
            changed = self.layers.read_scribbles(self.image, listener.layer, **about)
        except ValueError as error:
            self.refused.emit(error)
            return
        # Scribbles elsewhere may have changed what its result should be.
        self._is_fresh |= changed
        if changed and self._trouble:
            self.session.say(self._trouble)
        elif self._is_fresh and not self._trouble:
            self._is_fresh = False
            self.scribbles_changed.emit()

    def write_scribbles(self, key: PlaneKey, labels: ArrayLike | None = None) -> None:
        """Write scribbles, or those of the session, into their layer; can be undone."""
        session, layer = self.session, self.layers.scribbles_of(key)
        is_known, changed = layer is not None and key in session.images, False
        if labels is not None:
            image = self.layers.image_of(key)
            if image is None:
                raise ValueError(f"key: {key} is no image that is open")
            self.layers.add_entry(image, key.plane)
            changed = session.set_scribbles(labels, key)
            layer = self.layers.made_labels(image, "scribbles")
        scribbles = session.images[key].scribbles
        if layer is None or scribbles is None:
            return
        layers.write_plane(layer, key.plane, scribbles.labels, undoable=is_known)
        if layer == self.scribbles and self._listener.layer is None:
            self.prepare_scribbles()
        if changed and not is_known:
            self.scribbles_changed.emit()

    # The session has something to show.

    def show_part(self, part: Preview) -> None:
        """Show a part of a result that is there before the rest."""
        current, layer = self.session.current, self.segmentation
        if current is not None and layer is not None and part.key == current.key:
            layers.write_part(layer, part)

    def _show_segmentation(self) -> None:
        result, image = self.session.segmentation, self.image
        if image is None or self._arrives:
            return
        if result is None and self.segmentation is None:
            return
        try:
            layer = self.layers.made_labels(image, "segmentation")
        except ValueError as error:
            self.refused.emit(error)
            return
        if result is None:
            result = np.zeros(layer.data.shape[-2:], np.uint8)
        layers.write_plane(layer, self.index, result)

    def _show_classes(self) -> None:
        for layer in (self._listener.layer, self.segmentation):
            layers.show_classes(layer, self.session.classes)
