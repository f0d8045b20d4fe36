"""What is shown over the image: the result, a probability or the uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer.camera import plane_metadata

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.session.tasks.guidance import UncertaintyMap
    from napari_hrdv2.widgets.controller import Controller

RESULT, PROBABILITY, UNCERTAINTY = VIEWS = ("result", "probability", "uncertainty")

_COLORMAPS = {PROBABILITY: "viridis", UNCERTAINTY: "inferno"}
_OPACITY = 0.7
_JOB = "view"  # what the side work calls it


class ResultViews(QObject):
    """Shows one of the views, and leaves single classes out of the result.

    Probability and uncertainty are computed beside the strokes, and only while they
    are shown; their layer goes when they are not.

    Attributes
    ----------
    shown : str
        One of `VIEWS`.
    hidden : frozenset of int
        The classes that are left out of the segmentation layer.
    layer : Image or None
        Of the probability or the uncertainty.
    """

    changed = Signal()

    def __init__(
        self, viewer: napari.components.ViewerModel, controller: Controller
    ) -> None:
        super().__init__(controller)
        self._viewer, self._controller = viewer, controller
        self._session, self._link = controller.session, controller.link
        self.shown = RESULT
        self.hidden: frozenset[int] = frozenset()
        self.layer: Image | None = None
        self._drawn = ("", RESULT)  # the picture and the view that the layer is of
        self._asked: tuple[Any, Any] = (None, None)  # what the last map asked for is of
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self._session.segmentation_changed.connect(self._on_result)
        self._session.classes_changed.connect(self._show_classes)
        self._link.label_selected.connect(self._on_label_selected)
        self._link.images_changed.connect(self._show_classes)
        controller.closing.connect(self._close)

    def show(self, view: str) -> bool:
        """Show one of the views; return False, and say why, if it cannot be shown."""
        if view == self.shown:
            return True
        former, self.shown = self.shown, view
        if view == RESULT:
            self._controller.side.cancel(_JOB)
            self._remove_layer()
            self._show_result(True)
        elif not self._ask():
            self.shown = former
        self.changed.emit()
        return self.shown == view

    def cycle(self) -> None:
        """Show the next view: result, probability, uncertainty, and result again."""
        now = VIEWS.index(self.shown)
        for step in range(1, len(VIEWS)):
            if self.show(VIEWS[(now + step) % len(VIEWS)]):
                return

    def toggle(self) -> None:
        """Hide what is shown to see the image, or bring it back."""
        layer = self._link.segmentation if self.layer is None else self.layer
        if layer is not None:
            layer.visible = not layer.visible

    def set_class_visible(self, class_id: int, visible: bool) -> None:
        """Show a class in the segmentation layer, or leave it out."""
        hidden = self.hidden - {class_id} if visible else self.hidden | {class_id}
        if hidden != self.hidden:
            self.hidden = hidden
            self._show_classes(anew=True)
            self.changed.emit()

    # The map is asked for, and comes.

    def _ask(self, *, silent: bool = False) -> bool:
        """Ask for the map that is shown; return False if there can be none."""
        try:
            request = self._session.guidance.uncertainty_request(self._class_shown())
        except ValueError as error:
            if not silent:
                self._session.say(str(error))
            return False
        current = self._session.current
        self._asked = (current.result.labels, current.exclusion)
        self._controller.side.submit(
            _JOB, request, self._on_map, hear_failure=self._on_failure
        )
        return True

    @property
    def _is_asked(self) -> bool:
        """Whether the map of this very result, refined or not, is there or comes."""
        current = self._session.current
        if current is None or current.result is None:
            return False
        is_there = self.layer is not None or self._controller.side.has(_JOB)
        labels, exclusion = self._asked
        is_same = current.result.labels is labels and current.exclusion is exclusion
        return is_there and is_same

    def _on_failure(self, error: Exception) -> None:
        """Go back to the result, which there is, and say why."""
        self.show(RESULT)
        self._controller.report(error)

    def _class_shown(self) -> int | None:
        if self.shown == UNCERTAINTY:
            return None
        scribbles = self._link.scribbles
        return 1 if scribbles is None else int(scribbles.selected_label)

    def _on_map(self, answer: UncertaintyMap) -> None:
        current = self._session.current
        if (
            self.shown == RESULT
            or current is None
            or (answer.key, answer.class_id) != (current.key, self._class_shown())
        ):
            return
        values = answer.values.reshape(
            *(1 for _ in current.key.plane), *answer.values.shape
        )
        layer, is_of_it = self.layer, self._drawn == (current.key, self.shown)
        if layer is not None and is_of_it and layer.data.shape == values.shape:
            layer.data = values
        else:  # also where the image was replaced, or the layer edited
            self._remove_layer()
            self._make_layer(values)
            self._show_result(False)
        self._drawn = (current.key, self.shown)
        self.layer.name = self._title(answer.class_id)

    def _title(self, class_id: int | None) -> str:
        if class_id is None:
            return "Uncertainty"
        info = self._session.classes.get(class_id)  # it may just have been deleted
        return f"Probability of {f'class {class_id}' if info is None else info.name}"

    def _on_result(self) -> None:
        """Another result, or another picture: the map of the last one is old."""
        self._show_classes()
        if self.shown == RESULT:
            return
        current = self._session.current
        if current is None or current.key != self._drawn[0]:
            self._remove_layer()
        if self._is_asked or self._ask(silent=True):
            if self.layer is not None:
                self._show_result(False)  # the layer of the result may be a new one
        elif current is None or current.result is not None:
            self.show(RESULT)  # the strokes ceased to suffice
        else:  # until there is a result of this picture, too
            self._show_result(True)

    def _on_label_selected(self, class_id: int) -> None:
        if self.shown == PROBABILITY and not self._ask() and self.layer is not None:
            self.layer.data = np.zeros_like(self.layer.data)
            self.layer.name = "Probability"

    # Layers.

    def _make_layer(self, values: NDArray[np.uint8]) -> None:
        """Add the layer beneath the scribbles, which stay selected."""
        image, layers = self._link.image, self._viewer.layers
        place = plane_metadata(image, self._session.current.key.plane)
        self.layer = Image(
            values,
            colormap=_COLORMAPS[self.shown],
            contrast_limits=(0, 255),
            blending="translucent",
            opacity=_OPACITY,
            metadata=make.mark_of("view", make.id_of(self._viewer, image)),
            **place,
        )
        above, active = self._link.scribbles, layers.selection.active
        layers.insert(
            layers.index(above) if above in layers else len(layers), self.layer
        )
        layers.selection.active = active

    def _remove_layer(self) -> None:
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _on_layer_removed(self, event: object = None) -> None:
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.layer = None  # by the user
            self.show(RESULT)

    def _show_classes(self, *, anew: bool = False) -> None:
        """Make hidden classes transparent in the colours that the link has set."""
        layer, classes = self._link.segmentation, self._session.classes
        self.hidden &= frozenset(classes)
        if layer is None or not (self.hidden or anew):
            return
        colors = dict(make.colormap_of(classes).color_dict)
        colors |= dict.fromkeys(self.hidden, np.zeros(4, np.float32))
        layer.colormap = DirectLabelColormap(color_dict=colors)

    def _show_result(self, visible: bool) -> None:
        if self._link.segmentation is not None:
            self._link.segmentation.visible = visible

    def _close(self) -> None:
        """Let go of the viewer; its layers stay as they are."""
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)
