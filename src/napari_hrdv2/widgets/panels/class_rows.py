"""The rows of the class table: colour, name, pixels painted, share, visibility."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_hrdv2.widgets.panels.parts import swatch

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent

    from napari_hrdv2.session import ClassInfo

COLOR, NAME, PAINTED, SHARE, SEEN = range(5)
_TITLES = ("Key", "Class", "Painted", "Share", "See")
_TOOL_TIPS = (
    "Press this key to paint the class; double-click to change its colour",
    "Click to paint the class; double-click to rename it",
    "Pixels painted on this image",
    "Share of the result on this image",
    "Whether the class is seen in the segmentation",
)
_FEWEST_SEEN = 3  # rows of room, so that little moves when a class is added
_ROWS_SEEN = 6
_KEYS = 9
_ID = Qt.ItemDataRole.UserRole


class ClassRows(QTreeWidget):
    """Shows what it is given, and tells what the user does to a row."""

    chosen = Signal(int)
    color_wanted = Signal(int)
    renamed = Signal(int, str)
    seen_changed = Signal(int, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent, objectName="classes")
        self.setToolTip("The classes: click one to paint it")
        self.setColumnCount(len(_TITLES))
        self.setHeaderLabels(_TITLES)
        for column, text in enumerate(_TOOL_TIPS):
            self.headerItem().setToolTip(column, text)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.currentItemChanged.connect(self._on_current)
        self.itemClicked.connect(self._on_clicked)
        self.itemDoubleClicked.connect(self._on_double_clicked)
        self.itemChanged.connect(self._on_item_changed)

    def items(self) -> dict[int, QTreeWidgetItem]:
        """Return the rows by class, top first."""
        items = map(self.topLevelItem, range(self.topLevelItemCount()))
        return {item.data(COLOR, _ID): item for item in items}

    def show_classes(
        self, classes: Mapping[int, ClassInfo], hidden: Collection[int]
    ) -> None:
        """Write one row for each class; rows are kept, as one may be being edited."""
        with QSignalBlocker(self):
            while self.topLevelItemCount() > len(classes):
                self.takeTopLevelItem(self.topLevelItemCount() - 1)
            while self.topLevelItemCount() < len(classes):
                self.addTopLevelItem(_new_row())
            for position, (class_id, info) in enumerate(classes.items()):
                item = self.topLevelItem(position)
                _write(item, position, class_id, info, class_id not in hidden)
        self._fit_height()

    def show_numbers(
        self,
        here: Mapping[int, int],
        total: Mapping[int, int],
        shares: Mapping[int, float],
    ) -> None:
        """Write the pixels painted on this image and on all, and the share."""
        with QSignalBlocker(self):
            for class_id, item in self.items().items():
                count, share = here.get(class_id, 0), shares.get(class_id)
                item.setText(PAINTED, short_count(count))
                item.setToolTip(
                    PAINTED,
                    f"{count:,} pixels painted on this image, "
                    f"{total.get(class_id, 0):,} on all",
                )
                item.setText(SHARE, "" if share is None else f"{share:.1%}")

    def show_selected(self, class_id: int) -> None:
        """Select a row; none if the class has no row."""
        with QSignalBlocker(self):
            self.clearSelection()
            self.setCurrentItem(self.items().get(class_id))

    def rename(self, class_id: int) -> None:
        """Let the user type another name."""
        item = self.items().get(class_id)
        if item is not None:
            self.editItem(item, NAME)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Walk through the rows by arrows, rename by F2; napari has all other keys."""
        arrows = (Qt.Key.Key_Up, Qt.Key.Key_Down)
        if event.key() == Qt.Key.Key_F2 and self.currentItem() is not None:
            self.editItem(self.currentItem(), NAME)
        elif event.key() in arrows and not event.modifiers():
            super().keyPressEvent(event)
        else:
            event.ignore()

    def _fit_height(self) -> None:
        """Take the room of the rows there are, up to a few; then it scrolls."""
        height = self.sizeHintForRow(0)
        if height > 0:
            count = min(self.topLevelItemCount(), _ROWS_SEEN)
            head = self.header().sizeHint().height()
            room = max(count, _FEWEST_SEEN) * height
            self.setFixedHeight(head + room + 2 * self.frameWidth() + 4)

    def _on_current(self, item: QTreeWidgetItem | None, former: object) -> None:
        if item is not None and item.data(COLOR, _ID) is not None:
            self.chosen.emit(item.data(COLOR, _ID))

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column != SEEN:  # the row may be selected already, but no brush in hand
            self.chosen.emit(item.data(COLOR, _ID))

    def _on_double_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == COLOR:
            self.color_wanted.emit(item.data(COLOR, _ID))
        elif column == NAME:
            self.editItem(item, NAME)

    def _on_item_changed(self, item: QTreeWidgetItem, column: int) -> None:
        class_id = item.data(COLOR, _ID)
        if column == SEEN:
            is_seen = item.checkState(SEEN) == Qt.CheckState.Checked
            self.seen_changed.emit(class_id, is_seen)
        elif column == NAME:
            self.renamed.emit(class_id, item.text(NAME))


def short_count(count: int) -> str:
    """Return a count in at most five characters: 950, 12.3k, 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            digits = 1 if count < 100 * size else 0
            return f"{count / size:.{digits}f}{unit}"
    return str(count)


def _new_row() -> QTreeWidgetItem:
    item = QTreeWidgetItem()
    item.setFlags(
        Qt.ItemFlag.ItemIsEnabled
        | Qt.ItemFlag.ItemIsSelectable
        | Qt.ItemFlag.ItemIsEditable
        | Qt.ItemFlag.ItemIsUserCheckable
    )
    for column in (PAINTED, SHARE):
        item.setTextAlignment(
            column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        )
    return item


def _write(
    item: QTreeWidgetItem, position: int, class_id: int, info: ClassInfo, seen: bool
) -> None:
    item.setData(COLOR, _ID, class_id)
    item.setIcon(COLOR, swatch(info.color))
    item.setText(COLOR, str(position + 1) if position < _KEYS else "")
    item.setText(NAME, info.name)
    item.setToolTip(NAME, f"{info.name}: label {class_id} in the layers and files")
    for column in (COLOR, SHARE, SEEN):
        item.setToolTip(column, _TOOL_TIPS[column])
    item.setCheckState(SEEN, Qt.CheckState.Checked if seen else Qt.CheckState.Unchecked)
