"""Between the viewer's layers and the session: what is painted, what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import Signal
from superqt.utils import QSignalDebouncer

from napari_hrdv2.session.planes import PlaneKey, neighbours
from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer import planes
from napari_hrdv2.widgets.viewer.picture_layers import ImageLayerIndex
from napari_hrdv2.widgets.viewer.stroke_listener import Strokes

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import ArrayLike

    from napari_hrdv2.session import Preview, Session
    from napari_hrdv2.widgets.viewer.planes import Index

SCROLL_TIME = 100  # milliseconds for which a slider rests before its plane is taken
_DIMS_EVENTS = ("current_step", "ndisplay", "order")


class LayerSync(ImageLayerIndex):
    """Finds the image, makes the layers to paint on, and shows the result.

    A plain object beside the dock widget, so that it can still disconnect when the
    widget is gone. Only the main thread calls it. A picture of the session is a flat
    image, or the plane of a stack that the sliders point at; the strokes on all planes
    of a stack lie in one layer.

    Attributes
    ----------
    image : Image or None
        The layer that is being segmented.
    index : tuple of int
        Which plane of it; () for a flat image.
    scribbles, segmentation : Labels or None
        The layers that belong to it.
    """

    images_changed = Signal()
    strokes_changed = Signal()
    label_selected = Signal(int)
    refused = Signal(object)

    def __init__(self, viewer: napari.components.ViewerModel, session: Session) -> None:
        super().__init__(viewer, session)
        self.index: Index = ()
        self.scribbles: Labels | None = None
        self.segmentation: Labels | None = None
        self._travel = (0, 1)  # along which axis and in which direction the user goes
        self._ahead: list[PlaneKey] = []
        self._arrives = self._is_fresh = False
        self._trouble = ""
        self._named: set[str] = set()  # images whose layers were asked for class names
        self._strokes = Strokes()
        self._strokes.settled.connect(self._read_strokes)
        self._strokes.label_selected.connect(self.label_selected)
        self._scrolled = QSignalDebouncer(parent=self)
        self._scrolled.setTimeout(SCROLL_TIME)
        self._scrolled.triggered.connect(self._read_strokes)
        self._images.settled.connect(self._on_layers_settled)
        self._images.replaced.connect(self._on_data_replaced)
        self._images.moved.connect(self._on_moved)
        self._images.renamed_axes.connect(self._on_axes_named)
        for name in _DIMS_EVENTS:
            getattr(viewer.dims.events, name).connect(self._on_scrolled)
        session.segmentation_changed.connect(self._show_segmentation)
        session.classes_changed.connect(self._show_classes)
        self._images.take_stock()
        self._images.look()

    # Which picture is worked on.

    def select_first(self) -> None:
        """Choose the image that the user most likely means: active, or on top."""
        images, active = self.images(), self._viewer.layers.selection.active
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
        self._leave_image()
        self.image = image
        self._travel = (0, 1)
        if image is None:
            self._session.set_image(None)
        else:
            self._images.id_of(image)
            self._show_picture()
        self.images_changed.emit()

    def show_image(self, key: PlaneKey) -> None:
        """Go to a picture: its image, and by the sliders its plane."""
        image = self.layer_of(key)
        if image is None:
            return
        planes.go_to(self._viewer, image, key.plane)
        self.select_image(image)
        self.flush()

    def prepare_scribbles(self) -> None:
        """Make the layer to paint on unless it is there, and arm the brush."""
        entry = self._session.current
        if self.image is None or entry is None:
            return
        layer = self._strokes.layer
        if layer is None or layer not in self._viewer.layers:
            self._strokes.listen(None)
            try:
                self.scribbles = self._made_scribbles(self.image)
            except ValueError as error:
                self.refused.emit(error)
                return
            known, classes = self._images.id_of(self.image), self._session.classes
            if known not in self._named:  # from then on the classes say, not the layer
                self._named.add(known)
                make.take_classes(classes, self.scribbles)
            make.show_classes(self.scribbles, classes)
            self._strokes.listen(self.scribbles)
        make.arm_brush(self._viewer, self.scribbles, entry.shape)
        self._strokes.wait()

    def flush(self) -> None:
        """Read strokes now that may still wait for the hand to rest."""
        self._strokes.stop_waiting()
        self._scrolled.cancel()
        self._read_strokes()

    def select_label(self, class_id: int) -> None:
        """Paint this class from now on."""
        if self.scribbles is not None:
            self.scribbles.selected_label = class_id

    def visible_region(self) -> tuple[slice, slice] | None:
        """Return the rows and columns of the picture that are on the screen."""
        entry = self._session.current
        if self.image is None or entry is None:
            return None
        return planes.visible(self.image, entry.shape)

    def keys_ahead(self) -> list[PlaneKey]:
        """Return the planes that the user may look at next."""
        image, self._ahead = self.image, []
        if image is None or self._session.current is None or not self.index:
            return []
        axis, step = self._travel
        near = neighbours(self.index, planes.sizes(image), axis=axis, step=step)
        try:
            self._ahead = [self.add_entry(image, index) for index in near]
        except ValueError:  # the stack has just become another one
            return []
        return list(self._ahead)

    def may_wait(self, key: PlaneKey) -> bool:
        """Whether a picture's features were begun ahead while others are looked for."""
        current = self._session.current
        if current is None or current.features is not None or current.key == key:
            return False
        entry = self._session.images.find(key)
        return key in self._ahead and (entry is None or not entry.class_ids)

    def show_scribbles(self, key: PlaneKey, labels: ArrayLike) -> Labels:
        """Write the (H, W) strokes of a picture into its layer, made if need be.

        Raises
        ------
        ValueError
            If the picture has no image here, or the labels do not fit it.
        """
        image, index = self.layer_of(key), key.plane
        if image is None:
            raise ValueError(f"key: {key} is no image that is open")
        self.add_entry(image, index)
        changed = self._session.set_scribbles(labels, key)
        layer = self._made_scribbles(image)
        make.write_plane(layer, index, np.asarray(labels))
        if image == self.image and self._strokes.layer is None:
            self.prepare_scribbles()
        if changed:
            self.strokes_changed.emit()
        return layer

    def show_part(self, part: Preview) -> None:
        """Show a part of a result that is there before the rest."""
        current, layer = self._session.current, self.segmentation
        if current is None or layer is None or part.key != current.key:
            return
        if self._fits(layer):
            layer.data[(*self.index, *part.window)] = part.labels
            layer.refresh()

    def close(self) -> None:
        """Let go of the viewer and the session."""
        self._strokes.stop_waiting()
        self._scrolled.cancel()
        self._strokes.listen(None)
        self._images.close()
        for name in _DIMS_EVENTS:
            getattr(self._viewer.dims.events, name).disconnect(self._on_scrolled)
        self._session.segmentation_changed.disconnect(self._show_segmentation)
        self._session.classes_changed.disconnect(self._show_classes)

    # A picture comes to be the current one.

    def _show_picture(self, *, are_new: bool = False, scrolled: bool = False) -> None:
        """Make the plane that is shown current; say so if there can be none."""
        image = self.image
        assert image is not None
        self._trouble = planes.trouble(self._viewer, image)
        if self._trouble:
            self._session.set_image(None)
            self._session.say(self._trouble)
            return
        self.index = planes.shown(self._viewer, image)
        key = PlaneKey(self._images.id_of(image), self.index)
        known = None if are_new else self._session.images.find(key)
        self.segmentation = self._labels_of(image, "segmentation")
        try:
            pixels = planes.pixels(image, self.index) if known is None else known.image
            self._set_pixels(pixels, key, are_new=are_new)
        except ValueError as error:
            self._leave_image()
            self._session.set_image(None)
            self.refused.emit(error)
            return
        self._is_fresh = True
        if self._session.segmentation is not None:
            self._show_segmentation()
        if not scrolled:  # the hand may hold another tool by now
            self._show_classes()
            self.prepare_scribbles()

    def _set_pixels(self, pixels: Any, key: PlaneKey, *, are_new: bool) -> None:
        about, layer = self._about(self.image, self.index), self.segmentation
        about["was_segmented"] = (
            layer is not None and not are_new and bool(np.any(layer.data[self.index]))
        )
        # The session says that its result is gone; one from before is kept.
        self._arrives = not are_new
        try:
            self._session.set_image(pixels, key, **about)
        finally:
            self._arrives = False

    def _leave_image(self) -> None:
        self._strokes.listen(None)
        self.image = self.scribbles = self.segmentation = None
        self.index = ()

    def _on_scrolled(self, event: object = None) -> None:
        if self.image is not None and self.image.ndim > 2:
            self._scrolled.throttle()

    def _follow_view(self) -> None:
        """Take the plane that is shown, where it is another one."""
        image = self.image
        if image is None or image.ndim == 2 or image not in self._viewer.layers:
            return
        former, self._trouble = self._trouble, planes.trouble(self._viewer, image)
        if self._trouble:
            if self._trouble != former:
                self._session.say(self._trouble)
            return
        index, scrolled = planes.shown(self._viewer, image), bool(self._session.current)
        if index == self.index and scrolled:
            if former:
                self._session.say(self._session.next_step())
            return
        for axis, (now, before) in enumerate(zip(index, self.index, strict=False)):
            if now != before:
                self._travel = (axis, 1 if now > before else -1)
        self._show_picture(scrolled=scrolled)
        self.images_changed.emit()

    # Layers come, go and change.

    def _on_layers_settled(self) -> None:
        present = list(self._viewer.layers)
        if self.segmentation is not None and self.segmentation not in present:
            self.segmentation = None
        if self.scribbles is not None and self.scribbles not in present:
            self._strokes.listen(None)
            self.scribbles = None
            self._strokes.wait()
        if self.image is not None and self.image not in present:
            self._leave_image()
            self._session.set_image(None)
        came, gone = self._images.take_stock()
        for image in gone:
            for entry in self._session.images.family(image):
                self._session.remove_image(entry.key)
        if self.image is None:
            self.select_first()
        elif came and self._session.is_idle:
            self.select_image(came[-1])
        for image, known in self._images.ids.items():
            for entry in self._session.images.family(known):
                entry.name = self._about(image, entry.key.plane)["name"]
        self.images_changed.emit()

    def _on_data_replaced(self, image: Image) -> None:
        """Begin anew on other pixels; strokes stay if they still fit."""
        session, former = self._session, self._session.current
        for entry in session.images.family(self._images.id_of(image)):
            if entry is not former:
                session.remove_image(entry.key)
        if image == self.image:
            if self.scribbles is not None and not self._fits(self.scribbles):
                self._strokes.listen(None)
                self.scribbles = None
            self._strokes.is_wide = True
            self._show_picture(are_new=True)
            is_left = former is not None and former is not session.current
            if is_left and session.images.get(former.key) is former:
                session.remove_image(former.key)  # a plane that is there no more
        elif not planes.unnamed(image):
            layer = self._labels_of(image, "scribbles")
            if layer is not None:
                self.read_strokes(image, layer, everywhere=True)
        self.images_changed.emit()

    def _on_axes_named(self, image: Image) -> None:
        for entry in self._session.images.family(self._images.id_of(image)):
            about = self._about(image, entry.key.plane)
            entry.plane, entry.name = about["plane"], about["name"]
        self._on_moved(image)
        if image == self.image:
            self._follow_view()
        self.images_changed.emit()

    def _on_moved(self, image: Image) -> None:
        for role in ("scribbles", "segmentation"):
            make.place_like(self._labels_of(image, role), image)
        for entry in self._session.images.family(self._images.id_of(image)):
            entry.pixel_size = make.pixel_size_of(image)

    # The user paints.

    def _read_strokes(self) -> None:
        former = self._session.current
        self._follow_view()
        current = self._session.current
        if self.image is None or current is None:
            return
        strokes, only = self._strokes, []
        if strokes.is_local:  # perhaps before the slider went on
            only = [current.key, *([former.key] if former else [])]
        everywhere, strokes.is_wide, strokes.is_local = strokes.is_wide, False, False
        try:
            changed = self.read_strokes(
                self.image, self.scribbles, everywhere=everywhere, only=only
            )
        except ValueError as error:
            self.refused.emit(error)
            return
        # Strokes elsewhere may have changed what its result should be.
        if changed or self._is_fresh:
            self._is_fresh = False
            self.strokes_changed.emit()

    # The session has something to show.

    def _show_segmentation(self) -> None:
        result, image, layer = self._session.segmentation, self.image, self.segmentation
        if image is None or self._arrives or (result is None and layer is None):
            return
        if layer is None:
            try:
                layer = self._labels_of(image, "segmentation")
                layer = layer or self._made_segmentation(image, self.scribbles)
            except ValueError as error:
                self.refused.emit(error)
                return
            self.segmentation = layer
        elif not self._fits(layer):
            layer.data = np.zeros(planes.label_shape(image), layer.data.dtype)
            layer.editable = False
        if result is None:
            result = np.zeros(layer.data.shape[-2:], np.uint8)
        make.write_plane(layer, self.index, result)

    def _show_classes(self) -> None:
        for layer in (self.scribbles, self.segmentation):
            make.show_classes(layer, self._session.classes)
