"""A histogram, drawn with nothing but Qt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QHelpEvent, QPainter
from qtpy.QtWidgets import QToolTip, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

_HEIGHT, _TICK, _GAP = 130, 3, 4  # pixels


class Histogram(QWidget):
    """Bars over an axis with round ticks; the tooltip tells what a bar holds."""

    def __init__(self, name: str) -> None:
        super().__init__(objectName=name)
        self.setToolTip("How many objects have which value")
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
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for count, y in ((most, area.top()), (0, bottom)):
            box = QRectF(0, y - line / 2, area.left() - _GAP, line)
            painter.drawText(box, right, f"{count:g}")
        for tick in nice_ticks(low, high, 4):
            x = area.left() + (tick - low) / (high - low) * area.width()
            painter.drawLine(QPointF(x, bottom), QPointF(x, bottom + _TICK))
            half = min(area.width() / 8, self.width() - x)
            box = QRectF(x - half, bottom + _TICK, 2 * half, line)
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, f"{tick:g}")
        below = QRectF(area.left(), bottom + _TICK + line, area.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, self._title)

    def _area(self) -> QRectF:
        """Return where the bars stand."""
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
