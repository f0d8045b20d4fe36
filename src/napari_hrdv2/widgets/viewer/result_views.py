"""What is shown over the image: the result, or a map of what is known of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap, DirectLabelColormap, ensure_colormap

from napari_hrdv2.core.guidance.unlike import LIKE
from napari_hrdv2.session.blocks.maps import UNLIKE

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from napari_hrdv2.session.blocks.maps import GuidanceMap
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

RESULT, PROBABILITY, UNCERTAINTY, UNPAINTED = VIEWS = (
    *("result", "probability", "uncertainty", "unlike painted"),
)

_COLORMAPS = {PROBABILITY: "viridis", UNCERTAINTY: "inferno", UNPAINTED: "inferno"}
_OPACITY = 0.7
_LIMITS = LIKE, 191  # of what is unlike: from the threshold to three times of it


class ResultViews(Overlay):
    """Shows one of the `VIEWS`, and hides single classes of the result.

    Maps are computed only while they are shown; their layer goes when they are not.
    """

    role = "view"

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self.shown = RESULT
        self.hidden: frozenset[int] = frozenset()
        self._drawn = RESULT  # the view that the layer shows
        self._covered: WeakSet[Any] = WeakSet()  # results hidden for a map
        self._asked: tuple[Any, Any] = (None, None)  # what the last map asked for is of
        self._session.segmentation_changed.connect(self._on_result)
        self._session.classes_changed.connect(self._show_classes)
        sync.label_selected.connect(self._on_label_selected)
        sync.images_changed.connect(self._show_classes)

    def show(self, view: str) -> bool:
        """Show one of the views; return False, and say why, if it cannot be shown."""
        if view == self.shown:
            return True
        former, self.shown = self.shown, view
        if view == RESULT:
            self._session.live.show_map(None)
            self._side.cancel(self.role)
            self._remove()
            self._show_result(True)
        elif not self._ask_map():
            self.shown = former
        self.changed.emit()
        return self.shown == view

    def show_parts(self) -> None:
        """Show what came to the map of a large image."""
        if (found := self._session.live.map) is not None:
            self._on_map(found)

    def cycle(self) -> None:
        """Show the next view, and the result after the last."""
        now = VIEWS.index(self.shown)
        for step in range(1, len(VIEWS)):
            if self.show(VIEWS[(now + step) % len(VIEWS)]):
                return

    def toggle(self) -> None:
        """Hide what is shown to see the image, or bring it back."""
        layer = self._sync.segmentation if self.layer is None else self.layer
        if layer is not None:
            layer.visible = not layer.visible

    def set_class_visible(self, class_id: int, visible: bool) -> None:
        """Show a class in the segmentation layer, or hide it."""
        hidden = self.hidden - {class_id} if visible else self.hidden | {class_id}
        if hidden != self.hidden:
            self.hidden = hidden
            self._show_classes(anew=True)
            self.changed.emit()

    def _ask_map(self, *, silent: bool = False) -> bool:
        """Ask for the map that is shown; return False if there can be none."""
        guidance, current = self._session.guidance, self._session.current
        region = self._sync.visible_region()
        make = partial(
            guidance.uncertainty_request, self._class_shown(), visible=region
        )
        is_asked = self._ask(
            self.role,
            make,
            self._on_map,
            hear_failure=self._on_failure,
            silent=silent,
        )
        if is_asked and current is not None and current.result is not None:
            self._asked = (current.result.labels, current.exclusion)
        return is_asked

    @property
    def _is_asked(self) -> bool:
        """Whether the map of this very result, refined or not, is there or comes."""
        current = self._session.current
        if current is None or current.result is None:
            return False
        labels, exclusion = self._asked
        is_same = current.result.labels is labels and current.exclusion is exclusion
        return is_same and (self.layer is not None or self._side.has(self.role))

    def _on_failure(self, error: Exception) -> None:
        self.show(RESULT)
        self._sync.refused.emit(error)

    def _class_shown(self) -> int | None:
        if self.shown in (UNCERTAINTY, UNPAINTED):
            return None if self.shown == UNCERTAINTY else UNLIKE
        scribbles = self._sync.scribbles
        return 1 if scribbles is None else int(scribbles.selected_label)

    def _on_map(self, answer: GuidanceMap) -> None:
        current, former = self._session.current, self.layer
        if self.shown == RESULT or current is None:
            return
        if (answer.key, answer.class_id) != (current.key, self._class_shown()):
            return
        if (self._key, self._drawn) != (current.key, self.shown):
            self._remove()
        self._drawn = self.shown
        self._session.live.show_map(answer)
        limits = _LIMITS if self.shown == UNPAINTED else (0, 255)
        colors, is_in_blocks = _COLORMAPS[self.shown], answer.blocks is not None
        self.put(
            Image,
            answer.values,
            answer.key,
            mark={"view": self.shown},
            name=self._title(answer),
            colormap=_block_colors(colors, limits) if is_in_blocks else colors,
            contrast_limits=(0, 255) if is_in_blocks else limits,
            blending="translucent",
            opacity=_OPACITY,
        )
        if self.layer is not former:
            self._show_result(False)
        self.changed.emit()

    def _title(self, answer: GuidanceMap) -> str:
        class_id = answer.class_id
        if class_id is None:
            return f"Uncertainty{answer.extent()}"
        if class_id == UNLIKE and answer.blocks is None:
            left_out = self._session.images[answer.key].left_out
            kept = True if left_out is None else ~left_out
            return f"Unlike painted ({(answer.values > LIKE).mean(where=kept):.1%})"
        if class_id == UNLIKE:
            return f"Unlike painted{answer.extent()}"
        info = self._session.classes.get(class_id)  # it may just have been deleted
        name = f"class {class_id}" if info is None else info.name
        return f"Probability of {name}{answer.extent()}"

    def _on_result(self) -> None:
        """Another result, or another image entry: the map of the last one is old."""
        self._show_classes()
        if self.shown == RESULT:
            if self._sync.segmentation in self._covered:  # when it was last chosen
                self._show_result(True)
            return
        current = self._session.current
        if current is None or current.key != self._key:
            self._remove()
        if self._is_asked or self._ask_map(silent=True):
            if self.layer is not None:
                self._show_result(False)  # the layer of the result may be a new one
        elif current is None or current.result is not None:
            self.show(RESULT)  # the scribbles ceased to suffice
        else:  # until there is a result of this entry, too
            self._show_result(True)

    def _on_label_selected(self, class_id: int) -> None:
        if self.shown != PROBABILITY or self._ask_map() or self.layer is None:
            return
        self._session.live.map = None
        planes.show_values(self.layer, np.zeros_like(planes.data_of(self.layer)))
        if self._image is not None:
            self.layer.name = self._named("Probability", self._image)

    def _on_removed(self) -> None:
        self.show(RESULT)

    def _show_classes(self, *, anew: bool = False) -> None:
        """Make hidden classes transparent in the colours that `LayerSync` has set."""
        layer, classes = self._sync.segmentation, self._session.classes
        self.hidden &= frozenset(classes)
        if layer is None or not (self.hidden or anew):
            return
        colors = dict(layers.colormap_of(classes).color_dict)
        colors |= dict.fromkeys(self.hidden, np.zeros(4, np.float32))
        layer.colormap = DirectLabelColormap(color_dict=colors)

    def _show_result(self, visible: bool) -> None:
        layer = self._sync.segmentation
        if layer is not None:
            layer.visible = visible
            (self._covered.discard if visible else self._covered.add)(layer)


def _block_colors(name: str, limits: tuple[int, int]) -> Colormap:
    """Return a colormap of 0 … 255 within limits; 0 is transparent: no block."""
    low, high = limits
    levels = ((np.arange(256) - low) / (high - low)).clip(0, 1)
    colors = ensure_colormap(name).map(levels)
    colors[0, 3] = 0
    return Colormap(colors, name=f"{name} of blocks", interpolation="zero")
