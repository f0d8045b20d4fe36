"""What is done after the classifier: smoothing, small objects, holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_hrdv2.core.postprocess.refinement import SMOOTHINGS
from napari_hrdv2.session import Stage
from napari_hrdv2.widgets.jobs import when_rested

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_hrdv2.widgets.controller import Controller

REST_TIME = 250  # milliseconds: values that are passed on the way are no change
_NARROW = 78  # pixels: two with their texts must fit side by side
_NAMES = {"none": "No smoothing", "guided": "Guided filter", "crf": "CRF with colour"}
_LARGEST_AREA = 10**7  # pixels
_NUMBERS: dict[str, tuple[str, str, float, float]] = {  # label, tooltip, limits
    "radius": ("Radius", "How far pixels are asked, in pixels", 1, 256),
    "strength": (
        "Strength",
        "How much the neighbours say. Up to 0.5 a pixel of which the classifier is "
        "sure keeps its class, so thin lines stay",
        0.0,
        1.0,
    ),
    "min_object": (
        "Objects",
        "Objects of fewer pixels go to the class that surrounds them",
        0,
        _LARGEST_AREA,
    ),
    "fill_holes": (
        "Holes",
        "What one class encloses takes that class if it has fewer pixels",
        0,
        _LARGEST_AREA,
    ),
}


class RefinePanel(QWidget):
    """Shows how results are refined, and lets the user change that."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        session = controller.session
        self._refining, self._live = session.refinement, session.live
        self._attempt = controller.attempt
        self._rest = when_rested(self, REST_TIME, self._on_rest)
        self._make_controls(controller.cancel_refinement)
        self._refining.changed.connect(self.show_settings)
        session.segmentation_changed.connect(self.show_work)
        session.live.stage_changed.connect(self.show_work)
        self.show_settings()

    def show_settings(self) -> None:
        """Show the settings, and what can be undone."""
        settings = self._refining.settings
        for name, number in self.numbers.items():
            with QSignalBlocker(number):
                number.setValue(getattr(settings, name))
        self.smoothing.setCurrentIndex(SMOOTHINGS.index(settings.smoothing))
        for name in ("radius", "strength"):
            for widget in (self.numbers[name], self._labels[name]):
                widget.setVisible(settings.smoothing != "none")
        self.undo.setEnabled(self._refining.can_undo)
        self.redo.setEnabled(self._refining.can_redo)
        self.off.setEnabled(not settings.is_off)
        self.show_work()

    def show_work(self) -> None:
        """Show whether the result is being refined."""
        is_pending = self._refining.is_pending  # others may be refined meanwhile
        is_busy = is_pending and self._live.stage is Stage.REFINEMENT
        self.cancel.setVisible(is_busy)
        text = ""
        if is_busy:
            text = "Refining; the result of the classifier is shown meanwhile."
        elif is_pending and not self._refining.settings.is_off:
            text = "Not refined yet: the result of the classifier is shown."
        ui.set_hint(self.state, text)

    def release(self) -> None:
        """Take no more values over."""
        self._rest.cancel()

    def _make_controls(self, cancel: Callable[[], object]) -> None:
        self.smoothing = ui.combo_box(
            "smoothing",
            "Smooth the result by the grey levels or colours of the image; thin and "
            "rare phases stay",
            [_NAMES[one] for one in SMOOTHINGS],
        )
        self.smoothing.activated.connect(self._on_rest)
        grid = QGridLayout()
        grid.setHorizontalSpacing(4)
        grid.addWidget(self.smoothing, 0, 0, 1, 4)
        self.numbers: dict[str, QWidget] = {}
        self._labels: dict[str, QLabel] = {}
        for place, (name, (text, tip, low, high)) in enumerate(_NUMBERS.items()):
            number = self.numbers[name] = ui.number_box(name, tip, low, high)
            number.setMinimumWidth(_NARROW)
            number.valueChanged.connect(self._rest.throttle)
            label = self._labels[name] = QLabel(text, toolTip=tip)
            line, column = 1 + place // 2, 2 * (place % 2)
            grid.addWidget(label, line, column)
            grid.addWidget(number, line, column + 1)
            grid.setColumnStretch(column + 1, 1)
        refining = self._refining
        tip = "Take the last change here back (Ctrl+Z while this part has the focus)"
        self.undo = ui.push_button("Undo", "undo_refinement", refining.undo, tip)
        tip = "Make the change again that was taken back (Ctrl+Shift+Z)"
        self.redo = ui.push_button("Redo", "redo_refinement", refining.redo, tip)
        self.off = ui.push_button("Show raw", "refinement_off", self._on_off)
        self.state = ui.hint("refining", "What happens to the result")
        tip = "Keep the result as it is"
        self.cancel = ui.push_button("Cancel", "cancel_refining", cancel, tip)
        buttons = ui.row(self.undo, self.redo, self.off)
        ui.fill_column(self, grid, buttons, self.state, self.cancel)
        known = QKeySequence.StandardKey
        context = Qt.ShortcutContext.WidgetWithChildrenShortcut
        for keys, do in ((known.Undo, refining.undo), (known.Redo, refining.redo)):
            QShortcut(QKeySequence(keys), self, context=context, activated=do)

    def _on_rest(self) -> None:
        """Take the form over once its values rest."""
        self._rest.cancel()
        values = {name: number.value() for name, number in self.numbers.items()}
        values["strength"] = round(values["strength"], 2)
        smoothing = SMOOTHINGS[self.smoothing.currentIndex()]
        if not self._attempt(self._refining.change, smoothing=smoothing, **values):
            self.show_settings()

    def _on_off(self) -> None:
        """Switch all of it off and show the result of the classifier; can be undone."""
        self._rest.cancel()
        self._refining.change(smoothing="none", min_object=0, fill_holes=0)


PANELS = (PanelSpec("refine", "Result", 10, RefinePanel, "Refine"),)
