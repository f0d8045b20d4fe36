"""How good the result is, where a truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QLineEdit, QTreeWidgetItem, QWidget

from napari_hrdv2.core.atomic import write_csv
from napari_hrdv2.core.measure.comparison import BOUNDARY_WIDTH
from napari_hrdv2.core.measure.numbering import pairs_from_text
from napari_hrdv2.core.measure.scores import score_table
from napari_hrdv2.widgets.viewer.result_overlays import ErrorOverlay

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_hrdv2.session.measurement import Compared
    from napari_hrdv2.widgets.controller import Controller
    from napari_hrdv2.widgets.jobs import SideWork

_LABELS = "Labels (*.tif *.tiff *.png *.bmp);;All files (*)"
_NARROW = 84  # pixels
_FITTING = 3  # columns of the confusion matrix that a dock has room for


class ComparePanel(QWidget):
    """Compares the result with a truth: scores of classes, confusion, errors."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._session, self._attempt = controller.session, controller.attempt
        overlay = self.overlay = ErrorOverlay(controller.link, controller.side)
        self._file: Path | None = None
        self._make_controls(controller.side)
        self._make_tables()
        ui.fill_column(
            self,
            ui.row(self.truth, self.open, stretched=0),
            ui.row(self.width, self.without_scribbles),
            self.match,
            self.compare,
            self.note,
            self._found,
        )
        controller.link.images_changed.connect(self.show_truths)
        overlay.changed.connect(self.show_scores)
        overlay.refused.connect(self._on_refused)
        self.show_truths()
        self.show_scores()

    def show_truths(self) -> None:
        """List the labels layers that may be the truth, and the file that was taken."""
        texts = [layer.name for layer in self.overlay.truth_layers()]
        if self._file is not None:
            texts.append(self._file.name)
        ui.fill(self.truth, texts)
        self.compare.setEnabled(bool(texts))

    def show_scores(self) -> None:
        """Show how the result agrees with the truth, or that nothing was compared."""
        answer = self.overlay.answer
        self._found.setVisible(answer is not None)
        if answer is None:
            ui.set_hint(self.note, "")
            return
        self.match.hide()
        found = answer.comparison
        rule = answer.rule[0].upper() + answer.rule[1:]
        share = f"{found.accuracy:.2%} of {found.pixels:,} pixels"
        ui.set_hint(self.note, f"{share} are as in {answer.truth.name}. {rule}.")
        self._show_classes(answer)
        self._show_confusion(answer)

    def take_file(self, path: str) -> None:
        """Compare the result with the labels in a file."""
        self._file = Path(path)
        self.show_truths()
        self.truth.setCurrentIndex(self.truth.count() - 1)
        self._attempt(self._on_compare)

    def save_to(self, path: str) -> bool:
        """Write scores and confusion matrix to a table."""
        answer = self.overlay.answer
        if answer is None:
            return False
        table = score_table(answer.comparison, answer.classes)
        return self._attempt(write_csv, path, *table, said=f"Scores saved to {path}.")

    def _make_controls(self, side: SideWork) -> None:
        tip = "The labels layer, or the file, that is known to be right"
        self.truth = ui.combo_box("truth", tip)
        self.open = ui.PathButton("File…", "open_truth", self.take_file, _LABELS)
        self.without_scribbles = ui.check_box(
            "Not under scribbles",
            "without_scribbles",
            "Leave out the pixels that were painted: they train the classifier",
            checked=True,
        )
        tip = "How far from its boundary a class is scored for the boundary IoU"
        self.width = ui.number_box("boundary_width", tip, 1, 99)
        self.width.setValue(BOUNDARY_WIDTH)
        self.width.setMinimumWidth(_NARROW)
        tip = "Which id of the truth is which class, where ids or names do not tell"
        self.match = QLineEdit(objectName="match_classes", toolTip=tip)
        self.match.setPlaceholderText("truth=class: 0=1, 255=2")
        self.match.hide()
        self.compare = ui.JobButton(
            "Compare", "compare", self._on_compare, side, ErrorOverlay.job
        )
        self.note = ui.hint("scores_note", "What was compared")

    def _make_tables(self) -> None:
        self.rows = ui.table("score_rows", ["Class", "IoU", "Boundary"])
        self.rows.headerItem().setToolTip(2, "IoU near the boundaries of the class")
        tip = "Rows: what is true; columns: what it was taken for, in percent"
        self.confusion = ui.table("confusion_rows", ["True"], tip)
        self.save = ui.PathButton(
            "Save CSV…", "save_scores", self.save_to, ui.TABLE, "scores.csv"
        )
        self._found = ui.fill_column(QWidget(), self.rows, self.confusion, self.save)

    def _show_classes(self, answer: Compared) -> None:
        self.rows.clear()
        found, names = answer.comparison, self._names(answer)
        for k, name in enumerate(names):
            texts = [name, _percent(found.iou[k]), _percent(found.boundary_iou[k])]
            item = QTreeWidgetItem(self.rows, texts)
            item.setIcon(0, ui.swatch(self._color(found.classes[k])))
            there = f"{found.true_pixels[k]:,} pixels in the truth"
            tip = f"{name}: {there}, {found.found_pixels[k]:,} in the result"
            item.setToolTip(0, tip)
        means = _percent(found.mean_iou), _percent(found.mean_boundary_iou)
        QTreeWidgetItem(self.rows, ["Mean", *means])
        ui.fit_rows(self.rows)

    def _show_confusion(self, answer: Compared) -> None:
        found, names = answer.comparison, self._names(answer)
        titles, counts = list(names), found.confusion
        if found.unsegmented.any():
            titles.append("none")
            counts = np.column_stack([counts, found.unsegmented])
        self.confusion.clear()
        ui.set_up_tree(self.confusion, ["True", *titles])
        if len(titles) > _FITTING:
            always = Qt.ScrollBarPolicy.ScrollBarAlwaysOn
            self.confusion.setHorizontalScrollBarPolicy(always)
            resize = QHeaderView.ResizeMode.ResizeToContents
            self.confusion.header().setSectionResizeMode(0, resize)
        totals = np.maximum(found.true_pixels, 1)
        for k, name in enumerate(names):
            shares = [f"{100 * n / totals[k]:.1f}" for n in counts[k]]
            item = QTreeWidgetItem(self.confusion, [name, *shares])
            pairs = zip(titles, counts[k], strict=True)
            for column, (title, count) in enumerate(pairs, start=1):
                tip = f"{count:,} pixels of {name} were taken for {title}"
                item.setToolTip(column, tip)
        ui.fit_rows(self.confusion)

    def _names(self, answer: Compared) -> list[str]:
        known = {one.id: one.name for one in answer.classes}
        return [known[i] for i in answer.comparison.classes]

    def _color(self, class_id: int) -> str:
        info = self._session.classes.get(class_id)
        return "gray" if info is None else info.color

    def _on_compare(self) -> None:
        """Compare the result with this truth."""
        pairs = self.match.text().strip() if self.match.isVisibleTo(self) else ""
        text = self.truth.currentText()
        is_last = self.truth.currentIndex() == self.truth.count() - 1
        layers = self.overlay.truth_layers()
        truth: Labels | Path | None = next((t for t in layers if t.name == text), None)
        if self._file is not None and is_last:
            truth = self._file
        if truth is None:
            raise ValueError("truth: there is none yet; open a labels layer or a file")
        self.overlay.compare(
            truth,
            boundary_width=self.width.value(),
            without_scribbles=self.without_scribbles.isChecked(),
            match=pairs_from_text(pairs) if pairs else None,
        )

    def _on_refused(self, sentence: str) -> None:
        ui.set_hint(self.note, sentence)
        self._session.say(sentence)
        if sentence.startswith("truth: "):
            self.match.show()


def _percent(score: float) -> str:
    return "–" if score != score else f"{100 * score:.1f} %"


PANELS = (PanelSpec("compare", "Result", 22, ComparePanel, "Compare with a truth"),)
