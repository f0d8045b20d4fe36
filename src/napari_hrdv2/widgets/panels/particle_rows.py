"""The particle table on the screen: narrow columns, to be sorted and chosen from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QHeaderView,
    QTableView,
    QWidget,
)

if TYPE_CHECKING:
    from napari_hrdv2.core.measure import ParticleTable

# What fits a dock; the file has all columns.
_TITLES = {
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


class _Model(QAbstractTableModel):
    """Particles by row; measurements by column."""

    def __init__(self) -> None:
        super().__init__()
        self._table: ParticleTable | None = None
        self._columns: list[tuple[str, list[Any]]] = []

    def show(self, table: ParticleTable | None) -> None:
        self.beginResetModel()
        self._table = table
        self._columns = (
            [] if table is None else [(n, table.columns[n].tolist()) for n in _TITLES]
        )
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        is_inside = parent is not None and parent.isValid()
        return 0 if is_inside or self._table is None else len(self._table)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return len(_TITLES)

    def data(self, index: QModelIndex, role: int = _Role.DisplayRole) -> Any:
        value = self._columns[index.column()][1][index.row()]
        if role == _Role.UserRole:  # to sort by; what has no value comes first
            return -math.inf if value != value else value
        if role == _Role.DisplayRole:
            return _short(value, self._columns[index.column()][0])
        if role == _Role.ToolTipRole:
            name = self._columns[index.column()][0]
            unit = self._table.units.get(name, "")
            return f"{name}: {'none' if value != value else f'{value:.6g} {unit}'}"
        if role == _Role.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = _Role.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        name = list(_TITLES)[section]
        unit = "" if self._table is None else self._table.units.get(name, "")
        if role == _Role.DisplayRole:
            return f"{_TITLES[name]}\n{unit}"
        if role == _Role.ToolTipRole:
            return f"{name} ({unit})" if unit else name
        return None


class ParticleRows(QTableView):
    """Shows a particle table; tells which particle is chosen."""

    chosen = Signal(int)
    """The number of a particle."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent, objectName="particles")
        self._model = _Model()
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self._model)
        self._sorted.setSortRole(_Role.UserRole)
        self.setModel(self._sorted)
        self.setToolTip("Select a row to go to the particle; click a title to sort")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.verticalHeader().hide()
        corner = self.findChild(QAbstractButton)  # Qt's own; it selects all rows
        corner.setObjectName("particles_corner")
        corner.setToolTip(self.toolTip())
        line = self.fontMetrics().height()
        self.verticalHeader().setDefaultSectionSize(line + 4)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setFixedHeight((_ROWS_SEEN + 2) * (line + 4) + 12)
        self.setMinimumWidth(1)
        # Stays with the view: connected after the model is set.
        self.selectionModel().currentRowChanged.connect(self._on_row)

    def show_table(self, table: ParticleTable | None) -> None:
        """Show other particles; none is chosen then."""
        self._model.show(table)

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
