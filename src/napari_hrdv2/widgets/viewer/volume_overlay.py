"""All planes of a stack, segmented into a file: asked for, and shown as a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels

from napari_hrdv2.files.label_store import SUFFIX
from napari_hrdv2.files.units import NO_UNIT, unit_symbol
from napari_hrdv2.files.volumes import LazyVolume, relate_planes
from napari_hrdv2.session.batch import volumes as batch
from napari_hrdv2.session.classifier import magnification_note
from napari_hrdv2.session.export import free_name
from napari_hrdv2.session.planes import PlaneKey

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from napari_hrdv2.session import ImageEntry
    from napari_hrdv2.session.batch.streaming import Streamed
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync


class VolumeOverlay(Overlay):
    """Segments a stack into an OME-Zarr, plane after plane, and shows that file.

    The layer of the answers to single planes is hidden for it, until one paints again.
    """

    role = "all planes"

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self._of = PlaneKey("")  # the stack that is, or was, segmented
        self._texts: dict[PlaneKey, str] = {}  # how the last run on a stack ended
        self._paths: dict[PlaneKey, Path] = {}  # of the last run
        self._begun: dict[PlaneKey, Any] = {}  # what it is of, until it is done
        # What all planes of a stack are of, until that changes.
        self._shown: dict[PlaneKey, Any] = {}
        sync.images_changed.connect(self._on_images)
        sync.layers.replaced.connect(self._on_replaced)
        session = self._session
        changes = session.images_changed, session.options_changed
        for signal in (*changes, session.segmentation_changed):
            signal.connect(self._look)
        session.refinement.changed.connect(self._look)
        session.classes_changed.connect(self._show_classes)

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
    def _stack(self) -> PlaneKey:
        current = self._session.current
        return PlaneKey("" if current is None else current.key.image)

    @property
    def target(self) -> Path | None:
        """The OME-Zarr in which the stack that is shown was begun, as it is now."""
        made = self._begun.get(self._stack)
        return self._paths[self._stack] if made and made == self._made_of() else None

    def target_in(self, folder: Path) -> Path:
        """Return the OME-Zarr for the stack that is shown, and for no other one."""
        image, find = self._sync.image, self._sync.layers.image_of
        others = [p for k, p in self._paths.items() if k != self._stack and find(k)]
        taken = {path.name.removesuffix(SUFFIX) for path in others}
        path = Path((image and (layers.path_of(image) or image.name)) or "")
        return folder / f"{free_name(path.stem, taken)}{SUFFIX}"

    @property
    def note(self) -> str:
        """How the last run on the stack that is shown ended, and what comes next."""
        if self._stack not in self._begun:
            return self._texts.get(self._stack, "")
        if self.target:
            return "Cancelled; what is done is kept, and the next press goes on."
        return "Cancelled; the next press begins anew: scribbles or settings changed."

    def start(self, target: Path) -> None:
        """Segment all planes of the stack that is shown; ValueError where it cannot."""
        self._sync.flush()
        volume = self.volume()
        assert volume is not None
        request = batch.volume_request(self._session, volume, target)
        self._of = self._stack
        self._texts.pop(self._of, None)
        self._paths[self._of], self._begun[self._of] = target, self._made_of()
        told = {"hear_failure": self._on_failure}
        self._side.submit(self.role, request, self._on_done, **told)

    def _made_of(self) -> tuple[Any, ...]:
        """Return all that the file of the stack that is shown would be made of."""
        session, image, entry = self._session, self._sync.image, self._session.current
        assert entry is not None
        mask = "" if entry.exclusion is None else entry.exclusion_fingerprint
        about = batch.volume_options(session), dict(session.classes), mask
        size = entry.pixel_size, image and spacing_of(image)
        return *batch.made_of(session, self._stack), *about, *size

    def _on_done(self, done: Streamed) -> None:
        made = self._begun.pop(self._of)
        classes, found = self._session.classes, done.by_class.items()
        shares = (f"{classes[i].name} {part:.1%}" for i, part in found if i in classes)
        late = " What was painted meanwhile counts the next time."
        text = f"Written to {done.path}. {', '.join(shares)}."
        loaded, size = made[2], made[-2]  # the classifier, and pixels, of the run
        note = magnification_note(loaded.pixel_size, size) if loaded else ""
        text = " ".join(filter(None, (text, note)))
        now = batch.made_of(self._session, self._of)
        self._texts[self._of] = text = text + late * (now != made[: len(now)])
        self._session.say(text)
        image = self._sync.layers.image_of(self._of)
        if image is not None:
            self._show(image, done.path)

    def _on_failure(self, error: Exception) -> None:
        self._begun.pop(self._of, None)  # it would fail there again
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
        self._show_all(image, shown=True)
        self._shown[self._of] = batch.made_of(self._session, self._of)

    def _show_all(self, image: Image | None, *, shown: bool) -> None:
        if image is None:
            return
        single = self._sync.layers.labels_of(image, "segmentation")
        all_planes = self._find(Labels, self._mark(image))
        for layer, is_seen in ((all_planes, shown), (single, not shown)):
            if layer is not None:
                layer.visible = is_seen

    def _placement(self, image: Image, ndim: int) -> dict[str, Any]:
        return layers.spatial_metadata(image)

    def _look(self) -> None:
        """Show answers to single planes where all of them would be others by now."""
        made = self._shown.get(self._stack)
        if made is not None and made != batch.made_of(self._session, self._stack):
            self._leave(self._stack)

    def _leave(self, stack: PlaneKey) -> None:
        if self._shown.pop(stack, None) is not None:
            self._show_all(self._sync.layers.image_of(stack), shown=False)

    def _on_layer_removed(self, event: Any) -> None:
        super()._on_layer_removed(event)
        mark = layers.mark_on(event.value)
        if mark.get("role") == self.role:
            self._leave(PlaneKey(mark["image"]))

    def _on_images(self) -> None:
        if self._side.has(self.role) and self._sync.layers.image_of(self._of) is None:
            self._side.cancel(self.role)

    def _on_replaced(self, image: Image) -> None:
        stack = PlaneKey(self._sync.layers.id_of(image))  # of other pixels by now
        if self._begun.pop(stack, None) and stack == self._of:
            self._side.cancel(self.role)
        if stack in self._shown:
            self._shown[stack] = ()
            self._look()

    def _show_classes(self) -> None:
        layers.show_classes(self.layer, self._session.classes)


def is_volume(image: Image) -> bool:
    """Whether a layer is a stack of grey planes along one axis that are no channels."""
    return image.ndim == 3 and not (image.rgb or planes.channels_of(image))


def has_cubes(image: Image, entry: ImageEntry) -> bool:
    """Whether voxels of a stack are about as deep as wide, as far as that is known."""
    is_by_scale = max(abs(image.scale)) < batch.NEARLY * min(abs(image.scale))
    return bool(is_by_scale) and batch.are_cubes(spacing_of(image), entry)


def spacing_of(layer: Image) -> tuple[float, str] | None:
    """Return how far apart the planes of a stack are, and the unit; None if unknown."""
    unit = unit_symbol(str(layer.units[0]))
    if unit == NO_UNIT:
        return layers.mark_on(layer).get("file_spacing")
    return abs(float(layer.scale[0])), unit
