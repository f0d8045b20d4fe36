"""Small pieces that the panels are made of."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, QSignalBlocker, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

_COMBO_CHARACTERS = 12
_SWATCH = 14  # pixels


class ColumnArea(QScrollArea):
    """A column that scrolls down in a low window, and is never cut at the side."""

    def __init__(self, column: QWidget) -> None:
        super().__init__(objectName="panels")
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(column)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for more room when the column has come to need it."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def minimumSizeHint(self) -> QSize:
        """Return the least size: as wide as the column with its scroll bar."""
        width = (
            self.widget().minimumSizeHint().width()
            + self.verticalScrollBar().sizeHint().width()
            + 2 * self.viewport().x()  # a border that the theme may draw
        )
        return QSize(width, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        """Return the size of the whole column."""
        return super().sizeHint().expandedTo(self.minimumSizeHint())


class Fold(QWidget):
    """A titled part of the panel that folds away.

    Parameters
    ----------
    title : str
    name : str
        Object name of the button that folds; what is inside has its own names.
    content : QWidget
    is_open : bool, optional
    is_section : bool, optional
        Whether it is one of the main parts, with its title in bold.
    """

    def __init__(
        self,
        title: str,
        name: str,
        content: QWidget,
        *,
        is_open: bool = False,
        is_section: bool = False,
    ) -> None:
        super().__init__()
        self.content = content
        self.button = QToolButton(objectName=name)
        self.button.setText(title)
        self.button.setToolTip(f"Show or hide: {title}")
        font = self.button.font()
        font.setBold(is_section)
        self.button.setFont(font)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setSizePolicy(
            QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.button)
        layout.addWidget(content)
        self.button.toggled.connect(self._on_toggled)
        self.button.setChecked(is_open)
        self._on_toggled(is_open)

    @property
    def is_open(self) -> bool:
        """Whether what is inside is shown."""
        return self.button.isChecked()

    def set_open(self, is_open: bool) -> None:
        """Show what is inside, or hide it."""
        self.button.setChecked(is_open)

    def _on_toggled(self, is_open: bool) -> None:
        self.content.setVisible(is_open)
        arrow = Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)


def push_button(
    text: str, name: str, tool_tip: str, clicked: Callable[..., object]
) -> QPushButton:
    """Return a button that says what it does and calls it."""
    button = QPushButton(text, objectName=name)
    button.setToolTip(tool_tip)
    button.clicked.connect(clicked)
    return button


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    layout = QHBoxLayout()
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def stacked(*widgets: QWidget) -> QWidget:
    """Return widgets one beneath the other."""
    column = QWidget()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(2)
    for widget in widgets:
        layout.addWidget(widget)
    return column


def combo_box(name: str, tool_tip: str) -> QComboBox:
    """Return a combo box that never makes the dock wider than it is."""
    combo = QComboBox(objectName=name)
    combo.setToolTip(tool_tip)
    combo.setMinimumContentsLength(_COMBO_CHARACTERS)
    combo.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


def note(name: str) -> QLabel:
    """Return a label whose text wraps."""
    label = QLabel(objectName=name)
    label.setWordWrap(True)
    return label


def set_note(label: QLabel, text: str) -> None:
    """Set the text of a note; one that says nothing takes no room."""
    label.setText(text)
    label.setVisible(bool(text))


def select_text(combo: QComboBox, text: str) -> None:
    """Select an item by its text, adding it if it is not there; emits nothing."""
    with QSignalBlocker(combo):
        if combo.findText(text) < 0:
            combo.addItem(text)
        combo.setCurrentText(text)


def swatch(color: str) -> QIcon:
    """Return a square of the colour."""
    pixmap = QPixmap(_SWATCH, _SWATCH)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)
