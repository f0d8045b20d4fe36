"""Particles as a table and as a histogram, drawn with nothing but Qt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QEvent,
    QModelIndex,
    QPointF,
    QRectF,
    QSignalBlocker,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QHelpEvent, QPainter
from qtpy.QtWidgets import QAbstractButton, QHeaderView, QTableView, QToolTip, QWidget

from . import controls as ui

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

    from napari_hrdv2.core.measure import ParticleTable

_COLUMNS = {  # what fits a dock; the file has all columns
    "label": "No",
    "area": "Area",
    "equivalent diameter": "Ø",
    "aspect ratio": "Aspect",
    "orientation": "Angle",
    "centroid x": "x",
    "centroid y": "y",
}
_NAMES = tuple(_COLUMNS)
_ROWS_SEEN = 7
_Role = Qt.ItemDataRole
_HEIGHT, _TICK, _GAP = 130, 3, 4  # pixels


class _ParticleModel(QAbstractTableModel):
    """Particles by row; measurements by column."""

    table: ParticleTable | None = None

    def rowCount(self, parent: Any = None) -> int:
        is_inside = parent is not None and parent.isValid()
        return 0 if is_inside or self.table is None else len(self.table)

    def columnCount(self, parent: Any = None) -> int:
        return len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = _Role.DisplayRole) -> Any:
        if self.table is None:
            return None
        name = _NAMES[index.column()]
        value = self.table.columns[name][index.row()].item()
        if role == _Role.UserRole:  # to sort by; what has no value comes first
            return -math.inf if value != value else value
        if role == _Role.DisplayRole:
            return _short(value, name)
        if role == _Role.ToolTipRole:
            unit = self.table.units.get(name, "")
            return f"{name}: {'none' if value != value else f'{value:.6g} {unit}'}"
        if role == _Role.TextAlignmentRole:
            return ui.RIGHT
        return None

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or self.table is None:
            return None
        name = _NAMES[section]
        unit = self.table.units.get(name, "")
        if role == _Role.DisplayRole:
            return f"{_COLUMNS[name]}\n{unit}"
        return f"{name} ({unit})" if role == _Role.ToolTipRole else None


class ParticleTableView(QTableView):
    """Shows a particle table; a row can be chosen here, or by its number."""

    chosen = Signal(int)
    """The number of a particle."""

    def __init__(self) -> None:
        super().__init__(
            objectName="particles",
            toolTip="Select a row to go to the particle; click a title to sort",
            selectionBehavior=QTableView.SelectionBehavior.SelectRows,
            selectionMode=QTableView.SelectionMode.SingleSelection,
            horizontalScrollBarPolicy=Qt.ScrollBarPolicy.ScrollBarAlwaysOff,
        )
        self._particles = _ParticleModel()
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self._particles)
        self._sorted.setSortRole(_Role.UserRole)
        self.setModel(self._sorted)
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
        self._particles.beginResetModel()
        self._particles.table = table
        self._particles.endResetModel()

    def select(self, number: int) -> None:
        """Select the row of a particle; emits nothing."""
        first, exactly = self._sorted.index(0, 0), Qt.MatchFlag.MatchExactly
        with QSignalBlocker(self):
            for index in self._sorted.match(first, _Role.UserRole, number, 1, exactly):
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


class Histogram(QWidget):
    """Bars over an axis with round ticks; the tooltip tells what a bar holds."""

    def __init__(self, name: str) -> None:
        super().__init__(objectName=name, toolTip="How many objects have which value")
        self.setFixedHeight(_HEIGHT)
        self.show_counts()

    def show_counts(
        self,
        counts: Iterable[float] = (),
        edges: Iterable[float] = (),
        *,
        title: str = "",
        color: str = "gray",
    ) -> None:
        """Show N bars with N + 1 edges; without any, nothing."""
        self.counts, self.edges = [*map(float, counts)], [*map(float, edges)]
        self._title, self._color = title, QColor(color)
        self.update()

    def bar_at(self, x: float) -> int | None:
        """Return the number of the bar at a place of the widget, from the left."""
        area = self._area()
        if not self.counts or not area.left() <= x < area.right():
            return None
        return int((x - area.left()) / area.width() * len(self.counts))

    def text_of(self, bar: int) -> str:
        """Return what a bar holds, in words."""
        low, high = self.edges[bar], self.edges[bar + 1]
        return f"{self.counts[bar]:g} from {low:.4g} to {high:.4g}"

    def event(self, event: QEvent) -> bool:
        """Show the tooltip of the bar under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            bar = self.bar_at(event.pos().x())
            if bar is not None:
                QToolTip.showText(event.globalPos(), self.text_of(bar), self)
                return True
        return bool(super().event(event))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bars, ticks, the largest count and the title."""
        if not self.counts:
            return
        painter, area, most = QPainter(self), self._area(), max(*self.counts, 1)
        width, bottom = area.width() / len(self.counts), area.bottom()
        for bar, count in enumerate(self.counts):
            height, left = area.height() * count / most, area.left() + bar * width
            rectangle = QRectF(left, bottom - height, max(width - 1, 1), height)
            painter.fillRect(rectangle, self._color)
        painter.setPen(self.palette().windowText().color())
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        line, (low, *_, high) = self.fontMetrics().height(), self.edges
        for count, y in ((most, area.top()), (0, bottom)):
            box = QRectF(0, y - line / 2, area.left() - _GAP, line)
            painter.drawText(box, ui.RIGHT, f"{count:g}")
        for tick in nice_ticks(low, high, 4):
            x = area.left() + (tick - low) / (high - low) * area.width()
            painter.drawLine(QPointF(x, bottom), QPointF(x, bottom + _TICK))
            half = min(area.width() / 8, self.width() - x)
            box = QRectF(x - half, bottom + _TICK, 2 * half, line)
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, f"{tick:g}")
        below = QRectF(area.left(), bottom + _TICK + line, area.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, self._title)

    def _area(self) -> QRectF:
        metrics = self.fontMetrics()
        left = metrics.horizontalAdvance(f"{max(self.counts, default=0):g}") + 2 * _GAP
        bottom = self.height() - 2 * metrics.height() - _TICK - 2
        top = metrics.height() / 2
        return QRectF(left, top, self.width() - left - _GAP, bottom - top)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return round values from low to high, about so many and not more.

    Examples
    --------
    >>> nice_ticks(0.3, 9.7, 5)
    [2.0, 4.0, 6.0, 8.0]
    """
    if not high > low or count < 1:
        return []
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 2.5, 5, 10, 20) if power * n >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [i * step for i in range(first, last + 1)]
