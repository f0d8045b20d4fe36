"""All planes of a stack, segmented into a file: asked for, and shown as a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels

from napari_hrdv2.files.units import NO_UNIT, unit_symbol
from napari_hrdv2.files.volumes import LazyVolume, relate_planes
from napari_hrdv2.session.batch.volumes import volume_request
from napari_hrdv2.session.planes import PlaneKey

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from napari_hrdv2.session.batch.streaming import Streamed
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

SUFFIX = "_segmentation.zarr"


class VolumeOverlay(Overlay):
    """Segments a stack into an OME-Zarr, plane after plane, and shows that file.

    The layer of the answers to single planes is hidden for it, until one paints again.
    """

    role = "all planes"

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self.text = ""  # how the last run ended
        self._of = PlaneKey("")  # the stack that is, or was, segmented
        self._begun: dict[str, Path] = {}  # where what was begun is gone on with
        self._painted: Any = None  # that the answer is of; None if there is more by now
        sync.images_changed.connect(self._on_images)
        self._session.images_changed.connect(self._on_painted)
        self._session.classes_changed.connect(self._show_classes)

    def volume(self) -> LazyVolume | None:
        """Return the stack that is shown, None where it is no volume.

        ValueError where its context is a length, and its spacing not known.
        """
        image = self._sync.image
        if image is None or self._session.current is None or not is_volume(image):
            return None
        path = Path(layers.path_of(image) or image.name)
        volume = LazyVolume(path, planes.data_of(image), spacing_of(image))
        relate_planes(volume, self._session.options.planes)
        return volume

    @property
    def target(self) -> Path | None:
        """The OME-Zarr in which the stack that is shown was begun."""
        current = self._session.current
        return None if current is None else self._begun.get(current.key.image)

    def start(self, target: Path) -> None:
        """Segment all planes of the stack that is shown; ValueError where it cannot."""
        self._sync.flush()
        volume, current = self.volume(), self._session.current
        assert volume is not None
        assert current is not None
        request = volume_request(self._session, volume, target)
        self._of, self.text = PlaneKey(current.key.image), ""
        self._begun[self._of.image] = target
        self._painted = self._scribbles()
        told = {"hear_failure": self._on_failure}
        self._side.submit(self.role, request, self._on_done, **told)

    def _on_done(self, done: Streamed) -> None:
        self._begun.pop(self._of.image, None)
        classes, found = self._session.classes, done.by_class.items()
        shares = (f"{classes[i].name} {part:.1%}" for i, part in found if i in classes)
        late = " What was painted meanwhile counts the next time."
        self.text = f"Written to {done.path}. {', '.join(shares)}."
        self.text += late * (self._painted is None)
        self._session.say(self.text)
        image = self._sync.layers.image_of(self._of)
        if image is not None:
            self._show(image, done.path)

    def _on_failure(self, error: Exception) -> None:
        self._begun.pop(self._of.image, None)  # it would fail there again
        self._sync.refused.emit(error)

    def _show(self, image: Image, path: Path) -> None:
        import zarr

        metadata, root = self._mark(image), zarr.open_group(path, mode="r")
        levels: list[Any] = [root[name] for name in sorted(root.array_keys(), key=int)]
        former = self._find(Labels, metadata)
        if former is not None:
            self._follow(former, image)
            self._remove()
        layer = Labels(
            levels if levels[1:] else levels[0],
            multiscale=bool(levels[1:]),
            name=self._named("All planes", image),
            opacity=layers.SEGMENTATION_OPACITY,
            metadata=metadata,
            **self._placement(image, image.ndim),
        )
        layer.editable = False
        self._add(layer, image)
        self._show_classes()
        self._painted = self._scribbles()
        self._show_all(True)

    def _show_all(self, shown: bool) -> None:
        """Show all planes, or the answers to single ones, of the same stack."""
        single = self._sync.layers.labels_of(self._image, "segmentation")
        for layer, is_seen in ((self.layer, shown), (single, not shown)):
            if layer is not None:
                layer.visible = is_seen

    def _placement(self, image: Image, ndim: int) -> dict[str, Any]:
        return layers.spatial_metadata(image)

    def _scribbles(self) -> Any:
        painted = self._session.images.painted()
        return {one.key: one.scribbles_fingerprint for one in painted}

    def _on_painted(self) -> None:
        if self._painted is not None and self._scribbles() != self._painted:
            self._painted = None
            self._show_all(False)

    def _on_images(self) -> None:
        if self._side.has(self.role) and self._sync.layers.image_of(self._of) is None:
            self._side.cancel(self.role)

    def _show_classes(self) -> None:
        layers.show_classes(self.layer, self._session.classes)


def is_volume(image: Image) -> bool:
    """Whether a layer is a stack of grey planes along one axis that are no channels."""
    return image.ndim == 3 and not (image.rgb or planes.channels_of(image))


def spacing_of(layer: Image) -> tuple[float, str] | None:
    """Return how far apart the planes of a stack are, and the unit; None if unknown."""
    unit = unit_symbol(str(layer.units[0]))
    if unit == NO_UNIT:
        return layers.mark_on(layer).get("file_spacing")
    return abs(float(layer.scale[0])), unit
