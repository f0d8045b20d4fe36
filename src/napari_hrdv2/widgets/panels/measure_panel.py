"""Phase fractions with error bars, and beneath them objects and particles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.core.measure import write_fractions_csv
from napari_hrdv2.session.measurement import Scope
from napari_hrdv2.widgets.panels.particle_part import ParticlePart, ask_for_path
from napari_hrdv2.widgets.panels.parts import (
    note,
    push_button,
    row,
    set_note,
    swatch,
)

if TYPE_CHECKING:
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_hrdv2.core.measure import Fractions, PhaseFraction
    from napari_hrdv2.widgets.controller import Controller

TOGETHER = "all images"
_FRAME = 4  # pixels around the rows


class MeasurePanel(QWidget):
    """Shows what was measured; asks anew while it is seen and the result changes.

    Attributes
    ----------
    fractions : FractionPart
    particles : ParticlePart
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fractions = FractionPart(controller)
        self.particles = ParticlePart(controller)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.fractions)
        layout.addWidget(self.particles)


class FractionPart(QWidget):
    """The fraction of each class with its error bar, here and in all images."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self._measuring = controller.session.measurement
        self.rows = QTreeWidget(objectName="fraction_rows")
        self.rows.setRootIsDecorated(False)
        self.rows.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.rows.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.rows.setHeaderLabels(["Class", "Here", "All"])
        header = self.rows.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.rows.itemClicked.connect(self._on_clicked)
        self.every = QCheckBox("In all images", objectName="every_image")
        self.every.setToolTip(
            "Also the fractions in all images that have a result, weighted by area"
        )
        self.every.toggled.connect(self.set_scope)
        self.save = push_button(
            "Save CSV…",
            "save_fractions",
            "Write the fractions with their errors to a table",
            self._on_save,
        )
        self.note = note("fractions_note")
        self.note.setToolTip("What to mind")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.rows)
        layout.addWidget(self.note)
        layout.addLayout(row(self.every, self.save))
        self._measuring.changed.connect(self.show_fractions)
        self._session.classes_changed.connect(self.show_fractions)
        self.show_fractions()

    def set_scope(self) -> None:
        """Have measured what is looked at, from now on."""
        scope = Scope.EVERY if self.every.isChecked() else Scope.CURRENT
        self._measuring.set_scope(scope if self.isVisible() else Scope.NONE)

    def show_fractions(self) -> None:
        """Show what was measured; the last numbers stay until the next are there."""
        count = len(self._measuring.segmented())
        self.every.setVisible(count > 1)
        self.every.setText(f"In all {count} images")
        measured, current = self._measuring.measured, self._session.current
        self.save.setEnabled(measured is not None)
        if count == 0:
            self.rows.clear()
            set_note(self.note, "No segmentation to measure yet.")
        if measured is None or current is None or current.key not in measured.images:
            return
        here = measured.images[current.key]
        is_one = measured.together.images == 1
        self.rows.setColumnHidden(2, is_one)
        self.rows.headerItem().setText(2, f"All {measured.together.images}")
        self.rows.clear()
        for one, other in zip(here.phases, measured.together.phases, strict=True):
            self.rows.addTopLevelItem(self._item(one, here, other, measured.together))
        line, head = self.rows.sizeHintForRow(0), self.rows.header().sizeHint()
        self.rows.setFixedHeight(len(here.phases) * line + head.height() + _FRAME)
        set_note(self.note, measured.note)

    def showEvent(self, event: QShowEvent) -> None:
        """Measure when the part is unfolded."""
        super().showEvent(event)
        self.set_scope()

    def hideEvent(self, event: QHideEvent) -> None:
        """Measure no more when nobody looks."""
        super().hideEvent(event)
        self.set_scope()

    def _item(
        self, one: PhaseFraction, here: Fractions, other: PhaseFraction, all_: Fractions
    ) -> QTreeWidgetItem:
        info = self._session.classes.get(one.class_id)
        name = f"Class {one.class_id}" if info is None else info.name
        item = QTreeWidgetItem([name, fraction_text(one), fraction_text(other)])
        if info is not None:
            item.setIcon(0, swatch(info.color))
        item.setToolTip(0, f"{name}: {one.pixels:,} pixels")
        item.setToolTip(1, _how(one, here))
        item.setToolTip(2, _how(other, all_))
        return item

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        self._session.say(item.toolTip(column))

    def _on_save(self) -> None:
        path = ask_for_path(self, "Save fractions", "fractions.csv")
        if path:
            self.save_to(path)

    def save_to(self, path: str) -> bool:
        """Write the table; on failure say why."""
        measured = self._measuring.measured
        if measured is None:
            return False
        images = {measured.names[key]: one for key, one in measured.images.items()}
        if len(images) > 1:
            images[TOGETHER] = measured.together
        names = {i: info.name for i, info in self._session.classes.items()}
        done = self._controller.attempt(
            write_fractions_csv, path, images, class_names=names
        )
        if done:
            self._session.say(f"Fractions saved to {path}.")
        return done


def fraction_text(phase: PhaseFraction) -> str:
    """Return a fraction with its error in percent, to the digits that the error has.

    Examples
    --------
    >>> from napari_hrdv2.core.measure import PhaseFraction
    >>> fraction_text(PhaseFraction(1, 0.23456, 0.0123, 100))
    '23.5 ± 1.2 %'
    """
    if phase.error is None:
        return f"{100 * phase.fraction:.3g} %"
    digits = 1 if phase.error >= 0.001 else 2
    return f"{100 * phase.fraction:.{digits}f} ± {100 * phase.error:.{digits}f} %"


def _how(phase: PhaseFraction, fractions: Fractions) -> str:
    if phase.error is None:
        return "No error bar: a class that is nowhere or everywhere does not tell one."
    return f"The error is the {fractions.method}."
