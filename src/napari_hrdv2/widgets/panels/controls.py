"""The controls that panels are made of; each has an object name and a tooltip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import getdoc
from typing import TYPE_CHECKING, Any

from qtpy import QtWidgets as qt
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from superqt import QCollapsible

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent

    from napari_hrdv2.widgets.jobs import SideWork

MICROGRAPHS = "Micrographs (*.tif *.tiff *.png *.jpg *.jpeg *.bmp);;All files (*)"
TABLE = "Table (*.csv)"
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_FRAME = 4  # pixels around the rows of a table
_NO_LIMIT = 16_777_215  # Qt's largest height
_SWATCH = 14  # pixels


class ColumnArea(qt.QScrollArea):
    """A column that scrolls down in a low window, and is never cut at the side."""

    def __init__(self, column: qt.QWidget) -> None:
        super().__init__(
            objectName="panels",
            widgetResizable=True,
            frameShape=qt.QFrame.Shape.NoFrame,
            horizontalScrollBarPolicy=Qt.ScrollBarPolicy.ScrollBarAlwaysOff,
        )
        self.setWidget(column)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for more room when the column has come to need it."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def minimumSizeHint(self) -> QSize:
        """Return the least size: as wide as the column with its scroll bar."""
        width = self.widget().minimumSizeHint().width()
        width += self.verticalScrollBar().sizeHint().width()
        width += 2 * self.viewport().x()  # a border that the theme may draw
        return QSize(width, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        """Return the size of the whole column."""
        return super().sizeHint().expandedTo(self.minimumSizeHint())


class Section(QCollapsible):
    """A titled part that folds away by a button with the name; main ones are open."""

    def __init__(
        self, title: str, name: str, content: qt.QWidget, *, is_open: bool = False
    ) -> None:
        # Icons would keep the colour of the theme that they were made under.
        super().__init__(title, expandedIcon=QIcon(), collapsedIcon=QIcon())
        self._title = title
        self.setDuration(0)
        self.content().setParent(None)
        self.setContent(content)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(2)
        button = self.toggleButton()
        button.setObjectName(name)
        button.setToolTip(f"Show or hide: {title}")
        button.setStyleSheet(
            "text-align: left; border: none; background: transparent; padding: 2px;"
            + "font-weight: bold;" * is_open
        )
        self.toggled.connect(self._on_toggled)
        (self.expand if is_open else self.collapse)(animate=False)

    def _on_toggled(self, is_open: bool) -> None:
        """Let the content grow as it likes, or hide it: it may be costly to show."""
        self.setText(f"{'▾' if is_open else '▸'}  {self._title}")
        self.content().setMaximumHeight(_NO_LIMIT)
        self.content().setVisible(is_open)


class JobButton(qt.QPushButton):
    """A button that starts a job of the side work, or says why not, and cancels it."""

    cancelled = Signal()

    def __init__(
        self, text: str, name: str, start: Callable[[], Any], side: SideWork, job: str
    ) -> None:
        super().__init__(
            text, objectName=name, toolTip=tip_of(start), clicked=self._on_clicked
        )
        self._text, self._start, self._side, self._job = text, start, side, job
        side.changed.connect(self._show_state)

    @property
    def is_running(self) -> bool:
        """Whether the job runs, or waits for it."""
        return bool(self._side.has(self._job))

    def rename(self, text: str) -> None:
        """Say another thing while the job does not run."""
        self._text = text
        self._show_state()

    def _show_state(self) -> None:
        self.setText("Cancel" if self.is_running else self._text)

    def _on_clicked(self) -> None:
        if self.is_running:
            self._side.cancel(self._job)
            self.cancelled.emit()
        else:
            self._side.attempt(self._start)


class PathButton(qt.QPushButton):
    """A button that asks for a folder, or a file of some kinds, and hands it on.

    With `save_as` it is a file to be written, which gets the ending of that name. Its
    tooltip is the docstring of what takes the path, or the tip.
    """

    def __init__(
        self,
        text: str,
        name: str,
        take: Callable[[str], object],
        kinds: str = "",
        save_as: str = "",
        *,
        tip: str = "",
    ) -> None:
        tip = tip or tip_of(take)
        super().__init__(text, objectName=name, toolTip=tip, clicked=self._on_clicked)
        self._take, self._kinds, self._save_as = take, kinds, save_as

    def _on_clicked(self) -> None:
        path, title = "", self.text().removesuffix("…")
        if self._save_as:
            dialog = qt.QFileDialog(self, title, self._save_as, self._kinds)
            dialog.setAcceptMode(qt.QFileDialog.AcceptMode.AcceptSave)
            dialog.setDefaultSuffix(self._save_as.rpartition(".")[2])
            path = dialog.selectedFiles()[0] if dialog.exec() else ""
        elif self._kinds:
            path = qt.QFileDialog.getOpenFileName(self, title, "", self._kinds)[0]
        else:
            path = qt.QFileDialog.getExistingDirectory(self, title)
        if path:
            self._take(str(path))


class JobProgress(qt.QProgressBar):
    """How far jobs of the side work are; seen only while there are any."""

    def __init__(self, name: str, tool_tip: str, side: SideWork, *jobs: str) -> None:
        super().__init__(objectName=name, toolTip=tool_tip)
        self._side, self._jobs = side, jobs
        side.changed.connect(self._show_state)
        side.progressed.connect(self._on_progressed)
        self._show_state()

    def _show_state(self) -> None:
        is_running = any(self._side.has(job) for job in self._jobs)
        if not is_running:
            self.setRange(0, 0)
        self.setVisible(is_running)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._side.kind in self._jobs:
            self.setRange(0, total)
            self.setValue(done)


def push_button(
    text: str, name: str, clicked: Callable[..., object], tip: str = ""
) -> qt.QPushButton:
    """Return a button; its tooltip is the docstring of what it calls, or the tip."""
    tip = tip or tip_of(clicked)
    return qt.QPushButton(text, objectName=name, toolTip=tip, clicked=clicked)


def tip_of(function: Callable[..., object]) -> str:
    """Return the docstring of what a button calls, as its tooltip."""
    return " ".join((getdoc(function) or "").split()).removesuffix(".")


def check_box(text: str, name: str, tool_tip: str, *, checked: bool = False) -> Any:
    """Return a check box."""
    return qt.QCheckBox(text, objectName=name, toolTip=tool_tip, checked=checked)


class Choice(qt.QComboBox):
    """A combo box that gives the keys back to the viewer once a choice is made."""

    def hidePopup(self) -> None:
        """Close the list; the next key is for the viewer."""
        super().hidePopup()
        if not self.isEditable():
            give_keys_back(self)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Walk through the choices by arrows; the viewer has letters and digits."""
        if self.isEditable() or not event.text().isprintable() or event.text() in " ":
            super().keyPressEvent(event)
        else:
            event.ignore()


