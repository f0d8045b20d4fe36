"""What came out: phase fractions, the exclusion mask, error bars and particles."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QLabel, QTreeWidgetItem, QWidget

from napari_hrdv2.core.measure import write_fractions_csv
from napari_hrdv2.session.classes import default_class
from napari_hrdv2.session.measurement import METHODS, Scope
from napari_hrdv2.widgets.viewer.drawn_overlays import ExclusionOverlay
from napari_hrdv2.widgets.viewer.result_overlays import InstanceOverlay

from . import Attempt, PanelSpec
from . import controls as ui
from .particle_views import Histogram, ParticleTableView

if TYPE_CHECKING:
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_hrdv2.core.measure import Fractions, ParticleTable, PhaseFraction
    from napari_hrdv2.session import Session
    from napari_hrdv2.widgets.controller import Controller

TOGETHER = "all images"
_METHOD_NAMES = {"components": "What touches", "watershed": "Cut at necks"}
_HISTOGRAMS = ("equivalent diameter", "area", "aspect ratio", "orientation")
_FEW_CHARACTERS, _NARROW = 6, 84  # of combo boxes side by side; pixels


class ResultPanel(QWidget):
    """Shows the phase fractions, and lets the user exclude parts of the image."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        session = self._session = controller.session
        exclusion = self.exclusion = ExclusionOverlay(
            controller.link, controller.side, lambda: controller.is_answering
        )
        tip = "Phase fractions: the part of the image that each class has"
        self.fractions = ui.hint("fractions", tip)
        tip = (
            "Draw a rectangle, as over a databar: it is no part of training, result "
            "and phase fractions, in a stack on all planes"
        )
        self.exclude = ui.push_button("Rectangle", "exclude", exclusion.draw, tip)
        self.databar = ui.push_button(
            "Databar", "exclude_databar", exclusion.exclude_databar
        )
        self.take_back = ui.push_button("Remove", "take_back", exclusion.take_back)
        buttons = ui.row(QLabel("Exclude"), self.exclude, self.databar, self.take_back)
        ui.fill_column(self, self.fractions, buttons)
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
        current = self._session.current
        none = "No segmentation yet."
        if current is not None and current.result and current.result.is_partial:
            none = "Fractions are told when all is segmented."
        text = " &nbsp; ".join(texts) or none
        self.fractions.setText("<br>".join(filter(None, (text, self.exclusion.note))))
        layer = self.exclusion.layer
        self.take_back.setEnabled(layer is not None and layer.nshapes > 0)


