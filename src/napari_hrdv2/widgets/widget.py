"""The dock widget: sections of panels, and a line that says what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from .controller import Controller
from .panels import SECTIONS, panel_specs
from .panels import controls as ui
from .panels.recovery import RecoveryNotice

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

    Attributes
    ----------
    controller : Controller
    panels : dict of str to QWidget
        By their names; they are attributes of the widget, too.
    sections : dict of str to ui.Section
        The collapsible sections around panels, by the same names.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("high_resolution_segmentation")
        self.controller = Controller(viewer)
        self.panels: dict[str, QWidget] = {}
        self.sections: dict[str, ui.Section] = {}
        self.recovery = RecoveryNotice(self.controller)
        self.status = ui.hint("status", "What is going on and what to do next")
        # The text changes all the time; what stands around it must not jump.
        line = self.status.fontMetrics().lineSpacing()
        self.status.setMinimumHeight(_STATUS_LINES * line)
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.addWidget(self.recovery)
        layout.addWidget(ui.ColumnArea(self._column()), 1)
        layout.addWidget(self.status)
        self.session.status_changed.connect(self._show_status)
        self.destroyed.connect(self.controller.close)
        self.controller.link.select_first()
        self._show_status(self.session.status)

    def __getattr__(self, name: str) -> Any:
        panels = self.__dict__.get("panels", {})
        if name not in panels:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return panels[name]

    @property
    def session(self) -> Session:
        """What the widget shows."""
        return self.controller.session

    def _column(self) -> QWidget:
        parts: dict[str, list[QWidget]] = {title: [] for title in SECTIONS}
        for spec in panel_specs():
            panel = part = self.panels[spec.name] = spec.make(self.controller)
            if spec.title:
                part = ui.Section(spec.title, f"{spec.name}_fold", panel)
                self.sections[spec.name] = part
            if hasattr(panel, "asks"):
                panel.asks.connect(part.expand)
            if hasattr(panel, "release"):
                self.controller.closing.connect(panel.release)
            parts[spec.section].append(part)
        sections = [
            ui.Section(
                title,
                f"{title.lower()}_fold",
                ui.fill_column(QWidget(), *inside, spacing=2),
                is_open=True,
                is_main=True,
            )
            for title, inside in parts.items()
        ]
        column = ui.fill_column(QWidget(), *sections)
        column.layout().addStretch(1)
        return column

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
