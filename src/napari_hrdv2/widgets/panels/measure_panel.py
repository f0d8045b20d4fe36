"""What came out: phase fractions, the exclusion mask, error bars and particles."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QTreeWidget, QTreeWidgetItem, QWidget

from napari_hrdv2.core.measure import write_fractions_csv
from napari_hrdv2.session.measurement import Scope
from napari_hrdv2.widgets.viewer.exclusion import ExclusionOverlay
from napari_hrdv2.widgets.viewer.instances import InstanceOverlay

from . import Attempt, PanelSpec
from . import controls as ui
from .particle_panel import TABLE, ParticlePanel

if TYPE_CHECKING:
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_hrdv2.core.measure import Fractions, PhaseFraction
    from napari_hrdv2.session import Session
    from napari_hrdv2.widgets.controller import Controller

TOGETHER = "all images"
_FRAME = 4  # pixels around the rows


class ResultPanel(QWidget):
    """Shows the phase fractions, and lets the user exclude parts of the image."""

    def __init__(self, session: Session, exclusion: ExclusionOverlay) -> None:
        super().__init__()
        self._session, self.exclusion = session, exclusion
        self.fractions = ui.hint(
            "fractions", "Fraction of the image that each class has"
        )
        tip = (
            "Draw a rectangle, as over a databar: it is no part of training, result "
            "and phase fractions, in a stack on all planes"
        )
        self.exclude = ui.push_button(
            "Exclude a rectangle", "exclude", exclusion.draw, tip
        )
        tip = "Remove the selected rectangle, or the one that was drawn last"
        self.take_back = ui.push_button("Remove", "take_back", exclusion.take_back, tip)
        ui.fill_column(self, self.fractions, ui.row(self.exclude, self.take_back))
        session.segmentation_changed.connect(self.show_result)
        session.classes_changed.connect(self.show_result)
        exclusion.changed.connect(self.show_result)
        self.show_result()

    def show_result(self) -> None:
        """Show the fraction of each class, and how much is excluded."""
        classes = self._session.classes
        texts = [
            f'<span style="color:{classes[i].color}">■</span>&nbsp;'
            f"{escape(classes[i].name)}&nbsp;{fraction:.1%}"
            for i, fraction in self._session.phase_fractions().items()
            if i in classes
        ]
        text = " &nbsp; ".join(texts) or "No segmentation yet."
        if self.exclusion.fraction:
            text += f"<br>{self.exclusion.fraction:.1%} of the image is excluded."
        self.fractions.setText(text)
        layer = self.exclusion.layer
        self.take_back.setEnabled(layer is not None and layer.nshapes > 0)


class MeasurePanel(QWidget):
    """Phase fractions, and beneath them the objects of a class."""

    def __init__(self, fractions: FractionPanel, particles: ParticlePanel) -> None:
        super().__init__()
        self.fractions, self.particles = fractions, particles
        ui.fill_column(self, fractions, particles)


class FractionPanel(QWidget):
    """Phase fractions with error bars, here and in all images, while it is seen."""

    def __init__(self, session: Session, attempt: Attempt) -> None:
        super().__init__()
        self._session, self._measuring = session, session.measurement
        self._attempt = attempt
        self.rows = QTreeWidget(objectName="fraction_rows")
        ui.set_up_tree(self.rows, ["Class", "Here", "All"])
        self.rows.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.rows.itemClicked.connect(self._on_clicked)
        self.every = ui.check_box(
            "In all images",
            "every_image",
            "Also the fractions in all images that have a result, weighted by area",
        )
        self.every.toggled.connect(self.set_scope)
        tip = "Write the phase fractions with their errors to a table"
        self.save = ui.PathButton(
            "Save CSV…", "save_fractions", tip, self.save_to, TABLE, "fractions.csv"
        )
        self.note = ui.hint("fractions_note", "What to mind")
        ui.fill_column(self, self.rows, self.note, ui.row(self.every, self.save))
        self._measuring.changed.connect(self.show_fractions)
        session.classes_changed.connect(self.show_fractions)
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
            ui.set_hint(self.note, "No segmentation to measure yet.")
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
        ui.set_hint(self.note, measured.note)

    def showEvent(self, event: QShowEvent) -> None:
        """Measure when the part is unfolded."""
        super().showEvent(event)
        self.set_scope()

    def hideEvent(self, event: QHideEvent) -> None:
        """Measure no more when nobody looks."""
        super().hideEvent(event)
        self.set_scope()

    def save_to(self, path: str) -> bool:
        """Write the table; on failure say why."""
        measured = self._measuring.measured
        if measured is None:
            return False
        images = {measured.names[key]: one for key, one in measured.images.items()}
        if len(images) > 1:
            images[TOGETHER] = measured.together
        names = {i: info.name for i, info in self._session.classes.items()}
        done = self._attempt(write_fractions_csv, path, images, class_names=names)
        if done:
            self._session.say(f"Phase fractions saved to {path}.")
        return done

    def _item(
        self, one: PhaseFraction, here: Fractions, other: PhaseFraction, all_: Fractions
    ) -> QTreeWidgetItem:
        info = self._session.classes.get(one.class_id)
        name = f"Class {one.class_id}" if info is None else info.name
        item = QTreeWidgetItem([name, fraction_text(one), fraction_text(other)])
        if info is not None:
            item.setIcon(0, ui.swatch(info.color))
        item.setToolTip(0, f"{name}: {one.pixels:,} pixels")
        item.setToolTip(1, _how(one, here))
        item.setToolTip(2, _how(other, all_))
        return item

    def _on_clicked(self, item: Any, column: int) -> None:
        self._session.say(item.toolTip(column))


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


def _result_panel(controller: Controller) -> ResultPanel:
    overlay = ExclusionOverlay(
        controller.link, controller.side, lambda: controller.is_busy
    )
    return ResultPanel(controller.session, overlay)


def _measure_panel(controller: Controller) -> MeasurePanel:
    session, attempt = controller.session, controller.attempt
    overlay = InstanceOverlay(controller.link, controller.side)
    return MeasurePanel(
        FractionPanel(session, attempt), ParticlePanel(session, overlay, attempt)
    )


PANELS = (
    PanelSpec("result", "Result", 0, _result_panel),
    PanelSpec("measure", "Result", 20, _measure_panel, "Measure"),
)
