"""What the backbone looks at, shown as layers; and regions that it is to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from napari_hrdv2.widgets.panels.parts import (
    combo_box,
    note,
    push_button,
    row,
    set_note,
)
from napari_hrdv2.widgets.viewer.inspection_overlay import (
    AttentionOverlay,
    BorderOverlay,
    RegionOverlay,
    partitions,
    plane_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_hrdv2.session.tasks.guidance import Attention, Regions
    from napari_hrdv2.widgets.controller import Controller

_ATTENTION, _REGIONS = _JOBS = ("attention", "regions")  # as the side work calls them
_LIST_EVENTS = ("inserted", "removed", "reordered", "renamed")
_OWN = "the network's own"
_ATTENTION_TIP = (
    "Add a layer with how much the class token attends to each pixel, one map for each "
    "head; 1 is as much as to all alike. Of a network of regions there is one map, "
    "from 0 to 1"
)
_REGIONS_TIP = (
    "Add the regions that the features stand for as a Labels layer, hidden, and their "
    "borders"
)
_PARTITION_TIP = (
    "The regions of this image: the network's own, or a Labels layer, where every "
    "value is one region, 0 as well"
)
_USE_TIP = (
    "Compute the features of this image anew with these regions. A project or a "
    "classifier does not keep regions from a layer"
)


class InsightPanel(QWidget):
    """Shows attention and regions, and hands a Labels layer over as regions."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self._viewer, self._insight = controller.viewer, controller.session.inspection
        self._overlays = tuple(
            overlay(controller.link, controller.side)
            for overlay in (AttentionOverlay, RegionOverlay, BorderOverlay)
        )
        self._make_controls()
        self._lay_out()
        self._connect()
        self.show_layers()

    def _make_controls(self) -> None:
        self.attention = push_button(
            "Attention", "show_attention", _ATTENTION_TIP, self._on_attention
        )
        self.regions = push_button(
            "Regions", "show_regions", _REGIONS_TIP, self._on_regions
        )
        self.count = note("region_count")
        self.partition = combo_box("partition", _PARTITION_TIP)
        self.use = push_button("Use", "use_partition", _USE_TIP, self._on_use)
        self.upsampler = note("upsampler_note")
        self.progress = QProgressBar(objectName="insight_progress")
        self.progress.setToolTip("How much of the attention is computed")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.attention, self.regions))
        layout.addWidget(self.progress)
        layout.addWidget(self.count)
        chooser = row(self.partition, self.use)
        chooser.setStretch(0, 1)
        layout.addLayout(chooser)
        layout.addWidget(self.upsampler)

    def _connect(self) -> None:
        self._session.options_changed.connect(self.show_insight)
        self._session.features_changed.connect(self.show_layers)
        self._controller.link.images_changed.connect(self.show_layers)
        self._controller.computing_changed.connect(self.show_insight)
        self._controller.side.changed.connect(self.show_insight)
        self._controller.side.progressed.connect(self._on_progressed)
        self._controller.closing.connect(self._close)
        for name in _LIST_EVENTS:
            getattr(self._viewer.layers.events, name).connect(self.show_layers)

    # What the session and the viewer say.

    def show_layers(self, event: object = None) -> None:
        """List the Labels layers that could divide the image; keep the choice."""
        chosen, layers = self.partition.currentText(), self._layers()
        with QSignalBlocker(self.partition):
            self.partition.clear()
            self.partition.addItems([_OWN, *(layer.name for layer in layers)])
            self.partition.setCurrentIndex(max(self.partition.findText(chosen), 0))
        self.show_insight()

    def show_insight(self, event: object = None) -> None:
        """Enable what the backbone has; a tooltip says why the rest is not there."""
        side, inspection = self._controller.side, self._insight
        is_asked = side.has(_ATTENTION)
        self.attention.setText("Cancel" if is_asked else "Attention")
        reason = "" if is_asked else inspection.why_no_attention()
        _enable(self.attention, reason, _ATTENTION_TIP)
        _enable(self.regions, inspection.why_no_regions(), _REGIONS_TIP)
        reason = inspection.why_no_partition()
        if not reason and self._controller.is_computing:
            reason = "the features are being computed"
        _enable(self.partition, reason, _PARTITION_TIP)
        _enable(self.use, reason, _USE_TIP)
        self.progress.setVisible(any(side.has(job) for job in _JOBS))
        set_note(self.upsampler, inspection.why_no_upsampler())
        set_note(self.count, f"{inspection.region_count()} {self._origin()}".strip())

    def _origin(self) -> str:
        """Say where the regions of the image come from, if not from the network."""
        entry = self._session.current
        if entry is None or entry.partition is None:
            return ""
        return f"Regions from {entry.partition.name}."

    def _layers(self) -> list[Labels]:
        image, entry = self._controller.link.image, self._session.current
        if image is None or entry is None:
            return []
        return partitions(self._viewer, image, entry.shape)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._controller.side.kind in _JOBS:
            self.progress.setRange(0, total)
            self.progress.setValue(done)

    # What the user does, and what comes of it.

    def _on_attention(self) -> None:
        if self._controller.side.has(_ATTENTION):
            self._controller.side.cancel(_ATTENTION)
        else:
            self._controller.attempt(
                self._submit,
                _ATTENTION,
                self._insight.attention_request,
                self._on_maps,
            )

    def _on_regions(self) -> None:
        self._controller.attempt(
            self._submit, _REGIONS, self._insight.regions_request, self._on_found
        )

    def _submit(
        self, job: str, request: Callable[[], object], hear: Callable[..., None]
    ) -> None:
        self.progress.setRange(0, 0)
        self._controller.side.submit(job, request(), hear)

    def _on_maps(self, answer: Attention) -> None:
        self._overlays[0].show(answer)

    def _on_found(self, answer: Regions) -> None:
        for overlay in self._overlays[1:]:
            overlay.show(answer)

    def _on_use(self) -> None:
        self._controller.attempt(self._use, self.partition.currentIndex() - 1)

    def _use(self, position: int) -> None:
        entry, layers = self._session.current, self._layers()
        if entry is None or position >= len(layers):
            return
        labels, name = None, ""
        if position >= 0:
            layer = layers[position]
            index = self._controller.link.index
            labels, name = plane_of(layer, index, entry.shape), layer.name
        if self._insight.use_partition(labels, name):
            self._controller.compute_features()
        else:
            self._session.say("These are the regions of the features already.")

    def _close(self) -> None:
        """Let go of the viewer; its layers stay as they are."""
        for name in _LIST_EVENTS:
            getattr(self._viewer.layers.events, name).disconnect(self.show_layers)


def _enable(control: QWidget, reason: str, tool_tip: str) -> None:
    """Enable a control, or say why it is not."""
    control.setEnabled(not reason)
    capital = reason[:1].upper() + reason[1:]
    control.setToolTip(f"{capital}." if reason else tool_tip)
