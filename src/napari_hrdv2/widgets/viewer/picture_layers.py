"""The pictures of the session and the layers of the viewer that belong to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_hrdv2.session.planes import PlaneKey, text_of
from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer import planes
from napari_hrdv2.widgets.viewer.image_layers import ImageLayers
from napari_hrdv2.widgets.viewer.stroke_listener import painted_planes

if TYPE_CHECKING:
    import napari.components
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_hrdv2.session import Session
    from napari_hrdv2.widgets.viewer.planes import Index


class ImageLayerIndex(QObject):
    """Tells which layer a picture comes from, and which hold its strokes and result.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session

    Attributes
    ----------
    image : Image or None
        The layer that is worked on.
    """

    def __init__(self, viewer: napari.components.ViewerModel, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.image: Image | None = None
        self._images = ImageLayers(viewer)

    @property
    def viewer(self) -> napari.components.ViewerModel:
        """Whose layers they are."""
        return self._viewer

    def images(self) -> list[Image]:
        """Return the image layers of the viewer, bottom first."""
        return self._images.present()

    def key_of(self, image: Image) -> PlaneKey:
        """Return the key of an image, of a stack that of the plane shown."""
        index = planes.shown(self._viewer, image)
        return PlaneKey(self._images.id_of(image), index)

    def layer_of(self, key: PlaneKey) -> Image | None:
        """Return the image layer that a picture comes from."""
        return self._images.find(key.image)

    def scribbles_of(self, key: PlaneKey) -> Labels | None:
        """Return the layer with the strokes of a picture, of a stack with all its."""
        return self._labels_of(self.layer_of(key), "scribbles")

    def segmentation_of(self, key: PlaneKey) -> Labels | None:
        """Return the layer with the result of a picture, of a stack with all its."""
        return self._labels_of(self.layer_of(key), "segmentation")

    def add_entry(self, image: Image, index: Index = ()) -> PlaneKey:
        """Make an image, or a plane of it, a picture of the session; return its key.

        Raises
        ------
        ValueError
            If there is no such plane, or an axis has no name yet.
        """
        key = PlaneKey(self._images.id_of(image), index)
        if key not in self._session.images:
            pixels = planes.pixels(image, index)
            self._session.images.add(pixels, key, **self._about(image, index))
        return key

    def read_strokes(
        self,
        image: Image,
        layer: Labels | None,
        *,
        everywhere: bool = False,
        only: Collection[PlaneKey] = (),
    ) -> bool:
        """Hand the strokes on an image to the session; return whether any changed.

        Parameters
        ----------
        image : Image
        layer : Labels or None
            Its scribbles, if it has any.
        everywhere : bool, optional
            Whether to look for strokes on all planes of a stack, not only on those
            that are pictures already.
        only : collection of str, optional
            Keys of the planes that may have changed, where that is known.

        Raises
        ------
        ValueError
            If the labels do not fit the image, or are negative.
        """
        of_image, shape = self._images.id_of(image), planes.label_shape(image)
        if layer is not None and layer.data.shape != shape:
            raise ValueError(
                f"labels: shape {layer.data.shape} is not that of the image, {shape}"
            )
        keys = {one.key for one in self._session.images.family(of_image)}
        if everywhere and layer is not None:
            keys |= {self.add_entry(image, i) for i in painted_planes(layer)}
        elif only:
            keys &= set(only)
        changed = False
        for key in sorted(keys):
            labels = None if layer is None else np.asarray(layer.data[key.plane])
            known: Any = self._session.images[key].scribbles
            is_known = labels is not None and known is not None
            if not is_known or not np.array_equal(known.labels, labels):
                changed |= self._session.set_scribbles(labels, key)
        return changed

    def write_scribbles(self, key: PlaneKey) -> None:
        """Write strokes that the session changed into their layer; can be undone."""
        entry, layer = self._session.images[key], self.scribbles_of(key)
        if entry.scribbles is None or layer is None:
            return
        index, labels = key.plane, entry.scribbles.labels
        places = np.nonzero(layer.data[index] != labels)
        if places[0].size:
            plane = tuple(np.full(len(places[0]), place) for place in index)
            layer.data_setitem((*plane, *places), labels[places])

    def planes_of(self, image: Image) -> list[Index]:
        """Return the indices of all planes of a stack; one, (), for an image."""
        return list(np.ndindex(*planes.sizes(image)))

    def write_result(self, key: PlaneKey) -> None:
        """Write the result of a picture, shown or not, into its layer."""
        image, entry = self.layer_of(key), self._session.images.find(key)
        if image is None or entry is None or entry.result is None:
            return
        layer = self.segmentation_of(key)
        layer = layer or self._made_segmentation(image, self.scribbles_of(key))
        make.write_plane(layer, key.plane, entry.result.shown)

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

    def add_image(self, data: NDArray[Any], path: str, **about: Any) -> Image:
        """Open a micrograph that was read from a file as a layer."""
        return make.add_image(self._viewer, data, path, **about)

    def _fits(self, layer: Labels) -> bool:
        image = self.image
        return image is not None and layer.data.shape == planes.label_shape(image)

    def _labels_of(self, image: Image | None, role: str) -> Labels | None:
        if image is None:
            return None
        of_image, shape = self._images.id_of(image), planes.label_shape(image)
        return make.find_layer(self._viewer, role, of_image, shape)

    def _made_scribbles(self, image: Image) -> Labels:
        return self._labels_of(image, "scribbles") or make.make_scribbles(
            self._viewer,
            image,
            self._images.id_of(image),
            planes.label_shape(image),
            self._session.classes,
        )

    def _made_segmentation(self, image: Image, scribbles: Labels | None) -> Labels:
        return make.make_segmentation(
            self._viewer,
            image,
            self._images.id_of(image),
            scribbles,
            self._session.classes,
            shape=planes.label_shape(image),
        )

    def _about(self, image: Image, index: Index) -> dict[str, Any]:
        """Return what a picture of the session says of itself."""
        place = planes.place(image, index)
        return {
            "name": ", ".join(filter(None, (image.name, text_of(place)))),
            "source": make.path_of(image),
            "pixel_size": make.pixel_size_of(image),
            "plane": place,
        }
