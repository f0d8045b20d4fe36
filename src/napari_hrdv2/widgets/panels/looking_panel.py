"""What features show without labels: colours, clusters, foreground, what is alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QListWidget, QPushButton, QTreeWidgetItem, QWidget

from napari_hrdv2.core.devices import checked_memory
from napari_hrdv2.core.guidance.tokens import METHODS, MOST_TOKENS
from napari_hrdv2.session.classes import ClassInfo, default_color
from napari_hrdv2.session.inspection.looking import FEWEST_CLUSTERS, MOST_CLUSTERS
from napari_hrdv2.widgets.label_taker import LabelTaker
from napari_hrdv2.widgets.viewer import layers, planes
from napari_hrdv2.widgets.viewer.overlay import MapOverlay

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_hrdv2.session import ImageEntry, Task
    from napari_hrdv2.session.inspection.looking import JointLook
    from napari_hrdv2.widgets.controller import Controller

COLORS, CLUSTERS, ALIKE, DISCS = "colours", "clusters", "similarity", "discs"
FOREGROUND, SALIENCY, PAIRS = "foreground", "saliency", "correspondences"
# Of memory, at most: for a pixel of any image, and for one of the largest besides.
_BYTES = {COLORS: (3, 3), CLUSTERS: (1, 13), ALIKE: (4, 14), DISCS: (1, 69)}
_BYTES |= {FOREGROUND: (1, 64), SALIENCY: (4, 64), PAIRS: (1, 64)}
_TOKEN = 170  # pixels of one, at least
_TINT: dict[str, Any] = {"opacity": 0.7}
_HEAT = {"colormap": "inferno", "contrast_limits": (0, 1), "blending": "translucent"}
_HEAT |= _TINT
_LOOKS: dict[str, tuple[type, dict[str, Any], str]] = {  # and what is said
    COLORS: (Image, {"rgb": True}, "Where colours are alike, features are."),
    CLUSTERS: (Labels, _TINT, "Give clusters a class, or change their number."),
    ALIKE: (Image, _HEAT, "Bright is alike; the list leads to the best places."),
    FOREGROUND: (Labels, _TINT, "The half that shows more is marked."),
    SALIENCY: (Image, _HEAT, "Bright is what stands out."),
    PAIRS: (Labels, _TINT, "Discs of one colour correspond."),
}
_FIRST_COLOR, _USUAL = 100, 8  # of clusters: colours unlike classes', and how many
_JITTER = 4  # pixels of the screen that a click may move
_LINES_SEEN, _PLACE_SEEN = 8, 16  # the latter a radius in pixels


class LookingPanel(QWidget):
    """Shows features as colours, clusters or similarity, on all images with some."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._link = controller, controller.link
        self._session, self._side = controller.session, controller.side
        self._looking = self._session.looking
        self._taker = LabelTaker(controller)
        self._overlays: dict[tuple[str, ImageEntry], MapOverlay] = {}
        self._alike: JointLook | None = None
        self._held: Image | None = None  # the image that is clicked
        self._make_controls()
        self._session.features_changed.connect(self.show_state)
        self._session.classes_changed.connect(self.show_clusters)
        self._link.images_changed.connect(self._on_images_changed)
        self._side.changed.connect(self.show_state)
        self.show_clusters()

    def _make_controls(self) -> None:
        def button(text: str, name: str, start: Callable[[], None], job: str) -> Any:
            return ui.JobButton(text, name, start, self._side, job)

        self.colors = button("Colours", "colors", self._on_colors, COLORS)
        self.clusters = button("Clusters", "clusters", self._on_clusters, CLUSTERS)
        tip = "How many clusters; once they are shown, they follow this number"
        self.count = ui.count_box(
            "cluster_count", tip, FEWEST_CLUSTERS, MOST_CLUSTERS, _USUAL
        )
        self.count.valueChanged.connect(self._on_count)
        tip = "Clusters of all images together; select one or several"
        titles = ["Cluster", "Share", "Class"]
        self.rows = ui.table("cluster_rows", titles, tip, stretched=2)
        self.rows.setSelectionMode(self.rows.SelectionMode.ExtendedSelection)
        self.rows.itemSelectionChanged.connect(self._show_name)
        tip = "The class of the selected clusters; those of one class are merged"
        self.name = ui.combo_box("cluster_class", tip)
        self.name.activated.connect(self._on_name)
        self.use = button("Use as scribbles", "use_clusters", self._on_use, DISCS)
        self.foreground = button(
            "Foreground", "foreground", self._on_foreground, FOREGROUND
        )
        self.saliency = button("Saliency", "saliency", self._on_saliency, SALIENCY)
        tip = "Which saliency: a cut between tokens, or what tells them apart most"
        self.method = ui.combo_box("saliency_method", tip)
        ui.fill(self.method, METHODS)
        self.pairs = button("Correspondences", "pairs", self._on_pairs, PAIRS)
        tip = "Click a place in the image to see what is like it, on all images"
        self.alike = QPushButton("Find alike", objectName="find_alike", toolTip=tip)
        self.alike.setCheckable(True)
        self.alike.toggled.connect(self._on_alike)
        tip = "Similarity, image, row and column of the best places; click to go there"
        self.places = QListWidget(objectName="alike_places", toolTip=tip)
        self.places.itemClicked.connect(self._on_place)
        for seen in (self.rows, self.places):
            seen.setMaximumHeight(_LINES_SEEN * 2 * seen.fontMetrics().height())
        named = ui.row(self.name, self.use, stretched=0)
        self._named = ui.fill_column(QWidget(), self.rows, named)
        tip = "How many images are done"
        ui.fill_column(
            self,
            ui.row(self.colors, self.clusters, self.count),
            self._named,
            ui.row(self.foreground, self.pairs),
            ui.row(self.saliency, self.method, stretched=1),
            self.alike,
            self.places,
            ui.JobProgress("looking_progress", tip, self._side, *_BYTES),
        )

    def show_state(self) -> None:
        """Enable what there are features for."""
        reason = self._session.images.why_not_together()
        looks = self.colors, self.clusters, self.foreground, self.saliency, self.pairs
        for control in (*looks, self.alike):
            is_running = getattr(control, "is_running", False)
            ui.enable(control, "" if is_running else reason)
        self.alike.setChecked(self.alike.isChecked() and not reason)
        self._named.setVisible(self._looking.clusters is not None)
        self.places.setVisible(self._alike is not None)
        self.name.setEnabled(not self._side.has(CLUSTERS))  # which carries the names

    def show_clusters(self) -> None:
        """List the clusters, and give their layers names and colours."""
        classes, found = self._session.classes, self._looking.clusters
        names = ("no class", *(info.name for info in classes.values()), "new class")
        ui.fill(self.name, names)
        self.show_state()
        if found is None:
            return
        for gone in [i for i, c in found.classes.items() if c not in classes]:
            del found.classes[gone]
        chosen, infos = self._selected(), {}
        with QSignalBlocker(self.rows):
            self.rows.clear()
            for i, share in found.shares.items():
                info = classes.get(found.classes.get(i, 0))
                unnamed = ClassInfo(f"cluster {i}", default_color(_FIRST_COLOR + i))
                infos[i] = info or unnamed
                texts = [str(i), f"{share:.1%}", info.name if info else ""]
                item = QTreeWidgetItem(self.rows, texts)
                item.setIcon(0, ui.swatch(infos[i].color))
                item.setSelected(i in chosen)
        for (role, _), overlay in self._overlays.items():
            if role == CLUSTERS and overlay.layer is not None:
                layers.show_classes(overlay.layer, infos)
                overlay.layer.editable = False
        self._show_name()

    def _show_name(self) -> None:
        found, ids = self._looking.clusters, [0, *self._session.classes]
        named = {found.classes.get(i, 0) for i in self._selected()} if found else set()
        if len(named) == 1:
            self.name.setCurrentIndex(ids.index(named.pop()))

    def release(self) -> None:
        """Let go of the viewer; its layers stay as they are."""
        self._listen(False)

    def _look(self, job: str, task: Task, hear: Any = None) -> None:
        images = self._looking.joint_images()
        sizes = [one.shape[0] * one.shape[1] for one in images] or [0]
        each, largest = _BYTES[job]
        needed = each * sum(sizes) + largest * max(sizes)
        if job in (SALIENCY, PAIRS):  # what every token has to do with every other
            needed += 8 * min(max(sizes) // _TOKEN, MOST_TOKENS) ** 2
        text = checked_memory(needed, "close images, or open parts of them")
        self._session.say(f"Images to look at: {len(images)}; {text}.")
        self._side.submit(job, task, hear or partial(self._show, job))

    def _on_colors(self) -> None:
        """Add layers with the first three principal components as colours.

        They are of all images with features: alike colours are alike features.
        """
        self._look(COLORS, self._looking.colors_request())

    def _on_clusters(self) -> None:
        """Divide all images with features into clusters, the same in all of them."""
        self._look(CLUSTERS, self._looking.clusters_request(self.count.value()))

    def _on_foreground(self) -> None:
        """Mark the half of the first principal component that shows more.

        It shows more where the grey levels have the larger entropy.
        """
        self._look(FOREGROUND, self._looking.foreground_request())

    def _on_saliency(self) -> None:
        """Show what stands out of each image, by its regions or squares of 16 px."""
        method = self.method.currentText()
        self._look(SALIENCY, self._looking.saliency_request(method))

    def _on_pairs(self) -> None:
        """Mark and list ten places of this image and the next that correspond.

        They are the nearest of each other, and differ.
        """
        self._look(PAIRS, self._looking.pairs_request())

    def _on_count(self) -> None:
        if self._looking.clusters is not None or self.clusters.is_running:
            self._controller.attempt(self._on_clusters)

    def _on_use(self) -> None:
        """Paint scribbles where the clusters with a class are deepest.

        Nothing is painted over, and undo takes them away.
        """
        self._look(DISCS, self._looking.discs_request(), self._paint)

    def _show(self, role: str, look: JointLook) -> None:
        """Show the maps, but for those of images that are others by now."""
        if not self._looking.accept(look):
            self._session.say("The features are others by now; look once more.")
            return
        kind, how, said = _LOOKS[role]
        for key, values in look.maps.items():
            there = role, look.seen[key][0]
            if there not in self._overlays:
                self._overlays[there] = MapOverlay(self._link, self._side, role)
            self._overlays[there].put(
                kind,
                values,
                key,
                mark={"plane": list(key.plane)},
                name=role.capitalize(),
                **how,
            )
        if role == CLUSTERS:
            self.show_clusters()
        elif role in (ALIKE, PAIRS):
            self._alike = look
            self._list_places(look, are_pairs=role == PAIRS)
        self._session.say(said)

    def _paint(self, discs: JointLook) -> None:
        self._link.flush()
        maps = self._looking.paintable(discs)
        for key, labels in maps.items():
            self._taker.paint(key, labels, "Scribbles taken from clusters.")
        if not maps:
            self._session.say("What the clusters would paint is painted already.")

    def _list_places(self, look: JointLook, *, are_pairs: bool) -> None:
        self.places.clear()
        for number, place in enumerate(look.places):
            entry = look.seen[look.key_of(place)][0]
            there = f"{entry.name or entry.key}, {place.row}, {place.column}"
            pair = f"pair {number // 2 + 1}  " if are_pairs else ""
            self.places.addItem(f"{pair}{place.similarity:.2f}  {there}")
        self.show_state()

    def _selected(self) -> list[int]:
        return [int(item.text(0)) for item in self.rows.selectedItems()]

    def _on_name(self, position: int) -> None:
        found, classes = self._looking.clusters, self._session.classes
        chosen = self._selected()
        if found is None or not chosen:
            self._session.say("Select clusters in the list first.")
            return
        ids = [0, *classes]
        class_id = ids[position] if position < len(ids) else classes.add()
        found.classes.update(dict.fromkeys(chosen, class_id))
        self.show_clusters()

    def _on_alike(self, is_on: bool) -> None:
        self._listen(is_on)
        if is_on:
            self._hold_no_brush()
            self._session.say("Click a place in the image.")
            return
        self._side.cancel(ALIKE)
        active = self._link.viewer.layers.selection.active
        if active == self._held and self._link.scribbles is not None:
            self._link.viewer.layers.selection.active = self._link.scribbles

    def _listen(self, is_on: bool) -> None:
        callbacks = self._link.viewer.mouse_drag_callbacks
        if self._on_press in callbacks:
            callbacks.remove(self._on_press)
        if is_on:
            callbacks.append(self._on_press)

    def _on_images_changed(self) -> None:
        if self.alike.isChecked() and self._link.image is not self._held:
            self._hold_no_brush()
        for there in list(self._overlays):
            if self._session.images.get(there[1].key) is not there[1]:
                self._overlays.pop(there).forget()
        self.show_state()

    def _hold_no_brush(self) -> None:
        """Select the image, so that a click does not paint."""
        self._held = self._link.image
        self._link.viewer.layers.selection.active = self._held

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Look for what is alike, unless the mouse moved the view."""
        image, entry, start = self._link.image, self._session.current, event.pos
        yield
        while event.type == "mouse_move":
            yield
        is_click = np.abs(np.subtract(event.pos, start)).max() <= _JITTER
        is_held = viewer.layers.selection.active == image
        if not (is_click and is_held) or image is None or entry is None:
            return
        place = image.world_to_data(event.position[-image.ndim :])[-2:]
        row, column = (round(float(at)) for at in place)
        if 0 <= row < entry.shape[0] and 0 <= column < entry.shape[1]:
            self._controller.attempt(self._look_alike, row, column)

    def _look_alike(self, row: int, column: int) -> None:
        self._look(ALIKE, self._looking.alike_request(row, column))

    def _on_place(self) -> None:
        assert self._alike is not None  # else nothing is listed
        place = self._alike.places[self.places.currentRow()]
        key = self._alike.key_of(place)
        self._link.show_image(key)
        image = self._link.image
        if image is not None and self._link.layers.image_of(key) == image:
            point = (*key.plane, place.row, place.column)
            planes.look_at(self._link.viewer, image, point, _PLACE_SEEN)
        if self.alike.isChecked():
            self._hold_no_brush()


PANELS = (PanelSpec("looking", "Features", 30, LookingPanel, "Look without labels"),)
