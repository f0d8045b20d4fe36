"""A histogram, drawn with nothing but Qt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QHelpEvent, QPainter
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from qtpy.QtGui import QPaintEvent

_HEIGHT = 130  # pixels
_TICK = 3
_GAP = 4


class Histogram(QWidget):
    """Bars over an axis with ticks; the tool tip tells what a bar holds.

    Attributes
    ----------
    counts, edges : list of float
        N bars, and their N + 1 edges.
    title : str
        What is counted, with its unit.
    """

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.setToolTip("How many objects have which value")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.counts: list[float] = []
        self.edges: list[float] = []
        self.title = ""
        self._color = QColor("gray")

    def show_counts(
        self, counts: ArrayLike, edges: ArrayLike, *, title: str, color: str
    ) -> None:
        """Show a histogram in a colour."""
        self.counts = [float(count) for count in counts]
        self.edges = [float(edge) for edge in edges]
        self.title, self._color = title, QColor(color)
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self.counts, self.edges, self.title = [], [], ""
        self.update()

    def sizeHint(self) -> QSize:
        """Return a size that suits a dock."""
        return QSize(200, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """Return the least size."""
        return QSize(120, _HEIGHT)

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
        """Show the tool tip of the bar under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            bar = self.bar_at(event.pos().x())
            if bar is not None:
                QToolTip.showText(event.globalPos(), self.text_of(bar), self)
                return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bars, ticks and title."""
        if not self.counts:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area, most = self._area(), max(*self.counts, 1)
        width = area.width() / len(self.counts)
        for bar, count in enumerate(self.counts):
            height = area.height() * count / most
            left, top = area.left() + bar * width, area.bottom() - height
            painter.fillRect(QRectF(left, top, max(width - 1, 1), height), self._color)
        painter.setPen(self.palette().windowText().color())
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        self._draw_values(painter, area)
        self._draw_counts(painter, area, most)

    def _draw_values(self, painter: QPainter, area: QRectF) -> None:
        metrics, low, high = self.fontMetrics(), self.edges[0], self.edges[-1]
        line = metrics.height()
        wanted = max(2, int(area.width() // (6 * metrics.averageCharWidth())))
        for tick in nice_ticks(low, high, min(wanted, 6)):
            share = (tick - low) / (high - low)
            x, text = area.left() + share * area.width(), f"{tick:g}"
            painter.drawLine(
                QPointF(x, area.bottom()), QPointF(x, area.bottom() + _TICK)
            )
            wide = metrics.horizontalAdvance(text)
            x = min(max(x - wide / 2, 0), self.width() - wide)
            painter.drawText(QPointF(x, area.bottom() + _TICK + metrics.ascent()), text)
        below = QRectF(area.left(), area.bottom() + _TICK + line, area.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, self.title)

    def _draw_counts(self, painter: QPainter, area: QRectF, most: float) -> None:
        metrics = self.fontMetrics()
        for count in (0.0, most):
            y = area.bottom() - area.height() * count / most
            text = f"{count:g}"
            x = area.left() - _GAP - metrics.horizontalAdvance(text)
            painter.drawText(QPointF(x, y + metrics.ascent() / 2 - 1), text)

    def _area(self) -> QRectF:
        """Return where the bars stand."""
        metrics = self.fontMetrics()
        left = metrics.horizontalAdvance(f"{max(self.counts, default=0):g}") + 2 * _GAP
        bottom = self.height() - 2 * metrics.height() - _TICK - 2
        top = metrics.ascent() / 2 + 1
        return QRectF(left, top, self.width() - left - _GAP, bottom - top)


def nice_ticks(low: float, high: float, count: int) -> Sequence[float]:
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
