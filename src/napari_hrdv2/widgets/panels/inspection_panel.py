"""What the backbone looks at, shown as layers; and regions that it is to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QWidget

from napari_hrdv2.widgets.viewer import planes
from napari_hrdv2.widgets.viewer.overlay import MapOverlay

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from napari_hrdv2.session.inspection.backbone import Attention, Regions
    from napari_hrdv2.widgets.controller import Controller

_ATTENTION, _REGIONS = "attention", "regions"  # as the side work calls them
_OWN = "the network's own"
_OPACITY = 0.7
_BORDER_COLORS = {None: "transparent", 0: "transparent", 1: "yellow"}


class InspectionPanel(QWidget):
    """Shows attention and regions, and hands a Labels layer over as regions."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        link, side = self._link, self._side = controller.link, controller.side
        session = self._session = link.session
        self._inspection = session.inspection
        roles = ("attention", "attention foreground", "regions", "region borders")
        self._maps, self._foreground, self._regions, self._borders = (
            MapOverlay(link, side, role) for role in roles
        )
        self.attention = ui.JobButton(
            "Attention", "show_attention", self._on_attention, side, _ATTENTION
        )
        self.regions = ui.push_button("Regions", "show_regions", self._on_regions)
        self.count = ui.hint("region_count")
        tip = (
            "The regions of this image: the network's own, or a Labels layer, where "
            "every value is one region, 0 as well"
        )
        self.partition = ui.combo_box("partition", tip)
        self.use = ui.push_button("Use", "use_partition", self._on_use)
        self.upsampler = ui.hint("upsampler_note")
        tip = "How much of the attention is computed"
        ui.fill_column(
            self,
            ui.row(self.attention, self.regions),
            ui.JobProgress("insight_progress", tip, side, _ATTENTION, _REGIONS),
            self.count,
            ui.row(self.partition, self.use, stretched=0),
            self.upsampler,
        )
        session.options_changed.connect(self.show_inspection)
        session.features_changed.connect(self.show_layers)
        link.images_changed.connect(self.show_layers)
        controller.computing_changed.connect(self.show_inspection)
        side.changed.connect(self.show_inspection)
        self.show_layers()

    def show_layers(self) -> None:
        """List the Labels layers that could divide the image; keep the choice."""
        ui.fill(self.partition, [_OWN, *(layer.name for layer in self._layers())])
        self.show_inspection()

    def show_inspection(self) -> None:
        """Enable what the backbone has; a tooltip says why the rest is not there."""
        inspection = self._inspection
        is_asked = self.attention.is_running
        ui.enable(self.attention, "" if is_asked else inspection.why_no_attention())
        ui.enable(self.regions, inspection.why_no_regions())
        reason = inspection.why_no_partition()
        if not reason and self._controller.is_computing:
            reason = "the features are being computed"
        for control in (self.partition, self.use):
            ui.enable(control, reason)
        ui.set_hint(self.upsampler, inspection.why_no_upsampler())
        entry, text = self._session.current, inspection.region_count()
        if entry is not None and entry.partition is not None:
            text = f"{text} Regions from {entry.partition.name}.".strip()
        ui.set_hint(self.count, text)

    def _layers(self) -> list[Labels]:
        """Return the Labels layers that can divide the image entry into regions."""
        return self._link.layers.labels_on(self._link.image)

    def _on_attention(self) -> None:
        """Add a layer with how much the class token attends to each pixel.

        There is one map for each head; 1 is as much as to all alike. Of a network of
        regions there is one map, from 0 to 1. Where it is high is a Labels layer,
        hidden, if there are features.
        """
        request = self._inspection.attention_request()
        self._side.submit(_ATTENTION, request, self._on_maps)

    def _on_regions(self) -> None:
        """Add the regions that the features stand for.

        They are a Labels layer, hidden, and their borders.
        """
        self._side.attempt(self._find_regions)

    def _find_regions(self) -> None:
        request = self._inspection.regions_request()
        self._side.submit(_REGIONS, request, self._on_found)

    def _on_maps(self, answer: Attention) -> None:
        maps = answer.maps if len(answer.maps) > 1 else answer.maps[0]
        finite = maps[np.isfinite(maps)]
        highest = float(np.percentile(finite, 99.5)) if finite.size else 0.0
        look: Any = {"name": f"Attention of {answer.backbone}", "opacity": _OPACITY}
        look |= {"colormap": "inferno", "blending": "translucent"}
        look["contrast_limits"] = (0, highest or 1.0)
        self._maps.put(Image, maps, answer.key, keeps_look=False, **look)
        if answer.foreground is not None:
            look = {"name": "Attention foreground", "visible": False}
            mask = answer.foreground.astype(np.uint8)
            self._foreground.put(Labels, mask, answer.key, keeps_look=False, **look)

    def _on_found(self, answer: Regions) -> None:
        # The many colours of the regions would hide the image.
        look: Any = {"name": "Regions", "opacity": _OPACITY, "visible": False}
        self._regions.put(Labels, answer.labels, answer.key, keeps_look=False, **look)
        colors = DirectLabelColormap(color_dict=_BORDER_COLORS)
        look = {"name": "Region borders", "colormap": colors}
        borders = answer.borders.astype(np.uint8)
        self._borders.put(Labels, borders, answer.key, keeps_look=False, **look)

    def _on_use(self) -> None:
        """Compute the features of this image anew with these regions.

        A classifier does not keep these regions.
        """
        self._side.attempt(self._use, self.partition.currentIndex() - 1)

    def _use(self, position: int) -> None:
        entry, layers = self._session.current, self._layers()
        if entry is None or position >= len(layers):
            return
        labels, name = None, ""
        if position >= 0:
            layer = layers[position]
            labels = planes.labels_on_plane(layer, self._link.index, entry.shape)
            name = layer.name
        if self._inspection.use_partition(labels, name):
            self._controller.compute_features()
        else:
            self._session.say("These are the regions of the features already.")


PANELS = (
    PanelSpec("insight", "Features", 20, InspectionPanel, "Look into the backbone"),
)
