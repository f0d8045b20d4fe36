"""What came out: shares of the classes, and the classifier as a file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QFileDialog,
    QGroupBox,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.widgets.parts import note, push_button, row

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller

_FILTER = "Classifier (*.safetensors)"


class ResultPanel(QGroupBox):
    """Shows the phase fractions, and saves and loads the classifier."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__("Result", parent)
        self._controller, self._session = controller, controller.session
        self.fractions = note("fractions")
        self.fractions.setToolTip("Share of the image that each class covers")
        self.save = push_button(
            "Save classifier…",
            "save_classifier",
            "Write the classifier to a file, to use it on other images",
            self._on_save,
        )
        self.load = push_button(
            "Load classifier…",
            "load_classifier",
            "Segment this image by a classifier that was saved",
            self._on_load,
        )
        layout = QVBoxLayout(self)
        layout.addWidget(self.fractions)
        layout.addLayout(row(self.save, self.load))
        self._session.segmentation_changed.connect(self.show_result)
        self._session.classes_changed.connect(self.show_result)
        self.show_result()

    def show_result(self) -> None:
        """Show the share of each class."""
        fractions = self._session.phase_fractions()
        texts = []
        for class_id, fraction in fractions.items():
            info = self._session.classes[class_id]
            texts.append(
                f'<span style="color:{info.color}">■</span>&nbsp;'
                f"{escape(info.name).replace(' ', '&nbsp;')}&nbsp;{fraction:.1%}"
            )
        self.fractions.setText(" &nbsp; ".join(texts) or "No segmentation yet.")
        self.save.setEnabled(self._session.classifier is not None)

    def _on_save(self) -> None:
        dialog = QFileDialog(self, "Save classifier", "classifier", _FILTER)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("safetensors")
        if dialog.exec():
            self._controller.save_classifier(dialog.selectedFiles()[0])

    def _on_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load classifier", "", _FILTER)
        if path:
            self._controller.load_classifier(path)