def give_keys_back(control: qt.QWidget) -> None:
    """Let the next key go to the viewer."""
    window = control.window()
    if isinstance(window, qt.QMainWindow):
        window.centralWidget().setFocus()


def combo_box(
    name: str,
    tool_tip: str,
    choices: Iterable[str] = (),
    *,
    typed: bool = False,
    characters: int = 12,
) -> qt.QComboBox:
    """Return a combo box that never makes the dock wider; texts may be `typed`."""
    combo = Choice(objectName=name, toolTip=tool_tip, minimumContentsLength=characters)
    policy = qt.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    combo.setSizeAdjustPolicy(policy)
    combo.addItems(list(choices))
    combo.setSizePolicy(qt.QSizePolicy.Policy.Expanding, qt.QSizePolicy.Policy.Fixed)
    if typed:
        combo.setEditable(True)
        combo.setInsertPolicy(qt.QComboBox.InsertPolicy.NoInsert)
        combo.setCompleter(None)  # which would finish names otherwise than meant
    return combo


def number_box(name: str, tip: str, low: float, high: float) -> qt.QAbstractSpinBox:
    """Return a box for whole pixels (0 is "off"), or by float limits for fractions."""
    is_whole = isinstance(high, int)
    box = (qt.QSpinBox if is_whole else qt.QDoubleSpinBox)(
        objectName=name, toolTip=tip, minimum=low, maximum=high, keyboardTracking=False
    )
    if not is_whole:
        box.setSingleStep(0.05)
        return box
    box.setSuffix(" px")
    if low == 0:
        box.setSpecialValueText("off")
        box.setStepType(qt.QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
    return box


def count_box(name: str, tip: str, low: int, high: int, value: int) -> Any:
    """Return a box for a number without a unit."""
    box = number_box(name, tip, low, high)
    box.setSuffix("")
    box.setSpecialValueText("")
    box.setValue(value)
    return box


def fill(combo: qt.QComboBox, texts: Iterable[str], chosen: str | None = None) -> None:
    """List other texts; the chosen one stays, else the first; emits nothing."""
    chosen = combo.currentText() if chosen is None else chosen
    with QSignalBlocker(combo):
        combo.clear()
        combo.addItems(list(texts))
        combo.setCurrentIndex(max(combo.findText(chosen), 0))


def hint(name: str, tool_tip: str = "", text: str = "") -> qt.QLabel:
    """Return a label whose text wraps."""
    return qt.QLabel(text, objectName=name, toolTip=tool_tip, wordWrap=True)


def set_hint(label: qt.QLabel, text: str) -> None:
    """Set the text of a hint; one that says nothing takes no room."""
    label.setText(text)
    label.setVisible(bool(text))


def table(
    name: str, titles: Sequence[str], tip: str = "", *, stretched: int = 0
) -> qt.QTreeWidget:
    """Return a table of which no row can be selected; see `set_up_tree`."""
    tree = qt.QTreeWidget(objectName=name, toolTip=tip)
    tree.setSelectionMode(qt.QTreeWidget.SelectionMode.NoSelection)
    set_up_tree(tree, titles, stretched)
    return tree


def fit_rows(tree: qt.QTreeWidget) -> None:
    """Make a table as high as its rows."""
    height = tree.topLevelItemCount() * tree.sizeHintForRow(0) + _FRAME
    height += tree.header().sizeHint().height()
    if tree.horizontalScrollBarPolicy() == Qt.ScrollBarPolicy.ScrollBarAlwaysOn:
        height += tree.horizontalScrollBar().sizeHint().height()
    tree.setFixedHeight(height)


def set_up_tree(
    tree: qt.QTreeWidget, titles: Sequence[str], stretched: int = 0
) -> None:
    """Make a table without branches, as narrow as its texts but for one column."""
    tree.setColumnCount(len(titles))  # labels alone would leave former columns
    tree.setHeaderLabels(list(titles))
    tree.setRootIsDecorated(False)
    tree.setUniformRowHeights(True)
    tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    header = tree.header()
    header.setStretchLastSection(False)
    header.setMinimumSectionSize(20)
    header.setSectionResizeMode(qt.QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(stretched, qt.QHeaderView.ResizeMode.Stretch)


def checked(is_checked: bool) -> Qt.CheckState:
    """Return the state of a box in a table."""
    return Qt.CheckState.Checked if is_checked else Qt.CheckState.Unchecked


def short_count(count: int) -> str:
    """Return a count in at most five characters: 950, 12.3k, 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            digits = 1 if count < 100 * size else 0
            return f"{count / size:.{digits}f}{unit}"
    return str(count)


def row(*widgets: qt.QWidget, stretched: int | None = None) -> qt.QHBoxLayout:
    """Return widgets side by side; one of them may take all the room there is."""
    layout = qt.QHBoxLayout()
    for widget in widgets:
        layout.addWidget(widget)
    if stretched is not None:
        layout.setStretch(stretched, 1)
    return layout


def fill_column(column: qt.QWidget, *parts: Any, spacing: int = 4) -> qt.QWidget:
    """Put widgets and layouts one beneath the other into a widget; return it."""
    layout = qt.QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for part in parts:
        (layout.addWidget if isinstance(part, qt.QWidget) else layout.addLayout)(part)
    return column


def form(
    *rows: tuple[str, qt.QWidget], parent: qt.QWidget | None = None
) -> qt.QFormLayout:
    """Return widgets with their labels; one without a label has the whole width."""
    layout = qt.QFormLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(qt.QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for label, widget in rows:
        layout.addRow(*filter(None, (label,)), widget)
    return layout


def enable(control: qt.QWidget, reason: str = "") -> None:
    """Enable a control, or let its tooltip say why it cannot be used."""
    if control.property("tip") is None:
        control.setProperty("tip", control.toolTip())
    control.setEnabled(not reason)
    text = f"{reason[:1].upper()}{reason[1:]}." if reason else control.property("tip")
    control.setToolTip(text)


def plain(text: str) -> str:
    """Return a text for a button or a menu, where Qt takes an & for a key."""
    return text.replace("&", "&&")


def swatch(color: str) -> QIcon:
    """Return a square of the colour, the same in a row that is selected."""
    pixmap, icon = QPixmap(_SWATCH, _SWATCH), QIcon()
    pixmap.fill(QColor(color))
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        icon.addPixmap(pixmap, mode)
    return icon


def agrees(parent: qt.QWidget, question: str, title: str = "napari-hrdv2") -> bool:
    """Ask the user; return whether he agrees."""
    answer = qt.QMessageBox.question(parent, title, question)
    return bool(answer == qt.QMessageBox.StandardButton.Yes)
