"""The dock widget: features, paint, result, and a line that says what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_hrdv2.widgets.controller import Controller
from napari_hrdv2.widgets.panels.apply_panel import ApplyPanel
from napari_hrdv2.widgets.panels.feature_panel import FeaturePanel
from napari_hrdv2.widgets.panels.files_panel import FilesPanel
from napari_hrdv2.widgets.panels.images_panel import ImagesPanel
from napari_hrdv2.widgets.panels.insight_panel import InsightPanel
from napari_hrdv2.widgets.panels.paint_panel import PaintPanel
from napari_hrdv2.widgets.panels.parts import ColumnArea, Fold, note, stacked
from napari_hrdv2.widgets.panels.recovery import RecoveryNotice
from napari_hrdv2.widgets.panels.result_panel import ResultPanel

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtGui import QHideEvent

    from napari_hrdv2.session import Session

_STATUS_LINES = 3


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
        self.images = ImagesPanel(self.controller)
        self.inspection = InsightPanel(self.controller)
        self.paint = PaintPanel(self.controller)
        self.result = ResultPanel(self.controller)
        self.files = FilesPanel(self.controller)
        self.apply = ApplyPanel(self.controller)
        self.recovery = RecoveryNotice(self.controller)
        self.status = note("status")
        self.status.setToolTip("What is going on and what to do next")
        self._lay_out()
        self.session.status_changed.connect(self._show_status)
        self.controller.link.images_changed.connect(self._ask_for_axes)
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
        self.images_fold = Fold("Images and stacks", "images_fold", self.images)
        inspection = Fold("Look into the backbone", "insight_fold", self.inspection)
        more = (
            Fold("Project, import and export", "files_fold", self.files),
            Fold("Apply to many", "apply_fold", self.apply),
        )
        for title, parts in (
            ("Features", (self.features, self.images_fold, inspection)),
            ("Paint", (self.paint,)),
            ("Result", (self.result, *more)),
        ):
            name = f"{title.lower()}_fold"
            section = stacked(*parts)
            column.addWidget(Fold(title, name, section, is_open=True, is_section=True))
        column.addStretch(1)
        area = ColumnArea(panels)
        # The text changes all the time; what stands around it must not jump.
        self.status.setMinimumHeight(
            _STATUS_LINES * self.status.fontMetrics().lineSpacing()
        )
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.addWidget(self.recovery)
        layout.addWidget(area, 1)
        layout.addWidget(self.status)

    def _ask_for_axes(self) -> None:
        if self.controller.link.unnamed_axes():
            self.images_fold.set_open(True)

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
