"""The classes as a table, and all that can be done with them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPoint, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QMenu, QTreeWidget, QTreeWidgetItem, QWidget

from . import Attempt
from . import controls as ui

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent

    from napari_hrdv2.widgets.viewer.layer_sync import LayerSync
    from napari_hrdv2.widgets.viewer.result_views import ResultViews

COLOR, NAME, PAINTED, FRACTION, SEEN = range(5)
_COLUMNS = {  # title: tooltip
    "Key": "Press this key to paint the class; double-click to change its colour",
    "Class": "Click to paint the class; double-click to rename it",
    "Painted": "Pixels painted on this image",
    "Fraction": "Phase fraction of the result on this image",
    "See": "Whether the class is seen in the segmentation",
}
_FEWEST_SEEN = 3  # rows of room, so that little moves when a class is added
_ROWS_SEEN = 6
_KEYS = 9
_ID = Qt.ItemDataRole.UserRole


class ClassTable(QWidget):
    """Shows the classes of the session, and hands the chosen one to the brush."""

    chosen = Signal(int)
    """The user wants to paint this class."""

    def __init__(self, link: LayerSync, views: ResultViews, attempt: Attempt) -> None:
        super().__init__()
        session = self._session = link.session
        self._link = link
        self._views, self._attempt = views, attempt
        self.selected = 1
        self.rows = ClassRows()
        self._menu = QMenu(self)
        self.add = ui.push_button("+", "add_class", self.add_class)
        tip = "Move the class {}; its key changes too"
        self.up = ui.push_button(
            "▲", "class_up", partial(self.move, -1), tip.format("up")
        )
        self.down = ui.push_button(
            "▼", "class_down", partial(self.move, 1), tip.format("down")
        )
        self.more = ui.push_button("Class…", "class_menu", self._on_more)
        for button in (self.add, self.up, self.down):
            button.setMaximumWidth(32)
        buttons = ui.row(self.add, self.up, self.down, self.more)
        buttons.addStretch(1)
        ui.fill_column(self, self.rows, buttons)
        session.classes_changed.connect(self.show_classes)
        session.images_changed.connect(self.show_numbers)
        session.segmentation_changed.connect(self.show_numbers)
        link.label_selected.connect(self.show_selected)
        views.changed.connect(self.show_classes)
        self.rows.currentItemChanged.connect(self._on_current)
        self.rows.itemClicked.connect(self._on_clicked)
        self.rows.itemDoubleClicked.connect(self._on_double_clicked)
        self.rows.itemChanged.connect(self._on_item_changed)
        self.rows.customContextMenuRequested.connect(self._on_menu)
        self.show_classes()

    def show_classes(self) -> None:
        """Show names, colours and order; rows are kept, as one may be being edited."""
        rows, classes = self.rows, self._session.classes
        with QSignalBlocker(rows):
            while rows.topLevelItemCount() > len(classes):
                rows.takeTopLevelItem(rows.topLevelItemCount() - 1)
            while rows.topLevelItemCount() < len(classes):
                rows.add_row()
            for position, (class_id, info) in enumerate(classes.items()):
                item = rows.topLevelItem(position)
                item.setData(COLOR, _ID, class_id)
                item.setIcon(COLOR, ui.swatch(info.color))
                item.setText(COLOR, str(position + 1) if position < _KEYS else "")
                item.setText(NAME, info.name)
                tip = f"{info.name}: label {class_id} in the layers and files"
                item.setToolTip(NAME, tip)
                item.setCheckState(SEEN, ui.checked(class_id not in self._views.hidden))
        rows.fit_height()
        self.show_numbers()
        self.show_selected(self.selected)

    def show_numbers(self) -> None:
        """Show how much of each class is painted, and its phase fraction."""
        (here, total), fractions = self._painted(), self._session.phase_fractions()
        with QSignalBlocker(self.rows):
            for class_id, item in self.rows.items().items():
                count, fraction = here.get(class_id, 0), fractions.get(class_id)
                item.setText(PAINTED, ui.short_count(count))
                tip = f"{count:,} pixels painted on this image, "
                item.setToolTip(PAINTED, f"{tip}{total[class_id]:,} on all")
                item.setText(FRACTION, "" if fraction is None else f"{fraction:.1%}")

    def show_selected(self, class_id: int) -> None:
        """Select the row of the label that the brush holds; none if it has no row."""
        self.selected = class_id
        with QSignalBlocker(self.rows):
            self.rows.clearSelection()
            self.rows.setCurrentItem(self.rows.items().get(class_id))
        ids = list(self._session.classes)
        position = ids.index(class_id) if class_id in ids else -1
        self.up.setEnabled(position > 0)
        self.down.setEnabled(0 <= position < len(ids) - 1)
        self.more.setEnabled(position >= 0)

    def choose_position(self, position: int) -> None:
        """Paint the class in this row, counted from 0, as its key does."""
        ids = list(self._session.classes)
        if position < len(ids):
            self.choose(ids[position])
        else:
            text = f"There are only {len(ids)} classes; press + to add another one."
            self._session.say(text)

    def choose(self, class_id: int) -> None:
        """Paint this class from now on."""
        self.show_selected(class_id)
        self.chosen.emit(class_id)

    def add_class(self) -> None:
        """Add a class and paint it."""
        self.choose(self._session.add_class())

    def rename(self) -> None:
        """Let the user type another name of the selected class."""
        item = self.rows.items().get(self.selected)
        if item is not None:
            self.rows.editItem(item, NAME)

    def recolor(self) -> None:
        """Let the user pick another colour of the selected class."""
        class_id, classes = self.selected, self._session.classes
        former, title = QColor(classes[class_id].color), classes[class_id].name
        color = QColorDialog.getColor(former, self, f"Colour of {title}")
        if color.isValid() and class_id in classes:
            self._attempt(classes.recolor, class_id, color.name())

    def move(self, by: int, *_: object) -> None:
        """Put the selected class some rows further down; its key changes too."""
        ids = list(self._session.classes)
        target = ids.index(self.selected) + by
        if 0 <= target < len(ids):
            self._session.classes.move(self.selected, target)

    def merge(self, into: int, *_: object) -> None:
        """Make the scribbles of the selected class those of another one."""
        self._link.flush()
        if self._attempt(self._session.merge_class, self.selected, into):
            self.choose(into)

    def delete(self) -> None:
        """Take the selected class out; ask first if it has scribbles."""
        class_id, classes = self.selected, self._session.classes
        self._link.flush()
        count, name = self._painted()[1][class_id], classes[class_id].name
        question = (
            f"{name} has {count:,} painted pixels. Erase them and delete the class? "
            "Undo in the scribble layer brings them back."
        )
        if count and not ui.agrees(self, question, f"Delete {name}"):
            return
        if self._attempt(self._session.delete_class, class_id):
            self.choose(next(iter(classes)))

    def fill_menu(self, menu: QMenu) -> None:
        """Write what can be done with the selected class into a menu."""
        menu.clear()
        classes = self._session.classes
        if self.selected not in classes:
            return
        name = ui.plain(classes[self.selected].name)
        menu.addAction("Rename…", self.rename)
        menu.addAction("Change colour…", self.recolor)
        into = menu.addMenu(f"Merge {name} into")
        for class_id, info in classes.items():
            if class_id != self.selected:
                merge = partial(self.merge, class_id)
                into.addAction(ui.swatch(info.color), ui.plain(info.name), merge)
        into.setEnabled(len(classes) > 1)
        menu.addAction(f"Delete {name}…", self.delete).setEnabled(len(classes) > 1)

    def _painted(self) -> tuple[dict[int, int], Counter[int]]:
        """Return the pixels painted of each class on this image, and on all."""
        here: dict[int, int] = {}
        total: Counter[int] = Counter()
        for entry in self._session.images.values():
            counts = {} if entry.counted is None else entry.counted.counts
            total.update(counts)
            if entry is self._session.current:
                here = counts
        return here, total

    def _on_current(self, item: Any, former: object) -> None:
        if item is not None and item.data(COLOR, _ID) is not None:
            self.choose(item.data(COLOR, _ID))

    def _on_clicked(self, item: Any, column: int) -> None:
        if column != SEEN:  # the row may be selected already, but no brush in hand
            self.choose(item.data(COLOR, _ID))

    def _on_double_clicked(self, item: Any, column: int) -> None:
        if column == COLOR:
            self.show_selected(item.data(COLOR, _ID))
            self.recolor()
        elif column == NAME:
            self.rows.editItem(item, NAME)

    def _on_item_changed(self, item: Any, column: int) -> None:
        class_id, classes = item.data(COLOR, _ID), self._session.classes
        if column == SEEN:
            is_seen = item.checkState(SEEN) == Qt.CheckState.Checked
            self._views.set_class_visible(class_id, is_seen)
        elif column == NAME:
            self._attempt(classes.rename, class_id, item.text(NAME))
            self.show_classes()  # the name it has

    def _on_menu(self, place: QPoint) -> None:
        self.fill_menu(self._menu)
        self._menu.popup(self.rows.viewport().mapToGlobal(place))

    def _on_more(self) -> None:
        """Rename, recolour, merge or delete the selected class."""
        self.fill_menu(self._menu)
        self._menu.popup(self.more.mapToGlobal(self.more.rect().bottomLeft()))


class ClassRows(QTreeWidget):
    """The rows of the table; arrows and F2 work, and napari has all other keys."""

    def __init__(self) -> None:
        super().__init__(
            objectName="classes",
            toolTip="The classes: click one to paint it",
            editTriggers=QTreeWidget.EditTrigger.NoEditTriggers,
            contextMenuPolicy=Qt.ContextMenuPolicy.CustomContextMenu,
        )
        ui.set_up_tree(self, list(_COLUMNS), NAME)
        for column, tip in enumerate(_COLUMNS.values()):
            self.headerItem().setToolTip(column, tip)

    def items(self) -> dict[int, QTreeWidgetItem]:
        """Return the rows by class, top first."""
        items = map(self.topLevelItem, range(self.topLevelItemCount()))
        return {item.data(COLOR, _ID): item for item in items}

    def add_row(self) -> None:
        """Add an empty row."""
        item = QTreeWidgetItem(self)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        for column, tip in enumerate(_COLUMNS.values()):
            item.setToolTip(column, tip)
            if column in (PAINTED, FRACTION):
                item.setTextAlignment(column, ui.RIGHT)

    def fit_height(self) -> None:
        """Take the room of the rows there are, up to a few; then it scrolls."""
        height = self.sizeHintForRow(0)
        if height > 0:
            count = min(self.topLevelItemCount(), _ROWS_SEEN)
            head = self.header().sizeHint().height()
            room = max(count, _FEWEST_SEEN) * height
            self.setFixedHeight(head + room + 2 * self.frameWidth() + 4)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Walk through the rows by arrows, rename by F2."""
        arrows = (Qt.Key.Key_Up, Qt.Key.Key_Down)
        if event.key() == Qt.Key.Key_F2 and self.currentItem() is not None:
            self.editItem(self.currentItem(), NAME)
        elif event.key() in arrows and not event.modifiers():
            super().keyPressEvent(event)
        else:
            event.ignore()
