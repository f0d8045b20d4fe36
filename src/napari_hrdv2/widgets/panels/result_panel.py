"""What came out: shares of the classes, what is left out, refining and measuring."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_hrdv2.widgets.panels.measure_panel import MeasurePanel
from napari_hrdv2.widgets.panels.parts import Fold, note, push_button, row
from napari_hrdv2.widgets.panels.refine_panel import RefinePanel
from napari_hrdv2.widgets.viewer.exclusion import ExclusionOverlay

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller


class ResultPanel(QWidget):
    """Shows the phase fractions; leaves parts of the image out; refines and measures.

    Attributes
    ----------
    exclusion : ExclusionOverlay
    refine : RefinePanel
    measure : MeasurePanel
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self.fractions = note("fractions")
        self.fractions.setToolTip("Share of the image that each class covers")
        self.exclusion = ExclusionOverlay(
            controller.link, controller.side, lambda: controller.is_busy
        )
        self.leave_out = push_button(
            "Leave out a rectangle",
            "leave_out",
            "Draw a rectangle, as over a databar: it is left out of training, result "
            "and fractions, in a stack on all planes",
            self.exclusion.draw,
        )
        self.take_back = push_button(
            "Remove",
            "take_back",
            "Remove the selected rectangle, or the one that was drawn last",
            self.exclusion.take_back,
        )
        self.refine = RefinePanel(controller)
        self.measure = MeasurePanel(controller)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.fractions)
        layout.addLayout(row(self.leave_out, self.take_back))
        layout.addWidget(Fold("Refine", "refine_fold", self.refine))
        layout.addWidget(Fold("Measure", "measure_fold", self.measure))
        self._session.segmentation_changed.connect(self.show_result)
        self._session.classes_changed.connect(self.show_result)
        self.exclusion.changed.connect(self.show_result)
        self.show_result()

    def show_result(self) -> None:
        """Show the share of each class, and of what is left out."""
        texts = []
        for class_id, fraction in self._session.phase_fractions().items():
            info = self._session.classes.get(class_id)
            if info is not None:
                texts.append(
                    f'<span style="color:{info.color}">■</span>&nbsp;'
                    f"{escape(info.name)}&nbsp;{fraction:.1%}"
                )
        text = " &nbsp; ".join(texts) or "No segmentation yet."
        share = self.exclusion.fraction
        if share:
            text += f"<br>{share:.1%} of the image is left out."
        self.fractions.setText(text)
        layer = self.exclusion.layer
        self.take_back.setEnabled(layer is not None and layer.nshapes > 0)
