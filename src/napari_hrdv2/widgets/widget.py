"""The dock widget: sections of panels, a status line, and a notice of saved work."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QFrame, QVBoxLayout, QWidget

from .controller import Controller
from .panels import SECTIONS, panel_specs
from .panels import controls as ui

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_hrdv2.session import Session
    from napari_hrdv2.session.project.autosave import AutosaveEntry

    from .projects import AutosaveWorker, ProjectLoader

_STATUS_LINES = 3
_DOCKING_TIME = 100  # milliseconds after which the canvas has its new size


class SegmentationWidget(QWidget):
    """High-resolution segmentation of the image that is open in the viewer.

    Its `panels`, by their names, are also attributes of the widget; `sections` are the
    collapsible sections around them, by the same names.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("high_resolution_segmentation")
        self.controller = Controller(viewer)
        self.panels: dict[str, QWidget] = {}
        self.sections: dict[str, ui.Section] = {}
        loader = self.controller.project_loader()
        self.recovery = RecoveryNotice(self.controller.autosave, loader)
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
        # The dock takes room from the canvas; who saw all of the image still shall.
        view = self.controller.link.view
        self._was_whole = view.is_whole()
        self._docked = QTimer(self, singleShot=True, interval=_DOCKING_TIME)
        self._docked.timeout.connect(self._on_docked)
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
        column = ui.fill_column(QWidget())
        for title, inside in parts.items():
            content = ui.fill_column(QWidget(), *inside, spacing=2)
            name = f"{title.lower()}_fold"
            column.layout().addWidget(ui.Section(title, name, content, is_open=True))
        column.layout().addStretch(1)
        return column

    def _show_status(self, text: str) -> None:
        self.status.setText(text)

    def showEvent(self, event: QShowEvent) -> None:
        """Look after the view, once the dock has its place."""
        super().showEvent(event)
        if self._was_whole:
            self._docked.start()

    def _on_docked(self) -> None:
        view = self.controller.link.view
        if self._was_whole and not view.is_whole():
            view.fit()
        self._was_whole = False

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


class RecoveryNotice(QFrame):
    """Says that earlier work on the image was saved, and what to do with it."""

    def __init__(self, autosave: AutosaveWorker, loader: ProjectLoader) -> None:
        super().__init__(objectName="recovery", frameShape=QFrame.Shape.StyledPanel)
        self._autosave, self._loader = autosave, loader
        loader.ask = partial(ui.agrees, self)
        tip = "What was saved when the program ended, or before"
        self.text = ui.hint("recovery_text", tip)
        self.choice = ui.combo_box("recovery_choice", "Which of the states to restore")
        self.choice.currentIndexChanged.connect(self._show_text)
        self.restore = ui.push_button("Restore", "recovery_restore", self._on_restore)
        tip = "Go on without; it is shown when the image is opened again"
        self.later = ui.push_button("Not now", "recovery_later", autosave.decline, tip)
        self.forget = ui.push_button("Forget", "recovery_forget", self._on_forget)
        buttons = ui.row(self.restore, self.later, self.forget)
        ui.fill_column(self, self.text, self.choice, buttons)
        self.layout().setContentsMargins(4, 4, 4, 4)
        self._autosave.changed.connect(self.show_found)
        self.show_found()

    def show_found(self) -> None:
        """Show what there is, or nothing at all."""
        found = self._autosave.found
        texts = [f"{_time_text(entry)}: {_content(entry)}" for entry in found]
        ui.fill(self.choice, texts, "")
        self.choice.setVisible(len(found) > 1)
        self.setVisible(bool(found))
        self._show_text()

    @property
    def _chosen(self) -> AutosaveEntry:
        position: int = self.choice.currentIndex()
        return self._autosave.found[position]

    def _show_text(self) -> None:
        if self._autosave.found:
            when, what = _time_text(self._chosen), _content(self._chosen)
            self.text.setText(f"Work on this image from {when} was found ({what}).")

    def _on_restore(self) -> None:
        """Bring scribbles, classes, options and classifier back."""
        self._loader.restore(self._chosen.path)

    def _on_forget(self) -> None:
        """Remove this state for good."""
        entry = self._chosen
        what = f"the work from {_time_text(entry)} ({_content(entry)})"
        if ui.agrees(self, f"Remove {what} for good? It cannot be had back."):
            self._autosave.discard(entry)


def _time_text(entry: AutosaveEntry) -> str:
    """Return the time of day, with the date if it was another day."""
    then = entry.saved_at.astimezone()
    today = datetime.now().astimezone().date()
    return f"{then:%H:%M}" if then.date() == today else f"{then:%d %b %Y, %H:%M}"


def _content(entry: AutosaveEntry) -> str:
    many = f"{entry.labelled_pixels:,}".replace(",", "\N{NO-BREAK SPACE}")
    texts = [f"{len(entry.classes)} classes", f"{many} pixels"]
    if len(entry.images) > 1:
        texts.append(f"{len(entry.images)} images")
    return ", ".join(texts)
