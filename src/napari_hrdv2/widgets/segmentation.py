"""The dock widget: features, paint, result, and a line that says what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_hrdv2.widgets.controller import Controller
from napari_hrdv2.widgets.feature_panel import FeaturePanel
from napari_hrdv2.widgets.paint_panel import PaintPanel
from napari_hrdv2.widgets.parts import ColumnArea, Fold, note
from napari_hrdv2.widgets.result_panel import ResultPanel

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtGui import QHideEvent

    from napari_hrdv2.session import Session

_STATUS_LINES = 4


class SegmentationWidget(QWidget):
    """High-resolution segmentation of the image that is open in the viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose images are segmented, and which gets the layers.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("high_resolution_segmentation")
        self.controller = Controller(viewer)
        self.features = FeaturePanel(self.controller)
        self.paint = PaintPanel(self.controller)
        self.result = ResultPanel(self.controller)
        self.status = note("status")
        self.status.setToolTip("What is going on and what to do next")
        self._lay_out()
        self.session.status_changed.connect(self._show_status)
        self.destroyed.connect(self.controller.close)
        self.controller.link.select_first()
        self._show_status(self.session.status)

    @property
    def session(self) -> Session:
        """What the widget shows."""
        return self.controller.session

    def _lay_out(self) -> None:
        panels = QWidget()
        column = QVBoxLayout(panels)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for title, panel in (
            ("Features", self.features),
            ("Paint", self.paint),
            ("Result", self.result),
        ):
            name = f"{title.lower()}_fold"
            column.addWidget(Fold(title, name, panel, is_open=True, is_section=True))
        column.addStretch(1)
        area = ColumnArea(panels)
        # The text changes all the time; what stands around it must not jump.
        self.status.setMinimumHeight(
            _STATUS_LINES * self.status.fontMetrics().lineSpacing()
        )
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.addWidget(area, 1)
        layout.addWidget(self.status)

    def _show_status(self, text: str) -> None:
        self.status.setText(text)

    def hideEvent(self, event: QHideEvent) -> None:
        """End the worker when the whole window goes, not when a tab hides us."""
        super().hideEvent(event)
        if not self.window().isVisible():
            self.controller.stop_work()

    def changeEvent(self, event: QEvent) -> None:
        """Let go of everything when the dock around us was closed for good."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.controller.close()

    def closeEvent(self, event: QEvent) -> None:
        """Let go of everything when we are closed as a window of our own."""
        self.controller.close()
        super().closeEvent(event)
