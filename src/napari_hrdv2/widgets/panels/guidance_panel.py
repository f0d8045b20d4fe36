"""Where to paint next, and which strokes to look at again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QAbstractItemView,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.widgets.panels.parts import (
    Fold,
    note,
    push_button,
    row,
    set_note,
    swatch,
)

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller
    from napari_hrdv2.widgets.viewer.guidance_overlay import GuidanceOverlay

_LINES_SEEN = 6  # of the list of suspicious strokes


class GuidancePanel(QWidget):
    """A button to the next uncertain place, and the list of suspicious strokes."""

    def __init__(
        self,
        controller: Controller,
        guide: GuidanceOverlay,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._guide = controller.session, guide
        self.next = push_button(
            "Next uncertain place",
            "next_place",
            "Go where the classifier hesitates most between two classes, away from "
            "the strokes so far",
            guide.go_next,
        )
        self.place = note("place")
        self.place.setToolTip("Why this place is proposed")
        self._make_check()
        fold = Fold("Check strokes", "check_strokes_fold", self._check_part())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.next, self.place, fold):
            layout.addWidget(widget)
        guide.changed.connect(self.show_guidance)
        self._session.classes_changed.connect(self.show_guidance)
        self.show_guidance()

    def show_guidance(self) -> None:
        """Show the place, the suspicious strokes, and what can be done with them."""
        guidance, place = self._session.guidance, self._guide.region
        text = ""
        if place is not None:
            number = guidance.uncertain_regions.index(place) + 1
            text = f"{number} of {len(guidance.uncertain_regions)}: {place.reason}"
        set_note(self.place, text)
        self._show_suspects()
        if not guidance.has_checked:
            text = ""
        elif not guidance.label_issues:
            text = "No stroke contradicts the others."
        else:
            text = f"{len(guidance.label_issues)} to look at; undo brings strokes back."
        set_note(self.checked, text)
        self.clear.setVisible(guidance.has_checked)

    def _show_suspects(self) -> None:
        label_issues, chosen = self._session.guidance.label_issues, self._guide.chosen
        with QSignalBlocker(self.label_issues):
            self.label_issues.clear()
            for label_issue in label_issues:
                item = QListWidgetItem(label_issue.reason)
                item.setToolTip(label_issue.reason)
                info = self._session.classes.get(label_issue.class_id)
                if info is not None:
                    item.setIcon(swatch(info.color))
                self.label_issues.addItem(item)
                if label_issue is chosen:
                    self.label_issues.setCurrentItem(item)
        for widget in (self.label_issues, self.relabel, self.erase):
            widget.setVisible(bool(label_issues))
        self._show_buttons()

    def _show_buttons(self) -> None:
        chosen = self._guide.chosen
        into = self._session.classes.get(chosen.predicted_id) if chosen else None
        name = into.name if into is not None else "…"
        self.relabel.setText(f"Relabel as {name}")
        for button in (self.relabel, self.erase):
            button.setEnabled(chosen is not None)

    def _make_check(self) -> None:
        guide = self._guide
        self.check = push_button(
            "Check strokes",
            "check_strokes",
            "Judge each stroke by all the others: those that are likely of the wrong "
            "class are listed and framed",
            guide.check_scribbles,
        )
        self.clear = push_button(
            "Clear",
            "clear_suspects",
            "Take the list and the frames away; the strokes stay",
            guide.clear,
        )
        self.checked = note("checked")
        self.label_issues = QListWidget(objectName="suspects")
        self.label_issues.setToolTip("Select a stroke to go there")
        self.label_issues.setWordWrap(True)
        self.label_issues.setVerticalScrollMode(
            QAbstractItemView.ScrollMode.ScrollPerPixel
        )
        line = self.label_issues.fontMetrics().lineSpacing()
        self.label_issues.setMaximumHeight(_LINES_SEEN * line)
        self.label_issues.currentRowChanged.connect(self._on_chosen)
        self.relabel = push_button(
            "Relabel as …",
            "relabel_stroke",
            "Make it a stroke of the class that the others propose; can be undone",
            guide.relabel,
        )
        self.erase = push_button(
            "Erase", "erase_stroke", "Take the stroke away; can be undone", guide.erase
        )
        # A long name must not make the dock wider.
        self.relabel.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def _check_part(self) -> QWidget:
        part = QWidget()
        layout = QVBoxLayout(part)
        layout.setContentsMargins(0, 0, 0, 0)
        check = row(self.check, self.clear)
        check.setStretch(0, 1)
        layout.addLayout(check)
        for widget in (self.checked, self.label_issues):
            layout.addWidget(widget)
        buttons = row(self.relabel, self.erase)
        buttons.setStretch(0, 1)
        layout.addLayout(buttons)
        return part

    def _on_chosen(self, position: int) -> None:
        label_issues = self._session.guidance.label_issues
        if 0 <= position < len(label_issues):
            self._guide.choose(label_issues[position])
            self._show_buttons()
