"""A notice that work on this image was found, and what to do with it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame

from napari_hrdv2.widgets.workers.project import ProjectLoader

from . import controls as ui

if TYPE_CHECKING:
    from napari_hrdv2.session.project.store import AutosaveEntry
    from napari_hrdv2.widgets.controller import Controller


class RecoveryNotice(QFrame):
    """Says that earlier work on the image was saved, and what to do with it."""

    def __init__(self, controller: Controller) -> None:
        super().__init__(objectName="recovery")
        self._autosave = controller.autosave
        self._loader = ProjectLoader(controller, self.ask)
        tip = "What was saved when the program ended, or before"
        self.text = ui.hint("recovery_text", tip)
        self.choice = ui.combo_box("recovery_choice", "Which of the states to restore")
        self.choice.currentIndexChanged.connect(self._show_text)
        self.restore = ui.push_button("Restore", "recovery_restore", self._on_restore)
        self.later = ui.push_button("Not now", "recovery_later", self._on_later)
        self.forget = ui.push_button("Forget", "recovery_forget", self._on_forget)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        buttons = ui.row(self.restore, self.later, self.forget)
        ui.fill_column(self, self.text, self.choice, buttons)
        self.layout().setContentsMargins(4, 4, 4, 4)
        self._autosave.changed.connect(self.show_found)
        self.show_found()

    def ask(self, question: str) -> bool:
        """Ask the user; return whether he ui.agrees."""
        return ui.agrees(self, question)

    def show_found(self) -> None:
        """Show what there is, or nothing at all."""
        found = self._autosave.found
        ui.fill(self.choice, [_row_text(entry) for entry in found], "")
        self.choice.setVisible(len(found) > 1)
        self.setVisible(bool(found))
        self._show_text()

    @property
    def _chosen(self) -> AutosaveEntry | None:
        position, found = self.choice.currentIndex(), self._autosave.found
        return found[position] if 0 <= position < len(found) else None

    def _show_text(self) -> None:
        entry = self._chosen
        if entry is not None:
            self.text.setText(
                f"Work on this image from {_time_text(entry)} was found "
                f"({_content(entry)})."
            )

    def _on_restore(self) -> None:
        """Bring scribbles, classes, options and classifier back."""
        if self._chosen is not None:
            self._loader.restore(self._chosen.path)

    def _on_later(self) -> None:
        """Go on without; it is shown when the image is opened again."""
        self._autosave.decline()

    def _on_forget(self) -> None:
        """Remove this state for good."""
        entry = self._chosen
        if entry is not None and self.ask(
            f"Remove the work from {_time_text(entry)} ({_content(entry)}) for good? "
            "It cannot be had back."
        ):
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


def _row_text(entry: AutosaveEntry) -> str:
    return f"{_time_text(entry)}: {_content(entry)}"
