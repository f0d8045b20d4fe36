"""Between the viewer's layers and the session: what is painted, what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_hrdv2.widgets import layers as make

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.session import PartialResult, Session

_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")

SETTLE_TIME = 30  # milliseconds without a change after which a stroke counts as done


class ViewerLink(QObject):
    """Finds the image, makes the layers to paint on, and shows the result.

    A plain object beside the dock widget, so that it can still disconnect when the
    widget is gone. Only the main thread calls it.

    Attributes
    ----------
    image : Image or None
        The layer that is being segmented.
    scribbles, segmentation : Labels or None
        The layers that belong to it.
    """

    images_changed = Signal()
    strokes_changed = Signal()
    label_selected = Signal(int)
    refused = Signal(object)

    def __init__(self, viewer: napari.components.ViewerModel, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.image: Image | None = None
        self.scribbles: Labels | None = None
        self.segmentation: Labels | None = None
        self._listened: Labels | None = None
        self._known_images: list[Image] = []
        self._keys: dict[Image, str] = {}  # of the images that are pictures
        self._settled = QSignalDebouncer(parent=self)
        self._settled.setTimeout(SETTLE_TIME)
        self._settled.triggered.connect(self._read_strokes)
        self._listing = QSignalDebouncer(parent=self)
        self._listing.setTimeout(0)
        self._listing.triggered.connect(self._on_layers_settled)
        for name in ("inserted", "removed", "reordered", "renamed"):
            getattr(viewer.layers.events, name).connect(self._on_layers_changed)
        session.segmentation_changed.connect(self._show_segmentation)
        session.classes_changed.connect(self._show_classes)
        self._on_layers_changed()

    def images(self) -> list[Image]:
        """Return the image layers of the viewer, bottom first."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def select_first(self) -> None:
        """Choose the image that the user most likely means: active, or on top."""
        active = self._viewer.layers.selection.active
        candidates = [layer for layer in self.images() if layer.ndim == 2]
        if isinstance(active, Image) and active in candidates:
            self.select_image(active)
        elif candidates:
            self.select_image(candidates[-1])
        elif self.images():
            self._session.say(make.not_flat(self.images()[-1]))

    def select_image(self, image: Image | None) -> None:
        """Work on this image from now on; make a layer to paint on if it has none."""
        if image == self.image:
            return
        try:
            pixels = None if image is None else make.pixels_of(image)
        except ValueError as error:
            self.refused.emit(error)
            return
        self._leave_image()
        self.image = image
        if image is not None:
            self._connect_image(image)
        # The session says that its result is gone; a layer from before is kept.
        earlier = None
        if image is not None:
            earlier = make.find_layer(
                self._viewer, "segmentation", image, pixels.shape[:2]
            )
        was_segmented = earlier is not None and bool(np.any(earlier.data))
        self._set_pixels(pixels, was_segmented=was_segmented)
        self.segmentation = earlier
        if self._session.segmentation is not None:
            self._show_segmentation()
        self.prepare_scribbles()
        self.images_changed.emit()

    def prepare_scribbles(self) -> None:
        """Make the layer to paint on unless it is there, and arm the brush."""
        if self.image is None or self._session.image is None:
            return
        shape = self._session.image.shape[:2]
        if self._listened is None or self._listened not in self._viewer.layers:
            self._disconnect_scribbles()
            self._connect_scribbles(
                make.find_layer(self._viewer, "scribbles", self.image, shape)
                or make.make_scribbles(
                    self._viewer, self.image, shape, self._session.classes
                )
            )
        make.arm_brush(self._viewer, self.scribbles, shape)
        self._settled.throttle()

    def flush(self) -> None:
        """Read strokes now that may still wait for the hand to rest."""
        self._settled.cancel()
        self._read_strokes()

    def select_label(self, class_id: int) -> None:
        """Paint this class from now on."""
        if self.scribbles is not None:
            self.scribbles.selected_label = class_id

    def visible_region(self) -> tuple[slice, slice] | None:
        """Return the rows and columns of the picture that are on the screen."""
        if self.image is None or self._session.image is None:
            return None
        (top, left), (bottom, right) = self.image.corner_pixels[:, -2:]
        height, width = self._session.image.shape[:2]
        rows = slice(max(int(top), 0), min(int(bottom) + 1, height))
        columns = slice(max(int(left), 0), min(int(right) + 1, width))
        is_part = (rows.stop - rows.start, columns.stop - columns.start) != (
            height,
            width,
        )
        is_seen = rows.start < rows.stop and columns.start < columns.stop
        return (rows, columns) if is_part and is_seen else None

    def keys_ahead(self) -> list[str]:
        """Return the pictures that the user may look at next."""
        return []

    def show_part(self, part: PartialResult) -> None:
        """Show a part of a result that is there before the rest."""
        current, layer = self._session.current, self.segmentation
        if current is None or layer is None or part.key != current.key:
            return
        layer.data[part.region] = part.segmentation
        layer.refresh()

    def write_scribbles(self, key: str) -> None:
        """Write strokes that the session changed into their layer; can be undone."""
        picture, image = self._session.pictures[key], self._image_of(key)
        if image is None or picture.scribbles is None:
            return
        layer = make.find_layer(self._viewer, "scribbles", image, picture.shape)
        if layer is None:
            return
        labels = picture.scribbles.labels
        places = np.nonzero(layer.data != labels)
        if places[0].size:
            layer.data_setitem(places, labels[places])

    def close(self) -> None:
        """Let go of the viewer and the session."""
        self._settled.cancel()
        self._listing.cancel()
        for name in ("inserted", "removed", "reordered", "renamed"):
            getattr(self._viewer.layers.events, name).disconnect(
                self._on_layers_changed
            )
        self._disconnect_scribbles()
        self._disconnect_image()
        self._session.segmentation_changed.disconnect(self._show_segmentation)
        self._session.classes_changed.disconnect(self._show_classes)

    # Layers come, go and change.

    def _on_layers_changed(self, event: object = None) -> None:
        # Several layers often arrive together; their order must not matter.
        self._listing.throttle()

    def _on_layers_settled(self) -> None:
        present = list(self._viewer.layers)
        if self.segmentation is not None and self.segmentation not in present:
            self.segmentation = None
        if self.scribbles is not None and self.scribbles not in present:
            self._disconnect_scribbles()
            self.scribbles = None
            self._settled.throttle()
        if self.image is not None and self.image not in present:
            self._leave_image()
            self._session.set_image(None)
        for image in [image for image in self._keys if image not in present]:
            self._session.remove_picture(self._keys.pop(image))
        arrived = [i for i in self.images() if i not in self._known_images]
        self._known_images = self.images()
        if self.image is None:
            self.select_first()
        elif arrived and arrived[-1].ndim == 2 and self._session.is_idle:
            self.select_image(arrived[-1])
        self.images_changed.emit()

    def _set_pixels(
        self,
        pixels: NDArray[Any] | None,
        *,
        was_segmented: bool = False,
        are_new: bool = False,
    ) -> None:
        if self.image is None:
            self._session.set_image(None)
            return
        key = self._keys[self.image] = make.id_of(self._viewer, self.image)
        known = self._session.pictures.find(key)
        if known is not None and not are_new:
            pixels = known.image
        self._session.set_image(
            pixels,
            key,
            name=self.image.name,
            source=self.image.source.path,
            pixel_size=make.pixel_size_of(self.image),
            was_segmented=was_segmented,
        )

    def _leave_image(self) -> None:
        self._disconnect_scribbles()
        self._disconnect_image()
        self.image = self.scribbles = self.segmentation = None

    def _connect_image(self, image: Image) -> None:
        image.events.data.connect(self._on_data_replaced)
        for name in _PLACE:
            getattr(image.events, name).connect(self._on_moved)

    def _disconnect_image(self) -> None:
        if self.image is not None:
            self.image.events.data.disconnect(self._on_data_replaced)
            for name in _PLACE:
                getattr(self.image.events, name).disconnect(self._on_moved)

    def _image_of(self, key: str) -> Image | None:
        return next((i for i, known in self._keys.items() if known == key), None)

    def _on_data_replaced(self, event: object = None) -> None:
        """Begin anew on other pixels; strokes stay if they still fit."""
        try:
            pixels = make.pixels_of(self.image)
        except ValueError as error:
            self._leave_image()
            self._session.set_image(None)
            self.refused.emit(error)
        else:
            self._set_pixels(pixels, are_new=True)
            if self.scribbles is not None:
                if self.scribbles.data.shape != pixels.shape[:2]:
                    self._disconnect_scribbles()
                self.prepare_scribbles()
        self.images_changed.emit()

    def _on_moved(self, event: object = None) -> None:
        for layer in (self.scribbles, self.segmentation):
            make.place_like(layer, self.image)
        if self._session.current is not None:
            self._session.current.pixel_size = make.pixel_size_of(self.image)

    # The user paints.

    def _connect_scribbles(self, layer: Labels) -> None:
        self.scribbles = self._listened = layer
        names = make.class_names_of(layer)
        self._session.classes.ensure(names, names=names)
        for name in ("paint", "set_data", "data"):
            getattr(layer.events, name).connect(self._on_painted)
        layer.events.selected_label.connect(self._on_label_selected)

    def _disconnect_scribbles(self) -> None:
        layer, self._listened = self._listened, None
        if layer is None:
            return
        for name in ("paint", "set_data", "data"):
            getattr(layer.events, name).disconnect(self._on_painted)
        layer.events.selected_label.disconnect(self._on_label_selected)

    def _on_painted(self, event: object = None) -> None:
        # Some of these events come before the array is written: read it later.
        self._settled.throttle()

    def _on_label_selected(self, event: object = None) -> None:
        if self.scribbles is not None:
            self.label_selected.emit(int(self.scribbles.selected_label))

    def _read_strokes(self) -> None:
        if self._session.image is None:
            return
        labels = None if self.scribbles is None else np.asarray(self.scribbles.data)
        try:
            changed = self._session.set_scribbles(labels)
        except ValueError as error:
            self.refused.emit(error)
            return
        if changed:
            self.strokes_changed.emit()

    # The session has something to show.

    def _show_segmentation(self) -> None:
        result = self._session.segmentation
        if self.image is None or (result is None and self.segmentation is None):
            return
        if result is None:
            self.segmentation.data[...] = 0
            self.segmentation.refresh()
        elif self.segmentation is None:
            self.segmentation = make.make_segmentation(
                self._viewer, self.image, self.scribbles, result, self._session.classes
            )
        else:
            make.show_segmentation(self.segmentation, result)

    def _show_classes(self) -> None:
        classes = self._session.classes
        for layer in (self.scribbles, self.segmentation):
            if layer is not None:
                layer.colormap = make.colormap_of(classes)
                layer.features = make.name_table(classes)