class MeasurePanel(QWidget):
    """Phase fractions, and beneath them the objects of a class."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        session, attempt = controller.session, controller.attempt
        overlay = InstanceOverlay(controller.link, controller.side)
        self.fractions = FractionPanel(session, attempt)
        self.particles = ParticlePanel(session, overlay, attempt)
        ui.fill_column(self, self.fractions, self.particles)


class FractionPanel(QWidget):
    """Phase fractions with error bars, here and in all images, while it is seen."""

    def __init__(self, session: Session, attempt: Attempt) -> None:
        super().__init__()
        self._session, self._measuring = session, session.measurement
        self._attempt = attempt
        self.rows = ui.table("fraction_rows", ["Class", "Here", "All"])
        self.rows.itemClicked.connect(self._on_clicked)
        tip = "Also the fractions in all images that have a result, weighted by area"
        self.every = ui.check_box("In all images", "every_image", tip)
        self.every.toggled.connect(self.set_scope)
        self.save = ui.PathButton(
            "Save CSV…", "save_fractions", self.save_to, ui.TABLE, "fractions.csv"
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
            name, color = _look(self._session, one.class_id)
            texts = [name, fraction_text(one), fraction_text(other)]
            item = QTreeWidgetItem(self.rows, texts)
            item.setIcon(0, ui.swatch(color))
            item.setToolTip(0, f"{name}: {one.pixels:,} pixels")
            item.setToolTip(1, _how(one, here))
            item.setToolTip(2, _how(other, measured.together))
        ui.fit_rows(self.rows)
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
        """Write the phase fractions with their errors to a table."""
        measured = self._measuring.measured
        if measured is None:
            return False
        images = {measured.names[key]: one for key, one in measured.images.items()}
        if len(images) > 1:
            images[TOGETHER] = measured.together
        names = {i: info.name for i, info in self._session.classes.items()}
        return self._attempt(
            write_fractions_csv,
            path,
            images,
            class_names=names,
            said=f"Phase fractions saved to {path}.",
        )

    def _on_clicked(self, item: Any, column: int) -> None:
        self._session.say(item.toolTip(column))


class ParticlePanel(QWidget):
    """Splits a class into objects; shows their table and its histogram."""

    def __init__(
        self, session: Session, overlay: InstanceOverlay, attempt: Attempt
    ) -> None:
        super().__init__()
        self._session, self._measuring = session, session.measurement
        self.splitting, self._attempt = overlay, attempt
        self._shown: tuple[Any, int] = (None, 0)  # the objects listed, and how many
        self._layer: Any = None
        self._make_controls()
        self._make_table()
        self._measuring.changed.connect(self.show_objects)
        session.classes_changed.connect(self.show_classes)
        overlay.changed.connect(self._follow_layer)
        self.show_classes()
        self._on_method()
        self.show_objects()

    def show_classes(self) -> None:
        """List the classes that can be split."""
        chosen = self.class_id.currentData()
        with QSignalBlocker(self.class_id):
            self.class_id.clear()
            for class_id, info in self._session.classes.items():
                self.class_id.addItem(ui.swatch(info.color), info.name, class_id)
            self.class_id.setCurrentIndex(max(self.class_id.findData(chosen), 0))

    def show_objects(self) -> None:
        """Show the objects that were found, or that there are none."""
        objects = self._measuring.objects
        self._found.setVisible(objects is not None)
        if objects is None:
            ui.set_hint(self.note, "")
            self.table.show_table(None)
            self._shown = (None, 0)
            return
        table = self._kept(objects.table)
        if self._shown[0] is not objects or self._shown[1] != len(table):
            self._shown = (objects, len(table))
            self.table.show_table(table)
            self.show_histogram()
        text = f"{len(table)} objects of {_look(self._session, objects.class_id)[0]}"
        cut = len(objects.table) - len(table)
        if cut:
            text += f", without {cut} at the border"
        if self._measuring.is_stale:
            text += ", of a former result"
        ui.set_hint(self.note, text)

    def show_histogram(self) -> None:
        """Show how the chosen measurement is distributed."""
        objects = self._measuring.objects
        if objects is None:
            self.histogram.show_counts()
            return
        table, column = self._kept(objects.table), self.column.currentData()
        bins = min(max(round(2 * len(table) ** (1 / 3)), 5), 30)
        counts, edges = table.histogram(column, bins)
        title, color = table.header(column), _look(self._session, objects.class_id)[1]
        self.histogram.show_counts(counts, edges, title=title, color=color)

    def save_to(self, path: str) -> bool:
        """Write all columns of the particle table to a file."""
        objects = self._measuring.objects
        if objects is None:
            return False
        write = self._kept(objects.table).write_csv
        return self._attempt(write, path, said=f"Particles saved to {path}.")

    def _make_controls(self) -> None:
        tip = "The class whose objects are wanted"
        self.class_id = ui.combo_box("split_class", tip, characters=_FEW_CHARACTERS)
        tip = (
            "What touches is one object; or such objects are cut at their necks by a "
            "watershed"
        )
        self.method = ui.combo_box("split_method", tip, characters=_FEW_CHARACTERS)
        for method in METHODS:
            self.method.addItem(_METHOD_NAMES[method], method)
        self.method.activated.connect(self._on_method)
        self.distance_text = QLabel("Distance")
        tip = "How far the middles of two objects are apart at least; larger cuts less"
        self.distance = ui.number_box("split_distance", tip, 1, 999)
        self.distance.setValue(5)
        self.distance.setMinimumWidth(_NARROW)
        self.distance.valueChanged.connect(self._split_again)
        self.split = ui.push_button("Find particles", "split", self._on_split)
        self.note = ui.hint("objects_note", "What was found")
        self._found = QWidget()
        ui.fill_column(
            self,
            ui.row(self.class_id, self.method),
            ui.row(self.distance_text, self.distance, self.split),
            self.note,
            self._found,
        )

    def _make_table(self) -> None:
        self.table = ParticleTableView()
        self.table.chosen.connect(self._on_chosen)
        tip = "Without the objects that the border, or the exclusion mask, cuts off"
        self.inside = ui.check_box("Whole ones only", "whole_particles", tip)
        self.inside.toggled.connect(self.show_objects)
        tip = "Hide all objects but the selected one"
        self.alone = ui.check_box("Show it alone", "particle_alone", tip)
        self.alone.toggled.connect(self.splitting.show_alone)
        self.column = ui.combo_box(
            "histogram_column", "What the histogram is of", characters=_FEW_CHARACTERS
        )
        for name in _HISTOGRAMS:
            self.column.addItem(name.capitalize(), name)
        self.column.activated.connect(self.show_histogram)
        self.histogram = Histogram("histogram")
        self.save = ui.PathButton(
            "Save CSV…", "save_particles", self.save_to, ui.TABLE, "particles.csv"
        )
        ui.fill_column(
            self._found,
            self.table,
            ui.row(self.inside, self.alone),
            ui.row(self.column, self.save),
            self.histogram,
        )

    def _kept(self, table: ParticleTable) -> ParticleTable:
        return table.without_border() if self.inside.isChecked() else table

    def _follow_layer(self) -> None:
        if self.splitting.layer is self._layer:
            return
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._on_label)
        self._layer = self.splitting.layer
        if self._layer is not None:
            self._layer.events.selected_label.connect(self._on_label)

    def _on_label(self, event: Any) -> None:
        self.table.select(int(self._layer.selected_label))

    def _on_split(self) -> None:
        """Show the single objects as a layer and measure them.

        They follow the result until their layer is removed.
        """
        class_id, how = self.class_id.currentData(), self.method.currentData()
        if class_id is not None:
            self.splitting.split(class_id, how, self.distance.value())

    def _on_method(self, position: int = 0) -> None:
        is_cut = self.method.currentData() == "watershed"
        self.distance.setVisible(is_cut)
        self.distance_text.setVisible(is_cut)
        self._split_again()

    def _split_again(self, value: int = 0) -> None:
        if self.splitting.class_id == self.class_id.currentData():
            self._on_split()

    def _on_chosen(self, number: int) -> None:
        self.splitting.go_to(number)
        self.splitting.show_alone(self.alone.isChecked())


def _look(session: Session, class_id: int) -> tuple[str, str]:
    """Return name and colour of a class, which may have been deleted."""
    info = session.classes.get(class_id, default_class(class_id))
    return info.name, info.color


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


PANELS = (
    PanelSpec("result", "Result", 0, ResultPanel),
    PanelSpec("measure", "Result", 20, MeasurePanel, "Phase fractions and particles"),
)
