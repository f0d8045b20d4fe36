"""A notice that work on this image was found, and what to do with it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFrame, QMessageBox, QVBoxLayout, QWidget

from napari_hrdv2.widgets.panels.parts import combo_box, note, push_button, row
from napari_hrdv2.widgets.workers.project import ProjectLoader

if TYPE_CHECKING:
    from napari_hrdv2.session.project.autosave import AutosaveEntry
    from napari_hrdv2.widgets.controller import Controller


class RecoveryNotice(QFrame):
    """Offers what was kept of earlier work on the image; in nobody's way.

    Parameters
    ----------
    controller : Controller
    parent : QWidget, optional
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent, objectName="recovery")
        self._keeper = controller.keeper
        self._reopener = ProjectLoader(controller, self.ask)
        self.text = note("recovery_text")
        self.text.setToolTip("What was kept when the program ended, or before")
        self.choice = combo_box("recovery_choice", "Which of the states to restore")
        self.choice.currentIndexChanged.connect(self._show_text)
        self.restore = push_button(
            "Restore",
            "recovery_restore",
            "Bring strokes, classes, settings and classifier back",
            self._on_restore,
        )
        self.later = push_button(
            "Not now",
            "recovery_later",
            "Go on without; it is offered when the image is opened again",
            self._keeper.decline,
        )
        self.forget = push_button(
            "Forget",
            "recovery_forget",
            "Remove this state for good",
            self._on_forget,
        )
        self.setFrameShape(QFrame.Shape.StyledPanel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.text)
        layout.addWidget(self.choice)
        layout.addLayout(row(self.restore, self.later, self.forget))
        self._keeper.changed.connect(self.show_offers)
        self.show_offers()

    def ask(self, question: str) -> bool:
        """Ask the user; return whether he agrees."""
        answer = QMessageBox.question(self, "napari-hrdv2", question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def show_offers(self) -> None:
        """Show what there is, or nothing at all."""
        autosaves = self._keeper.autosaves
        with QSignalBlocker(self.choice):
            self.choice.clear()
            self.choice.addItems([_row_text(offer) for offer in autosaves])
        self.choice.setVisible(len(autosaves) > 1)
        self.setVisible(bool(autosaves))
        self._show_text()

    @property
    def _chosen(self) -> AutosaveEntry | None:
        row, autosaves = self.choice.currentIndex(), self._keeper.autosaves
        return autosaves[row] if 0 <= row < len(autosaves) else None

    def _show_text(self) -> None:
        offer = self._chosen
        if offer is not None:
            self.text.setText(
                f"Work on this image from {_time_text(offer)} was found "
                f"({_content(offer)})."
            )

    def _on_restore(self) -> None:
        if self._chosen is not None:
            self._reopener.restore(self._chosen.path)

    def _on_forget(self) -> None:
        offer = self._chosen
        if offer is not None and self.ask(
            f"Remove the work from {_time_text(offer)} ({_content(offer)}) for good? "
            "It cannot be had back."
        ):
            self._keeper.forget(offer)


def _time_text(offer: AutosaveEntry) -> str:
    """Return the time of day, with the date if it was another day."""
    then = offer.saved_at.astimezone()
    today = datetime.now().astimezone().date()
    return f"{then:%H:%M}" if then.date() == today else f"{then:%d %b %Y, %H:%M}"


def _content(offer: AutosaveEntry) -> str:
    many = f"{offer.strokes:,}".replace(",", "\N{NO-BREAK SPACE}")
    texts = [f"{len(offer.classes)} classes", f"{many} pixels"]
    if len(offer.images) > 1:
        texts.append(f"{len(offer.images)} images")
    return ", ".join(texts)


def _row_text(offer: AutosaveEntry) -> str:
    return f"{_time_text(offer)}: {_content(offer)}"
