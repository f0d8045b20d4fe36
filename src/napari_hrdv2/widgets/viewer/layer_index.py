"""Which layers belong to an image: found by their marks."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from napari_hrdv2.session.planes import PlaneKey, text_of
from napari_hrdv2.session.snapshots import Scribbles
from napari_hrdv2.widgets.jobs import when_rested

from . import layers, planes

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_hrdv2.session import Session

    from .planes import Index

_LIST_EVENTS = ("inserted", "removed", "reordered", "renamed")


class LayerIndex(QObject):
    """Finds layers by the marks in their metadata, and watches the image layers.

    Attributes
    ----------
    ids : dict of Image to str
        All image layers, also those that have just gone until `settled` told so.
    settled : Signal
        Emitted once after layers came, went, or changed name or order.
    replaced, renamed_axes : Signal
        Emitted with the image whose data, or axis labels, changed.
    """

    settled = Signal()
    replaced = Signal(object)
    renamed_axes = Signal(object)

    def __init__(self, viewer: ViewerModel, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.ids: dict[Image, str] = {}
        self._listed: list[Image] = []  # at the last `changes`
        # Several layers often arrive together; their order must not matter.
        self._listing = when_rested(self, 0, self.settled)
        for name in _LIST_EVENTS:
            getattr(viewer.layers.events, name).connect(self.look)
        session.options_changed.connect(self._join_channels)

    def images(self) -> list[Image]:
        """Return the image layers that are not of our making, bottom first."""
        images = [one for one in self._viewer.layers if isinstance(one, Image)]
        return [one for one in images if "role" not in layers.mark_on(one)]

    def id_of(self, image: Image) -> str:
        """Return the id of an image, which it keeps from now on."""
        if image not in self.ids:
            known = layers.id_of(self._viewer, image)
            if self.image_of(PlaneKey(known)) is not None:
                known = layers.renew_id(image)  # a copy, moved below the original
            self.ids[image] = known
            layers.look_into_file(image)
            if "channels" not in layers.mark_on(image):
                planes.join_channels(image, self._session.options.channels)
            for events in self._events(image):
                events.connect(self._on_changed)
        return self.ids[image]

    def key_of(self, image: Image) -> PlaneKey:
        """Return the key of an image, of a stack that of the plane shown."""
        return PlaneKey(self.id_of(image), planes.shown(self._viewer, image))

    def image_of(self, key: PlaneKey) -> Image | None:
        """Return the layer that an image entry comes from."""
        found = (image for image, known in self.ids.items() if known == key.image)
        return next((image for image in found if image in self._viewer.layers), None)

    def scribbles_of(self, key: PlaneKey) -> Labels | None:
        """Return the layer with the scribbles of an entry, of a stack with all its."""
        return self.labels_of(self.image_of(key), "scribbles")

    def labels_of(self, image: Image | None, role: str) -> Labels | None:
        """Return the layer that has a role for an image, and fits it."""
        if image is None:
            return None
        mark = layers.mark_of(role, self.id_of(image))
        for layer in self._viewer.layers:  # a duplicate that the user made lies above
            if isinstance(layer, Labels) and fits(layer, image):
                known = layers.mark_on(layer)
                if {name: known.get(name) for name in mark} == mark:
                    return layer
        return None

    def labels_on(self, image: Image | None) -> list[Labels]:
        """Return the labels layers of the size of an image, or of its plane shown."""
        current = self._session.current
        if image is None or current is None:
            return []
        labels = [one for one in self._viewer.layers if isinstance(one, Labels)]
        return [one for one in labels if planes.lies_on(one, image, current.shape)]

    def made_labels(self, image: Image, role: str) -> Labels:
        """Return the scribbles or the segmentation of an image, made if need be."""
        there = self.labels_of(image, role)
        if there is not None:
            return there
        mark, shape = layers.mark_of(role, self.id_of(image)), planes.label_shape(image)
        layer = layers.empty_labels(image, shape, mark, self._session.classes)
        if role == "segmentation":
            above = self.labels_of(image, "scribbles")
            layers.insert_beneath(self._viewer, layer, above)
        else:
            self._viewer.layers.append(layer)
        return layer

    def add_entry(self, image: Image, index: Index = ()) -> PlaneKey:
        """Make an image, or a plane of it, an entry of the session; return its key."""
        key = PlaneKey(self.id_of(image), index)
        if key not in self._session.images:
            pixels = planes.pixels(image, index)
            self._session.images.add(pixels, key, **self.about(image, index))
        return key

    def add_images(self) -> None:
        """Make each image that is no stack, and can be one, an entry of the session."""
        for image in self.images():
            if not planes.sizes(image):
                with suppress(ValueError):  # what is no micrograph stays outside
                    self.add_entry(image)

    def about(self, image: Image, index: Index) -> dict[str, Any]:
        """Return what an entry says of itself: name, file, pixel size and plane."""
        place = planes.place(image, index)
        return {
            "name": ", ".join(filter(None, (image.name, text_of(place)))),
            "source": layers.path_of(image),
            "pixel_size": layers.pixel_size_of(image),
            "plane": place,
            "channels": planes.joined_channels(image),
        }

    def describe(self, image: Image) -> None:
        """Tell the entries of an image what it is now, and move its labels there."""
        for role in ("scribbles", "segmentation"):
            layer = self.labels_of(image, role)
            if layer is not None:
                layers.rename(layer, role, layers.name_of(role, image))
                layers.place(layer, layers.spatial_metadata(image))
        size = layers.pixel_size_of(image)
        entries = self._session.images.family(self.id_of(image))
        is_other = any(entry.pixel_size != size for entry in entries)
        for entry in entries:
            about = self.about(image, entry.key.plane)
            entry.name, entry.plane = about["name"], about["plane"]
            entry.pixel_size = size
        if is_other:
            self._session.note_pixel_sizes()

    def read_scribbles(
        self,
        image: Image,
        layer: Labels | None,
        *,
        everywhere: bool = False,
        only: Collection[PlaneKey] = (),
    ) -> bool:
        """Hand the scribbles on an image to the session; return whether any changed.

        Those of all planes of a stack are looked for `everywhere`; else of planes that
        are entries already, or `only` of some of these.
        """
        session, shape = self._session, planes.label_shape(image)
        if layer is not None and not fits(layer, image):
            there = layer.data.shape
            raise ValueError(f"labels: shape {there} is not that of the image, {shape}")
        keys = {one.key for one in session.images.family(self.id_of(image))}
        if everywhere and layer is not None:
            painted = np.argwhere(np.asarray(layer.data).any(axis=(-2, -1)))
            keys |= {self.add_entry(image, tuple(i)) for i in painted.tolist()}
        elif only:
            keys &= set(only)
        changed = False
        for key in sorted(keys):
            known, now = session.images[key].scribbles, None
            if layer is not None:
                now = Scribbles(np.asarray(layer.data[key.plane]), shape[-2:])
            if now is None or known is None or now.fingerprint != known.fingerprint:
                changed |= session.set_scribbles(now, key)
        return changed

    def write_result(self, key: PlaneKey) -> None:
        """Write the result of an entry, shown or not, into its layer."""
        image, entry = self.image_of(key), self._session.images.find(key)
        if image is not None and entry is not None and entry.result is not None:
            layer = self.made_labels(image, "segmentation")
            layers.write_plane(layer, key.plane, entry.result.shown)

    def changes(self) -> tuple[list[Image], list[str]]:
        """Return the images that came since the last call, and the ids that went."""
        present = self.images()
        came = [image for image in present if image not in self._listed]
        self._listed = present
        for image in came:
            self.id_of(image)
        gone = [image for image in self.ids if image not in present]
        return came, [self._forget(image) for image in gone]

    def look(self, event: object = None) -> None:
        """Emit `settled` soon."""
        self._listing.throttle()

    def close(self) -> None:
        """Let go of the viewer."""
        self._listing.cancel()
        for name in _LIST_EVENTS:
            getattr(self._viewer.layers.events, name).disconnect(self.look)
        self._session.options_changed.disconnect(self._join_channels)
        for image in list(self.ids):
            self._forget(image)

    def _forget(self, image: Image) -> str:
        for events in self._events(image):
            events.disconnect(self._on_changed)
        return self.ids.pop(image)

    def _events(self, image: Image) -> list[Any]:
        events = image.events
        return [events.data, events.axis_labels, *layers.place_events(image)]

    def _join_channels(self) -> None:
        for image in self.images():
            if planes.join_channels(image, self._session.options.channels):
                self.replaced.emit(image)

    def _on_changed(self, event: Any) -> None:
        # The event has the layer itself, we may know it by a proxy.
        image = next((one for one in self.ids if one == event.source), None)
        if image is None:
            return
        if event.type == "data":
            self.replaced.emit(image)
        elif event.type == "axis_labels":
            is_other = planes.joined_channels(image)
            (self.replaced if is_other else self.renamed_axes).emit(image)
        else:
            self.describe(image)
            self.look()  # panels say how large its pixels are


def fits(layer: Labels, image: Image) -> bool:
    """Whether labels have the shape of an image, or of its stack."""
    return tuple(layer.data.shape) == planes.label_shape(image)
