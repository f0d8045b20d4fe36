"""The objects of a class: split, listed, drawn as a histogram, and saved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QSignalBlocker,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtWidgets import QAbstractButton, QHeaderView, QLabel, QTableView, QWidget

from napari_hrdv2.session.measurement import METHODS

from . import Attempt
from . import controls as ui
from .histogram import Histogram

if TYPE_CHECKING:
    from napari_hrdv2.core.measure import ParticleTable
    from napari_hrdv2.session import Session
    from napari_hrdv2.widgets.viewer.instances import InstanceOverlay

TABLE = "Table (*.csv)"  # kinds of files, for dialogs
_METHOD_NAMES = {"components": "What touches", "watershed": "Cut at necks"}
_HISTOGRAMS = ("equivalent diameter", "area", "aspect ratio", "orientation")
_FEW_CHARACTERS, _NARROW = 6, 84  # of combo boxes side by side; pixels
_COLUMNS = {  # what fits a dock; the file has all columns
    "label": "No",
    "area": "Area",
    "equivalent diameter": "Ø",
    "aspect ratio": "Aspect",
    "orientation": "Angle",
    "centroid x": "x",
    "centroid y": "y",
}
_ROWS_SEEN = 7
_Role = Qt.ItemDataRole


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
        ui.fill_column(
            self,
            ui.row(self.class_id, self.method),
            ui.row(self.distance_text, self.distance, self.split),
            self.note,
            self._found,
        )
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
        info = self._session.classes.get(objects.class_id)
        text = f"{len(table)} objects{'' if info is None else f' of {info.name}'}"
        cut = len(objects.table) - len(table)
        text += f", without {cut} at the border" if cut else ""
        ui.set_hint(
            self.note, text + (", of a former result" * self._measuring.is_stale)
        )

    def show_histogram(self) -> None:
        """Show how the chosen measurement is distributed."""
        objects = self._measuring.objects
        if objects is None:
            self.histogram.show_counts()
            return
        table, column = self._kept(objects.table), self.column.currentData()
        info = self._session.classes.get(objects.class_id)
        bins = min(max(round(2 * len(table) ** (1 / 3)), 5), 30)
        counts, edges = table.histogram(column, bins)
        color = "gray" if info is None else info.color
        title = table.header(column)
        self.histogram.show_counts(counts, edges, title=title, color=color)

    def save_to(self, path: str) -> bool:
        """Write the table as it is shown, with all columns; on failure say why."""
        objects = self._measuring.objects
        if objects is None:
            return False
        done = self._attempt(self._kept(objects.table).write_csv, path)
        if done:
            self._session.say(f"Particles saved to {path}.")
        return done

    def _make_controls(self) -> None:
        self.class_id = ui.combo_box(
            "split_class",
            "The class whose objects are wanted",
            characters=_FEW_CHARACTERS,
        )
        self.method = ui.combo_box(
            "split_method",
            "What touches is one object; or such objects are cut at their necks by a "
            "watershed",
            characters=_FEW_CHARACTERS,
        )
        for method in METHODS:
            self.method.addItem(_METHOD_NAMES[method], method)
        self.method.activated.connect(self._on_method)
        self.distance_text = QLabel("Distance")
        tip = "How far the middles of two objects are apart at least; larger cuts less"
        self.distance = ui.number_box("split_distance", tip, 1, 999)
        self.distance.setValue(5)
        self.distance.setMinimumWidth(_NARROW)
        self.distance.valueChanged.connect(self._split_again)
        self.split = ui.push_button("Split", "split", self._on_split)
        self.note = ui.hint("objects_note", "What was found")

    def _make_table(self) -> None:
        self.table = ParticleTableView()
        self.table.chosen.connect(self._on_chosen)
        self.inside = ui.check_box(
            "Whole ones only",
            "whole_particles",
            "Without the objects that the border, or the exclusion mask, cuts off",
        )
        self.inside.toggled.connect(self.show_objects)
        self.alone = ui.check_box(
            "Show it alone", "particle_alone", "Hide all objects but the selected one"
        )
        self.alone.toggled.connect(self.splitting.show_alone)
        self.column = ui.combo_box(
            "histogram_column", "What the histogram is of", characters=_FEW_CHARACTERS
        )
        for name in _HISTOGRAMS:
            self.column.addItem(name.capitalize(), name)
        self.column.activated.connect(self.show_histogram)
        self.histogram = Histogram("histogram")
        tip = "Write all columns of the particle table to a file"
        self.save = ui.PathButton(
            "Save CSV…", "save_particles", tip, self.save_to, TABLE, "particles.csv"
        )
        self._found = ui.fill_column(
            QWidget(),
            self.table,
            ui.row(self.inside, self.alone),
            ui.row(self.column, self.save),
            self.histogram,
        )

    def _kept(self, table: ParticleTable) -> ParticleTable:
        return table.without_border() if self.inside.isChecked() else table

    def _follow_layer(self) -> None:
        """Select the row of the object that is selected in the layer of objects."""
        layer, former = self.splitting.layer, self._layer
        if layer is not former:
            if former is not None:
                former.events.selected_label.disconnect(self._on_label)
            if layer is not None:
                layer.events.selected_label.connect(self._on_label)
            self._layer = layer

    def _on_label(self, event: Any) -> None:
        self.table.select(int(self._layer.selected_label))

    def _on_split(self) -> None:
        """Show the single objects as a layer and measure them.

        They follow the result until their layer is removed.
        """
        class_id = self.class_id.currentData()
        if class_id is not None:
            self.splitting.split(
                class_id, self.method.currentData(), self.distance.value()
            )

    def _on_method(self, position: int = 0) -> None:
        is_cut = self.method.currentData() == "watershed"
        self.distance.setVisible(is_cut)
        self.distance_text.setVisible(is_cut)
        self._split_again()

    def _split_again(self, value: int = 0) -> None:
        """Split by other values what is split already."""
        if self.splitting.class_id == self.class_id.currentData():
            self._on_split()

    def _on_chosen(self, number: int) -> None:
        self.splitting.go_to(number)
        self.splitting.show_alone(self.alone.isChecked())


class _ParticleModel(QAbstractTableModel):
    """Particles by row; measurements by column."""

    columns: tuple[tuple[str, str, list[Any]], ...] = ()  # name, unit, values

    def show(self, table: ParticleTable | None) -> None:
        self.beginResetModel()
        self.columns = tuple(
            (
                name,
                "" if table is None else table.units.get(name, ""),
                [] if table is None else table.columns[name].tolist(),
            )
            for name in _COLUMNS
        )
        self.endResetModel()

    def rowCount(self, parent: Any = None) -> int:
        is_inside = parent is not None and parent.isValid()
        return 0 if is_inside or not self.columns else len(self.columns[0][2])

    def columnCount(self, parent: Any = None) -> int:
        return len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = _Role.DisplayRole) -> Any:
        name, unit, values = self.columns[index.column()]
        value = values[index.row()]
        if role == _Role.UserRole:  # to sort by; what has no value comes first
            return -math.inf if value != value else value
        if role == _Role.DisplayRole:
            return _short(value, name)
        if role == _Role.ToolTipRole:
            return f"{name}: {'none' if value != value else f'{value:.6g} {unit}'}"
        if role == _Role.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not self.columns:
            return None
        name, unit, _ = self.columns[section]
        if role == _Role.DisplayRole:
            return f"{_COLUMNS[name]}\n{unit}"
        return f"{name} ({unit})" if role == _Role.ToolTipRole else None


class ParticleTableView(QTableView):
    """Shows a particle table; a row can be chosen here, or by its number."""

    chosen = Signal(int)
    """The number of a particle."""

    def __init__(self) -> None:
        super().__init__(objectName="particles")
        self._particles = _ParticleModel()
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self._particles)
        self._sorted.setSortRole(_Role.UserRole)
        self.setModel(self._sorted)
        self.setToolTip("Select a row to go to the particle; click a title to sort")
        self.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QTableView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        corner = self.findChild(QAbstractButton)  # Qt's own; it selects all rows
        corner.setObjectName("particles_corner")
        corner.setToolTip(self.toolTip())
        line = self.fontMetrics().height() + 4
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(line)
        self.horizontalHeader().setMinimumSectionSize(20)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setFixedHeight((_ROWS_SEEN + 2) * line + 12)
        self.setMinimumWidth(1)
        self.selectionModel().currentRowChanged.connect(self._on_row)

    def show_table(self, table: ParticleTable | None) -> None:
        """Show other particles; none is chosen then."""
        self._particles.show(table)

    def select(self, number: int) -> None:
        """Select the row of a particle; emits nothing."""
        found = self._sorted.match(
            self._sorted.index(0, 0),
            _Role.UserRole,
            number,
            1,
            Qt.MatchFlag.MatchExactly,
        )
        with QSignalBlocker(self):
            for index in found:
                self.setCurrentIndex(index)

    def _on_row(self, current: QModelIndex, former: QModelIndex) -> None:
        if current.isValid():
            number = self._sorted.index(current.row(), 0).data(_Role.UserRole)
            self.chosen.emit(int(number))


def _short(value: float, name: str) -> str:
    """Return as many digits as fit a narrow column."""
    if value != value:
        return "–"
    if name == "orientation":
        return f"{value:.0f}"
    if isinstance(value, int) or abs(value) >= 100:
        if abs(value) < 1e4:
            return f"{value:.0f}"
        return f"{value / 1000:.3g}k" if abs(value) < 1e6 else f"{value:.1e}"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"
