"""What is done after the classifier: smoothing, small objects, holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import QSignalDebouncer

from napari_hrdv2.core.postprocess.refinement import SMOOTHINGS, Refinement
from napari_hrdv2.session import Stage
from napari_hrdv2.widgets.panels.parts import (
    combo_box,
    note,
    push_button,
    row,
    set_note,
)

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller

REST_TIME = 250  # milliseconds: values that are passed on the way are no change
_NARROW = 78  # pixels: two with their texts must fit side by side
_NAMES = {
    "none": "No smoothing",
    "guided": "Guided filter",
    "crf": "CRF with colour",
}


class RefinePanel(QWidget):
    """Shows how results are refined, and lets the user change that."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._session, self._refining = (
            controller.session,
            controller.session.refinement,
        )
        self._rest = QSignalDebouncer(parent=self)
        self._rest.setTimeout(REST_TIME)
        self._rest.triggered.connect(self._on_rest)
        self._make_controls()
        self._lay_out()
        self._make_keys()
        self._refining.changed.connect(self.show_settings)
        self._session.segmentation_changed.connect(self.show_work)
        self._session.live.stage_changed.connect(self.show_work)
        controller.closing.connect(self._close)
        self.show_settings()

    def show_settings(self) -> None:
        """Show the settings, and what can be undone."""
        settings = self._refining.settings
        for widget, value in self._values(settings):
            with QSignalBlocker(widget):
                widget.setValue(value)
        with QSignalBlocker(self.smoothing):
            self.smoothing.setCurrentIndex(SMOOTHINGS.index(settings.smoothing))
        for widget in self._smoothing_only:
            widget.setVisible(settings.smoothing != "none")
        self.undo.setEnabled(self._refining.can_undo)
        self.redo.setEnabled(self._refining.can_redo)
        self.off.setEnabled(not settings.is_off)
        self.show_work()

    def show_work(self) -> None:
        """Show whether the result is being refined."""
        is_busy = self._session.live.stage is Stage.REFINEMENT
        self.cancel.setVisible(is_busy)
        text = ""
        if is_busy:
            text = "Refining; the result of the classifier is shown meanwhile."
        elif self._refining.is_pending and not self._refining.settings.is_off:
            text = "Not refined yet: the result of the classifier is shown."
        set_note(self.state, text)

    # Controls.

    def _make_controls(self) -> None:
        self.smoothing = combo_box(
            "smoothing",
            "Smooth the result by the grey levels or colours of the image; thin and "
            "rare phases stay",
        )
        self.smoothing.addItems([_NAMES[one] for one in SMOOTHINGS])
        self.smoothing.activated.connect(self._on_smoothing)
        self.radius = _spin_box(
            "radius", "How far pixels are asked, in pixels", 1, 256, " px"
        )
        self.strength = QDoubleSpinBox(objectName="strength")
        self.strength.setToolTip(
            "How much the neighbours say. Up to 0.5 a pixel of which the classifier is "
            "sure keeps its class, so thin lines stay"
        )
        self.strength.setRange(0, 1)
        self.strength.setSingleStep(0.05)
        self.min_object = _spin_box(
            "min_object",
            "Objects of fewer pixels go to the class that surrounds them",
            0,
            10**7,
            " px",
        )
        self.fill_holes = _spin_box(
            "fill_holes",
            "What one class encloses takes that class if it has fewer pixels",
            0,
            10**7,
            " px",
        )
        for widget in (self.min_object, self.fill_holes):
            widget.setSpecialValueText("off")
        for widget, _ in self._values(Refinement()):
            widget.setKeyboardTracking(False)
            widget.setMinimumWidth(_NARROW)
            widget.setStepType(QAbstractSpinBox.StepType.DefaultStepType)
            widget.valueChanged.connect(self._rest.throttle)
        self.min_object.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
        self.fill_holes.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
        self.undo = push_button(
            "Undo",
            "undo_refinement",
            "Take the last change here back (Ctrl+Z while this part has the focus)",
            self._refining.undo,
        )
        self.redo = push_button(
            "Redo",
            "redo_refinement",
            "Make the change again that was taken back (Ctrl+Shift+Z)",
            self._refining.redo,
        )
        self.off = push_button(
            "Show raw",
            "refinement_off",
            "Switch all of it off and show the result of the classifier; can be undone",
            self._on_off,
        )
        self.state = note("refining")
        self.state.setToolTip("What happens to the result")
        self.cancel = push_button(
            "Cancel",
            "cancel_refining",
            "Keep the result as it is",
            self._controller.cancel_refinement,
        )

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(4)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        grid.addWidget(self.smoothing, 0, 0, 1, 4)
        fields = (
            ("Radius", self.radius, 1, 0),
            ("Strength", self.strength, 1, 2),
            ("Objects", self.min_object, 2, 0),
            ("Holes", self.fill_holes, 2, 2),
        )
        labels = {}
        for text, widget, line, column in fields:
            labels[widget] = QLabel(text)
            labels[widget].setToolTip(widget.toolTip())
            grid.addWidget(labels[widget], line, column)
            grid.addWidget(widget, line, column + 1)
        self._smoothing_only = [
            self.radius,
            labels[self.radius],
            self.strength,
            labels[self.strength],
        ]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(grid)
        layout.addLayout(row(self.undo, self.redo, self.off))
        layout.addWidget(self.state)
        layout.addWidget(self.cancel)

    def _make_keys(self) -> None:
        for keys, do in (
            (QKeySequence.StandardKey.Undo, self._refining.undo),
            (QKeySequence.StandardKey.Redo, self._refining.redo),
        ):
            shortcut = QShortcut(QKeySequence(keys), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(do)

    def _values(self, of: Refinement) -> list[tuple[QAbstractSpinBox, float]]:
        return [
            (self.radius, of.radius),
            (self.strength, of.strength),
            (self.min_object, of.min_object),
            (self.fill_holes, of.fill_holes),
        ]

    # What the user does.

    def _on_smoothing(self, position: int) -> None:
        self._on_rest()
        self._controller.attempt(self._refining.change, smoothing=SMOOTHINGS[position])

    def _on_rest(self) -> None:
        """Take the numbers over once they rest."""
        self._rest.cancel()
        values = {
            widget.objectName(): widget.value()
            for widget, _ in self._values(self._refining.settings)
        }
        values["strength"] = round(values["strength"], 2)
        if not self._controller.attempt(self._refining.change, **values):
            self.show_settings()

    def _on_off(self) -> None:
        self._rest.cancel()
        self._refining.change(smoothing="none", min_object=0, fill_holes=0)

    def _close(self) -> None:
        self._rest.cancel()


def _spin_box(name: str, tool_tip: str, low: int, high: int, suffix: str) -> QSpinBox:
    box = QSpinBox(objectName=name)
    box.setToolTip(tool_tip)
    box.setRange(low, high)
    box.setSuffix(suffix)
    return box
