"""The objects of a class: split, listed, drawn as a histogram, and saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QLabel,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.session.measurement import METHODS
from napari_hrdv2.widgets.panels.histogram import Histogram
from napari_hrdv2.widgets.panels.particle_rows import ParticleRows
from napari_hrdv2.widgets.panels.parts import (
    combo_box,
    note,
    push_button,
    row,
    set_note,
    swatch,
)
from napari_hrdv2.widgets.viewer.instances import InstanceOverlay

if TYPE_CHECKING:
    from napari_hrdv2.core.measure import ParticleTable
    from napari_hrdv2.widgets.controller import Controller

_METHOD_NAMES = {"components": "What touches", "watershed": "Cut at necks"}
_HISTOGRAMS = ("equivalent diameter", "area", "aspect ratio", "orientation")
_FEW_CHARACTERS, _NARROW = 6, 84  # of combo boxes side by side; pixels
_FILTER = "Table (*.csv)"


class ParticlePart(QWidget):
    """Splits a class into objects; shows their table and its histogram."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self._measuring = controller.session.measurement
        self.splitting = InstanceOverlay(controller.link, controller.side)
        self._make_controls()
        self._make_table()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row(self.class_id, self.method))
        layout.addLayout(row(self.distance_text, self.distance, self.split))
        layout.addWidget(self.note)
        layout.addWidget(self._found)
        self._measuring.changed.connect(self.show_objects)
        self._session.classes_changed.connect(self.show_classes)
        controller.closing.connect(self._close)
        self.show_classes()
        self._on_method()
        self.show_objects()

    def show_classes(self) -> None:
        """List the classes that can be split."""
        chosen = self.class_id.currentData()
        with QSignalBlocker(self.class_id):
            self.class_id.clear()
            for class_id, info in self._session.classes.items():
                self.class_id.addItem(swatch(info.color), info.name, class_id)
            self.class_id.setCurrentIndex(max(self.class_id.findData(chosen), 0))

    def show_objects(self) -> None:
        """Show the objects that were found, or that there are none."""
        objects = self._measuring.objects
        self._found.setVisible(objects is not None)
        if objects is None:
            set_note(self.note, "")
            self.table.show_table(None)
            self._shown = None
            return
        table = self._kept(objects.table)
        if self._shown is not objects or self._shown_rows != len(table):
            self._shown, self._shown_rows = objects, len(table)
            self.table.show_table(table)
            self.show_histogram()
        info = self._session.classes.get(objects.class_id)
        name = "" if info is None else f" of {info.name}"
        text = f"{len(table)} objects{name}"
        cut = len(objects.table) - len(table)
        text += f", {cut} at the border left out" if cut else ""
        set_note(self.note, text + (", of a former result" * self._measuring.is_stale))

    def show_histogram(self) -> None:
        """Show how the chosen measurement is distributed."""
        objects = self._measuring.objects
        if objects is None:
            self.histogram.clear()
            return
        table, column = self._kept(objects.table), self.column.currentData()
        info = self._session.classes.get(objects.class_id)
        counts, edges = table.histogram(column, _bins(len(table)))
        self.histogram.show_counts(
            counts,
            edges,
            title=table.header(column),
            color="gray" if info is None else info.color,
        )

    def _make_controls(self) -> None:
        self._shown: Any = None
        self._shown_rows = 0
        self.class_id = combo_box("split_class", "The class whose objects are wanted")
        self.method = combo_box(
            "split_method",
            "What touches is one object; or such objects are cut at their necks by a "
            "watershed",
        )
        for combo in (self.class_id, self.method):
            combo.setMinimumContentsLength(_FEW_CHARACTERS)
        for method in METHODS:
            self.method.addItem(_METHOD_NAMES[method], method)
        self.method.activated.connect(self._on_method)
        self.distance_text = QLabel("Distance")
        self.distance = QSpinBox(objectName="split_distance")
        self.distance.setToolTip(
            "How far the middles of two objects are apart at least; larger cuts less"
        )
        self.distance.setRange(1, 999)
        self.distance.setValue(5)
        self.distance.setSuffix(" px")
        self.distance.setMinimumWidth(_NARROW)
        self.distance.setKeyboardTracking(False)
        self.distance.valueChanged.connect(self._follow)
        self.split = push_button(
            "Split",
            "split",
            "Show the single objects as a layer and measure them; they follow the "
            "result until their layer is removed",
            self._on_split,
        )
        self.note = note("objects_note")
        self.note.setToolTip("What was found")

    def _make_table(self) -> None:
        self.table = ParticleRows()
        self.table.chosen.connect(self._on_chosen)
        self.inside = QCheckBox("Whole ones only", objectName="whole_particles")
        self.inside.setToolTip(
            "Without the objects that the border, or what is left out, cuts off"
        )
        self.inside.toggled.connect(self.show_objects)
        self.alone = QCheckBox("Show it alone", objectName="particle_alone")
        self.alone.setToolTip("Hide all objects but the selected one")
        self.alone.toggled.connect(self.splitting.show_alone)
        self.column = combo_box("histogram_column", "What the histogram is of")
        for name in _HISTOGRAMS:
            self.column.addItem(name.capitalize(), name)
        self.column.setMinimumContentsLength(_FEW_CHARACTERS)
        self.column.activated.connect(self.show_histogram)
        self.histogram = Histogram("histogram")
        self.save = push_button(
            "Save CSV…",
            "save_particles",
            "Write all columns of the particle table to a file",
            self._on_save,
        )
        self._found = QWidget()
        layout = QVBoxLayout(self._found)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.table)
        layout.addLayout(row(self.inside, self.alone))
        layout.addLayout(row(self.column, self.save))
        layout.addWidget(self.histogram)

    def _kept(self, table: ParticleTable) -> ParticleTable:
        return table.without_border() if self.inside.isChecked() else table

    def _on_split(self) -> None:
        class_id = self.class_id.currentData()
        if class_id is not None:
            self.splitting.split(
                class_id, self.method.currentData(), self.distance.value()
            )

    def _on_method(self, position: int = 0) -> None:
        is_cut = self.method.currentData() == "watershed"
        self.distance.setVisible(is_cut)
        self.distance_text.setVisible(is_cut)
        self._follow()

    def _follow(self, value: int = 0) -> None:
        """Split again by other settings what is split already."""
        if self.splitting.class_id == self.class_id.currentData():
            self._on_split()

    def _on_chosen(self, number: int) -> None:
        self.splitting.go_to(number)
        self.splitting.show_alone(self.alone.isChecked())

    def _on_save(self) -> None:
        path = ask_for_path(self, "Save particles", "particles.csv")
        if path:
            self.save_to(path)

    def save_to(self, path: str) -> bool:
        """Write the table as it is shown, with all columns; on failure say why."""
        objects = self._measuring.objects
        if objects is None:
            return False
        done = self._controller.attempt(self._kept(objects.table).write_csv, path)
        if done:
            self._session.say(f"Particles saved to {path}.")
        return done

    def _close(self) -> None:
        self._measuring.changed.disconnect(self.show_objects)


def ask_for_path(parent: QWidget, title: str, name: str) -> str:
    """Return where the user wants a table to be written, "" for nowhere."""
    dialog = QFileDialog(parent, title, name, _FILTER)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix("csv")
    return str(dialog.selectedFiles()[0]) if dialog.exec() else ""


def _bins(count: int) -> int:
    """Return a number of bins that suits a number of values."""
    return int(min(max(round(2 * count ** (1 / 3)), 5), 30))
